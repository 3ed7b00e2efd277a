"""The files of a run: the side file, written as outcomes arrive, and the XML made from it."""
