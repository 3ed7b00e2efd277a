"""``ZeroRedundancyOptimizer``: DDP, with the optimizer's state split among the ranks (ZeRO-1)."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import nn

from distparity.strategies.base import Tensors
from distparity.strategies.ddp import Ddp

if TYPE_CHECKING:
    from distparity.scenarios import Scenario


class Zero1(Ddp):
    name = "zero1"
    title = "DistributedDataParallel, ZeroRedundancyOptimizer"
    tier = "variant"
    lacks: ClassVar[Mapping[str, str]] = {
        **Ddp.lacks,
        # The words of its join hook. A rank that has run out of batches has no gradients.
        "uneven_batches": '"gradients must be properly set" on ranks that have run out of batches',
        "reload_checkpoint": "its state is gathered on one rank and saved there, never sharded",
        "reload_sharded": "its state is gathered on one rank and saved there, never sharded",
    }

    def optimizer(self, scenario: Scenario, model: nn.Module) -> torch.optim.Optimizer:
        # It compiles eight optimizers when it is imported. Listing the cases does not need that.
        from torch.distributed.optim import ZeroRedundancyOptimizer

        # It makes the optimizer itself, from a class and arguments, which are taken from the scenario's
        # optimizer.
        plain = super().optimizer(scenario, model)
        takes = inspect.signature(type(plain)).parameters
        groups = [dict(group) for group in plain.param_groups]
        defaults = {name: value for name, value in plain.defaults.items() if name in takes}
        return ZeroRedundancyOptimizer(groups, type(plain), **defaults)

    def optimizer_state(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> Tensors:
        names = {id(parameter): name for name, parameter in self.parameters(model).items()}
        order = [names[id(p)] for group in optimizer.param_groups for p in group["params"]]
        return {
            f"{order[index]}.{key}": value
            for index, state in _whole(optimizer)["state"].items()
            for key, value in state.items()
            if isinstance(value, torch.Tensor)
        }

    def state(self, model: nn.Module, optimizer: Any) -> Iterator[Tensors]:
        # Its own optimizer has the state of this rank's part of the parameters.
        yield from super().state(model, optimizer.optim)

    def reload(
        self,
        old: tuple[nn.Module, torch.optim.Optimizer],
        new: tuple[nn.Module, torch.optim.Optimizer],
        by: str = "full",
    ) -> None:
        new[0].load_state_dict(old[0].state_dict())
        new[1].load_state_dict(_whole(old[1]))


def _whole(optimizer: Any) -> dict[str, Any]:
    """The optimizer state of all ranks' parts; a collective call on all ranks."""
    found: dict[str, Any] = {}
    for rank in range(optimizer.world_size):
        optimizer.consolidate_state_dict(to=rank)
        # The turn of the next rank removes it again.
        if rank == optimizer.rank:
            found = optimizer.state_dict()
    return found
