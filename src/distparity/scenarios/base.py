"""What a scenario says: a model, its units, batches, a loss, an optimizer, a few steps.

A scenario knows nothing of ranks, devices or wrappers. It is written in plain PyTorch, and the same
methods train it in one process and in many.
"""

from __future__ import annotations

from collections.abc import Iterable
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

    def model(self) -> nn.Module:
        """A fresh model on the CPU in torch's default dtype."""
        raise NotImplementedError

    def units(self, model: nn.Module) -> list[nn.Module]:
        """Submodules that a sharding strategy shards by themselves, innermost first."""
        return []

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
