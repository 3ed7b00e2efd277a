"""Every operator of torch's registry, with distributed inputs, held against the plain operator.

A case is one operator in one world. Its checks are the product of the operator's samples, the placements
of its inputs and the meshes of the world, thinned out: each input in every placement while the others
are replicated, all inputs placed alike, and some drawn combinations. A check's name is its sample, the
placements of the inputs, and what was asked: ``3 on 2: S0,R gradient``.

Numbers are float64 and the parts of an input add up to it exactly, so that only wrong arithmetic can be
off by more than float32's rounding, which is what is allowed.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch.utils._pytree import tree_flatten, tree_map

from distparity.operations.arithmetic import wide
from distparity.operations.base import Check, Exact, Request, Site, Tensors, seeded
from distparity.operations.fault import Fault
from distparity.operations.generated import samples
from distparity.operations.generated.guard import (
    MESHES,
    Generated,
    GuardedCheck,
    RaisedError,
    asked,
    mesh_of,
    place_of,
    waited,
)
from distparity.operations.generated.placing import DTensor, joined, part
from distparity.verification.constants import FACTOR

__all__ = ["OfSample", "Operator"]

#: One dim of a mesh, by the number of ranks.
_SLICES = {4: ("2x2.b",)}
_PARTIAL = ("Psum", "Pavg", "Pmax", "Pmin")
#: Samples of one operator that run with integers and complex numbers, and on meshes of four ranks.
_FEW = 4
#: Views whose result shares memory with their input, so that writing to it writes to the input.
_VIEWS = {
    *(
        "T",
        "mT",
        "t",
        "transpose",
        "permute",
        "movedim",
        "narrow",
        "select",
        "squeeze",
        "unsqueeze",
    ),
    *("squeeze.multiple", "diagonal", "unflatten", "view", "view_as", "split", "split.list_args"),
    *("chunk", "unbind", "tensor_split", "split_with_sizes", "hsplit", "vsplit", "__getitem__"),
}
#: The result that says that torch refused the gradients.
_REFUSED = "gradient, refused"
#: The unit roundoff of float32.
_ROUNDOFF = torch.finfo(torch.float32).eps / 2


class Operator(Generated):
    name = "operator"
    ways: ClassVar[tuple[str, ...]] = tuple(samples.load())
    selection = "generated"
    dtypes = ("float64",)
    worlds = tuple(MESHES)

    def checks(self, request: Request) -> Iterator[Check]:
        operator = _Operator(request.way, request.seed)
        for mesh in (*MESHES[request.ranks], *_SLICES.get(request.ranks, ())):
            yield from operator.checks(request, mesh)


@dataclass(frozen=True)
class _Operator:
    """One operator: its samples, and the checks of them."""

    name: str
    seed: int

    @property
    def what(self) -> dict[str, Any]:
        found: dict[str, Any] = samples.load()[self.name]
        return found

    def checks(self, request: Request, mesh: str) -> Iterator[Check]:
        every = [
            _Sample(self.name, n, "float64", self.seed) for n in range(len(self.what["samples"]))
        ]
        for sample in every if mesh == "2" else every[:_FEW]:
            for how in _covering(sample, mesh):
                yield _Forward(request, sample, mesh, how)
            if mesh == "2":
                yield from self._variants(request, sample)
        if mesh == "2":
            yield from self._again(request, every)
            for kind in ("int64", "complex128"):
                if kind in self.what["kinds"]:
                    for sample in every[:_FEW]:
                        other = replace(sample, dtype=kind)
                        for how in _alone(other, 0, "2"):
                            yield _Forward(request, other, mesh, how)

    def _variants(self, request: Request, sample: _Sample) -> Iterator[Check]:
        """In place, into a given tensor, and through a view; the first input in each placement."""
        for how in _alone(sample, 0, "2")[: 4 if sample.number < _FEW else 2]:
            if self.what["inplace"] and sample.kinds[:1] == ["float"]:
                yield _InPlace(request, sample, "2", how)
            if self.what["out"] and sample.number < _FEW:
                yield _Out(request, sample, "2", how, "R" if how[0] == "R" else "S0")
            if self.name in _VIEWS and sample.number < 2 * _FEW:
                yield _Write(request, sample, "2", how)
        if sample.shapes and len(sample.shapes[0]) > 1 and sample.number < _FEW:
            for how in _alone(sample, 0, "2")[:2]:
                yield _Forward(request, sample, "2", how, transposed=True)

    def _again(self, request: Request, every: list[_Sample]) -> Iterator[Check]:
        """A sample after another one with inputs of the same shapes: DTensor may remember too much."""
        for first in every:
            alike = [s for s in every if s.shapes == first.shapes and s.number > first.number]
            for second in alike[:1]:
                for how in _alone(first, 0, "2")[:1]:
                    yield _Forward(request, second, "2", how, after=first)
                    yield _Forward(request, first, "2", how, after=second)


@dataclass(frozen=True)
class _Sample:
    """One sample of an operator, with numbers of one dtype."""

    operator: str
    number: int
    dtype: str
    seed: int
    #: The right results, by what is asked: they do not depend on placements.
    known: dict[str, dict[str, Exact] | None] = field(
        default_factory=dict, init=False, compare=False
    )

    @property
    def data(self) -> dict[str, Any]:
        found: dict[str, Any] = samples.load()[self.operator]["samples"][self.number]
        return found

    @cached_property
    def plain(self) -> tuple[list[Any], dict[str, Any]]:
        return samples.build(self.data, self.dtype, self.seed)

    @cached_property
    def tensors(self) -> list[torch.Tensor]:
        return [one for one in tree_flatten(self.plain)[0] if isinstance(one, torch.Tensor)]

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        return [tuple(one.shape) for one in self.tensors]

    @property
    def kinds(self) -> list[str]:
        return [
            "float" if one.dtype.is_floating_point or one.is_complex() else "index"
            for one in self.tensors
        ]

    @property
    def call_name(self) -> str:
        """The function's name in the registry."""
        found: str = samples.load()[self.operator]["call"]
        return found

    def function(self) -> Callable[..., Any]:
        return samples.resolve(self.call_name)

    def call(
        self, tensors: list[torch.Tensor], function: Callable[..., Any] | None = None, **more: Any
    ) -> list[Any]:
        """The results of the operator with these tensors in place of the sample's, in order."""
        left = iter(tensors)
        args, kwargs = tree_map(
            lambda one: next(left) if isinstance(one, torch.Tensor) else copy.copy(one), self.plain
        )
        found = (function or self.function())(*args, **kwargs, **more)
        return list(tree_flatten(found)[0])


