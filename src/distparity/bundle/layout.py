"""What is in a bundle, under which names, and how much of it at most.

| name | what |
|---|---|
| ``manifest.json`` | the format, distparity's version, the cells, and every file's size and checksum |
| ``SHA256SUMS`` | the same checksums, as ``sha256sum --check`` reads them |
| ``environment.json`` | Python, platform, versions of torch and all beside it, named variables |
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

#: Grows when a reader of the last one would misread this one.
FORMAT = 1
MANIFEST = "manifest.json"
SUMS = "SHA256SUMS"
ENVIRONMENT = "environment.json"
COMMANDS = "commands.txt"

#: A cell of 2,000 cases takes about 2 MB, and 40 of them a matrix. What is beyond is none of ours.
LARGEST_FILE = 256 * 2**20
LARGEST = 2**30
MOST_FILES = 2_000

_KNOWN = re.compile(
    rf"{re.escape(MANIFEST)}|{SUMS}|{re.escape(ENVIRONMENT)}|{re.escape(COMMANDS)}"
    r"|reports/[^/\\:]+\.xml|logs/[^/\\:]+\.jsonl|expectations/\d{2}-[^/\\:]+"
)


class Refused(Exception):
    """This is no bundle, or none can be made of it; the text names the file and the reason."""


def known(name: str) -> bool:
    """Whether a bundle has files of such a name; none of those leaves the folder it is put in."""
    return bool(_KNOWN.fullmatch(name)) and name.isprintable()
