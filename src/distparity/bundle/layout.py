"""The contents of a bundle: names and size limits.

| name | what |
|---|---|
| ``manifest.json`` | the format, distparity's version, the cells, and every file's size and checksum |
| ``SHA256SUMS`` | the same checksums, as ``sha256sum --check`` reads them |
| ``environment.json`` | Python, platform, versions of torch and its companions, named variables |
| ``commands.txt`` | how each cell was run |
| ``reports/*.xml``, ``logs/*.jsonl`` | the cells, and their side files |
| ``expectations/*`` | the expectation files, numbered in their order |
"""

from __future__ import annotations

import re

__all__ = [
    "COMMANDS",
    "ENVIRONMENT",
    "FORMAT",
    "LARGEST",
    "LARGEST_FILE",
    "MANIFEST",
    "MOST_FILES",
    "SUMS",
    "Refused",
    "known",
]

#: The format number; it increases if a reader of the previous format would misread it.
FORMAT = 1
MANIFEST = "manifest.json"
SUMS = "SHA256SUMS"
ENVIRONMENT = "environment.json"
COMMANDS = "commands.txt"

#: Size limits. A cell of 2,000 cases takes about 2 MB, and a matrix has about 40 cells. A larger
#: bundle is not one of ours.
LARGEST_FILE = 256 * 2**20
LARGEST = 2**30
MOST_FILES = 2_000

_KNOWN = re.compile(
    rf"{re.escape(MANIFEST)}|{SUMS}|{re.escape(ENVIRONMENT)}|{re.escape(COMMANDS)}"
    r"|reports/[^/\\:]+\.xml|logs/[^/\\:]+\.jsonl|expectations/\d{2}-[^/\\:]+"
)


class Refused(Exception):
    """This is not a bundle, or none can be made of it; the message names the file and the reason."""


def known(name: str) -> bool:
    """Whether a bundle may have a file of this name. Such a name never leads out of a folder."""
    return bool(_KNOWN.fullmatch(name)) and name.isprintable()
