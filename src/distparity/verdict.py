r"""Whether a distributed run computed what one process computes, as a number with a meaning.

Everything is held in the max norm, per tensor and per step. With

- :math:`x^*` the oracle's tensor (float64, one process, global batch),
- :math:`\hat x_1 \dots \hat x_V` the same tensor of the native runs,
- :math:`u` the unit roundoff of the case's dtype (half of torch's ``eps``),
- :math:`\sigma` the tensor's scale: for a gradient the largest element of the mean over ranks of
  their absolute gradients, else the largest element of :math:`|x^*|`,

the error that rounding alone explains is

.. math:: E = \max_{v, s \le t} \|\hat x_{v,s} - x^*_s\|_\infty

and a distributed run is allowed

.. math:: \mathrm{allowed} = C \, \max(E, \; p\,u\,\sigma)

with *p* the world size: a sum of *p* terms has a rounding error of at most
:math:`(p-1)\,u` times the sum of their magnitudes (Higham, *Accuracy and Stability of Numerical
Algorithms*, 2nd ed., section 4.2), and one division more. *C* is a small constant, as the thresholds
of LAPACK's test ratios are (LAPACK Working Note 41, section 7).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch

from distparity.oracle import Oracle
from distparity.trajectory import Step, Tensors, Trajectory

__all__ = ["FACTOR", "Divergence", "Verdict", "judge"]

#: How many times the native error a distributed run may have.
FACTOR = 8.0


@dataclass
class Divergence:
    """The first place where a run is not what it should be.

    ``ratio`` is error / allowed, infinite for what has no size: a missing tensor, a NaN, replicas
    that are not bitwise equal.
    """

    what: str
    step: int | None
    kind: str
    name: str
    rank: int
    ratio: float
    index: list[int] = field(default_factory=list)
    expected: float | None = None
    found: float | None = None

    def __str__(self) -> str:
        where = "before training" if self.step is None else f"step {self.step}"
        text = f"{where}, {self.kind} {self.name!r}, rank {self.rank}: {self.what}"
        if self.expected is not None:
            text += f" at {self.index}: expected {self.expected:.9g}, found {self.found:.9g}"
        return text + f" (ratio {self.ratio:.3g})"


@dataclass
class Verdict:
    """``ratio`` is the largest over the whole trajectory; the run is right where it is <= 1."""

    ratio: float = 0.0
    #: The largest error, relative to its tensor's scale.
    error: float = 0.0
    first: Divergence | None = None
    #: The largest ratio per step and kind of quantity, for a reader.
    growth: list[dict[str, float]] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        return self.first is None

    def note(self, divergence: Divergence) -> None:
        self.ratio = max(self.ratio, divergence.ratio)
        if self.first is None:
            self.first = divergence

    def to_json(self) -> dict[str, Any]:
        return {
            "passed": self.passed,
            "ratio": _plain(self.ratio),
            "error": _plain(self.error),
            "first": None if self.first is None else str(self.first),
            "growth": [{k: _plain(v) for k, v in step.items()} for step in self.growth],
        }


def _plain(value: float) -> float | str:
    """JSON has no infinity."""
    return value if math.isfinite(value) else str(value)


def judge(
    oracle: Oracle, natives: list[Trajectory], ranks: list[Trajectory], dtype: torch.dtype
) -> Verdict:
    """Hold every rank's trajectory against the oracle's.

    The steps are gone through in order, and in a step the loss, the gradients, the parameters and
    the buffers, so that the first divergence is the first in time.
    """
    verdict = Verdict()
    roundoff = torch.finfo(dtype).eps / 2
    exact = oracle.trajectory
    for rank, run in enumerate(ranks):
        _same(verdict, None, "initial parameter", exact.initial, run.initial, rank, dtype)
        if len(run.steps) != len(exact.steps):
            what = f"{len(run.steps)} steps recorded, {len(exact.steps)} expected"
            verdict.note(Divergence(what, None, "run", "steps", rank, math.inf))
            return verdict
    explained: dict[tuple[str, str], float] = {}
    for number, step in enumerate(exact.steps):
        row: dict[str, float] = {}
        steps = [
            _merge_losses([run.steps[number] for run in ranks], rank) for rank in range(len(ranks))
        ]
        for kind, tensors in step.kinds():
            worst = 0.0
            for name, value in tensors.items():
                scale = _scale(oracle, number, kind, name, value)
                key = (kind, name)
                explained[key] = max(
                    explained.get(key, 0.0),
                    *(
                        _error(dict(n.steps[number].kinds())[kind].get(name), value)
                        for n in natives
                    ),
                )
                allowed = FACTOR * max(explained[key], len(ranks) * roundoff * scale)
                for rank, own in enumerate(steps):
                    ratio = _compare(
                        verdict, number, kind, name, value, dict(own.kinds())[kind], rank, allowed
                    )
                    worst = max(worst, ratio)
                    if scale:
                        error = ratio * allowed / scale
                        verdict.error = max(verdict.error, math.inf if math.isnan(error) else error)
            for rank, own in enumerate(steps):
                _extra(verdict, number, kind, tensors, dict(own.kinds())[kind], rank)
                if kind in ("gradient", "parameter"):
                    first = dict(steps[0].kinds())[kind]
                    _agree(verdict, number, kind, first, dict(own.kinds())[kind], rank)
            row[kind] = worst
            verdict.ratio = max(verdict.ratio, worst)
        verdict.growth.append(row)
    return verdict


def _merge_losses(steps: list[Step], rank: int) -> Step:
    """The rank's step, with the mean of all ranks' losses in place of its own."""
    losses = [step.loss["loss"] for step in steps]
    mean = torch.stack([loss.double() for loss in losses if loss is not None]).mean()
    own = steps[rank]
    return Step({"loss": mean}, own.gradient, own.parameter, own.buffer)


def _scale(oracle: Oracle, step: int, kind: str, name: str, value: torch.Tensor | None) -> float:
    if kind == "gradient" and name in oracle.magnitude[step]:
        return oracle.magnitude[step][name]
    return 0.0 if value is None or not value.numel() else float(value.abs().max())


def _error(found: torch.Tensor | None, expected: torch.Tensor | None) -> float:
    if found is None or expected is None or not expected.numel():
        return 0.0
    return float((found.double() - expected.double()).abs().max())


def _compare(
    verdict: Verdict,
    step: int,
    kind: str,
    name: str,
    expected: torch.Tensor | None,
    run: Tensors,
    rank: int,
    allowed: float,
) -> float:
    def diverge(what: str, ratio: float = math.inf, **more: Any) -> float:
        verdict.note(Divergence(what, step, kind, name, rank, ratio, **more))
        return ratio

    if name not in run:
        return diverge("missing")
    found = run[name]
    if expected is None or found is None:
        if expected is found:
            return 0.0
        return diverge("there is none" if found is None else "there is one, and should be none")
    if found.shape != expected.shape:
        return diverge(f"shape {list(found.shape)}, expected {list(expected.shape)}")
    if not expected.numel():
        return 0.0
    difference = (found.double() - expected.double()).abs()
    worst = int(torch.where(difference.isnan(), math.inf, difference).argmax())
    error = float(difference.flatten()[worst])
    index = [int(i) for i in torch.unravel_index(torch.tensor(worst), expected.shape)]
    values: dict[str, Any] = {
        "index": index,
        "expected": float(expected.flatten()[worst]),
        "found": float(found.flatten()[worst]),
    }
    if not math.isfinite(error):
        return diverge("not finite", **values)
    ratio = error / allowed if allowed else (math.inf if error else 0.0)
    if ratio > 1:
        diverge(f"off by {error:.3g}, allowed {allowed:.3g}", ratio, **values)
    return ratio


def _same(
    verdict: Verdict,
    step: int | None,
    kind: str,
    expected: Tensors,
    found: Tensors,
    rank: int,
    dtype: torch.dtype,
) -> None:
    """The state before training has seen no arithmetic: it is equal, to the bit."""
    for name, value in expected.items():
        other = found.get(name)
        if value is None or other is None or other.shape != value.shape:
            verdict.note(
                Divergence("missing, or of another shape", step, kind, name, rank, math.inf)
            )
        elif other.dtype != dtype and value.is_floating_point():
            what = f"dtype {other.dtype}, expected {dtype}"
            verdict.note(Divergence(what, step, kind, name, rank, math.inf))
        elif not torch.equal(other.double(), value.double()):
            verdict.note(Divergence("changed by wrapping", step, kind, name, rank, math.inf))
    _extra(verdict, step, kind, expected, found, rank)


def _extra(
    verdict: Verdict, step: int | None, kind: str, expected: Tensors, found: Tensors, rank: int
) -> None:
    for name in found.keys() - expected.keys():
        verdict.note(Divergence("not in the oracle", step, kind, name, rank, math.inf))


def _agree(verdict: Verdict, step: int, kind: str, first: Tensors, own: Tensors, rank: int) -> None:
    """Every rank ends a step with the same replica, to the bit."""
    for name, value in first.items():
        other = own.get(name)
        if value is None or other is None or value.shape != other.shape:
            continue
        if not torch.equal(value, other) and not (value.isnan().any() or other.isnan().any()):
            what = "differs from rank 0's, bit by bit"
            verdict.note(Divergence(what, step, kind, name, rank, math.inf))
