"""Which ranks take part in which steps: all ranks in all steps, except in two kinds of case.

If batches run out on some ranks, those take no part in the remaining steps. If training resumes in
another world, its ranks make the steps after the reload, and the first world's ranks those before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

__all__ = ["Participation", "of"]


class _Schedule(Protocol):
    """The declarations of a scenario that decide which ranks take part in which steps."""

    steps: ClassVar[int]
    reload_after: ClassVar[int | None]
    runs_out_after: ClassVar[int | None]


@dataclass(frozen=True)
class Participation:
    """Which of the ``total`` steps of a case a rank makes."""

    rank: int
    steps: range
    total: int
    #: Kinds of quantity of the last step that it has even if it does not make that step.
    in_the_end: tuple[str, ...] = ()

    def has(self, step: int | None, kind: str) -> bool:
        """Whether it has a kind of quantity at a step; step None is before or after training."""
        if step is None:
            return self.starts if kind == "initial" else self.ends
        return step in self.steps or (step == self.total - 1 and kind in self.in_the_end)

    @property
    def starts(self) -> bool:
        """Whether the rank makes the first step."""
        return self.steps.start == 0

    @property
    def ends(self) -> bool:
        """Whether the rank makes the last step."""
        return self.steps.stop == self.total


def of(scenario: _Schedule, worlds: Sequence[int]) -> list[list[Participation]]:
    """The participation of each rank, for each world in which a scenario is trained.

    ``worlds`` has their sizes, one world after the other.
    """
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
    # At the end of training, this rank receives the model of those that went on.
    return Participation(rank, range(last + 1), total, ("parameter", "buffer"))