# -- which placements ------------------------------------------------------------------------------


def _options(sample: _Sample, n: int, mesh: str) -> list[str]:
    """The placements of one input."""
    dims = len(sample.shapes[n])
    shards = [f"S{dim}" for dim in sorted({*range(min(dims, 3)), *([dims - 1] if dims else [])})]
    terms = list(_PARTIAL) if sample.kinds[n] == "float" or sample.dtype == "int64" else []
    if sample.tensors[n].dtype is torch.bool:
        terms = []
    if sample.tensors[n].is_complex():
        terms = ["Psum", "Pavg"]
    if mesh in ("2", "2x2.b"):
        return ["R", *shards, *terms]
    if mesh == "4":
        return [*shards, *terms[:1]]
    first, last = shards[:1], shards[-1:]
    pairs = [f"{s}.{s}" for s in first] + [f"{a}.{b}" for a in first for b in last if a != b]
    pairs += [f"X{s[1:]}.{s}" for s in first] + [f"R.{s}" for s in first]
    pairs += [f"{p}.{s}" for p in terms[:1] for s in first]
    pairs += [f"{s}.{p}" for p in terms[:1] for s in last]
    return pairs


def _neutral(mesh: str) -> str:
    return "R.R" if mesh == "2x2" else "R"


def _alone(sample: _Sample, n: int, mesh: str) -> list[tuple[str, ...]]:
    """Input ``n`` in each placement, the others replicated."""
    if n >= len(sample.shapes):
        return []
    rest = [_neutral(mesh)] * len(sample.shapes)
    found = [(*rest[:n], how, *rest[n + 1 :]) for how in _options(sample, n, mesh)]
    # What is most used comes first: the caller may take only some.
    return sorted(found, key=lambda hows: hows[n][0] not in "SX")


