"""What saves memory, and must leave the numbers as they are."""
