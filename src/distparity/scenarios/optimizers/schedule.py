"""The learning rate changes with every step: it warms up, and decays."""

from __future__ import annotations

import torch

from distparity.scenarios.calls.basic import Basic


class Schedule(Basic):
    steps = 5

    def schedule(self, optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LRScheduler:
        return torch.optim.lr_scheduler.OneCycleLR(
            optimizer, max_lr=0.3, total_steps=self.steps + 1
        )
