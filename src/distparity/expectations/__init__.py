"""Known defects and waivers, as data: which cases fail, how, whose fault it is and until when.

A file of entries is read by :func:`load`, checked for entries that can never apply by :func:`check`, put
beside the cases of a cell by :func:`assign`, and an entry says by :meth:`Entry.judge` what an outcome
of one of its cases is.
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
