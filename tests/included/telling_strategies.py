"""Strategies that fail unless they do what their names say."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from distparity.strategies import Tensors
from distparity.strategies.ddp_buckets import DdpSmallBuckets
from distparity.strategies.ddp_hooks import DdpPowerSgd, DdpPowerSgdAtOnce, Hook


class ManyBuckets(DdpSmallBuckets):
    name = "telling_small_buckets"

    def optimizer_state(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> Tensors:
        told: Any = self.reducers(model)[0]._get_ddp_logging_data()
        sizes = told.get("rebuilt_bucket_sizes") or told["bucket_sizes"]
        assert len(sizes.split(",")) > 1, told
        return super().optimizer_state(model, optimizer)


class Compressed(DdpPowerSgd):
    name = "telling_powersgd"
    told: Any

    def hook(self) -> Hook:
        self.told, hook = super().hook()
        return self.told, hook

    def optimizer_state(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> Tensors:
        assert self.told.total_numel_after_compression > 0
        return super().optimizer_state(model, optimizer)


class CompressedAtOnce(Compressed):
    name = "telling_powersgd_at_once"

    def hook(self) -> Hook:
        self.told, hook = DdpPowerSgdAtOnce().hook()
        return self.told, hook
