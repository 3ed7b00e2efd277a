"""Where plain tensors become distributed and distributed ones plain, with gradients.

Each rank knows the whole tensor, and so its own part in every placement. A gradient is that of a loss
that all ranks compute alike, of weights times the whole tensor; where ranks have parts of a loss, of
weights times the rank's own part.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from distparity.operations.arithmetic import wide
from distparity.operations.base import Check, Exact, Request, Site, Tensors, seeded
from distparity.operations.generated.guard import MESHES, Generated, GuardedCheck, asked, mesh_of
from distparity.operations.generated.placing import joined, part, placements
from distparity.verification.constants import FACTOR

try:
    from torch.distributed.tensor import distribute_tensor
except ImportError:  # its name before 2.5
    from torch.distributed._tensor import distribute_tensor

__all__ = ["Boundary", "Crossing"]

#: Even and uneven for two and four ranks, with none for the last; and without dims.
_SHAPES: tuple[tuple[int, ...], ...] = ((4, 8), (5, 3), (1, 6), (7,), ())
_MOVES = ("redistribute", "redistribute_async")
_TERMS = ("Psum", "Pavg", "Pmax", "Pmin")


class Boundary(Generated):
    name = "boundary"
    ways = (
        "redistribute",
        "redistribute_async",
        "full_tensor",
        "to_local",
        "to_local_terms",
        "from_local",
        "round_trip",
        "distribute_tensor",
    )
    dtypes = ("float64",)
    worlds = tuple(MESHES)

    def checks(self, request: Request) -> Iterator[Check]:
        for mesh in MESHES[request.ranks]:
            for shape in _SHAPES:
                sources = _placements(shape, mesh)
                for source in sources:
                    ends = _ends(sources, mesh, shape) if request.way in _MOVES else [""]
                    for end in ends:
                        if _makes_sense(request.way, source):
                            yield Crossing(request, mesh, shape, source, end)


def _ends(sources: list[str], mesh: str, shape: tuple[int, ...]) -> list[str]:
    """What a source is redistributed to: on two dims of a mesh, everything for two shapes only."""
    return sources if mesh != "2x2" or shape in _SHAPES[:2] else sources[:2]


def _placements(shape: tuple[int, ...], mesh: str) -> list[str]:
    shards = [f"S{dim}" for dim in range(len(shape))]
    if mesh != "2x2":
        return ["R", *shards, *_TERMS]
    pairs = [f"{a}.{b}" for a in ("R", *shards, "Psum") for b in ("R", *shards, "Psum")]
    return [*pairs, *(f"X{s[1:]}.{s}" for s in shards), "Psum.Pmax"][: None if shape else 2]


def _makes_sense(way: str, source: str) -> bool:
    words = source.split(".")
    if way == "distribute_tensor":
        # A plain tensor is whole.
        return not any(word[0] in "PX" for word in words)
    if way == "to_local_terms":
        return set(words) == {"R"}
    if way in ("from_local", "to_local", "round_trip"):
        # The gradient of a term of a mean or a maximum is a matter of convention.
        return not any(word[0] == "P" and word != "Psum" for word in words)
    return True


class Crossing(GuardedCheck):
    """One tensor across one boundary."""

    def __init__(
        self, request: Request, mesh: str, shape: tuple[int, ...], source: str, end: str
    ) -> None:
        self.request, self.mesh, self.shape = request, mesh, shape
        self.source, self.end = source, end
        size = "x".join(map(str, shape)) or "0-d"
        self.name = f"{size} on {mesh}: {source}" + (f" to {end}" if end else "")

    @property
    def sizes(self) -> tuple[int, ...]:
        return tuple(map(int, self.mesh.split("x")))

    def at(self, rank: int) -> tuple[int, ...]:
        if len(self.sizes) == 1:
            return (rank,)
        return (rank // self.sizes[1], rank % self.sizes[1])

    def whole(self) -> torch.Tensor:
        generator = seeded(self.request.seed, self.shape)
        drawn = torch.randn(self.shape, generator=generator, dtype=torch.float64)
        return (drawn * 1024).round() / 1024

    def weights(self, *words: Any) -> torch.Tensor:
        generator = seeded(self.request.seed, self.shape, "weights", *words)
        return torch.randint(-9, 10, self.shape, generator=generator).double()

    def mine(self, rank: int, how: str, whole: torch.Tensor) -> torch.Tensor:
        return part(whole, how, self.sizes, self.at(rank), self.request.seed)

    # -- in a rank -----------------------------------------------------------------------------

    def act(self, site: Site) -> Tensors:
        found = getattr(self, f"_{self.request.way}")(site)
        if site.fault is not None:
            site.fault.made(self, found)
        return {name: tensor.detach().cpu().clone() for name, tensor in found.items()}

    def _leaf(self, site: Site, local: torch.Tensor) -> Any:
        mesh, whole = mesh_of(site, self.mesh), self.whole()
        if site.fault is not None:
            site.fault.part(self, site.rank, local)
        local = local.to(site.context.device)
        return joined(local, mesh, self.source, whole.shape, whole.stride())

    def _local(self, site: Site) -> torch.Tensor:
        return self.mine(site.rank, self.source, self.whole())

    def _redistribute(self, site: Site, **more: Any) -> Tensors:
        leaf = self._leaf(site, self._local(site)).requires_grad_()
        mesh, to = mesh_of(site, self.mesh), placements(self.end, self.sizes)
        moved = asked(lambda: leaf.redistribute(mesh, to, **more))
        found = {"whole": asked(moved.full_tensor)}
        if "P" not in self.end:
            # A sum may be split into any terms.
            found["part"] = asked(moved.to_local)
        # What is asynchronous is waited for here.
        terms = asked(lambda: found["whole"] * self._here(leaf, self.weights()))
        return found | self._gradient(leaf, terms)

    def _redistribute_async(self, site: Site) -> Tensors:
        return self._redistribute(site, async_op=True)

    def _full_tensor(self, site: Site) -> Tensors:
        leaf = self._leaf(site, self._local(site)).requires_grad_()
        found = {"whole": asked(leaf.full_tensor)}
        return found | self._gradient(leaf, found["whole"] * self._here(leaf, self.weights()))

    def _to_local(self, site: Site) -> Tensors:
        leaf = self._leaf(site, self._local(site)).requires_grad_()
        found = {"part": asked(leaf.to_local)}
        mine = self._here(leaf, self.mine(site.rank, self.linear, self.weights()))
        return found | self._gradient(leaf, found["part"] * mine)

    def _to_local_terms(self, site: Site) -> Tensors:
        """Every rank has its own term of the loss, and says so."""
        leaf = self._leaf(site, self._local(site)).requires_grad_()
        terms = placements(".".join(["Psum"] * len(self.sizes)), self.sizes)
        found = {"part": asked(lambda: leaf.to_local(grad_placements=terms))}
        mine = self._here(leaf, self.weights(site.rank))
        return found | self._gradient(leaf, found["part"] * mine)

    def _from_local(self, site: Site) -> Tensors:
        local = self._local(site).to(site.context.device).requires_grad_()
        whole = asked(self._leaf(site, local).full_tensor)
        loss = (whole * self._here(whole, self.weights())).sum()
        asked(loss.backward)
        grad = torch.zeros_like(local) if local.grad is None else local.grad
        return {"whole": whole, "gradient of the part": grad}

    def _round_trip(self, site: Site) -> Tensors:
        leaf = self._leaf(site, self._local(site)).requires_grad_()
        mesh = mesh_of(site, self.mesh)
        local = asked(leaf.to_local)
        again = joined(local, mesh, self.source, leaf.shape, leaf.stride())
        found = {"whole": asked(again.full_tensor)}
        return found | self._gradient(leaf, found["whole"] * self._here(leaf, self.weights()))

    def _distribute_tensor(self, site: Site) -> Tensors:
        mesh, whole = mesh_of(site, self.mesh), self.whole().to(site.context.device)
        to = placements(self.source, self.sizes)
        made = asked(lambda: distribute_tensor(whole, mesh, to))
        if site.fault is not None:
            site.fault.part(self, site.rank, made.to_local())
        leaf = made.requires_grad_()
        found = {"part": asked(leaf.to_local), "whole": asked(leaf.full_tensor)}
        return found | self._gradient(leaf, found["whole"] * self._here(leaf, self.weights()))

    @staticmethod
    def _here(like: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        return weights.to(like.device)

    def _gradient(self, leaf: Any, terms: torch.Tensor) -> Tensors:
        asked(terms.sum().backward)
        if leaf.grad is None:
            return {"gradient": torch.zeros(self.shape, dtype=torch.float64)}
        return {"gradient": asked(leaf.grad.full_tensor)}

    @property
    def linear(self) -> str:
        """How each rank's loss weighs its part: its own elements, and all alike where ranks have terms."""
        return ".".join("R" if word[0] == "P" else word for word in self.source.split("."))

    # -- in the judge --------------------------------------------------------------------------

    def expected(self, rank: int) -> dict[str, Exact]:
        whole, weights = self.whole(), self.weights()
        way = self.request.way
        found: dict[str, torch.Tensor] = {"gradient": weights}
        if way.startswith("redistribute"):
            found["whole"] = whole
            if "P" not in self.end:
                found["part"] = self.mine(rank, self.end, whole)
        elif way in ("to_local", "to_local_terms"):
            found["part"] = self.mine(rank, self.source, whole)
        else:
            found["whole"] = whole
        if way == "distribute_tensor":
            found["part"] = self.mine(rank, self.source, whole)
        if way == "to_local_terms":
            found["gradient"] = sum(self.weights(one) for one in range(self.request.ranks))  # type: ignore[assignment]
        if way == "from_local":
            del found["gradient"]
            found["gradient of the part"] = self.mine(rank, self.linear, weights)
        return {name: _near(value) for name, value in found.items()}


def _near(value: torch.Tensor) -> Exact:
    """Sums of a few multiples of one number are exact; a mean is not."""
    size = float(value.abs().max()) if value.numel() else 0.0
    allowed = FACTOR * torch.finfo(torch.float64).eps * max(size, 1.0)
    return Exact(wide(value), value.dtype, torch.tensor(allowed).double())
