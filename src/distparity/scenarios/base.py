"""What a scenario says: a model, its units, batches, a loss, an optimizer, a few steps.

A scenario knows nothing of ranks, devices or wrappers. It is written in plain PyTorch, and the same
methods train it in one process and in many.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import ClassVar

import torch
from torch import nn

__all__ = ["Batch", "Scenario"]

Batch = tuple[torch.Tensor, ...]


class Scenario:
    """One thing worth training. Subclass it in a file of its own under ``scenarios/``.

    The case's name is the file's name. Randomness comes from torch's global generator, which the
    training loop seeds before each call; nothing else may be random.
    """

    #: Optimizer steps.
    steps: ClassVar[int] = 3
    #: Rows of the batch that each data-parallel rank takes at each step.
    rows_per_rank: ClassVar[int] = 4
    #: Dtypes of parameters and data, by torch's names.
    dtypes: ClassVar[tuple[str, ...]] = ("float32", "float64")
    #: Micro-batches into which a rank's rows are cut, whose gradients accumulate.
    micro_batches: ClassVar[int] = 1
    #: Whether gradients are exchanged with the last micro-batch only, or with each.
    exchange_last_only: ClassVar[bool] = True
    #: Clip the norm of all gradients together to this before the optimizer's step.
    clip_norm: ClassVar[float | None] = None
    #: After this step (0 is the first) save everything, and go on from it with a new model.
    reload_after: ClassVar[int | None] = None
    #: What else is special about it, for mutants that need it: ``twice`` (a unit is called twice in
    #: a forward), ``weight_decay``.
    traits: ClassVar[tuple[str, ...]] = ()
    #: Every rank but the first begins with other numbers, which wrapping must put right.
    ranks_begin_apart: ClassVar[bool] = False
    #: Kinds of quantity (``buffer``, ``optimizer``, ...) that are not compared, each with the reason.
    exempt: ClassVar[Mapping[str, str]] = {}

    def features(self) -> list[str]:
        """What the scenario asks of a strategy beyond a forward, a backward and a step."""
        asked = {
            "micro_batches": self.micro_batches > 1,
            "no_sync": self.micro_batches > 1 and self.exchange_last_only,
            "clip_norm": self.clip_norm is not None,
            "reload": self.reload_after is not None,
            "begins_with_rank_0": self.ranks_begin_apart,
        }
        return [*self.traits, *(feature for feature, wanted in asked.items() if wanted)]

    def model(self) -> nn.Module:
        """A fresh model on the CPU in torch's default dtype."""
        raise NotImplementedError

    def units(self, model: nn.Module) -> list[nn.Module]:
        """Submodules that a sharding strategy shards by themselves, innermost first."""
        return []

    def unused(self, step: int) -> Collection[str]:
        """The parameters that have no gradient at ``step``; all others must have one to speak of."""
        return ()

    def batch(self, rows: int) -> Batch:
        """A global batch: tensors whose dim 0 is ``rows``. Every step draws another one."""
        raise NotImplementedError

    def loss(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        """A scalar: the *mean* over the rows of ``batch`` of a loss per row.

        A mean, so that the mean of the ranks' losses is the global batch's.
        """
        raise NotImplementedError

    def optimizer(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """SGD with momentum: unlike Adam's, its step shows a gradient of the wrong scale."""
        return torch.optim.SGD(parameters, lr=0.1, momentum=0.9)
