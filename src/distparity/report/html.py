"""The page: one HTML file with its data, style and code, which loads nothing else."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
from collections.abc import Iterable
from importlib.resources import files as resources
from typing import Any

import jinja2
from markupsafe import Markup

from distparity.core.cause import grouped
from distparity.core.statuses import PASSED, STATUSES
from distparity.core.version import __version__
from distparity.report.history import Run
from distparity.report.model import CaseRow, Column, Report, Result, shorten

__all__ = ["render"]

#: The scripts share one scope, in this order.
SCRIPTS = (
    *("data", "state", "draw", "groups", "matrix", "move", "plot"),
    *("panel", "compare", "history", "runs", "paper", "filters", "main"),
)
#: With more characters of text than this the page would open slowly, so texts are cut shorter.
ROOM_FOR_TEXTS = 16 * 2**20
TEXT_LIMITS = (20_000, 8_000, 3_000, 1_000, 300)
#: The page has so many results of all earlier runs together, and so many runs of a cell.
ROOM_FOR_RUNS = 400_000
MOST_RUNS = 30


def render(report: Report, runs: Iterable[Run] = ()) -> str:
    """The page as text; ``runs`` are those of its cells by date, the newest last."""
    folder = resources("distparity.report") / "page"
    script = "\n".join((folder / f"{name}.js").read_text(encoding="utf-8") for name in SCRIPTS)
    script = f'(() => {{\n"use strict";\n{script}\n}})();'
    library = (folder / "d3" / "d3.min.js").read_text(encoding="utf-8")
    style = (folder / "page.css").read_text(encoding="utf-8")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    template = environment.from_string((folder / "page.html.jinja").read_text(encoding="utf-8"))
    return template.render(
        report=report,
        statuses=STATUSES,
        version=__version__,
        data=embed(payload(report, runs)),
        style=Markup(style),  # noqa: S704 - our own file
        # A third-party library, and our own scripts.
        scripts=[Markup(library), Markup(script)],  # noqa: S704 - none holds what a report says
        # With these hashes the browser runs only these scripts, and no code that got into the data.
        script_hashes=[_hash(library), _hash(script)],
        style_hash=_hash(style),
    )


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def embed(data: Any) -> Markup:
    """JSON that is safe inside a script element, whatever strings it contains."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    escapes = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028"}
    escapes["\u2029"] = "\\u2029"
    return Markup(re.sub("[<>&\u2028\u2029]", lambda found: escapes[found[0]], text))  # noqa: S704 - escaped in this line


class _Strings:
    """Store every text once and refer to it by number, because most texts are in many cells."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.numbers: dict[str, int] = {"": 0}

    def __call__(self, text: str) -> int:
        return self.numbers.setdefault(shorten(text, self.limit), len(self.numbers))


def payload(report: Report, runs: Iterable[Run] = ()) -> dict[str, Any]:
    """The page's data: columns of parallel lists, with one element per case."""
    strings = _Strings(_limit(report))
    causes = _causes(report)
    columns = [_column(column, report.cases, strings, causes) for column in report.columns]
    most = ROOM_FOR_RUNS // max(1, len(report.cases) * len(columns))
    for column in columns:
        own = [run for run in runs if run.cell == column["name"]]
        # One run is what the column itself says.
        kept = own[-max(2, min(MOST_RUNS, most)) :] if len(own) > 1 else []
        column["runs"] = [_run(run, report.cases) for run in kept]
    return {
        "version": __version__,
        "statuses": [
            {
                "name": one.name,
                "key": one.key,
                "short": one.short,
                "family": one.family,
                "meaning": one.meaning,
            }
            for one in STATUSES
        ],
        "cases": [
            [c.scenario, c.name, c.strategy, c.world_size, c.dtype, c.family] for c in report.cases
        ],
        "columns": columns,
        "strings": list(strings.numbers),
    }


def _causes(report: Report) -> dict[int, str]:
    """By result: the cause that it shares with others, of all that did not pass."""
    found = [
        (one.status, one.cause, one)
        for column in report.columns
        for one in column.results.values()
        if one.status != PASSED.name
    ]
    return {id(one): why for _, why, group in grouped(found) for one in group}


def _limit(report: Report) -> int:
    lengths = {
        text: len(text)
        for column in report.columns
        for result in column.results.values()
        for text in _texts(result)
    }
    for limit in TEXT_LIMITS:
        if sum(min(length, limit) for length in lengths.values()) <= ROOM_FOR_TEXTS:
            return limit
    return TEXT_LIMITS[-1]


def _texts(result: Result) -> list[str]:
    known = [result.message, result.diagnosis, result.detail, result.rerun]
    return [*known, *result.more.values()]


def _column(
    column: Column, cases: list[CaseRow], strings: _Strings, causes: dict[int, str]
) -> dict[str, Any]:
    numbers = {one.name: number for number, one in enumerate(STATUSES)}
    results = [column.results.get(case) for case in cases]
    return {
        "name": column.name,
        "torch": column.torch,
        "device": column.device,
        "started": column.started,
        "host": column.host,
        "seconds": round(column.seconds, 3),
        "facts": column.facts,
        "pairs": {"tables": column.pairs.tables, "conclusion": column.pairs.conclusion},
        # -1: this cell does not have the case.
        "status": [-1 if one is None else numbers[one.status] for one in results],
        "ratio": [None if one is None else _number(one.ratio) for one in results],
        "error": [None if one is None else _number(one.error) for one in results],
        "time": [None if one is None else round(one.seconds, 4) for one in results],
        "bandwidth": {
            str(i): one.bandwidth for i, one in enumerate(results) if one and one.bandwidth
        },
        "rerun": [0 if one is None else strings(one.rerun) for one in results],
        "message": _sparse({i: strings(one.message) for i, one in enumerate(results) if one}),
        "diagnosis": _sparse({i: strings(one.diagnosis) for i, one in enumerate(results) if one}),
        "cause": _sparse(
            {i: strings(causes.get(id(one), "")) for i, one in enumerate(results) if one}
        ),
        "detail": _sparse({i: strings(one.detail) for i, one in enumerate(results) if one}),
        "sources": {
            name: strings(path)
            for case, one in column.results.items()
            for name, path in zip((case.scenario, f"/{case.strategy}"), one.sources, strict=True)
            if path
        },
        "more": {
            str(i): {name: strings(value) for name, value in one.more.items()}
            for i, one in enumerate(results)
            if one is not None and one.more
        },
    }


def _run(run: Run, cases: list[CaseRow]) -> dict[str, Any]:
    numbers = {one.name: number for number, one in enumerate(STATUSES)}
    results = [run.results.get(case.id) for case in cases]
    return {
        "started": run.started,
        "torch": run.torch,
        "distparity": run.distparity,
        "status": [-1 if one is None else numbers[one.status] for one in results],
        "ratio": [None if one is None else _number(one.ratio, digits=3) for one in results],
        "time": [None if one is None else _number(one.seconds, digits=3) for one in results],
        "bandwidth": {
            str(i): _number(one.bandwidth, digits=3)
            for i, one in enumerate(results)
            if one and one.bandwidth
        },
    }


def _sparse(values: dict[int, int]) -> dict[str, int]:
    return {str(place): value for place, value in values.items() if value}


def _number(value: float | None, digits: int = 6) -> float | str | None:
    """A number, by default with as many digits as the XML has; JSON has no infinity."""
    if value is None or not math.isfinite(value):
        return None if value is None else "inf"
    return float(f"{value:.{digits}g}")
