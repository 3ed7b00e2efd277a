"""Divide the cases of a run into shares for several jobs, alike in expected time."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from distparity.core.bad_request import BadRequest
from distparity.core.case import Case
from distparity.results import journal

__all__ = ["Share", "known_seconds", "take"]


@dataclass(frozen=True)
class Share:
    """Share ``index`` of ``count``, from 1."""

    index: int
    count: int

    @classmethod
    def of(cls, words: str) -> Share:
        """From ``I/N``; raises :class:`BadRequest`."""
        index, _, count = words.partition("/")
        try:
            found = cls(int(index), int(count))
        except ValueError:
            found = cls(0, 0)
        if not 1 <= found.index <= found.count:
            raise BadRequest(f"--shard {words!r}: it must be I/N with 1 <= I <= N, for example 2/4")
        return found

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"


def take(cases: Sequence[Case], share: Share, seconds: Mapping[str, float]) -> list[Case]:
    """The cases of a share, in their order; the shares are disjoint, and together complete.

    ``seconds`` are those of a case in an earlier run, by its id. A case that is not in it counts as the
    median. Every job must be given the same ``cases`` and ``seconds``.
    """
    usual = statistics.median(seconds.values()) if seconds else 1.0
    # Cases that are compared with the same runs in one process stay together: they share these runs.
    groups: dict[tuple[str, int, str], list[Case]] = {}
    for case in cases:
        groups.setdefault((case.scenario, case.world_size, case.dtype), []).append(case)
    weights = {key: sum(seconds.get(case.id, usual) for case in own) for key, own in groups.items()}
    loads = [0.0] * share.count
    mine: set[Case] = set()
    # The longest first, each to the share with the least so far.
    for key in sorted(groups, key=lambda key: (-weights[key], key)):
        least = loads.index(min(loads))
        loads[least] += weights[key]
        if least == share.index - 1:
            mine.update(groups[key])
    return [case for case in cases if case in mine]


def known_seconds(path: Path) -> dict[str, float]:
    """The seconds of each case in a side file; empty if there is no such file."""
    try:
        outcomes = journal.read(path).outcomes
    except (OSError, ValueError):
        return {}
    found = {
        case: outcome.facts.get("seconds_in_ranks", outcome.facts.get("known_after"))
        for case, outcome in outcomes.items()
    }
    return {case: float(value) for case, value in found.items() if isinstance(value, (int, float))}
