"""Known defects and waivers, as data: which cases fail, how, whose fault it is and until when.

A file of entries is read by :func:`load`, looked through for what can never be by :func:`check`, put
beside the cases of a cell by :func:`place`, and an entry says by :meth:`Entry.judge` what an outcome
of one of its cases is.
"""

from distparity.expectations.entry import FAILURES, Entry
from distparity.expectations.file import SHIPPED, Expectations, Wrong, load
from distparity.expectations.place import Surroundings, place
from distparity.expectations.possible import Names, check

__all__ = [
    "FAILURES",
    "SHIPPED",
    "Entry",
    "Expectations",
    "Names",
    "Surroundings",
    "Wrong",
    "check",
    "load",
    "place",
]