def _covering(sample: _Sample, mesh: str) -> list[tuple[str, ...]]:
    count = len(sample.shapes)
    found = dict.fromkeys(_alone(sample, 0, mesh)[: 2 if mesh == "2x2.b" else None])
    for n in range(1, min(count, 4)):
        found.update(dict.fromkeys(_alone(sample, n, mesh)[: 4 if mesh == "2" else 1]))
    if count > 1:
        most = max(map(len, sample.shapes))
        for dim in range(most):
            found[_alike(sample, mesh, dim, None)] = None
            # Counted from the last dim, as broadcasting does.
            found[_alike(sample, mesh, dim, most)] = None
        chance = random.Random(f"{sample.operator} {sample.number} {mesh}")  # noqa: S311
        for _ in range(3 if mesh == "2" else 1):
            drawn = [
                chance.choice(_options(sample, n, mesh) or [_neutral(mesh)]) for n in range(count)
            ]
            found[tuple(drawn)] = None
    return list(found)


def _alike(sample: _Sample, mesh: str, dim: int, most: int | None) -> tuple[str, ...]:
    """All inputs sharded on one dim; counted from the last of ``most`` dims, unless that is None."""
    found = []
    for shape in sample.shapes:
        own = dim if most is None else len(shape) - most + dim
        one = f"S{own}" if 0 <= own < len(shape) and shape[own] != 1 else "R"
        found.append(f"R.{one}" if mesh == "2x2" else one)
    return tuple(found)


# -- the checks ------------------------------------------------------------------------------------


class OfSample(GuardedCheck):
    #: What is asked, in the check's name.
    word: ClassVar[str] = ""

    def __init__(
        self,
        request: Request,
        sample: _Sample,
        mesh: str,
        how: tuple[str, ...],
        word: str = "",
    ) -> None:
        self.request, self.sample, self.mesh, self.how = request, sample, mesh, how
        kind = "" if sample.dtype == "float64" else f"{sample.dtype} "
        self.name = f"{kind}{sample.number} on {mesh}: {','.join(how)} {word or self.word}".strip()

    # -- in a rank -----------------------------------------------------------------------------

    def leaves(
        self, site: Site, sample: _Sample, *, transposed: bool = False
    ) -> list[torch.Tensor]:
        """The inputs as DTensors."""
        mesh = mesh_of(site, self.mesh)
        sizes, at = place_of(mesh)
        found = []
        for n, (whole, how) in enumerate(zip(sample.tensors, self.how, strict=True)):
            mine = part(whole, how, sizes, at, self.request.seed)
            stride = whole.contiguous().stride()
            if transposed and n == 0:
                mine = mine.mT.contiguous().mT
                stride = whole.mT.contiguous().mT.stride()
            local = mine.to(site.context.device)
            if site.fault is not None:
                site.fault.part(self, site.rank, local)
            found.append(joined(local, mesh, how, whole.shape, stride))
        return found

    def finish(self, site: Site, found: Tensors) -> Tensors:
        if site.fault is not None:
            site.fault.made(self, found)
        return found

    # -- in the judge --------------------------------------------------------------------------

    def evaluate(self, tensors: list[torch.Tensor]) -> Tensors:
        """What is right, by the plain operator with these inputs."""
        raise NotImplementedError

    def is_defined(self) -> bool:
        return self._right() is not None

    def expected(self, rank: int) -> dict[str, Exact]:
        return self._right() or {}

    def _right(self) -> dict[str, Exact] | None:
        known = self.sample.known
        if self.question not in known:
            known[self.question] = self._compute()
        return known[self.question]

    @property
    def question(self) -> str:
        """What the right results of a sample depend on."""
        return type(self).__name__

    def _compute(self) -> dict[str, Exact] | None:
        exact = self._try([one.clone() for one in self.sample.tensors])
        if not exact or (
            self.sample.dtype != "float64" and not all(map(_is_finite, exact.values()))
        ):
            # Samples have finite results with float64; with other dtypes of numbers they may divide by 0.
            return None
        narrow = self._try(
            [_to(one, torch.float32, torch.complex64) for one in self.sample.tensors]
        )
        terms = self._try([_abs(one) for one in self.sample.tensors])
        return {name: _allowing(name, value, narrow, terms) for name, value in exact.items()}

    def _try(self, tensors: list[torch.Tensor]) -> Tensors:
        try:
            return self.evaluate(tensors)
        except Exception:
            return {}


def _to(one: torch.Tensor, real: torch.dtype, other: torch.dtype) -> torch.Tensor:
    return (
        one.to(other)
        if one.is_complex()
        else one.to(real)
        if one.is_floating_point()
        else one.clone()
    )


