"""``distparity bundle``: pack the results of runs into one archive, for sending."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from distparity import bundle
from distparity.core.bad_request import BadRequest

DAMAGED = 1


def add(commands: Any) -> None:
    parser = commands.add_parser(
        "bundle", help="pack results into one archive, to send; or check an archive"
    )
    parser.add_argument("source", nargs="*", type=Path, help="reports: folders, or files")
    parser.add_argument("-o", "--output", type=Path, default=Path("bundle.zip"), metavar="FILE")
    parser.add_argument(
        "--expectations",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="an expectation file that the runs used, or a folder of them; the files that distparity "
        "ships are packed automatically",
    )
    parser.add_argument(
        "--variable",
        action="append",
        default=[],
        metavar="NAME",
        help="also pack this environment variable, besides those named DISTPARITY_...",
    )
    parser.add_argument("--verify", type=Path, metavar="FILE", help="check this bundle")
    parser.set_defaults(act=_act)


def _act(given: argparse.Namespace) -> int:
    if given.verify is not None:
        if given.source:
            raise BadRequest("--verify takes one bundle and no reports")
        return _verify(given.verify)
    if not given.source:
        raise BadRequest(
            "bundle: name the reports (files or folders), or a bundle to check: --verify FILE"
        )
    try:
        names = bundle.pack(given.source, given.output, given.expectations, given.variable)
    except bundle.Refused as error:
        raise BadRequest(str(error)) from None
    except OSError as error:
        raise BadRequest(f"cannot write {given.output}: {error.strerror or error}") from None
    print("\n".join([*names, f"wrote {given.output}"]))
    return 0


def _verify(path: Path) -> int:
    try:
        checked = bundle.verify(path)
    except bundle.Refused as error:
        print(f"distparity: {error}", file=sys.stderr)
        return DAMAGED
    for complaint in checked.complaints:
        print(f"{path}: {complaint}", file=sys.stderr)
    if checked.complaints:
        return DAMAGED
    cells = ", ".join(cell["cell"] for cell in checked.manifest["cells"])
    # All files in the manifest, the manifest itself, and the other list of checksums.
    number = len(checked.manifest["files"]) + 2
    print(f"{path}: {number} files, unchanged since they were packed; cells: {cells}")
    return 0
