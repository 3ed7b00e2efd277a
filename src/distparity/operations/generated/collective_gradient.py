"""Collectives in a forward: their results and their gradients.

A loss is the sum over all ranks of weights times each rank's result, and of weights times each rank's
input. So every rank's input has a gradient, and one that is silently left out is a wrong number, not an
exception.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from functools import cache
from itertools import product
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.nn.functional as differentiable
from torch.distributed import _functional_collectives as functional

from distparity.operations.arithmetic import wide
from distparity.operations.base import (
    Check,
    Exact,
    Request,
    Site,
    Tensors,
    members,
    seeded,
    teams,
)
from distparity.operations.generated.guard import Generated, GuardedCheck, asked, group_of
from distparity.verification.constants import FACTOR

__all__ = ["CALLS", "CollectiveGradient", "Flow"]


#: By way: the collective that it is, and the call: of a tensor ``x`` in a process group ``group`` whose
#: members have the ranks ``ranks`` in the world, with the reduction ``op`` by its name and as
#: ``reduction``, and a dim ``dim``.
CALLS: dict[str, tuple[str, str]] = {
    "nn_all_reduce": ("all_reduce", "differentiable.all_reduce(x, op=reduction, group=group)"),
    "nn_all_gather": ("all_gather", "torch.cat(differentiable.all_gather(x, group=group))"),
    "nn_reduce_scatter": (
        "reduce_scatter",
        (
            "differentiable.reduce_scatter(torch.empty_like(x.chunk(len(ranks))[0]), "
            "list(x.chunk(len(ranks))), op=reduction, group=group)"
        ),
    ),
    "nn_all_to_all": (
        "all_to_all",
        (
            "torch.cat(differentiable.all_to_all([torch.empty_like(one) for one in x.chunk(len(ranks))], "
            "list(x.chunk(len(ranks))), group=group))"
        ),
    ),
    "nn_all_to_all_single": (
        "all_to_all",
        "differentiable.all_to_all_single(torch.empty_like(x), x, group=group)",
    ),
    "nn_broadcast": ("broadcast", "differentiable.broadcast(x, ranks[0], group=group)"),
    "nn_reduce": ("reduce", "differentiable.reduce(x, ranks[0], op=reduction, group=group)"),
    "nn_gather": ("gather", "torch.cat(differentiable.gather(x, ranks[0], group=group))"),
    "nn_scatter": (
        "scatter",
        "differentiable.scatter(list(x.chunk(len(ranks))), ranks[0], group=group)",
    ),
    "functional_all_reduce": ("all_reduce", "functional.all_reduce(x, op.lower(), group)"),
    "functional_all_gather": ("all_gather", "functional.all_gather_tensor(x, dim, group)"),
    "functional_all_gather_autograd": (
        "all_gather",
        "functional.all_gather_tensor_autograd(x, dim, group)",
    ),
    "functional_reduce_scatter": (
        "reduce_scatter",
        "functional.reduce_scatter_tensor(x, op.lower(), dim, group)",
    ),
    "functional_reduce_scatter_autograd": (
        "reduce_scatter",
        "functional.reduce_scatter_tensor_autograd(x, op.lower(), dim, group)",
    ),
    "functional_all_to_all": (
        "all_to_all",
        "functional.all_to_all_single(x, None, None, group)",
    ),
    "functional_all_to_all_autograd": (
        "all_to_all",
        "functional.all_to_all_single_autograd(x, None, None, group)",
    ),
    "functional_broadcast": ("broadcast", "functional.broadcast(x, 0, group)"),
    # In place, on a tensor that has a gradient.
    "all_reduce_in_place": (
        "all_reduce",
        "(y := x * 1, dist.all_reduce(y, reduction, group=group))[0]",
    ),
    "broadcast_in_place": (
        "broadcast",
        "(y := x * 1, dist.broadcast(y, ranks[0], group=group))[0]",
    ),
}
_LAYOUTS = ("contiguous", "transposed", "strided", "expanded")
#: What the loss makes of a result decides the layout of the gradient that comes back.
_SEEN = ("weighed", "summed", "transposed")
_REDUCES = ("all_reduce", "reduce_scatter", "reduce")
#: Collectives of which one rank gives all.
_GIVEN_BY_ONE = ("broadcast", "scatter")


class CollectiveGradient(Generated):
    name = "collective_gradient"
    ways = tuple(CALLS)
    dtypes = ("float64",)

    def all_give(self, way: str) -> bool:
        """Whether every rank's input is in a result."""
        return CALLS[way][0] not in _GIVEN_BY_ONE

    def checks(self, request: Request) -> Iterator[Check]:
        kind = CALLS[request.way][0]
        for team in ("world", *teams(request.ranks)):
            for op in ("SUM", "AVG", "MAX", "MIN", "PRODUCT") if kind in _REDUCES else ("",):
                yield Flow(request, team, op, "contiguous", "weighed", 0)
                if team == "world" and op in ("", "SUM"):
                    for layout, seen in product(_LAYOUTS, _SEEN):
                        if (layout, seen) != ("contiguous", "weighed"):
                            yield Flow(request, team, op, layout, seen, 0)
                if request.way.startswith("functional") and kind in (
                    "all_gather",
                    "reduce_scatter",
                ):
                    yield Flow(request, team, op, "contiguous", "weighed", 1)


