"""Which ranks take part in which steps: all in all of them, but for two kinds of case.

Where batches run out on some ranks, those have no part in the steps that are left. Where training
goes on in another world, its ranks have the steps after the reload and the first world's those before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

__all__ = ["Participation", "of"]


class _Schedule(Protocol):
    """What of a scenario decides who takes part in which steps."""

    steps: ClassVar[int]
    reload_after: ClassVar[int | None]
    runs_out_after: ClassVar[int | None]


@dataclass(frozen=True)
class Participation:
    """The part of a world's ``rank`` in the ``total`` steps of a case."""

    rank: int
    steps: range
    total: int
    #: What it has of the last step all the same: kinds of quantity.
    in_the_end: tuple[str, ...] = ()

    def has(self, step: int | None, kind: str) -> bool:
        """Whether it has a kind of quantity at a step; at none, before or after training."""
        if step is None:
            return self.starts if kind == "initial" else self.ends
        return step in self.steps or (step == self.total - 1 and kind in self.in_the_end)

    @property
    def starts(self) -> bool:
        return self.steps.start == 0

    @property
    def ends(self) -> bool:
        return self.steps.stop == self.total


def of(scenario: _Schedule, worlds: Sequence[int]) -> list[list[Participation]]:
    """Of the ranks of each world in which a scenario is trained, one world after the other."""
    total = scenario.steps
    if len(worlds) > 1:
        assert scenario.reload_after is not None
        here = scenario.reload_after + 1
        phases = (range(here), range(here, total))
        return [
            [Participation(rank, steps, total) for rank in range(size)]
            for steps, size in zip(phases, worlds, strict=True)
        ]
    return [[_in_one_world(scenario, rank, worlds[0]) for rank in range(worlds[0])]]


def _in_one_world(scenario: _Schedule, rank: int, size: int) -> Participation:
    total, last = scenario.steps, scenario.runs_out_after
    if last is None or rank >= size // 2:
        return Participation(rank, range(total), total)
    # What the others made of the model reaches this one when all are done.
    return Participation(rank, range(last + 1), total, ("parameter", "buffer"))
