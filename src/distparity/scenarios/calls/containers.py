"""Units take and return nested containers: a dict of a list of tensors and a number."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from distparity.scenarios.calls.basic import Basic


class Fork(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Linear(6, 8)
        self.right = nn.Linear(6, 5)

    def forward(self, x: torch.Tensor) -> dict[str, Any]:
        return {"pair": [torch.tanh(self.left(x)), (torch.tanh(self.right(x)),)], "half": 0.5}


class Join(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Linear(8, 3)
        self.right = nn.Linear(5, 3)

    def forward(self, *, parts: dict[str, Any]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        left, (right,) = parts["pair"]
        return self.left(left), {"right": self.right(right) * parts["half"]}


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fork = Fork()
        self.join = Join()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        left, rest = self.join(parts=self.fork(x))
        out: torch.Tensor = left + rest["right"]
        return out


class Containers(Basic):
    def model(self) -> nn.Module:
        return Model()

    def units(self, model: nn.Module) -> list[nn.Module]:
        return [model.fork, model.join]  # type: ignore[list-item]
