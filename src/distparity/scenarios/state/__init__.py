"""What is saved, and what goes on from it."""
