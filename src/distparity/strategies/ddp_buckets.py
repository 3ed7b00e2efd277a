"""``DistributedDataParallel`` with other settings of its graph and its buckets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from distparity.strategies.ddp import Ddp


class DdpStaticGraph(Ddp):
    name = "ddp_static_graph"
    title = "DistributedDataParallel(static_graph=True)"
    tier = "variant"
    options: ClassVar[Mapping[str, Any]] = {"static_graph": True}
    made_for = ("recomputed_reentrant",)
    lacks: ClassVar[Mapping[str, str]] = {
        **{why: sentence for why, sentence in Ddp.lacks.items() if why != "recomputed_reentrant"},
        "unused_parameters": "a static graph uses the same parameters in every step",
        "unused_on_some_ranks": "a static graph uses the same parameters on every rank",
    }


class DdpBucketView(Ddp):
    name = "ddp_bucket_view"
    title = "DistributedDataParallel(gradient_as_bucket_view=True)"
    tier = "variant"
    options: ClassVar[Mapping[str, Any]] = {"gradient_as_bucket_view": True}


_UNUSED = ("unused_parameters", "unused_on_some_ranks", "frozen_after_wrap")


class DdpFindUnused(Ddp):
    name = "ddp_find_unused"
    title = "DistributedDataParallel(find_unused_parameters=True)"
    tier = "variant"
    options: ClassVar[Mapping[str, Any]] = {"find_unused_parameters": True}
    made_for = _UNUSED
    # Frozen parameters are not in the graph, and count as unused: "preemptively marked as being ready".
    lacks: ClassVar[Mapping[str, str]] = {
        why: sentence for why, sentence in Ddp.lacks.items() if why not in _UNUSED
    }


class DdpSmallBuckets(Ddp):
    name = "ddp_small_buckets"
    title = "DistributedDataParallel(bucket_cap_mb=64 bytes)"
    tier = "variant"
    # Smaller than most parameters, so that each has its own bucket. A given cap also applies to the
    # first bucket, which otherwise has 1 MiB.
    options: ClassVar[Mapping[str, Any]] = {"bucket_cap_mb": 64 / 2**20}
