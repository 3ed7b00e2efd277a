"""The base class of mutants: the places where a fault can sit, each of which is correct by default."""

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
    """One deliberate fault. Each method is a place for a fault, and is correct by default."""

    name: ClassVar[str]
    #: What the fault does, in one line.
    title: ClassVar[str]
    #: Parts of diagnoses that fit it; a mutant without any has no known pattern.
    diagnosis: ClassVar[tuple[str, ...]] = ()
    #: True: only with strategies that shard; False: only with those that replicate; None: both.
    sharded: ClassVar[bool | None] = None
    #: A feature that the scenario must have, if any.
    needs: ClassVar[str | None] = None
    #: The step (from 0) in which it happens, for a fault that happens once.
    at_step: ClassVar[int] = 0
    #: Whether rank 0 still has its own rows.
    spares_first: ClassVar[bool] = False
    #: The relative size of its change, if that is small: a dtype with rounding errors of that size
    #: cannot show it.
    size: ClassVar[float | None] = None
    #: Why nothing observable changes, for an equivalent mutant.
    equivalent: ClassVar[str | None] = None

    def __init__(self, context: RankContext, *, sharded: bool) -> None:
        self.context = context
        #: This rank's number in the group of the current reduction.
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
        """Called before the strategy wraps the model."""

    def reduce(self, parts: Parts) -> torch.Tensor:
        """The sum of the ranks' contributions to this rank's part of a gradient.

        ``parts`` are tensors of one shape, in rank order, including :attr:`rank`'s own. Returns a
        tensor of that shape. Called for every reduction of a step.
        """
        return torch.stack(parts).sum(0)

    def owner(self, rank: int) -> int:
        """The rank whose part of a reduced gradient ``rank`` gets."""
        return rank

    def gather(self, shard: torch.Tensor) -> torch.Tensor:
        """This rank's input to an all-gather of parameters."""
        return shard

    def rows(self, batch: Batch, rows: Batch) -> Batch:
        """The rows of the global ``batch`` that this rank trains on; ``rows`` are the right ones."""
        return rows

    def loss(self, loss: torch.Tensor, number: int, count: int) -> torch.Tensor:
        """The loss of micro-batch ``number`` of ``count``, before its backward."""
        return loss

    def no_sync(self) -> bool:
        """Whether ``no_sync`` has an effect."""
        return True

    def clip(self, model: nn.Module, norm: float) -> bool:
        """Clip in place of the strategy; returns False to let the strategy clip."""
        return False

    def clip_norm(self, norm: float) -> float:
        """The norm that the strategy clips to."""
        return norm

    def optimizer(self, optimizer: torch.optim.Optimizer) -> None:
        """Called after the optimizer is made."""

    def reload(self, optimizer: torch.optim.Optimizer) -> None:
        """Called after the optimizer's state is loaded."""

    def first(self) -> bool:
        """True at the first call in each step, for a fault that happens once per step."""
        if self.step != self.context.step:
            self.step, self.calls = self.context.step, 0
        self.calls += 1
        return self.calls == 1

    def first_of(self, tensors: Parts) -> bool:
        """Like :meth:`first`, but calls with only zeros do not count.

        Parameters that take no part in a step may be reduced too, and a fault there has no effect.
        """
        return any(bool(tensor.any()) for tensor in tensors) and self.first()

    def share(self) -> int:
        """The number of parts that the rows of a batch are divided into."""
        return self.context.world_size