def _abs(one: torch.Tensor) -> torch.Tensor:
    return one.abs().to(one.dtype) if one.is_floating_point() or one.is_complex() else one.clone()


def _allowing(name: str, value: torch.Tensor, narrow: Tensors, terms: Tensors) -> Exact:
    """What float32 would be off by, though the numbers are float64; or a narrower result's own dtype."""
    if not value.is_floating_point() or not value.numel():
        return Exact(wide(value), value.dtype)
    roundoff = max(_ROUNDOFF, torch.finfo(value.dtype).eps / 2)
    sizes = [
        float(one.double().abs().nan_to_num(0, 0, 0).max())
        for one in (value, terms.get(name, value))
        if one.numel()
    ]
    native = narrow.get(name)
    error = 0.0
    if native is not None and native.shape == value.shape:
        error = float((native.double() - value.double()).abs().nan_to_num(0, 0, 0).max())
    allowed = FACTOR * max(2 * roundoff * max(sizes), error)
    return Exact(value.double(), value.dtype, torch.tensor(max(allowed, 1e-12)).double())


def _is_finite(value: torch.Tensor) -> bool:
    return not value.is_floating_point() or bool(value.isfinite().all())


def _directly(call: Callable[[], Any]) -> Any:
    return call()


def _shapes(results: list[Any], prefix: str = "result") -> Tensors:
    """The shapes that results say they have."""
    return {
        f"shape of {prefix} {n}": torch.tensor(tuple(result.shape), dtype=torch.int64)
        for n, result in enumerate(results)
        if isinstance(result, torch.Tensor)
    }


def _record(results: list[torch.Tensor], prefix: str) -> Tensors:
    """Results by name, as plain tensors on the CPU, and their shapes."""
    found = _shapes(results, prefix)
    for n, result in enumerate(results):
        full = asked(result.full_tensor) if isinstance(result, DTensor) else result
        found[f"{prefix} {n}"] = _real(full)
    return found


def _real(tensor: torch.Tensor) -> torch.Tensor:
    tensor = tensor.detach().cpu()
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor.resolve_conj())
    return tensor.resolve_neg().clone(memory_format=torch.contiguous_format)


class _Forward(OfSample):
    """The results, and the gradients of a weighted sum of them."""

    def __init__(
        self,
        request: Request,
        sample: _Sample,
        mesh: str,
        how: tuple[str, ...],
        *,
        transposed: bool = False,
        after: _Sample | None = None,
    ) -> None:
        word = "transposed" if transposed else "" if after is None else f"after {after.number}"
        super().__init__(request, sample, mesh, how, word)
        self.transposed, self.after = transposed, after

    @property
    def question(self) -> str:
        return "results" if self.after is None else "results alone"

    def act(self, site: Site) -> Tensors:
        first = self.after
        if first is not None:
            with torch.no_grad():
                before = self.leaves(site, first)
                asked(lambda: first.call(before))
        leaves = self.leaves(site, self.sample, transposed=self.transposed)
        return self.finish(site, self._both(leaves, asked, site.fault))

    def evaluate(self, tensors: list[torch.Tensor]) -> Tensors:
        return self._both(tensors, _directly)

    def refused_part(self, own: Mapping[str, torch.Tensor | None]) -> tuple[str, str] | None:
        text = own.get(_REFUSED)
        if text is None:
            return None
        words = bytes(text.tolist()).decode(errors="replace")
        return "gradient", f"torch {torch.__version__} says {words}"

    def _both(
        self, leaves: list[torch.Tensor], ask: Callable[..., Any], fault: Fault | None = None
    ) -> Tensors:
        old = [_local(leaf).clone() for leaf in leaves]
        tracked = {}
        if self.sample.dtype != "int64" and self.after is None:
            tracked = {n: leaf for n, leaf in enumerate(leaves) if self.sample.kinds[n] == "float"}
        for leaf in tracked.values():
            leaf.requires_grad_()
        results = ask(lambda: self.sample.call(leaves))
        if fault is not None:
            results = [fault.distributed(one) for one in results]
        found = _shapes(results)
        full = [ask(one.full_tensor) if isinstance(one, DTensor) else one for one in results]
        for n, one in enumerate(full):
            if one is not None:
                found[f"result {n}"] = _real(torch.as_tensor(one))
        for n, (leaf, before) in enumerate(zip(leaves, old, strict=True)):
            found[f"input {n} is unchanged"] = torch.tensor(_same(_local(leaf), before))
        loss: Any = sum(
            _product(one, n, self.request.seed).sum()
            for n, one in enumerate(full)
            if isinstance(one, torch.Tensor) and one.requires_grad
        )
        if isinstance(loss, torch.Tensor):
            try:
                found |= self._gradients(loss, tracked, ask)
            except RaisedError as error:
                if waited(str(error)):
                    raise
                words = list(str(error).encode())
                found[_REFUSED] = torch.tensor(words, dtype=torch.uint8)
        return found

    def _gradients(
        self, loss: torch.Tensor, tracked: dict[int, torch.Tensor], ask: Callable[..., Any]
    ) -> Tensors:
        ask(loss.backward)
        found: Tensors = {}
        for n, leaf in tracked.items():
            grad = leaf.grad
            if isinstance(grad, DTensor):
                grad = ask(grad.full_tensor)
            if grad is None:
                grad = torch.zeros(self.sample.shapes[n], dtype=leaf.dtype)
            found[f"gradient of input {n}"] = _real(grad)
        return found


