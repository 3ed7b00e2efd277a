"""Every way to call a collective, with inputs that are not in one piece of memory.

``transposed`` and ``strided`` inputs and results have gaps or another order; ``expanded`` inputs overlap
themselves: all rows are the same memory. The memory around and between must not change.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.distributed as dist

from distparity.core.registry import name, subclasses
from distparity.operations.base import Check, Request, Site, Tensors
from distparity.operations.buffers import Buffer
from distparity.operations.collectives import (
    all_gather,
    all_reduce,
    all_to_all,
    broadcast,
    gather,
    reduce,
    reduce_scatter,
    scatter,
    send_recv,
)
from distparity.operations.collectives.base import NONCONTIGUOUS, Collective, Exchange, Setting
from distparity.operations.generated.guard import Generated, GuardedCheck, asked, group_of

__all__ = ["CollectiveLayout", "LaidOut"]

_MODULES = (
    *(all_gather, all_reduce, all_to_all, broadcast, gather, reduce, reduce_scatter, scatter),
    send_recv,
)


def _collectives() -> dict[str, Collective]:
    """By way: the collective; a way is the collective and how it is called."""
    kinds = sorted((kind for kind in subclasses(Collective) if kind.__module__ in _NAMES), key=name)
    return {
        f"{name(kind)}_{way}": kind()
        for kind in kinds
        for way in kind.ways
        if way != NONCONTIGUOUS and way not in kind.apart
    }


_NAMES = {module.__name__ for module in _MODULES}
_COLLECTIVES = _collectives()


class CollectiveLayout(Generated):
    name = "collective_layout"
    #: Literals, because the names of ways are read from the files; a test compares.
    ways = (
        "all_gather_list",
        "all_gather_tensor",
        "all_gather_functional",
        "all_gather_coalesced",
        "all_reduce_tensor",
        "all_reduce_functional",
        "all_reduce_coalesced",
        "all_to_all_list",
        "all_to_all_tensor",
        "all_to_all_functional",
        "broadcast_tensor",
        "broadcast_functional",
        "gather_list",
        "reduce_tensor",
        "reduce_scatter_list",
        "reduce_scatter_tensor",
        "reduce_scatter_functional",
        "reduce_scatter_coalesced",
        "scatter_list",
        "send_recv_tensor",
        "send_recv_async",
        "send_recv_batch",
    )
    dtypes = ("float32", "int64")

    def inner(self, way: str) -> tuple[Collective, str]:
        """The collective of a way, and how it is called."""
        collective = _COLLECTIVES[way]
        return collective, way.removeprefix(f"{name(type(collective))}_")

    def checks(self, request: Request) -> Iterator[Check]:
        collective, called = self.inner(request.way)
        inner = Request(called, request.dtype, request.ranks, request.seed)
        for layout in ("strided", "transposed", "expanded"):
            # Writing to memory that overlaps itself has no one result.
            if layout == "expanded" and called in collective.in_place:
                continue
            for special in ("", "async"):
                if special and special not in collective.specials(called):
                    continue
                setting = Setting(
                    op="SUM" if collective.reduces else None,
                    root=0 if collective.rooted else None,
                    layout=layout,
                    special=special,
                )
                laid = _Laid(collective, inner, setting)
                yield LaidOut(request, laid, one_sided=collective.one_sided)


class _Laid(Exchange):
    """A call whose inputs have the layout; results too, unless they would overlap themselves."""

    def gives(self, rank: int) -> list[torch.Tensor]:
        given = super().gives(rank)
        if self.setting.layout != "expanded":
            return given
        return [one[:1].expand(one.shape) for one in given]

    def _buffer(self, site: Site, value: torch.Tensor) -> Buffer:
        if self.setting.layout != "expanded":
            return super()._buffer(site, value)
        row = value[:1]
        buffer = Buffer(tuple(row.shape), row.dtype, "contiguous", site.context.device, row)
        buffer.view = buffer.view.expand(value.shape)
        return buffer

    def _taken(self, site: Site) -> list[Buffer]:
        if self.setting.layout != "expanded" or self.returns:
            return super()._taken(site)
        return [
            Buffer(tuple(e.value.shape), e.dtype, "contiguous", site.context.device)
            for e in self.gets(site.rank)
        ]


class _Bounded(Site):
    """A site whose groups' collectives end in time, though another rank never joins them."""

    def group(self, team: str) -> dist.ProcessGroup | None:
        return group_of(self, team)


class LaidOut(GuardedCheck):
    """The call, with whatever torch refuses counted as refused."""

    def __init__(self, request: Request, inner: Exchange, *, one_sided: bool) -> None:
        self.request, self.inner, self.name = request, inner, inner.name
        self.one_sided = one_sided

    def act(self, site: Site) -> Tensors:
        bounded = _Bounded(site.context, site.fault)
        found: Tensors = asked(lambda: self.inner.run(bounded))
        return found

    def expected(self, rank: int) -> dict[str, object]:  # type: ignore[override]
        return dict(self.inner.expected(rank))
