"""What the terminal says of a cell at the end of a run: its counts, and the causes behind them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from distparity.core.case import Case
from distparity.core.cause import cause, grouped
from distparity.core.outcome import Status
from distparity.core.statuses import BY_NAME, counted
from distparity.session.cell import Cell

__all__ = ["causes", "counts", "sizes"]

#: This many causes of a family are listed, and this many cases of a cause that makes the run fail.
_CAUSES, _CASES = 12, 4


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


def sizes(cell: Cell) -> Iterator[str]:
    """What was called over sizes: a line for each case, and for each reduction that was wrong."""
    for case in cell.cases:
        outcome = cell.outcomes.get(case.id)
        told = {} if outcome is None else outcome.facts.get("sizes", {})
        right = [] if outcome is None else [name for name in told if name not in outcome.diverged]
        for name, found in told.items():
            if name not in right[1:]:
                yield f"  {case.id:<44}  {name:<8}  {found}"
        if right[1:]:
            yield f"  {'':<44}  right as well: {', '.join(right[1:])}"


def causes(
    cell: Cell, rerun: Callable[[Sequence[Case]], str], *, every: bool = False
) -> Iterator[str]:
    """Why cases failed, are known to fail, or say nothing: cases of one cause are one line.

    What makes the run fail comes first, with its cases and a command that runs exactly these again.
    The most frequent causes come first; ``every`` lists them all.
    """
    for family in ("bad", "known", "silent"):
        ended = [(case, cell.outcomes[case.id]) for case in cell.cases if case.id in cell.outcomes]
        groups = grouped(
            (one.status.value, cause(one.status.value, one.message, one.facts), case)
            for case, one in ended
            if BY_NAME[one.status.value].family == family
        )
        shown = groups if every else groups[:_CAUSES]
        for status, why, cases in shown:
            line = f"  {counted({status: len(cases)})}: {why}"
            if family != "bad":
                yield line
                continue
            names = ", ".join(case.id for case in cases[:_CASES])
            more = f" and {len(cases) - _CASES} more" if len(cases) > _CASES else ""
            yield f"{line} ({_where(cases)}): {names}{more}"
            # On a line of its own, to be pasted.
            yield f"    {rerun(cases)}"
        if len(shown) < len(groups):
            rest = len(groups) - len(shown)
            yield f"  and {rest} more cause{'s' * (rest != 1)}; -rA lists them"


def _where(cases: Sequence[Case]) -> str:
    """The strategies and dtypes of cases, as far as a line has room for them."""
    strategies = list(dict.fromkeys(case.strategy for case in cases))
    named = strategies if len(strategies) <= _CASES else [f"{len(strategies)} strategies"]
    return ", ".join([*named, *dict.fromkeys(case.dtype for case in cases)])


def _operation(cell: Cell, case: str) -> bool:
    return "checks" in cell.outcomes[case].facts
