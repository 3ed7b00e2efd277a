"""The report: from the XML files of any number of cells to one page, one summary, one JSON file.

It reads nothing but the XML. :mod:`read` takes files apart and refuses what it cannot vouch for,
:mod:`model` puts the cells side by side, and :mod:`html`, :mod:`markdown` and :mod:`data` are views
of the same model.
"""

from distparity.report.read import Refused
from distparity.report.strict import not_shown
from distparity.report.write import write

__all__ = ["Refused", "not_shown", "write"]
