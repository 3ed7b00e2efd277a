"""Wrong where not all ranks have all steps; ``--include wrong_attendance`` makes cases of them."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.checkpoint.state_dict import get_model_state_dict, set_model_state_dict

from distparity.strategies import Strategy
from distparity.strategies.ddp import Ddp
from distparity.strategies.fsdp2 import Fsdp2
from distparity.strategies.moves import Fsdp2To3


class OtherDivisor(Ddp):
    """Gradients are divided by the ranks that are left where all were to count, and vice versa."""

    name = "wrong_divisor"

    @contextmanager
    def uneven(self, model: nn.Module, missing_count: bool) -> Iterator[None]:
        with super().uneven(model, not missing_count):
            yield


class LeftBehind(Ddp):
    """The rank that ran out of batches keeps the model that it had then."""

    name = "wrong_left_behind"

    @contextmanager
    def uneven(self, model: nn.Module, missing_count: bool) -> Iterator[None]:
        with super().uneven(model, missing_count):
            yield
            kept = [parameter.detach().clone() for parameter in model.parameters()]
        if dist.get_rank() == 0:
            for parameter, before in zip(model.parameters(), kept, strict=True):
                parameter.data.copy_(before)


class NotAveraged(Ddp):
    """What was left alone is not averaged by hand either."""

    name = "wrong_alone"

    def average(self, model: nn.Module, modules: Collection[str]) -> None:
        pass


class _Forgetful(Fsdp2):
    """It has no name, so it makes no cases."""

    def load(self, model: nn.Module, optimizer: torch.optim.Optimizer, folder: str) -> None:
        fresh: dict[str, Any] = dict(get_model_state_dict(model))
        fresh = {name: value.clone() for name, value in fresh.items()}
        super().load(model, optimizer, folder)
        if self.forgets == "momentum":
            optimizer.state.clear()
        else:
            set_model_state_dict(model, fresh)

    forgets: ClassVar[str] = "momentum"


class _ForgetsParameters(_Forgetful):
    forgets = "parameters"


class MomentumLost(Fsdp2To3):
    """Momentum does not reach the new world."""

    name = "wrong_momentum_lost"
    after: ClassVar[Strategy] = _Forgetful()


class BeginsAnew(Fsdp2To3):
    """Parameters do not reach the new world."""

    name = "wrong_anew"
    after: ClassVar[Strategy] = _ForgetsParameters()
