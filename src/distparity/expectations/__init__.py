"""Expectations as data: which cases fail, how, why, and until when.

:func:`load` reads files of entries, :func:`check` finds entries that can never apply, :func:`assign`
finds the entry of each case of a cell, and :meth:`Entry.judge` turns an outcome into *expected failure*
or *unexpectedly fixed*.
"""

from distparity.expectations.assign import Surroundings, assign
from distparity.expectations.entry import Entry
from distparity.expectations.file import SHIPPED, Expectations, Wrong, load
from distparity.expectations.possible import Names, check

__all__ = [
    "SHIPPED",
    "Entry",
    "Expectations",
    "Names",
    "Surroundings",
    "Wrong",
    "assign",
    "check",
    "load",
]
