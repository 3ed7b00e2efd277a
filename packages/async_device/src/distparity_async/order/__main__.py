"""Leave each wait and each keep-alive of torch's wrappers out, one by one, and see who notices.

    python -m distparity_async.order [--mode late]... [--training PART]... [--markdown PAGE] [PART...]

PAGE gets the tables, between marks such as ``order 2.13: begin`` and ``order 2.13: end``. PART is a part
of a statement's name, or of a training's. Each statement is left out in the trainings that come by it,
until one shows it. The exit code is 1 if a statement that was left out was neither
seen nor declared to make no difference, if one that was declared so was seen, if a training of which
nothing was left out has a report or other numbers than in ``eager``, or if fewer than 25 were reached.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

from distparity_async.order.campaign import Campaign
from distparity_async.order.statements import Statements
from distparity_async.order.trainings import TRAININGS
from distparity_async.order.world import Worlds

_RELEASE = ".".join(torch.__version__.split(".")[:2])
_BEGIN, _END = (f"<!-- order {_RELEASE}: {mark} -->" for mark in ("begin", "end"))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m distparity_async.order", description=__doc__)
    parser.add_argument("--mode", action="append", dest="modes", default=[])
    parser.add_argument("--training", action="append", dest="trainings", default=[])
    parser.add_argument("--markdown", type=Path, metavar="PAGE")
    parser.add_argument("statements", nargs="*")
    options = parser.parse_args()
    # Before all that takes long.
    around = ("", "") if options.markdown is None else _page(options.markdown)
    modes = ["eager", *(mode for mode in options.modes if mode != "eager")]

    def tell(line: str) -> None:
        print(line, flush=True)

    statements = Statements()
    worlds = Worlds(statements)
    campaign = Campaign(worlds, modes, options.trainings, options.statements, tell)
    try:
        campaign.run(TRAININGS, statements.all)
    finally:
        worlds.end()
    for line in campaign.summary():
        tell(line)
    if options.markdown is not None:
        table = "\n".join(campaign.markdown(torch.__version__))
        options.markdown.write_text(f"{around[0]}\n{table}\n{around[1]}")
    return int(not campaign.passed)


def _page(file: Path) -> tuple[str, str]:
    """What stands before and after a page's tables."""
    before, begin, rest = file.read_text().partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not begin or not end:
        raise SystemExit(f"{file} has no {_BEGIN} and {_END}")
    return before + begin, end + after


if __name__ == "__main__":
    sys.exit(main())
