"""A training as a program of a few lines that needs torch alone."""
