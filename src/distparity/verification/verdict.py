"""Whether a distributed run computed what one process computes, as a number with a meaning.

The ratio of error to allowed is used as LAPACK uses its test ratios (LAPACK Working Note 41); what is
allowed is in :mod:`distparity.verification.tolerance`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import torch

from distparity.core.participation import Participation
from distparity.training.trajectory import KINDS, Tensors, Trajectory
from distparity.verification.findings import Divergence, Quantity, Verdict, at
from distparity.verification.tolerance import Tolerance, group_of, quantities

__all__ = ["judge"]


def judge(
    tolerance: Tolerance,
    ranks: list[Trajectory],
    exempt: Mapping[str, str] | None = None,
    participation: Sequence[Participation] | None = None,
) -> Verdict:
    """Hold every rank's trajectory against the oracle's.

    Quantities are gone through in the order in which they come to be, so that the first divergence
    is the first in time. The kinds in ``exempt`` are left out, each for the reason it has there.
    ``participation`` says which steps are whose, rank by rank, where not all are everybody's.
    Raises ``ValueError`` when there is nothing to compare.
    """
    if not ranks or not tolerance.reference_runs or not tolerance.oracle.trajectory.steps:
        raise ValueError("a verdict needs an oracle with steps, native runs and ranks")
    total = len(tolerance.oracle.trajectory.steps)
    everywhere = [Participation(rank, range(total), total) for rank in range(len(ranks))]
    return _Bench(tolerance, ranks, exempt or {}, participation or everywhere).sit()


class _Bench:
    def __init__(
        self,
        tolerance: Tolerance,
        ranks: list[Trajectory],
        exempt: Mapping[str, str],
        participation: Sequence[Participation],
    ) -> None:
        self.tolerance = tolerance
        self.ranks = ranks
        self.exempt = exempt
        self.participation = participation
        self.verdict = Verdict()

    def sit(self) -> Verdict:
        exact = self.tolerance.oracle.trajectory
        for run, participation in zip(self.ranks, self.participation, strict=True):
            if len(run.steps) != len(exact.steps):
                what = f"{len(run.steps)} steps recorded, {len(exact.steps)} expected"
                steps = Quantity(None, "run", "steps")
                self.verdict.note(Divergence(steps, participation.rank, what))
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
        for run, participation in zip(self.ranks, self.participation, strict=True):
            tensors = group_of(run, step, kind)
            if participation.has(step, kind):
                yield participation.rank, tensors
            elif tensors:
                what = "recorded where this rank has no part"
                quantity = Quantity(step, kind, min(tensors))
                self.verdict.note(Divergence(quantity, participation.rank, what))

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
            first = int((~found.isfinite()).flatten().nonzero()[0])
            self.verdict.note(at(quantity, rank, "not finite", math.inf, first, expected, found))
            return math.inf
        difference = (found.double() - expected.double()).abs().flatten()
        worst = int(difference.argmax())
        error = float(difference[worst])
        ratio = error / allowed if allowed else (math.inf if error else 0.0)
        if ratio > 1:
            what = f"off by {error:.3g}, allowed {allowed:.3g}"
            self.verdict.note(at(quantity, rank, what, ratio, worst, expected, found))
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
        native = group_of(self.tolerance.reference_runs[0], quantity.step, quantity.kind).get(
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
