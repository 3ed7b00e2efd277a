"""What a strategy does: wrap a model, and read its full state back.

A strategy knows nothing of the scenario that it runs: it gets a model, the submodules that are
sharding units, and its place among the ranks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import nn

if TYPE_CHECKING:
    from distparity.worlds.rank import Place

__all__ = ["Limit", "Strategy", "Tensors"]

Tensors = dict[str, "torch.Tensor | None"]


@dataclass(frozen=True)
class Limit:
    """Something that a strategy cannot do by torch's own word, and how torch is asked about it.

    A limit skips nothing by itself. Where ``applies``, a rank makes the strategy's smallest
    training; only if that fails with ``answer`` in the error is the case *not supported*.
    """

    #: What is asked, for a reader: "fully_shard on cpu".
    fact: str
    #: Whether the question arises: called with torch's release and the kind of device.
    applies: Callable[[tuple[int, int], str], bool]
    #: A regular expression that torch's refusal matches; another error is a failure, not a skip.
    answer: str


class Strategy:
    """One way to distribute training. Subclass it in a file of its own under ``strategies/``."""

    #: The strategy's name in a case.
    name: ClassVar[str]
    #: One line for people.
    title: ClassVar[str]
    limits: ClassVar[tuple[Limit, ...]] = ()

    def wrap(self, model: nn.Module, units: Sequence[nn.Module], place: Place) -> nn.Module:
        """Distribute ``model``, which is on the place's device and equal on every rank."""
        raise NotImplementedError

    def parameters(self, model: nn.Module) -> Tensors:
        """Every full parameter, by the name it had before :meth:`wrap`; all ranks call together.

        The tensors may share memory with the model: the caller copies what it keeps.
        """
        raise NotImplementedError

    def gradients(self, model: nn.Module) -> Tensors:
        """Every full gradient by the parameter's name, None where there is none; likewise."""
        raise NotImplementedError

    def buffers(self, model: nn.Module) -> Tensors:
        """This rank's buffers by the name each had before :meth:`wrap`."""
        return {self.clean(name): buffer for name, buffer in model.named_buffers()}

    def clean(self, name: str) -> str:
        """A parameter's or buffer's name before :meth:`wrap`, from its name after."""
        return name

    def share(self, place: Place) -> tuple[int, int]:
        """Which part of the global batch this rank takes: its index and the number of parts."""
        return place.rank, place.world_size
