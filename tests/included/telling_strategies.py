"""Strategies that fail unless they do what their names say."""

from distparity.strategies.ddp_buckets import DdpSmallBuckets
from distparity.strategies.ddp_hooks import DdpPowerSgd, DdpPowerSgdAtOnce


class ManyBuckets(DdpSmallBuckets):
    name = "telling_small_buckets"

    def optimizer_state(self, model, optimizer):
        told = model._get_ddp_logging_data()
        sizes = told.get("rebuilt_bucket_sizes") or told["bucket_sizes"]
        assert len(sizes.split(",")) > 1, told
        return super().optimizer_state(model, optimizer)


class _Compressed:
    def hook(self):
        self.told, hook = super().hook()
        return self.told, hook

    def optimizer_state(self, model, optimizer):
        assert self.told.total_numel_after_compression > 0
        return super().optimizer_state(model, optimizer)


class Compressed(_Compressed, DdpPowerSgd):
    name = "telling_powersgd"


class CompressedAtOnce(_Compressed, DdpPowerSgdAtOnce):
    name = "telling_powersgd_at_once"
