"""Models as large as real ones: only in the selection ``large``."""