def _same(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.shape == other.shape and torch.equal(
        _real(one).nan_to_num(0.5), _real(other).nan_to_num(0.5)
    )


def _local(tensor: torch.Tensor) -> torch.Tensor:
    local: torch.Tensor = tensor.to_local() if isinstance(tensor, DTensor) else tensor
    return local.detach()


def _product(one: torch.Tensor, n: int, seed: int) -> torch.Tensor:
    generator = seeded(seed, "weights", n)
    drawn = torch.randn(one.shape, generator=generator, dtype=torch.float64)
    weights = (drawn + drawn.sign()).to(one.device)
    if one.is_complex():
        return (one.real + 0.5 * one.imag) * weights.to(one.real.dtype)
    return one * weights.to(one.dtype)


class _Changing(OfSample):
    """A call that writes to its first input."""

    def act(self, site: Site) -> Tensors:
        with torch.no_grad():
            leaves = self.leaves(site, self.sample)
            return self.finish(site, self.changed(leaves, asked))

    def evaluate(self, tensors: list[torch.Tensor]) -> Tensors:
        return self.changed(tensors, _directly)

    def changed(self, leaves: list[torch.Tensor], ask: Callable[..., Any]) -> Tensors:
        """Make the call through ``ask``; returns the input afterwards."""
        raise NotImplementedError


class _InPlace(_Changing):
    word = "in place"

    def changed(self, leaves: list[torch.Tensor], ask: Callable[..., Any]) -> Tensors:
        name = self.sample.call_name.rpartition(".")[2]

        def method(first: Any, *rest: Any, **words: Any) -> Any:
            return getattr(first, f"{name}_")(*rest, **words)

        ask(lambda: self.sample.call(leaves, method))
        return _record(leaves[:1], "changed input")


class _Out(OfSample):
    def __init__(
        self, request: Request, sample: _Sample, mesh: str, how: tuple[str, ...], out: str
    ) -> None:
        super().__init__(request, sample, mesh, how, f"out {out}")
        self.out = out

    def act(self, site: Site) -> Tensors:
        with torch.no_grad():
            leaves = self.leaves(site, self.sample)
            mesh = mesh_of(site, self.mesh)
            sizes, at = place_of(mesh)
            plain = [one.clone() for one in self.sample.tensors]
            places = []
            for like in asked(lambda: self.sample.call(plain)):
                how = self.out if like.dim() else "R"
                whole = torch.full_like(like, 77)
                mine = part(whole, how, sizes, at, 0).to(site.context.device)
                places.append(joined(mine, mesh, how, whole.shape, whole.contiguous().stride()))
            out = places[0] if len(places) == 1 else tuple(places)
            asked(lambda: self.sample.call(leaves, out=out))
            return self.finish(site, _record(places, "out"))

    def evaluate(self, tensors: list[torch.Tensor]) -> Tensors:
        with torch.no_grad():
            return _record(self.sample.call(tensors), "out")


class _Write(_Changing):
    word = "written through"

    def changed(self, leaves: list[torch.Tensor], ask: Callable[..., Any]) -> Tensors:
        views = ask(lambda: self.sample.call(leaves))
        ask(lambda: views[0].mul_(3))
        return _record(leaves[:1], "input")
