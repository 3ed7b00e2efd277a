"""The report: from the XML files of any number of cells to one page, one summary, one JSON file.

It reads only the XML. :mod:`read` parses files and refuses what it cannot trust, :mod:`model` puts the
cells side by side, and :mod:`html`, :mod:`markdown` and :mod:`data` are views of the same model.
"""

from distparity.report.read import Refused
from distparity.report.slower import slower
from distparity.report.strict import not_shown
from distparity.report.write import write

__all__ = ["Refused", "not_shown", "slower", "write"]
