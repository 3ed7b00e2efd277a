r"""Whether a distributed run computed what one process computes, as a number with a meaning.

``docs/verdict.md`` derives what is done here. In short: everything is held in the max norm, per
tensor and per step. With

- :math:`x^*` the oracle's tensor (float64, one process, global batch),
- :math:`\hat x_1 \dots \hat x_V` the same tensor of the native runs,
- :math:`u` the unit roundoff of the case's dtype (half of torch's ``eps``),
- :math:`p` the world size, and :math:`\sigma` the tensor's scale: for a gradient the largest element
  of the mean over ranks of their absolute gradients, else the largest element of :math:`|x^*|`,

what rounding alone explains is

.. math:: E_t = \max(p\,u\,\sigma_t, \; \max_{v,\, s \le t} \|\hat x_{v,s} - x^*_s\|_\infty)

and a distributed run may have :data:`FACTOR` times that. The first term bounds what one more sum of
*p* terms and one division can add (Higham, *Accuracy and Stability of Numerical Algorithms*, 2nd
ed., section 4.2); the second is measured. The ratio of error to allowed is used as LAPACK uses its
test ratios (LAPACK Working Note 41).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch

from distparity.oracle import Oracle
from distparity.trajectory import KINDS, Tensors, Trajectory

__all__ = ["FACTOR", "Divergence", "Quantity", "Verdict", "gradient_scale", "judge"]

#: How many times the explained error a distributed run may have.
FACTOR = 8.0


@dataclass(frozen=True)
class Quantity:
    """What is compared: a named tensor of a kind; ``step`` is None before and after training."""

    step: int | None
    kind: str
    name: str

    def __str__(self) -> str:
        when = {"initial": "before training", "optimizer": "after training"}.get(self.kind)
        return f"{when or f'step {self.step}'}, {self.kind} {self.name!r}"


@dataclass
class Divergence:
    """A place where a run is not what it should be.

    ``ratio`` is error / allowed, infinite for what has no size: a missing tensor, a NaN, replicas
    that are not bitwise equal.
    """

    quantity: Quantity
    rank: int
    what: str
    ratio: float = math.inf
    index: list[int] = field(default_factory=list)
    expected: float | None = None
    found: float | None = None

    def __str__(self) -> str:
        text = f"{self.quantity}, rank {self.rank}: {self.what}"
        if self.expected is not None:
            text += f" at {self.index}: expected {self.expected:.9g}, found {self.found:.9g}"
        return text + f" (ratio {self.ratio:.3g})"


@dataclass
class Verdict:
    """``ratio`` is the largest over the whole trajectory; the run is right when nothing diverged."""

    ratio: float = 0.0
    #: The largest error, relative to its tensor's scale.
    error: float = 0.0
    divergences: list[Divergence] = field(default_factory=list)
    #: The largest ratio per step and kind of quantity, for a reader.
    growth: list[dict[str, float]] = field(default_factory=list)
    #: What the pattern of the divergences looks like, where it looks like something.
    diagnosis: str | None = None

    @property
    def passed(self) -> bool:
        return not self.divergences

    def note(self, divergence: Divergence) -> None:
        self.ratio = max(self.ratio, divergence.ratio)
        self.divergences.append(divergence)

    def to_json(self) -> dict[str, Any]:
        return {
            "passed": self.passed,
            "ratio": _plain(self.ratio),
            "error": _plain(self.error),
            "first": None if self.passed else str(self.divergences[0]),
            "diagnosis": self.diagnosis,
            "growth": [{k: _plain(v) for k, v in step.items()} for step in self.growth],
        }


def _plain(value: float) -> float | str:
    """JSON has no infinity."""
    return value if math.isfinite(value) else str(value)


def judge(
    oracle: Oracle, natives: list[Trajectory], ranks: list[Trajectory], dtype: torch.dtype
) -> Verdict:
    """Hold every rank's trajectory against the oracle's.

    Quantities are gone through in the order in which they come to be, so that the first divergence
    is the first in time. Raises ``ValueError`` when there is nothing to compare.
    """
    if not ranks or not natives or not oracle.trajectory.steps:
        raise ValueError("a verdict needs an oracle with steps, native runs and ranks")
    return _Bench(oracle, natives, ranks, dtype).sit()


def quantities(run: Trajectory) -> Iterator[tuple[int | None, str, Tensors]]:
    """Every group of tensors of a run, in the order in time."""
    yield None, "initial", run.initial
    for number, step in enumerate(run.steps):
        for kind, tensors in step.kinds():
            yield number, kind, tensors
    yield None, "optimizer", run.optimizer


class _Bench:
    def __init__(
        self,
        oracle: Oracle,
        natives: list[Trajectory],
        ranks: list[Trajectory],
        dtype: torch.dtype,
    ) -> None:
        self.oracle = oracle
        self.natives = natives
        self.ranks = ranks
        self.dtype = dtype
        self.roundoff = torch.finfo(dtype).eps / 2
        self.verdict = Verdict()
        self.explained: dict[tuple[str, str], float] = {}

    def sit(self) -> Verdict:
        exact = self.oracle.trajectory
        for rank, run in enumerate(self.ranks):
            if len(run.steps) != len(exact.steps):
                what = f"{len(run.steps)} steps recorded, {len(exact.steps)} expected"
                self.verdict.note(Divergence(Quantity(None, "run", "steps"), rank, what))
        if self.verdict.passed:
            self.verdict.growth = [dict.fromkeys(KINDS, 0.0) for _ in exact.steps]
            for step, kind, tensors in quantities(exact):
                self._group(step, kind, tensors)
        return self.verdict

    def _group(self, step: int | None, kind: str, tensors: Tensors) -> None:
        runs = [_group_of(run, step, kind) for run in self.ranks]
        if kind == "loss":
            # A rank knows the loss over its own rows; their mean is the global batch's.
            runs = [_mean_loss(runs)] * len(runs)
        for name, value in tensors.items():
            quantity = Quantity(step, kind, name)
            allowed, scale = self._allowed(quantity, value)
            for rank, own in enumerate(runs):
                ratio = self._compare(quantity, value, own, rank, allowed)
                self.verdict.ratio = max(self.verdict.ratio, ratio)
                if step is not None:
                    row = self.verdict.growth[step]
                    row[kind] = max(row[kind], ratio)
                if scale and allowed:
                    self.verdict.error = max(self.verdict.error, ratio * allowed / scale)
        for rank, own in enumerate(runs):
            for name in sorted(own.keys() - tensors.keys()):
                self.verdict.note(Divergence(Quantity(step, kind, name), rank, "not in the oracle"))
            if kind != "buffer":
                self._agree(step, kind, runs[0], own, rank)

    def _allowed(self, quantity: Quantity, value: torch.Tensor | None) -> tuple[float, float]:
        """The error that a rank may have in a tensor, and the tensor's scale."""
        if value is None or not value.numel() or not value.is_floating_point():
            return 0.0, 0.0
        if quantity.kind == "initial":
            # No arithmetic has touched it: equal to the bit.
            return 0.0, 0.0
        scale = float(value.abs().max())
        if quantity.kind == "gradient" and quantity.step is not None:
            scale = gradient_scale(self.oracle, quantity.step, quantity.name, scale)
        errors = [
            _error(_group_of(run, quantity.step, quantity.kind).get(quantity.name), value)
            for run in self.natives
        ]
        key = (quantity.kind, quantity.name)
        floor = len(self.ranks) * self.roundoff * scale
        self.explained[key] = max(self.explained.get(key, 0.0), floor, *errors)
        return FACTOR * self.explained[key], scale

    def _compare(
        self,
        quantity: Quantity,
        expected: torch.Tensor | None,
        run: Tensors,
        rank: int,
        allowed: float,
    ) -> float:
        """Note what is wrong with one tensor of one rank; returns its ratio."""
        found = run.get(quantity.name)
        wrong = self._unlike(quantity, expected, run)
        if wrong is not None:
            self.verdict.note(Divergence(quantity, rank, wrong))
            return math.inf
        if expected is None or found is None or not expected.numel():
            return 0.0
        if not found.isfinite().all():
            at = int((~found.isfinite()).flatten().nonzero()[0])
            self.verdict.note(_at(quantity, rank, "not finite", math.inf, at, expected, found))
            return math.inf
        difference = (found.double() - expected.double()).abs().flatten()
        at = int(difference.argmax())
        error = float(difference[at])
        ratio = error / allowed if allowed else (math.inf if error else 0.0)
        if ratio > 1:
            what = f"off by {error:.3g}, allowed {allowed:.3g}"
            self.verdict.note(_at(quantity, rank, what, ratio, at, expected, found))
        return ratio

    def _unlike(
        self, quantity: Quantity, expected: torch.Tensor | None, run: Tensors
    ) -> str | None:
        """What makes two tensors not comparable; None when they are."""
        if quantity.name not in run:
            return "missing"
        found = run[quantity.name]
        if expected is None or found is None:
            if expected is None and found is None:
                return None
            return "there is none" if found is None else "there is one, and should be none"
        if found.shape != expected.shape:
            return f"shape {list(found.shape)}, expected {list(expected.shape)}"
        native = _group_of(self.natives[0], quantity.step, quantity.kind).get(quantity.name)
        if native is not None and quantity.kind != "loss" and found.dtype != native.dtype:
            return f"dtype {found.dtype}, expected {native.dtype}"
        return None

    def _agree(self, step: int | None, kind: str, first: Tensors, own: Tensors, rank: int) -> None:
        """Every rank has the same replica, to the bit."""
        for name, value in first.items():
            other = own.get(name)
            if value is None or other is None or value.shape != other.shape:
                continue
            if value.isnan().any() or other.isnan().any() or torch.equal(value, other):
                continue
            what = "differs from rank 0's replica, bit by bit"
            self.verdict.note(Divergence(Quantity(step, kind, name), rank, what))


