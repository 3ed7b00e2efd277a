"""The report as JSON, for programs: one object per case, with one result per column that has it."""

from __future__ import annotations

import json
import math
from typing import Any

from distparity.core.statuses import STATUSES
from distparity.core.version import __version__
from distparity.report.model import CaseRow, Column, Report, Result

__all__ = ["FORMAT", "render"]

#: The schema number; it increases if a reader of the previous schema would misread it.
FORMAT = 1


def render(report: Report) -> str:
    """The whole report; a number that JSON cannot represent is the string ``"inf"``."""
    return json.dumps(
        {
            "format": FORMAT,
            "distparity": __version__,
            "statuses": [one.name for one in STATUSES],
            "counts": report.counts,
            "columns": [_column(column) for column in report.columns],
            "cases": [_case(report, case) for case in report.cases],
        },
        ensure_ascii=False,
        separators=(",", ":"),
        allow_nan=False,
    )


def _column(column: Column) -> dict[str, Any]:
    worst = column.worst
    return {
        "cell": column.name,
        "torch": column.torch,
        "device": column.device,
        "started": column.started,
        "host": column.host,
        "seconds": column.seconds,
        "facts": column.facts,
        "counts": column.counts,
        "worst": None if worst is None else {"case": worst[0].id, "ratio": _number(worst[1])},
    }


def _case(report: Report, case: CaseRow) -> dict[str, Any]:
    return {
        "id": case.id,
        "family": case.family,
        "scenario": case.scenario,
        "strategy": case.strategy,
        "world_size": case.world_size,
        "dtype": case.dtype,
        "results": {
            column.name: _result(column.results[case])
            for column in report.columns
            if case in column.results
        },
    }


def _result(result: Result) -> dict[str, Any]:
    full = {
        "status": result.status,
        "ratio": _number(result.ratio),
        "largest_error": _number(result.error),
        "seconds": result.seconds,
        "message": result.message,
        "diagnosis": result.diagnosis,
        "detail": result.detail,
        "rerun": result.rerun,
        "sources": [path for path in result.sources if path],
        "more": result.more,
    }
    return {name: value for name, value in full.items() if value not in ("", None, {}, [])}


def _number(value: float | None) -> float | str | None:
    return value if value is None or math.isfinite(value) else str(value)
