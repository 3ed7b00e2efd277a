"""Strategies in which the last rank goes astray: it waits for a message that nobody sends.

The others wait for it in whatever the strategy exchanges there. Given to a run with
``--include astray``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
import torch.distributed as dist
from torch import nn

from distparity.strategies import Strategy, Tensors
from distparity.strategies.ddp import Ddp
from distparity.strategies.fsdp1 import Fsdp1
from distparity.strategies.fsdp2 import Fsdp2
from distparity.strategies.tensor_parallel import TensorParallel
from distparity.worlds.rank import Place

BASES: tuple[type[Strategy], ...] = (Ddp, Fsdp1, Fsdp2, TensorParallel)


class Astray(Strategy):
    """The last rank leaves the others in the second step: in its forward, backward or reading."""

    title = "one rank out of step"
    tier = "variant"
    phase: ClassVar[str]

    def wrap(self, model: nn.Module, units: Sequence[nn.Module], place: Place) -> nn.Module:
        self.lost = place.rank == place.world_size - 1
        self.forwards = 0
        wrapped = super().wrap(model, units, place)
        wrapped.register_forward_pre_hook(self._before, prepend=True)
        wrapped.register_forward_hook(self._after)
        return wrapped

    def gradients(self, model: nn.Module) -> Tensors:
        self._leave("read")
        return super().gradients(model)

    def _before(self, *_: Any) -> None:
        self.forwards += 1
        self._leave("forward")

    def _after(self, _module: nn.Module, _args: Any, output: torch.Tensor) -> None:
        if output.requires_grad:
            output.register_hook(lambda _: self._leave("backward"))

    def _leave(self, phase: str) -> None:
        if self.lost and phase == self.phase and self.forwards == 2:
            dist.recv(torch.zeros(8), src=0)


ALL = [
    type(
        f"{base.__name__}{phase.title()}",
        (Astray, base),
        {"name": f"astray-{phase}-{base.name}", "phase": phase, "title": Astray.title},
    )
    for base in BASES
    for phase in ("forward", "backward", "read")
]