class Flow(GuardedCheck):
    """One collective; ``seen`` is how the loss uses its result, which decides the gradient's layout."""

    #: Divisible by the sizes of all groups, in both dims.
    SHAPE = (12, 24)

    def __init__(
        self, request: Request, team: str, op: str, layout: str, seen: str, dim: int
    ) -> None:
        self.request, self.team, self.op = request, team, op
        self.layout, self.seen, self.dim = layout, seen, dim
        words = (op, "" if team == "world" else team, f"{layout} input", f"{seen} result")
        self.name = ", ".join(filter(None, (*words, f"dim {dim}" if dim else "")))

    def ranks(self, rank: int) -> list[int]:
        groups = members(self.team, self.request.ranks)
        return next((group for group in groups if rank in group), [])

    def partners(self, rank: int) -> list[int]:
        return self.ranks(rank)

    def input(self, rank: int) -> torch.Tensor:
        generator = seeded(self.request.seed, rank, "input")
        drawn = torch.randn(self.SHAPE, generator=generator, dtype=torch.float64)
        if self.layout == "expanded":
            drawn = drawn[:1].expand(self.SHAPE)
        return drawn

    def weights(self, rank: int, what: str, shape: tuple[int, ...]) -> torch.Tensor:
        generator = seeded(self.request.seed, rank, what)
        if what == "result" and self.seen == "summed":
            # The gradient is one number, seen as a tensor.
            return torch.full(shape, 1.0 + rank, dtype=torch.float64)
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    # -- in a rank -----------------------------------------------------------------------------

    def act(self, site: Site) -> Tensors:
        group = group_of(site, self.team)
        ranks = self.ranks(site.rank)
        if group is None or not ranks:
            return {}
        source = self.input(site.rank).to(site.context.device)
        leaf = source[:1].clone() if self.layout == "expanded" else source.clone()
        if site.fault is not None:
            site.fault.part(self, site.rank, leaf)
        leaf.requires_grad_()
        given = self._laid(leaf)
        before = given.detach().clone()
        op = self.op or "SUM"
        reduction = getattr(dist.ReduceOp, op)
        way = _call(self.request.way)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            made = asked(lambda: way(given, group, ranks, op, reduction, self.dim) * 1)
            weights = self.weights(site.rank, "input", tuple(leaf.shape))
            loss = (leaf * weights.to(leaf.device)).sum()
            asked((self._use(made, site.rank) + loss).backward)
        found = {
            "gradient": torch.zeros_like(leaf) if leaf.grad is None else leaf.grad.cpu(),
            "input is unchanged": torch.tensor(bool((given == before).all())),
        }
        if self._gets(ranks, site.rank):
            found["result"] = made.detach().cpu().contiguous()
        if site.fault is not None:
            site.fault.made(self, found)
        return found

    def _laid(self, leaf: torch.Tensor) -> torch.Tensor:
        if self.layout == "expanded":
            return leaf.expand(self.SHAPE)
        if self.layout == "transposed":
            return leaf.t().contiguous().t()
        if self.layout == "strided":
            return torch.stack([leaf, leaf], -1)[..., 0]
        return leaf * 1

    def _use(self, made: torch.Tensor, rank: int) -> torch.Tensor:
        if not self._gets(self.ranks(rank), rank):
            # What a collective leaves on this rank is not defined.
            return made.sum() * 0
        weights = self.weights(rank, "result", tuple(made.shape)).to(made.device)
        if self.seen == "summed":
            return made.sum() * (1.0 + rank)
        if self.seen == "transposed":
            return (made.t() * weights.t().contiguous()).sum()
        return (made * weights).sum()

    def _gets(self, ranks: list[int], rank: int) -> bool:
        return CALLS[self.request.way][0] not in ("reduce", "gather") or rank == ranks[0]

    # -- in the judge --------------------------------------------------------------------------

    def expected(self, rank: int) -> dict[str, Exact]:
        ranks = self.ranks(rank)
        if not ranks:
            return {}
        leaves = {one: self.input(one).clone() for one in ranks}
        if self.layout == "expanded":
            leaves = {one: leaf[:1].clone() for one, leaf in leaves.items()}
        for leaf in leaves.values():
            leaf.requires_grad_()
        given = [self._laid(leaves[one]) for one in ranks]
        kind = CALLS[self.request.way][0]
        results = [_right(kind, self.op, self.dim, given, n) for n in range(len(ranks))]
        loss: Any = sum(self._use(results[n], one) for n, one in enumerate(ranks))
        for one, leaf in leaves.items():
            loss = loss + (leaf * self.weights(one, "input", tuple(leaf.shape))).sum()
        loss.backward()
        grad = leaves[rank].grad
        assert grad is not None
        found = {
            "gradient": _near(grad),
            "input is unchanged": Exact(torch.tensor(True), torch.bool),
        }
        if self._gets(ranks, rank):
            found["result"] = _near(results[ranks.index(rank)].detach())
        return found


