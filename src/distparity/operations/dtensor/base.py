"""The base class of DTensor operations: functions called with distributed and with plain tensors.

Result and gradient are compared with the same function of plain tensors in float64. The allowed error
is that of ``docs/verdict.md``: a small multiple of the larger of two errors, that of the plain function
in the case's own dtype, and that of one more sum over the ranks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from distparity.core.known_limit import Limit
from distparity.operations.arithmetic import wide
from distparity.operations.base import Check, Exact, Operation, Request, Site, Tensors, seeded
from distparity.torch_support import private
from distparity.verification.constants import FACTOR

try:
    from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor
except ImportError:  # its name before 2.5
    from torch.distributed._tensor import (
        DTensor,
        Partial,
        Replicate,
        Shard,
        distribute_tensor,
    )

__all__ = ["OfSubject", "Subject", "TensorOperation"]

Function = Callable[..., Any]

#: Columns of most inputs; every world size that is a power of two divides it.
COLUMNS = 8
#: The number of rows: divisible by the world size, and not divisible.
_ROWS = 8
_UNEVEN = 7


@dataclass(frozen=True)
class _Kind:
    """An input: its shape (0 means the number of rows), its distribution of random values, and
    whether it is placed as the case says or replicated.
    """

    shape: tuple[int, ...]
    drawn: str = "normal"
    follows: bool = True

    def draw(self, generator: torch.Generator, rows: int) -> torch.Tensor:
        shape = tuple(rows if size == 0 else size for size in self.shape)
        if self.drawn == "label":
            return torch.randint(0, COLUMNS, shape, generator=generator)
        drawn = torch.randn(shape, generator=generator, dtype=torch.float64)
        return drawn.abs() + 0.5 if self.drawn == "positive" else drawn


#: The inputs that a subject can use; 0 means the number of rows.
KINDS = {
    "x": _Kind((0, COLUMNS)),
    "y": _Kind((0, COLUMNS)),
    "positive": _Kind((0, COLUMNS), "positive"),
    "cube": _Kind((0, 4, COLUMNS)),
    "heads": _Kind((0, 2, 4, COLUMNS)),
    "labels": _Kind((0,), "label"),
    "whole": _Kind((0, COLUMNS), follows=False),
    "weight": _Kind((6, COLUMNS), follows=False),
    "table": _Kind((COLUMNS, 6), follows=False),
    "bias": _Kind((COLUMNS,), follows=False),
    "short": _Kind((6,), follows=False),
}


@dataclass(frozen=True)
class Subject:
    """A function and the kinds of its inputs, by their names in :data:`KINDS`."""

    name: str
    function: Function
    inputs: tuple[str, ...] = ("x",)


class TensorOperation(Operation):
    """Several functions of one family. A subclass lists its subjects."""

    ways = (
        "shard",
        "shard_uneven",
        "shard_empty",
        "shard_last",
        "replicate",
        "partial",
        "partial_avg",
    )
    # A world of four ranks adds only other shards; only the full selection has it.
    default_ranks = 2
    pairs_only = ("shard", "shard_empty", "replicate", "partial", "partial_avg")
    subjects: ClassVar[tuple[Subject, ...]]
    limits: ClassVar[tuple[Limit, ...]] = (
        Limit(
            fact="an operator without a rule in DTensor",
            answer=r"does not have a sharding strategy registered",
        ),
        Limit(
            fact="a view that would need data of other ranks",
            answer=r"Cannot (un)?flatten unevenly sharded|cannot be performed without redistribution"
            r"|would remove or reshape sharded dimension|Attempted to (un)?flatten"
            r"|explicitly before unbinding",
        ),
        Limit(
            fact="an operation in place on a sum or a mean over the ranks",
            answer=r"in-place operations that require placement changes are not supported",
        ),
        Limit(
            fact="a function that makes plain tensors beside the distributed ones",
            answer=r"got mixed torch.Tensor and DTensor",
        ),
        Limit(
            fact="parts of a tensor that is a sum over the ranks",
            answer=r"splitting distributed tensor with Partial placement is not implemented",
        ),
        Limit(
            fact="a view of uneven shards",
            # Later releases refuse explicitly, with the answer above.
            answer=r"shape '\[.*\]' is invalid for input of size|view size is not compatible",
            before=(2, 8),
            feature="shard_uneven",
        ),
        Limit(
            fact="a replicated tensor beside a mean over the ranks",
            answer=r"only support replicate to PartialSUM for now",
            before=(2, 10),
        ),
        Limit(
            fact="a sum over the ranks beside a mean over them",
            answer=r"Redistribution from one partial type \(.*\) to another \(.*\) is unsupported",
            before=(2, 12),
        ),
        Limit(
            fact="a mean over the ranks on this backend",
            answer=r"Cannot use ReduceOp.AVG with Gloo",
            before=(2, 8),
        ),
    )

    def checks(self, request: Request) -> Iterator[Check]:
        for subject in self.subjects:
            yield OfSubject(subject, request, self._rows(request))

    def _rows(self, request: Request) -> int:
        if request.way == "shard_empty":
            # The last rank has no rows.
            return max(1, request.ranks - 1)
        return _UNEVEN if request.way == "shard_uneven" else _ROWS


class OfSubject(Check):
    """A subject's function, of distributed and of plain tensors."""

    def __init__(self, subject: Subject, request: Request, rows: int) -> None:
        self.subject = subject
        self.request = request
        self.rows = rows
        self.name = subject.name
        self.features = (subject.name, request.way)
        self._inputs: list[tuple[_Kind, list[torch.Tensor]]] | None = None
        self._expected: dict[str, Exact] | None = None

    @property
    def is_partial(self) -> bool:
        return self.request.way.startswith("partial")

    # -- the data ------------------------------------------------------------------------------

    def inputs(self) -> list[tuple[_Kind, list[torch.Tensor]]]:
        """Each input in the case's dtype: one part per rank, or a list with only the full tensor."""
        if self._inputs is None:
            self._inputs = [
                (KINDS[name], self._parts(number, KINDS[name]))
                for number, name in enumerate(self.subject.inputs)
            ]
        return self._inputs

    def _parts(self, number: int, kind: _Kind) -> list[torch.Tensor]:
        generator = seeded(self.request.seed, self.subject.name, number)
        labels = kind.drawn == "label"
        split = self.is_partial and kind.follows and not labels
        drawn = [kind.draw(generator, self.rows) for _ in range(self.request.ranks if split else 1)]
        return drawn if labels else [part.to(self.request.dtype) for part in drawn]

    def whole(self) -> list[torch.Tensor]:
        """Each input as one plain tensor, in float64 or int64."""
        found = []
        for _, parts in self.inputs():
            stack = torch.stack([wide(part) for part in parts])
            mean = len(parts) > 1 and self.request.way == "partial_avg"
            found.append(stack.mean(0) if mean else stack.sum(0))
        return found

    def partners(self, rank: int) -> range:
        return range(self.request.ranks)

    # -- in a rank -----------------------------------------------------------------------------

    def run(self, site: Site) -> Tensors:
        # The result of a check must not depend on other checks.
        private.forget_dtensor()
        mesh = _mesh(site.context.device.type, site.context.world_size)
        leaves = [self._distribute(site, mesh, kind, parts) for kind, parts in self.inputs()]
        found = self._evaluate(leaves, site.context.device)
        if site.fault is not None:
            site.fault.made(self, found)
        return found

    def _distribute(
        self, site: Site, mesh: DeviceMesh, kind: _Kind, parts: list[torch.Tensor]
    ) -> torch.Tensor:
        if len(parts) > 1:
            mine = parts[site.rank].to(site.context.device)
            how = Partial("avg" if self.request.way == "partial_avg" else "sum")
            leaf = DTensor.from_local(mine, mesh, [how])
        else:
            tensor = parts[0].to(site.context.device)
            leaf = distribute_tensor(tensor, mesh, [self._placement(kind, tensor)])
        if site.fault is not None:
            site.fault.part(self, site.rank, leaf.to_local())
        return leaf

    def placements(self) -> list[str]:
        """How each input is placed, as Python writes it."""
        mean = self.request.way == "partial_avg"
        return [
            f"Partial({'avg' if mean else 'sum'!r})"
            if len(parts) > 1
            else "Replicate()"
            if self._placement(kind, parts[0]) == Replicate()
            else f"Shard({self._placement(kind, parts[0]).dim})"
            for kind, parts in self.inputs()
        ]

    def _placement(self, kind: _Kind, tensor: torch.Tensor) -> Any:
        if not kind.follows or self.is_partial or self.request.way == "replicate":
            return Replicate()
        last = self.request.way == "shard_last"
        if last and kind.drawn == "label":
            return Replicate()
        return Shard(tensor.dim() - 1 if last else 0)

    def _evaluate(self, leaves: list[torch.Tensor], device: torch.device) -> Tensors:
        """The results, and except for partial inputs, the gradients of a weighted sum of them."""
        tracked = [] if self.is_partial else [t for t in leaves if t.is_floating_point()]
        for leaf in tracked:
            leaf.requires_grad_()
        results = self.subject.function(*leaves)
        results = list(results) if isinstance(results, (tuple, list)) else [results]
        full = [
            result.full_tensor() if isinstance(result, DTensor) else result for result in results
        ]
        found = {f"result {n}": tensor.detach().cpu() for n, tensor in enumerate(full)}
        loss: Any = sum(
            (tensor * self._weights(n, tensor).to(device)).sum()
            for n, tensor in enumerate(full)
            if tensor.requires_grad
        )
        if tracked and isinstance(loss, torch.Tensor):
            loss.backward()
            for n, leaf in enumerate(tracked):
                grad = leaf.grad
                if grad is not None:
                    whole = grad.full_tensor() if isinstance(grad, DTensor) else grad
                    found[f"gradient {n}"] = whole.detach().cpu()
        return found

    def _weights(self, number: int, like: torch.Tensor) -> torch.Tensor:
        generator = seeded(self.request.seed, self.subject.name, "weights", number)
        drawn = torch.randn(like.shape, generator=generator, dtype=torch.float64)
        return (drawn + drawn.sign()).to(self.request.dtype).to(like.dtype)

    # -- in the judge --------------------------------------------------------------------------

    def expected(self, rank: int) -> dict[str, Exact]:
        if self._expected is None:
            self._expected = self._expect()
        return self._expected

    def _expect(self) -> dict[str, Exact]:
        whole = self.whole()
        exact = self._plainly(whole)
        native = self._plainly([self._narrow(tensor) for tensor in whole])
        # The scale of the terms, which may cancel in the result; it is exact for linear functions.
        terms = self._plainly([t.abs() if t.is_floating_point() else t for t in whole])
        found = {}
        for name, value in exact.items():
            if not value.is_floating_point() or not value.numel():
                found[name] = Exact(wide(value), native[name].dtype)
                continue
            scale = max(float(value.abs().max()), float(terms[name].abs().max()))
            error = float((native[name].double() - value).abs().max())
            roundoff = torch.finfo(native[name].dtype).eps / 2
            allowed = FACTOR * max(self.request.ranks * roundoff * scale, error)
            found[name] = Exact(value, native[name].dtype, torch.tensor(allowed).double())
        return found

    def _narrow(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.to(self.request.dtype) if tensor.is_floating_point() else tensor

    def _plainly(self, whole: list[torch.Tensor]) -> Tensors:
        return self._evaluate([tensor.clone() for tensor in whole], torch.device("cpu"))


@cache
def _mesh(device: str, ranks: int) -> DeviceMesh:
    assert dist.is_initialized()
    return init_device_mesh(device, (ranks,))
