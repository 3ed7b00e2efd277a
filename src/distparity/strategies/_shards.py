"""Read full parameters and gradients from the ranks' flat shards.

FSDP1 has a way to gather parameters (``summon_full_params``), but it works one module after another,
which is slow, and it is part of what is tested: it would repair parameters that training left
unsharded by mistake. So we call it only to find out where in the shards each element is, with numbers
in place of the parameters. After that, each rank keeps copies of its shards, and the first look at
any of them gathers all with one all-gather.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.distributed as dist
from torch import nn

from distparity.strategies.base import Pending, Tensors

__all__ = ["Layout", "learn"]

Finish = Callable[[Tensors], Tensors]


class Layout:
    """Where the elements of every full parameter are in the ranks' shards.

    For each dtype, the shards of a rank are laid end to end in a row of ``widths[dtype]`` elements,
    padded with zeros; the rows of all ranks, in rank order, make one flat tensor of
    ``world_size * widths[dtype]`` elements. All ranks have the same layout.
    """

    def __init__(
        self, dtypes: dict[str, torch.dtype], widths: dict[torch.dtype, int], device: torch.device
    ) -> None:
        #: By parameter: int64 indices into the flat tensor of its dtype, in the parameter's shape.
        self.where: dict[str, torch.Tensor] = {}
        #: By parameter: its dtype.
        self.dtypes = dtypes
        #: By dtype: the elements in the row of one rank.
        self.widths = widths
        #: The device on which ranks exchange their rows.
        self.device = device
        self._kept: list[_Kept] = []

    def keep(self, shards: Sequence[torch.Tensor], finish: Finish) -> Pending:
        """Copy this rank's shards; returns the full tensors, which are gathered at the first look.

        ``finish`` is called with the full tensors by name, and returns those to show.
        """
        rows = {dtype: _row(shards, dtype, width) for dtype, width in self.widths.items()}
        self._kept.append(_Kept(self, rows, finish))
        return self._kept[-1]

    def gather(self) -> None:
        """Gather all that was kept; a collective call on all ranks."""
        kept, self._kept = self._kept, []
        gathered = {
            dtype: _gather(torch.stack([one.rows[dtype] for one in kept]).to(self.device))
            for dtype in self.widths
        }
        for number, one in enumerate(kept):
            values = {dtype: every[:, number].reshape(-1) for dtype, every in gathered.items()}
            one.found = one.finish(
                {name: values[self.dtypes[name]][place] for name, place in self.where.items()}
            )


class _Kept(Pending):
    """A rank's shards at one time: one flat row per dtype."""

    def __init__(
        self, layout: Layout, rows: dict[torch.dtype, torch.Tensor], finish: Finish
    ) -> None:
        self.layout = layout
        self.rows = rows
        self.finish = finish

    def gather(self) -> None:
        self.layout.gather()


def learn(model: nn.Module, unshard: Callable[[], Tensors]) -> Layout:
    """Find the layout of a model's parameters; a collective call on all ranks.

    ``unshard`` returns the full parameters for the current values of the model's shards. If the
    shards do not contain what it returned, the first look at any kept tensor raises ``RuntimeError``.
    """
    before = {name: full for name, full in unshard().items() if full is not None}
    # After the first read, when FSDP has moved offloaded shards to pinned memory.
    shards = [parameter.detach() for parameter in model.parameters()]
    # A rank has at most all elements of a tensor, or one element of padding.
    widths: dict[torch.dtype, int] = {}
    for full in before.values():
        widths[full.dtype] = widths.get(full.dtype, 0) + max(1, full.numel())
    dtypes = {name: full.dtype for name, full in before.items()}
    layout = Layout(dtypes, widths, next(iter(before.values())).device)

    def same(found: Tensors) -> Tensors:
        for name, full in found.items():
            assert full is not None
            if not torch.equal(full.nan_to_num(), before[name].nan_to_num()):
                raise RuntimeError(f"FSDP unshards {name} to other values than its shards hold")
        return found

    layout.keep(shards, same)
    kept = [shard.clone() for shard in shards]
    try:
        layout.where.update(_places(layout, shards, unshard))
    finally:
        with torch.no_grad():
            for shard, value in zip(shards, kept, strict=True):
                shard.copy_(value)
    return layout


def _places(
    layout: Layout, shards: Sequence[torch.Tensor], unshard: Callable[[], Tensors]
) -> dict[str, torch.Tensor]:
    """Find where each element is: number the elements of all ranks, and read the numbers back.

    Numbers are written digit by digit, in digits that the dtype holds exactly.
    """
    ranks = dist.get_world_size()
    bases = {dtype: int(2 / torch.finfo(dtype).eps) for dtype in layout.widths}
    found = {name: torch.zeros((), dtype=torch.int64) for name in layout.dtypes}
    digit = 0
    while any(bases[d] ** digit < width * ranks for d, width in layout.widths.items()):
        for dtype, width in layout.widths.items():
            number = dist.get_rank() * width
            for shard in (one for one in shards if one.dtype is dtype):
                numbers = torch.arange(number, number + shard.numel())
                value = numbers // bases[dtype] ** digit % bases[dtype]
                with torch.no_grad():
                    shard.copy_(value.view(shard.shape))
                number += shard.numel()
        for name, full in unshard().items():
            assert full is not None
            base = bases[layout.dtypes[name]]
            found[name] = found[name] + full.cpu().long() * base**digit
        digit += 1
    return {name: place.to(layout.device) for name, place in found.items()}


def _row(shards: Sequence[torch.Tensor], dtype: torch.dtype, width: int) -> torch.Tensor:
    """Copy the shards of a dtype, end to end, into a row of ``width`` elements: ``[width]``."""
    mine = [shard.reshape(-1) for shard in shards if shard.dtype is dtype]
    size = sum(part.numel() for part in mine)
    device = mine[0].device if mine else torch.device("cpu")
    return torch.cat([*mine, torch.zeros(width - size, dtype=dtype, device=device)])


def _gather(mine: torch.Tensor) -> torch.Tensor:
    """All-gather a tensor: ``[ranks, *mine.shape]``, in rank order."""
    every = mine.new_empty(dist.get_world_size() * mine.numel())
    dist.all_gather_into_tensor(every, mine.view(-1))
    return every.view(-1, *mine.shape)
