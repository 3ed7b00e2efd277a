"""What a scenario promises, asked before it is trained: it names what to change.

A promise that does not hold would show later as a wrong device or as no evidence, and say nothing about
the cause. Each is asked of the first batch at the initial parameters, in float64, on the CPU.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch

from distparity.training.loop import Recipe, dense
from distparity.training.reference import LEAST_ROWS

__all__ = ["broken"]

#: Two results that differ by more than this part of their size differ by more than rounding, also if the
#: model rounds to float32 inside. What is looked for here changes a result by much more.
FAR = 1e-3

#: What to write instead.
RANDOM = "draw random numbers with torch's global generator only (torch.rand, torch.randn, ...)"
DROPOUT = (
    "with rows on several ranks, no order is the right one; set the dropout to 0, or put "
    "distparity.row_seeds(rows) into the batch and compute the loss within "
    "distparity.dropout_by_row(seeds)"
)
MEAN = "return the mean over the rows: divide the sum by the number of rows"
SIZE = (
    "every row's loss must depend on that row only, and the loss must be their mean; see "
    "docs/your-model.md for batch normalisation, losses per token, and losses that compare rows"
)


class _Seen(NamedTuple):
    """The loss of some rows, its gradient, and whether the forward moved torch's generator."""

    loss: torch.Tensor
    gradient: dict[str, torch.Tensor]
    drew: bool

    def near(self, other: _Seen, times: float = 1.0) -> bool:
        """Whether this is ``times`` the other, but for rounding."""
        known = self.gradient.keys() & other.gradient.keys()
        largest = max((float(self.gradient[name].norm()) for name in known), default=0.0)
        pairs = [(self.loss, other.loss, 0.0)]
        pairs += [(self.gradient[name], other.gradient[name], FAR * largest) for name in known]
        return all(_near(mine, times * theirs, floor) for mine, theirs, floor in pairs)


def _near(one: torch.Tensor, other: torch.Tensor, floor: float) -> bool:
    """Whether two tensors are equal but for rounding; what is smaller than ``floor`` may be all rounding."""
    size = max(float(one.norm()), float(other.norm()), floor)
    # What is not a number is told elsewhere.
    return not float((one - other).norm()) > FAR * size


def broken(recipe: Recipe, parts: int) -> list[str]:
    """The promises that do not hold, each with what to write instead; the first is the cause.

    ``parts`` is the number of ranks that the rows of a batch are for.
    """
    exact = replace(recipe, compute=torch.float64)
    for name, make in (("model()", _values), ("batch()", lambda r: list(r.batch(0)))):
        others = _Others()
        pairs = zip(make(exact), make(exact), strict=True)
        if not all(torch.equal(one, other) for one, other in pairs):
            return [
                f"{name} is different in every call with the same seed{others.moved()}: {RANDOM}"
            ]
    rows = exact.rows
    if rows < LEAST_ROWS:
        why = f"reference runs that differ in the order of their sums need {LEAST_ROWS}"
        return [f"a batch of {parts} ranks has {rows} rows, and {why}: raise rows_per_rank"]
    whole, others = _see(exact, range(rows)), _Others()
    again = _see(exact, range(rows))
    moved = others.moved()
    # Two numbers that another generator draws may be near each other, and are never equal.
    if not whole.near(again) or (moved and not torch.equal(whole.loss, again.loss)):
        return [f"the loss is different in every call with the same seed{moved}: {RANDOM}"]
    if not exact.scenario.divisible:
        return []
    return _of_rows(exact, whole, parts)


def _of_rows(exact: Recipe, whole: _Seen, parts: int) -> list[str]:
    rows = exact.rows
    backwards = _see(exact, range(rows - 1, -1, -1))
    if not whole.near(backwards):
        if whole.drew:
            said = "the forward draws random numbers in the order of the rows (dropout?)"
            return [f"{said}: {DROPOUT}"]
        return [f"the loss depends on the order of the rows: {SIZE}"]
    each = rows // parts
    pieces = [_see(exact, range(part * each, (part + 1) * each)) for part in range(parts)]
    if parts < 2 or any(piece.drew for piece in pieces):
        return []
    total = _Seen(torch.stack([piece.loss for piece in pieces]).sum(), _sum(pieces), drew=False)
    if whole.near(total, 1 / parts):
        return []
    if whole.near(total):
        return [f"the loss is a sum over the rows: {MEAN}"]
    return [f"the loss of all rows is not the mean of the losses of {parts} parts of them: {SIZE}"]


def _values(recipe: Recipe) -> list[torch.Tensor]:
    return [tensor.detach() for tensor in recipe.model().state_dict().values()]


def _see(recipe: Recipe, rows: Sequence[int]) -> _Seen:
    """Compute the loss of some rows of the first batch, with a new model and a generator seeded anew."""
    model = recipe.model()
    batch = tuple(tensor[list(rows)] for tensor in recipe.batch(0))
    torch.default_generator.manual_seed(recipe.seed)
    before = torch.default_generator.get_state()
    losses = recipe.losses(model, batch)
    drew = not torch.equal(before, torch.default_generator.get_state())
    for number, loss in enumerate(losses):
        # They may be of one graph.
        loss.backward(retain_graph=number < len(losses) - 1)
    gradient = {
        name: dense(parameter.grad)
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    }
    return _Seen(torch.stack([loss.detach() for loss in losses]).sum(), gradient, drew)


def _sum(pieces: Sequence[_Seen]) -> dict[str, torch.Tensor]:
    names = set().union(*(piece.gradient for piece in pieces))
    return {
        name: torch.stack([p.gradient[name] for p in pieces if name in p.gradient]).sum(0)
        for name in names
    }


class _Others:
    """The generators of random numbers that are not torch's, to say which one moved."""

    def __init__(self) -> None:
        self.before = {name: state() for name, state in _states().items()}

    def moved(self) -> str:
        moved = [name for name, state in _states().items() if state() != self.before.get(name)]
        return f" (it draws from {' and '.join(moved)})" if moved else ""


def _states() -> dict[str, Callable[[], Any]]:
    found: dict[str, Callable[[], Any]] = {"Python's random": random.getstate}
    numpy: Any = sys.modules.get("numpy.random")
    if numpy is not None:
        found["numpy.random"] = lambda: repr(numpy.get_state(legacy=False))
    return found
