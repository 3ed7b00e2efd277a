"""Deliberate faults in operations, which the checks must catch.

A new fault is one subclass of :class:`Fault` here.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch

from distparity.core.registry import subclasses
from distparity.operations.base import Operation
from distparity.operations.collectives.base import Collective, Done, Exchange
from distparity.operations.dtensor.base import DTensor, Replicate, TensorOperation
from distparity.operations.fault import Fault, Partners
from distparity.operations.generated.boundary import Boundary
from distparity.operations.generated.collective_gradient import CollectiveGradient
from distparity.operations.generated.collective_layout import CollectiveLayout
from distparity.operations.generated.factory import Factory
from distparity.operations.generated.operator import Operator
from distparity.operations.sizes.base import UNWRITTEN, OverSizes

__all__ = ["OfCollectives", "load"]

#: With at least so many elements, they cannot all be right by chance.
_ENOUGH = 8


def _elements(check: Exchange) -> int:
    return torch.Size(check.setting.shape).numel()


def _exact(check: Exchange) -> bool:
    """Whether results must be equal bit for bit."""
    moved = not check.collective.reduces or check.setting.op not in ("SUM", "AVG", "PRODUCT")
    return moved or not check.request.dtype.is_floating_point


def _write(view: torch.Tensor, value: torch.Tensor) -> None:
    """Copy a value; rows that are one memory get the first row of it."""
    if view.dim() and view.stride(0) == 0:
        view, value = view[:1], value[:1]
    view.copy_(value)


class OfCollectives(Fault):
    def may(self, operation: Operation, way: str) -> bool:
        if isinstance(operation, CollectiveLayout):
            operation, way = operation.inner(way)
        return isinstance(operation, Collective) and self.fits(operation, way)

    def fits(self, collective: Collective, way: str) -> bool:
        """Whether it applies to a collective called in this way."""
        return True

    def concerns(self, check: Exchange, count: int) -> bool:
        """Whether a check in groups of ``count`` ranks must catch it."""
        return count > 1 and _elements(check) >= _ENOUGH


class NotWritten(OfCollectives):
    name = "not_written"
    title = "a collective writes no result"

    def after(self, done: Done) -> None:
        for result, old in zip(done.results, done.before, strict=True):
            result.copy_(old)


class ContributionReplaced(OfCollectives):
    name = "contribution_replaced"
    title = "the first rank's contribution to a collective also replaces that of the last rank"

    def fits(self, collective: Collective, way: str) -> bool:
        # For one tensor in parts of uneven sizes, another rank's data would not fit, and torch raises.
        return way == "list" or "uneven" not in collective.specials(way)

    def giver(self, team: list[int], rank: int) -> int:
        return team[0] if rank == team[-1] else rank

    def after(self, done: Done) -> None:
        # The check must catch the wrong result, not the changed input.
        if not done.check.is_in_place:
            for buffer, value in zip(done.given, done.check.gives(done.rank), strict=True):
                _write(buffer.view, value)

    def concerns(self, check: Exchange, count: int) -> bool:
        last = check.collective.rooted != "giver" or check.setting.root == count - 1
        return super().concerns(check, count) and last


class Shifted(OfCollectives):
    name = "result_shifted"
    title = "a collective's result is shifted by one element"

    def after(self, done: Done) -> None:
        for result in done.results:
            result.copy_(result.flatten().roll(1).reshape(result.shape))


class PeersSwapped(OfCollectives):
    name = "peers_swapped"
    title = "the parts of a collective's result are in the wrong rank order"

    def fits(self, collective: Collective, way: str) -> bool:
        return collective.ordered

    def concerns(self, check: Exchange, count: int) -> bool:
        return super().concerns(check, count) and "uneven" not in check.setting.special

    def after(self, done: Done) -> None:
        count = len(done.check.team(done.rank))
        olds = [result.clone() for result in done.results]
        if len(olds) == count:
            for result, old in zip(done.results, reversed(olds), strict=True):
                result.copy_(old)
            return
        for result, old in zip(done.results, olds, strict=True):
            dim = 1 if done.check.setting.special == "dim 1" else 0
            result.copy_(old.roll(old.shape[dim] // count, dim))


class SumForAvg(OfCollectives):
    name = "sum_for_avg"
    title = "a collective returns the sum instead of the mean"

    def fits(self, collective: Collective, way: str) -> bool:
        return collective.reduces

    def concerns(self, check: Exchange, count: int) -> bool:
        return super().concerns(check, count) and check.setting.op == "AVG"

    def after(self, done: Done) -> None:
        if done.check.setting.op == "AVG":
            for result in done.results:
                result.mul_(len(done.check.team(done.rank)))


class NeighboursPart(OfCollectives):
    name = "neighbours_part"
    title = "every rank gets the next rank's part of a collective's result"

    def fits(self, collective: Collective, way: str) -> bool:
        return collective.parted

    def concerns(self, check: Exchange, count: int) -> bool:
        # Of an input whose rows are one memory, all parts are alike.
        alike = check.setting.layout == "expanded"
        uneven = "uneven" in check.setting.special
        return super().concerns(check, count) and not (alike or uneven)

    def after(self, done: Done) -> None:
        team = done.check.team(done.rank)
        following = team[(team.index(done.rank) + 1) % len(team)]
        for result, other in zip(done.results, done.check.gets(following), strict=True):
            if result.shape == other.value.shape:
                result.copy_(other.value.to(other.dtype))


class LastElement(OfCollectives):
    name = "last_element_unwritten"
    title = "the last element of a collective's result is not written"

    def concerns(self, check: Exchange, count: int) -> bool:
        # The old value may be right by chance: a bool, or the minimum in place.
        same = check.request.dtype is torch.bool or (
            check.is_in_place and check.setting.op in ("MIN", "MAX", "BAND", "BOR")
        )
        return super().concerns(check, count) and not same

    def after(self, done: Done) -> None:
        for result, old in zip(done.results, done.before, strict=True):
            if result.numel():
                last = tuple(size - 1 for size in result.shape)
                result[last] = old[last]


class OneBit(OfCollectives):
    name = "result_one_bit"
    title = "the lowest bit of one element of a collective's result is flipped"

    def concerns(self, check: Exchange, count: int) -> bool:
        # True may be stored as any byte except zero, so it can stay true with one bit flipped.
        truths = check.request.dtype is torch.bool and check.setting.op == "SUM"
        return super().concerns(check, count) and _exact(check) and not truths

    def after(self, done: Done) -> None:
        for result in done.results:
            if result.numel():
                whole = result.cpu().contiguous()
                # Reshape to one dim first: a 0-d tensor cannot be viewed as bytes.
                whole.view(-1).view(torch.uint8)[0] ^= 1
                result.copy_(whole)


class BeyondTheEnd(OfCollectives):
    name = "written_beyond"
    title = "a collective writes one element beyond the end of its result"

    def fits(self, collective: Collective, way: str) -> bool:
        return way not in collective.returning

    def after(self, done: Done) -> None:
        for buffer in done.places:
            last = buffer.storage[-1:]
            last.copy_(~last if last.dtype is torch.bool else torch.zeros_like(last))


class InputChanged(OfCollectives):
    name = "input_changed"
    title = "a collective changes its input"

    def fits(self, collective: Collective, way: str) -> bool:
        return way not in collective.in_place

    def after(self, done: Done) -> None:
        for buffer in done.given:
            if buffer.view.numel():
                _write(buffer.view, buffer.view.flatten().roll(1).reshape(buffer.view.shape))


class ThroughBfloat16(OfCollectives):
    name = "reduced_in_bfloat16"
    title = "a collective reduces in bfloat16"

    def fits(self, collective: Collective, way: str) -> bool:
        return collective.reduces

    def concerns(self, check: Exchange, count: int) -> bool:
        finer = check.request.dtype in (torch.float32, torch.float64)
        return super().concerns(check, count) and finer

    def after(self, done: Done) -> None:
        for result in done.results:
            if result.is_floating_point():
                result.copy_(result.bfloat16())


class LargeTail(Fault):
    name = "large_tail_lost"
    title = "the last 16 bytes of a result of more than 64 KiB are not what they should be"

    def may(self, operation: Operation, way: str) -> bool:
        return isinstance(operation, OverSizes)

    def swept(self, result: torch.Tensor) -> None:
        size = result.element_size()
        if result.numel() * size > 1 << 16:
            result[-(16 // size) :] = UNWRITTEN


class _OfTensors(Fault):
    def may(self, operation: Operation, way: str) -> bool:
        if isinstance(operation, TensorOperation):
            return self.fits_way(way)
        return isinstance(operation, (Operator, Boundary, CollectiveGradient))

    def fits_way(self, way: str) -> bool:
        return True


class PartLost(_OfTensors):
    name = "part_lost"
    title = "the last rank's part of a distributed tensor is zero"

    def may(self, operation: Operation, way: str) -> bool:
        if isinstance(operation, CollectiveGradient):
            return operation.all_give(way)
        if isinstance(operation, Factory):
            return way != "zeros"
        return super().may(operation, way)

    def fits_way(self, way: str) -> bool:
        # In this way the last rank has no part.
        return way != "shard_empty"

    def part(self, check: Partners, rank: int, part: torch.Tensor) -> None:
        if rank == max(check.partners(rank)):
            part.detach().zero_()


class GradientSummed(_OfTensors):
    name = "gradient_summed"
    title = "the gradient of a distributed tensor is too large by the number of ranks"

    def fits_way(self, way: str) -> bool:
        return not way.startswith("partial")

    def made(self, check: Partners, found: dict[str, torch.Tensor]) -> None:
        for name, tensor in found.items():
            if name.startswith("gradient"):
                tensor.mul_(len(list(check.partners(0))))


class PartialLost(Fault):
    name = "partial_lost"
    title = "an operator's rule says of the ranks' terms that each is the whole result"

    def may(self, operation: Operation, way: str) -> bool:
        return isinstance(operation, Operator)

    def distributed(self, result: Any) -> Any:
        if not any(one.is_partial() for one in getattr(result, "placements", ())):
            return result
        whole = [Replicate() if one.is_partial() else one for one in result.placements]
        return DTensor.from_local(result.to_local(), result.device_mesh, whole, run_check=False)


class ElementFar(Fault):
    name = "element_far"
    title = "an element of every rank's part of a filled tensor is out of range"

    def may(self, operation: Operation, way: str) -> bool:
        return isinstance(operation, Factory)

    def part(self, check: Partners, rank: int, part: torch.Tensor) -> None:
        part.view(-1)[:1] = 1e9


@cache
def load() -> dict[str, Fault]:
    """All faults by name, in the order of this file."""
    return {kind.name: kind() for kind in subclasses(Fault) if "name" in vars(kind)}
