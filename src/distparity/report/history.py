"""The runs of each cell by date, in one file that each report reads and writes again.

A report has one run of each cell. The file keeps of every run what a history needs: the outcome, the
ratio, the time and the bandwidth of each case.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from distparity.core.statuses import BY_NAME
from distparity.report.model import Report
from distparity.report.read import Refused, plain

__all__ = ["KEPT", "Kept", "Run", "joined", "read", "render"]

#: The schema number; it increases if a reader of the previous schema would misread it.
FORMAT = 1
#: So many runs of each cell are kept, the newest.
KEPT = 50


class Kept(NamedTuple):
    """What is kept of a result: seconds in its ranks, and bytes per second if it is over sizes."""

    status: str
    ratio: float | None
    seconds: float | None = None
    bandwidth: float | None = None


@dataclass(frozen=True)
class Run:
    """One run of a cell. ``started`` is an ISO date in UTC; ``results`` are by case."""

    cell: str
    started: str
    torch: str
    distparity: str
    results: Mapping[str, Kept]


def read(path: Path) -> list[Run]:
    """The runs in a file, none if there is no such file yet; raises :class:`Refused`."""
    if not path.exists():
        return []
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if found["format"] != FORMAT:
            raise Refused(f"{path}: it has format {plain(str(found['format']))}, not {FORMAT}")
        cases = [plain(case) for case in found["cases"]]
        return [_run(one, cases, found["statuses"]) for one in found["runs"]]
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise Refused(f"{path}: not a history of distparity: {plain(str(error))}") from None


def _run(found: Mapping[str, Any], cases: list[str], statuses: list[str]) -> Run:
    places = found["case"]
    # Files of earlier versions have no times.
    times = found.get("seconds", [None] * len(places))
    speeds = found.get("bandwidth", {})
    results = {
        cases[place]: _result(statuses[status], ratio, seconds, speeds.get(str(place)))
        for place, status, ratio, seconds in zip(
            places, found["status"], found["ratio"], times, strict=True
        )
    }
    cell, started, torch, version = (
        plain(str(found[name])) for name in ("cell", "started", "torch", "distparity")
    )
    return Run(cell, started, torch, version, results)


def _result(status: str, *numbers: float | str | None) -> Kept:
    if status not in BY_NAME:
        raise ValueError(f"unknown status {status!r}")
    values = [None if one is None else float(one) for one in numbers]
    for name, value in zip(Kept._fields[1:], values, strict=True):
        if value is not None and not value >= 0:
            raise ValueError(f"{value:g} is no {name}")
    return Kept(status, *values)


def joined(kept: Iterable[Run], report: Report) -> list[Run]:
    """The runs of a history and those of a report, each once: by cell, and the oldest first."""
    runs = {(run.cell, run.started): run for run in kept}
    for column in report.columns:
        results = {
            case.id: Kept(one.status, one.ratio, one.seconds, one.bandwidth)
            for case, one in column.results.items()
        }
        facts = (column.facts.get("torch", column.torch), column.facts.get("version", ""))
        runs[column.name, column.started] = Run(column.name, column.started, *facts, results)
    found: dict[str, list[Run]] = {}
    for key in sorted(runs):
        found.setdefault(key[0], []).append(runs[key])
    return [run for every in found.values() for run in every[-KEPT:]]


def render(runs: Iterable[Run]) -> str:
    """The history as JSON; cases and statuses are numbers, and an infinite ratio is ``"inf"``."""
    runs = list(runs)
    cases = {
        case: n for n, case in enumerate(dict.fromkeys(c for run in runs for c in run.results))
    }
    statuses = {name: n for n, name in enumerate(BY_NAME)}
    return json.dumps(
        {
            "format": FORMAT,
            "cases": list(cases),
            "statuses": list(statuses),
            "runs": [
                {
                    "cell": run.cell,
                    "started": run.started,
                    "torch": run.torch,
                    "distparity": run.distparity,
                    "case": [cases[case] for case in run.results],
                    "status": [statuses[one.status] for one in run.results.values()],
                    "ratio": [_number(one.ratio) for one in run.results.values()],
                    "seconds": [_number(one.seconds) for one in run.results.values()],
                    "bandwidth": {
                        str(cases[case]): _number(one.bandwidth)
                        for case, one in run.results.items()
                        if one.bandwidth is not None
                    },
                }
                for run in runs
            ],
        },
        ensure_ascii=False,
        separators=(",", ":"),
        allow_nan=False,
    )


def _number(value: float | None) -> float | str | None:
    """A number with as many digits as a history shows."""
    if value is None:
        return None
    return float(f"{value:.3g}") if math.isfinite(value) else str(value)
