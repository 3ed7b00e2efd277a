"""The tables of docs/verdict.md: how close right runs come to the limit, and which faults are caught.

Both are made from what ``distparity calibrate`` and ``distparity selfcheck`` kept (``--keep``).
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from _measure import Table, publish

from distparity.session import calibration

Line = dict[str, Any]


def lines(file: Path) -> list[Line]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def calibrated(file: Path, plot: Path | None) -> Table:
    runs = lines(file)
    torch, found = runs[0]["torch"], calibration.buckets(runs)
    head, _, *rows = [line.strip("| ").split(" | ") for line in calibration.table(torch, found)]
    table = Table("calibration", head, measured=False)
    for row in rows[: len(found)]:
        table.add(*row)
    wrong = [what for bucket in found for what in bucket.wrong]
    table.notes = [
        f"{len(runs)} runs of {len({run['case'] for run in runs})} cases; {len(wrong)} did not pass.",
        *(f"Not passed: {what}" for what in wrong),
    ]
    if plot is not None:
        plot.write_text(calibration.plot(torch, found), encoding="utf-8")
    return table


def caught(file: Path) -> Table:
    runs = lines(file)
    precisions = sorted({run["precision"] for run in runs}, key=lambda name: ("(" in name, name))
    cells: dict[tuple[str, str], list[Line]] = defaultdict(list)
    ran: dict[str, set[int]] = defaultdict(set)
    for run in runs:
        cells[run["mutant"], run["precision"]].append(run)
        ran[run["precision"]].add(run["world_size"])
    table = Table(
        "faults",
        ["fault", *(f"{one}, {_list(sorted(ran[one]))} ranks" for one in precisions)],
        measured=False,
    )
    for mutant, title in {run["mutant"]: run["title"] for run in runs}.items():
        seen = [_cell(cells[mutant, one], sorted(ran[one])) for one in precisions]
        table.add(f"`{mutant}`: {title}", *seen)
    red = sum(run["caught"] for run in runs)
    torch = ", ".join(sorted({run["torch"] for run in runs}))
    strategies = ", ".join(sorted({run["strategy"] for run in runs}))
    table.notes = [
        f"torch {torch}, {strategies}: {len(runs)} runs, {red} of them red.",
        "A cell: the smallest ratio with which the fault was caught, by number of ranks.",
        "A dash: the fault has no place there. Raised: torch itself noticed.",
    ]
    return table


def _list(sizes: Iterable[int]) -> str:
    return " / ".join(map(str, sizes))


def _cell(runs: list[Line], sizes: list[int]) -> str:
    """What was seen of a fault in one precision, by world size; a dash where it has no place."""
    if not runs:
        return "-"
    if all(run["equivalent"] for run in runs):
        return f"{sum(run['caught'] for run in runs)} of {len(runs)}"
    return " / ".join(_seen([run for run in runs if run["world_size"] == size]) for size in sizes)


def _seen(runs: list[Line]) -> str:
    by: dict[str, list[Line]] = defaultdict(list)
    for run in runs:
        by[run["strategy"]].append(run)
    missed = [name for name, tried in by.items() if not any(run["caught"] for run in tried)]
    if missed:
        return f"**missed** ({', '.join(missed)})"
    ratios = [float(run["ratio"]) for run in runs if run["caught"] and run["ratio"] is not None]
    return f"{min(ratios):.3g}" if ratios else "raised" if runs else "-"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--calibration", type=Path, help="what `distparity calibrate` kept")
    parser.add_argument("--plot", type=Path, help="draw the distribution of its ratios")
    parser.add_argument("--faults", type=Path, help="what `distparity selfcheck` kept")
    parser.add_argument("--markdown", type=Path, help="put the tables there, between their marks")
    given = parser.parse_args()
    if given.calibration is not None:
        publish(calibrated(given.calibration, given.plot), given.markdown)
    if given.faults is not None:
        publish(caught(given.faults), given.markdown)


if __name__ == "__main__":
    main()
