"""Numbers that more than one part of the verification goes by."""

__all__ = ["FACTOR"]

#: How many times the explained error a distributed run may have.
FACTOR = 8.0
