"""A torch whose ``set_state_dict`` forgets the optimizer's state, in every process."""

from __future__ import annotations

from typing import Any

import torch
from torch.distributed.checkpoint import state_dict

load = state_dict._load_optim_state_dict


def forget(model: Any, optimizers: Any, *rest: Any) -> None:
    load(model, optimizers, *rest)
    for optimizer in optimizers:
        for state in optimizer.state.values():
            for value in state.values():
                if isinstance(value, torch.Tensor):
                    value.zero_()


state_dict._load_optim_state_dict = forget  # type: ignore[assignment]
