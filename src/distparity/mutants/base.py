"""What a mutant is: the places where a fault can sit, each of which does what is right."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import nn

if TYPE_CHECKING:
    from distparity.devices.context import RankContext
    from distparity.scenarios import Batch

__all__ = ["Mutant", "Parts"]

Parts = list[torch.Tensor]


class Mutant:
    """One fault. Each method is a place where a fault can sit, and does what is right."""

    name: ClassVar[str]
    #: What it does, for a reader.
    title: ClassVar[str]
    #: What a diagnosis may say of it: a part of the text. A mutant without one has none to give.
    diagnosis: ClassVar[tuple[str, ...]] = ()
    #: Only under strategies that shard, or only under those that replicate; None for both.
    sharded: ClassVar[bool | None] = None
    #: The scenario must use this (a feature's name, or ``twice``: some unit is called twice).
    needs: ClassVar[str | None] = None
    #: The step in which it happens, for one that happens once.
    at_step: ClassVar[int] = 0
    #: Whether rank 0 has the rows that it should have.
    spares_first: ClassVar[bool] = False
    #: How large it is, relative to what it changes, where that is small: a dtype whose rounding is
    #: of that size cannot show it.
    size: ClassVar[float | None] = None
    #: Why nothing observable changes, for a mutant that is equivalent to the right thing.
    equivalent: ClassVar[str | None] = None

    def __init__(self, context: RankContext, *, sharded: bool) -> None:
        self.context = context
        #: This rank's number among those that take part in the reduction under way.
        self.rank = context.rank
        self.is_sharded = sharded
        self.calls = 0
        self.step = -1

    @classmethod
    def in_exchange(cls) -> bool:
        """Whether the fault sits in how ranks exchange gradients or parameters."""
        places = ("reduce", "owner", "gather")
        return any(getattr(cls, name) is not getattr(Mutant, name) for name in places)

    def wrap(self, model: nn.Module, units: Sequence[nn.Module]) -> None:
        """Before the strategy wraps the model."""

    def reduce(self, parts: Parts) -> torch.Tensor:
        """The sum of what the ranks contributed to this rank's part of a gradient.

        ``parts`` are in rank order, :attr:`rank`'s own among them. Called for every reduction of
        the step that is under way.
        """
        return torch.stack(parts).sum(0)

    def owner(self, rank: int) -> int:
        """Whose part of a reduced gradient ``rank`` gets."""
        return rank

    def gather(self, shard: torch.Tensor) -> torch.Tensor:
        """What this rank puts into an all-gather of parameters."""
        return shard

    def rows(self, batch: Batch, rows: Batch) -> Batch:
        return rows

    def loss(self, loss: torch.Tensor, number: int, count: int) -> torch.Tensor:
        """The loss of micro-batch ``number`` of ``count``, before its backward."""
        return loss

    def no_sync(self) -> bool:
        """Whether ``no_sync`` has an effect."""
        return True

    def clip(self, model: nn.Module, norm: float) -> bool:
        """Clip in the strategy's place; True when done."""
        return False

    def clip_norm(self, norm: float) -> float:
        """The norm that the strategy clips to."""
        return norm

    def optimizer(self, optimizer: torch.optim.Optimizer) -> None:
        """Right after it was made."""

    def reload(self, optimizer: torch.optim.Optimizer) -> None:
        """Right after the state was loaded."""

    def first(self) -> bool:
        """True at the first call in the step that is under way: for a fault that happens once."""
        if self.step != self.context.step:
            self.step, self.calls = self.context.step, 0
        self.calls += 1
        return self.calls == 1

    def first_of(self, tensors: Parts) -> bool:
        """Likewise, but for tensors of zeros alone.

        What takes no part in a step may be reduced as well, and a fault in that is none.
        """
        return any(bool(tensor.any()) for tensor in tensors) and self.first()

    def share(self) -> int:
        return self.context.world_size
