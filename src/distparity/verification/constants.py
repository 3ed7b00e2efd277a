"""Constants that several modules of the verification share."""

__all__ = ["FACTOR"]

#: The allowed error is so many times the error that rounding explains.
FACTOR = 8.0
