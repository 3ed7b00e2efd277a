"""A mixture of experts: each row goes to the expert that a gate picks, and some get no rows at all.

Every expert is called on every rank, with however few rows, so that all ranks run the same units.
"""

from __future__ import annotations

import torch
from torch import nn

from distparity.scenarios.calls.basic import Basic


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Linear(6, 3)
        self.experts = nn.ModuleList(nn.Linear(6, 8) for _ in range(3))
        self.leave = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weights = torch.softmax(self.gate(x), dim=1)
        # By a fixed rule: if rounding could change the choice of the gate, it would be another model.
        chosen = (x[:, 0] > 0).long() + (x[:, 1] > 0).long()
        out = torch.zeros(len(x), 8, dtype=x.dtype, device=x.device)
        for number, expert in enumerate(self.experts):
            rows = (chosen == number).nonzero()[:, 0]
            part = torch.tanh(expert(x[rows])) * weights[rows, number : number + 1]
            out = out.index_add(0, rows, part)
        left: torch.Tensor = self.leave(out)
        return left


class MixtureOfExperts(Basic):
    rows_per_rank = 6

    def model(self) -> nn.Module:
        return Model()

    def units(self, model: nn.Module) -> list[nn.Module]:
        return list(model.experts)  # type: ignore[arg-type]