def gradient_scale(oracle: Oracle, step: int, name: str, largest: float) -> float:
    """The scale of a gradient's terms: of the ranks' own gradients, before they cancel.

    ``largest`` is the largest element of the gradient that the optimizer saw. Clipping scales the
    gradient as a whole, and so its terms.
    """
    whole = [part.steps[step].gradient.get(name) for part in oracle.parts]
    kept = [gradient for gradient in whole if gradient is not None]
    if not kept:
        return largest
    before = float(torch.stack(kept).mean(0).abs().max())
    return oracle.magnitude(step, name) * (largest / before if before else 1.0)


def _group_of(run: Trajectory, step: int | None, kind: str) -> Tensors:
    found: Tensors = getattr(run if step is None else run.steps[step], kind)
    return found


def _mean_loss(runs: list[Tensors]) -> Tensors:
    losses = [run["loss"] for run in runs]
    return {"loss": torch.stack([loss.double() for loss in losses if loss is not None]).mean()}


def _error(found: torch.Tensor | None, expected: torch.Tensor) -> float:
    if found is None or found.shape != expected.shape:
        return 0.0
    return float((found.double() - expected.double()).abs().max())


def _at(
    quantity: Quantity,
    rank: int,
    what: str,
    ratio: float,
    at: int,
    expected: torch.Tensor,
    found: torch.Tensor,
) -> Divergence:
    index = [int(i) for i in torch.unravel_index(torch.tensor(at), expected.shape)]
    values = float(expected.flatten()[at]), float(found.flatten()[at])
    return Divergence(quantity, rank, what, ratio, index, *values)
