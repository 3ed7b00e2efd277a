"""Collectives over sizes, from one element to ``--largest`` bytes: the selection ``sizes``."""