@cache
def _call(way: str) -> Callable[..., Any]:
    """A call as a function; the calls are texts because a program of a check has the same ones."""
    modules = {"torch": torch, "dist": dist, "functional": functional}
    found: Callable[..., Any] = eval(  # noqa: S307  the lines above
        f"lambda x, group, ranks, op, reduction, dim: {CALLS[way][1]}",
        {**modules, "differentiable": differentiable},
    )
    return found


def _right(kind: str, op: str, dim: int, given: list[torch.Tensor], me: int) -> torch.Tensor:
    """What member ``me`` gets, by plain functions of all members' inputs."""
    count = len(given)
    if kind in ("all_reduce", "reduce"):
        return _reduce(op, given)
    if kind == "reduce_scatter":
        return _reduce(op, given).chunk(count, dim)[me]
    if kind in ("all_gather", "gather"):
        return torch.cat(given, dim)
    if kind == "all_to_all":
        return torch.cat([one.chunk(count)[me] for one in given])
    return given[0].chunk(count)[me] if kind == "scatter" else given[0] * 1


def _reduce(op: str, given: list[torch.Tensor]) -> torch.Tensor:
    stack = torch.stack(given)
    if op in ("SUM", ""):
        return stack.sum(0)
    if op == "AVG":
        return stack.mean(0)
    return stack.prod(0) if op == "PRODUCT" else stack.amax(0) if op == "MAX" else stack.amin(0)


def _near(value: torch.Tensor) -> Exact:
    """Rounding of float32, though the numbers are float64."""
    size = float(value.abs().max())
    allowed = FACTOR * torch.finfo(torch.float32).eps * max(size, 1.0)
    return Exact(wide(value), value.dtype, torch.tensor(allowed).double())
