"""Whether a distributed run computed what one process computes, as a number with a meaning.

The ratio of error to allowed is used as LAPACK uses its test ratios (LAPACK Working Note 41); what is
allowed is in :mod:`distparity.tolerance`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from distparity.attendance import Attendance
from distparity.tolerance import Quantity, Tolerance, group_of, quantities
from distparity.trajectory import KINDS, Tensors, Trajectory

__all__ = ["Divergence", "Verdict", "judge"]


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
    tolerance: Tolerance,
    ranks: list[Trajectory],
    exempt: Mapping[str, str] | None = None,
    attendance: Sequence[Attendance] | None = None,
) -> Verdict:
    """Hold every rank's trajectory against the oracle's.

    Quantities are gone through in the order in which they come to be, so that the first divergence
    is the first in time. The kinds in ``exempt`` are left out, each for the reason it has there.
    ``attendance`` says which steps are whose, rank by rank, where not all are everybody's.
    Raises ``ValueError`` when there is nothing to compare.
    """
    if not ranks or not tolerance.natives or not tolerance.oracle.trajectory.steps:
        raise ValueError("a verdict needs an oracle with steps, native runs and ranks")
    total = len(tolerance.oracle.trajectory.steps)
    everywhere = [Attendance(rank, range(total), total) for rank in range(len(ranks))]
    return _Bench(tolerance, ranks, exempt or {}, attendance or everywhere).sit()


class _Bench:
    def __init__(
        self,
        tolerance: Tolerance,
        ranks: list[Trajectory],
        exempt: Mapping[str, str],
        attendance: Sequence[Attendance],
    ) -> None:
        self.tolerance = tolerance
        self.ranks = ranks
        self.exempt = exempt
        self.attendance = attendance
        self.verdict = Verdict()

    def sit(self) -> Verdict:
        exact = self.tolerance.oracle.trajectory
        for run, attendance in zip(self.ranks, self.attendance, strict=True):
            if len(run.steps) != len(exact.steps):
                what = f"{len(run.steps)} steps recorded, {len(exact.steps)} expected"
                steps = Quantity(None, "run", "steps")
                self.verdict.note(Divergence(steps, attendance.rank, what))
        if self.verdict.passed:
            self.verdict.growth = [dict.fromkeys(KINDS, 0.0) for _ in exact.steps]
            for step, kind, tensors in quantities(exact):
                if kind not in self.exempt:
                    self._group(step, kind, tensors)
        return self.verdict

    def _group(self, step: int | None, kind: str, tensors: Tensors) -> None:
        runs = dict(self._present(step, kind))
        if kind == "loss":
            # A rank knows the loss over its own rows; their mean is the global batch's.
            runs = dict.fromkeys(runs, _mean_loss(list(runs.values())))
        for name, value in tensors.items():
            quantity = Quantity(step, kind, name)
            allowed = self.tolerance.of(quantity)
            for rank, own in runs.items():
                ratio = self._compare(quantity, value, own, rank, allowed.error)
                self.verdict.ratio = max(self.verdict.ratio, ratio)
                if step is not None:
                    row = self.verdict.growth[step]
                    row[kind] = max(row[kind], ratio)
                if allowed.scale and allowed.error:
                    error = ratio * allowed.error / allowed.scale
                    self.verdict.error = max(self.verdict.error, error)
        first = min(runs)
        for rank, own in runs.items():
            for name in sorted(own.keys() - tensors.keys()):
                self.verdict.note(Divergence(Quantity(step, kind, name), rank, "not in the oracle"))
            if kind != "buffer":
                self._agree(step, kind, runs[first], own, rank)

    def _present(self, step: int | None, kind: str) -> Iterator[tuple[int, Tensors]]:
        """The tensors of the ranks that have a part in this; the others must have none."""
        for run, attendance in zip(self.ranks, self.attendance, strict=True):
            tensors = group_of(run, step, kind)
            if attendance.has(step, kind):
                yield attendance.rank, tensors
            elif tensors:
                what = "recorded where this rank has no part"
                quantity = Quantity(step, kind, min(tensors))
                self.verdict.note(Divergence(quantity, attendance.rank, what))

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
        native = group_of(self.tolerance.natives[0], quantity.step, quantity.kind).get(
            quantity.name
        )
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


def _mean_loss(runs: list[Tensors]) -> Tensors:
    losses = [run["loss"] for run in runs]
    return {"loss": torch.stack([loss.double() for loss in losses if loss is not None]).mean()}


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
