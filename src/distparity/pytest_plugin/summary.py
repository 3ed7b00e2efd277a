"""What the terminal says of a cell at the end of a run: its counts, and the causes behind them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

from distparity.core.case import Case
from distparity.core.outcome import Outcome, Status
from distparity.core.statuses import BY_NAME, counted
from distparity.session.cell import GONE, Cell

__all__ = ["causes", "counts"]

#: This many causes of a family are listed, and this many cases of a cause that makes the run fail.
_CAUSES, _CASES = 12, 4
_LONGEST = 160
#: Where torch's own answer begins behind the fact that it was asked about.
_ANSWER = re.compile(r": torch \S+ says .*", re.DOTALL)


def counts(cell: Cell) -> str:
    """One line: how many cases have each outcome, and the largest ratio of trainings that were judged.

    What an operation is allowed is a bound that some sum of two numbers always reaches, and an expected
    failure says nothing of the others: neither counts.
    """
    number = len(cell.cases)
    what = counted(cell.counts) or "none run"
    line = f"torch {cell.torch} on {cell.name}: {number} case{'s' * (number != 1)}, {what}"
    ratios = {
        case: float(outcome.facts["ratio"])
        for case, outcome in cell.outcomes.items()
        if "ratio" in outcome.facts and outcome.status is not Status.EXPECTED
    }
    trained = {case: ratio for case, ratio in ratios.items() if not _operation(cell, case)}
    worst = max(trained or ratios, key=lambda case: ratios[case], default=None)
    return line if worst is None else f"{line}; worst ratio {ratios[worst]:.3g} ({worst})"


def causes(
    cell: Cell, rerun: Callable[[Sequence[Case]], str], *, every: bool = False
) -> Iterator[str]:
    """Why cases failed, are known to fail, or say nothing: cases of one cause are one line.

    What makes the run fail comes first, with its cases and a command that runs exactly these again.
    The most frequent causes come first; ``every`` lists them all.
    """
    for family in ("bad", "known", "silent"):
        groups: dict[tuple[Status, str], list[Case]] = {}
        for case in cell.cases:
            outcome = cell.outcomes.get(case.id, GONE)
            if BY_NAME[outcome.status.value].family == family and outcome is not GONE:
                groups.setdefault((outcome.status, _cause(outcome)), []).append(case)
        ordered = sorted(groups.items(), key=lambda one: -len(one[1]))
        shown = ordered if every else ordered[:_CAUSES]
        for (status, cause), cases in shown:
            line = f"  {counted({status.value: len(cases)})}: {cause}"
            if family != "bad":
                yield line
                continue
            names = ", ".join(case.id for case in cases[:_CASES])
            more = f" and {len(cases) - _CASES} more" if len(cases) > _CASES else ""
            yield f"{line}: {names}{more}"
            yield f"    to rerun: {rerun(cases)}"
        if len(shown) < len(ordered):
            rest = len(ordered) - len(shown)
            yield f"  and {rest} more cause{'s' * (rest != 1)}; -rA lists them"


def _operation(cell: Cell, case: str) -> bool:
    return "checks" in cell.outcomes[case].facts


def _cause(outcome: Outcome) -> str:
    """What cases that failed for one reason have in common."""
    if outcome.status is Status.EXPECTED:
        text = str(outcome.facts.get("reason", outcome.message))
    elif outcome.facts.get("diagnosis"):
        text = str(outcome.facts["diagnosis"])
    elif outcome.first is not None:
        quantity = outcome.first.quantity
        when = "" if quantity.step is None else f", first at step {quantity.step}"
        text = f"wrong {quantity.kind}{when}"
    else:
        text = _ANSWER.sub("", outcome.message)
    line = (text.splitlines() or [""])[0]
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]} ..."
