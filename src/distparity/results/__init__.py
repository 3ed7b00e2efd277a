"""What a run leaves on disk: the side file, written as outcomes come, and the XML made from it."""
