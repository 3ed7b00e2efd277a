"""Full parameters and gradients from the flat shards that ranks have of them.

FSDP1 brings parameters together for whoever asks (``summon_full_params``), one unit after another and
with all of its machinery. To look so often is dear, and it is that machinery which is under test:
what training leaves unsharded by mistake, asking would put right. So FSDP is asked once where in the
shards each element lies, with numbers in place of the parameters. From then on a rank keeps its
shards, and when somebody looks at the first of them, all are brought together by one all-gather.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
import torch.distributed as dist
from torch import nn

from distparity.strategies.base import Pending, Tensors

__all__ = ["Layout", "learn"]

Finish = Callable[[Tensors], Tensors]


class Layout:
    """Where the elements of every full parameter lie in the shards of all ranks, put end to end.

    ``where`` has a tensor of indices, of the parameter's shape, for each name; ``widths`` is how
    many places a rank has, by the parameters' dtype; ``device`` is where ranks exchange.
    """

    def __init__(
        self, dtypes: dict[str, torch.dtype], widths: dict[torch.dtype, int], device: torch.device
    ) -> None:
        self.where: dict[str, torch.Tensor] = {}
        self.dtypes = dtypes
        self.widths = widths
        self.device = device
        self._kept: list[_Kept] = []

    def keep(self, shards: Sequence[torch.Tensor], finish: Finish) -> Pending:
        """The full tensors of which these are this rank's shards, as ``finish`` returns them."""
        rows = {dtype: _row(shards, dtype, width) for dtype, width in self.widths.items()}
        self._kept.append(_Kept(self, rows, finish))
        return self._kept[-1]

    def gather(self) -> None:
        """Bring together all that was kept; all ranks call together."""
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
    """A rank's shards at one time, a row for each dtype."""

    def __init__(
        self, layout: Layout, rows: dict[torch.dtype, torch.Tensor], finish: Finish
    ) -> None:
        self.layout = layout
        self.rows = rows
        self.finish = finish
        self.found: Tensors | None = None

    def __getitem__(self, name: str) -> torch.Tensor | None:
        if self.found is None:
            self.layout.gather()
        assert self.found is not None
        return self.found[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.layout.where)

    def __len__(self) -> int:
        return len(self.layout.where)


def learn(model: nn.Module, unshard: Callable[[], Tensors]) -> Layout:
    """Ask where everything is; all ranks call together.

    ``unshard`` reads the full parameters that are in the model's shards at the moment. If the shards
    do not give what it reads, then the first look at anything raises ``RuntimeError``.
    """
    before = {name: full for name, full in unshard().items() if full is not None}
    # After a first look: that is when FSDP moves shards that it offloads to pinned memory.
    shards = [parameter.detach() for parameter in model.parameters()]
    # No rank has more of a tensor than all of it, or than one element of padding.
    widths: dict[torch.dtype, int] = {}
    for full in before.values():
        widths[full.dtype] = widths.get(full.dtype, 0) + max(1, full.numel())
    dtypes = {name: full.dtype for name, full in before.items()}
    layout = Layout(dtypes, widths, next(iter(before.values())).device)

    def same(found: Tensors) -> Tensors:
        for name, full in found.items():
            assert full is not None
            if not torch.equal(full.nan_to_num(), before[name].nan_to_num()):
                raise RuntimeError(f"what FSDP unshards of {name} is not what its shards hold")
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
    """Where each element is: number all elements of all ranks, and read the numbers back.

    A number goes in digits that the dtype holds exactly.
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
    """A copy of the shards of a dtype, end to end, in a row of ``width`` places."""
    mine = [shard.reshape(-1) for shard in shards if shard.dtype is dtype]
    size = sum(part.numel() for part in mine)
    device = mine[0].device if mine else torch.device("cpu")
    return torch.cat([*mine, torch.zeros(width - size, dtype=dtype, device=device)])


def _gather(mine: torch.Tensor) -> torch.Tensor:
    """The same of every rank, in order of ranks: one dimension more, in front."""
    every = mine.new_empty(dist.get_world_size() * mine.numel())
    dist.all_gather_into_tensor(every, mine.view(-1))
    return every.view(-1, *mine.shape)
