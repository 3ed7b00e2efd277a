"""Name the pattern of a divergence in the field's words.

A diagnosis is a hypothesis that reproduces every wrong number of the first diverging step from the
oracle's numbers, up to rounding. If no hypothesis does, there is no diagnosis: none is better than a
wrong one.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import torch

from distparity.training.reference import Oracle
from distparity.training.trajectory import Tensors, Trajectory
from distparity.verification.findings import Verdict
from distparity.verification.tolerance import gradient_terms

__all__ = ["diagnose"]

#: Two numbers count as equal if they differ by at most so many units of roundoff times the scale of
#: the gradient's terms.
SLACK = 128.0
#: The largest such difference, relative to a gradient, with which patterns can be told apart.
SHARP = 2.0**-7
#: Subsets of the ranks are tried up to this world size.
MOST_RANKS = 6

#: Unit roundoff of the formats in which gradients may be exchanged.
_FORMATS = {"bfloat16": 2.0**-8, "float16": 2.0**-11}

Columns = dict[str, torch.Tensor]


def diagnose(
    oracle: Oracle,
    ranks: list[Trajectory],
    verdict: Verdict,
    dtype: torch.dtype,
    coarsest: float,
) -> str | None:
    """Name the pattern of the first divergence; None if it is no known pattern.

    ``coarsest`` is the largest unit roundoff of any dtype that the case computes in or exchanges.
    """
    first = verdict.divergences[0]
    quantity = first.quantity
    together = [d for d in verdict.divergences if d.quantity.kind == quantity.kind]
    together = [d for d in together if d.quantity.step == quantity.step]
    if quantity.kind == "initial" and first.what.startswith("not equal"):
        return f"the initial state of rank {first.rank} differs from the common initial state"
    # Where ranks keep their own gradients, their replicas differ too: the numbers say why.
    numbers = [d for d in together if "replica" not in d.what]
    if not numbers:
        return f"replicas differ: the {quantity.kind} of rank {first.rank} is not that of rank 0"
    shapeless = any(d.expected is None or d.what == "not finite" for d in numbers)
    # With coarse rounding many numbers count as equal, and a pattern that fits says little.
    if quantity.step is None or shapeless or SLACK * coarsest > SHARP:
        return None
    case = _Case(oracle, _there(ranks, quantity.step), quantity.step, verdict, dtype)
    if quantity.kind in ("loss", "gradient"):
        found = case.gradient()
        if found is None and quantity.kind == "loss" and quantity.step > 0:
            return (
                "stale parameters: this step's forward did not compute with what the optimizer "
                "left in the step before"
            )
        return found
    return case.parameter() if quantity.kind == "parameter" else None


def _there(ranks: list[Trajectory], step: int) -> list[Trajectory]:
    """The trajectories of the ranks that recorded a step."""
    return [run for run in ranks if run.steps[step].gradient]


class _Case:
    """The numbers of one step: the values of each rank, the right values, and the oracle's parts."""

    def __init__(
        self,
        oracle: Oracle,
        ranks: list[Trajectory],
        step: int,
        verdict: Verdict,
        dtype: torch.dtype,
    ) -> None:
        self.oracle = oracle
        self.ranks = ranks
        self.step = step
        self.roundoff = torch.finfo(dtype).eps / 2
        exact = oracle.trajectory
        self.right = _doubles(exact.steps[step].gradient)
        self.found = [_doubles(run.steps[step].gradient) for run in ranks]
        # A part that does not use a parameter contributes nothing to the mean.
        self.parts = [
            {name: part.get(name, torch.zeros_like(value)) for name, value in self.right.items()}
            for part in (_doubles(part.steps[step].gradient) for part in oracle.parts)
        ]
        self.wrong = {
            d.quantity.name
            for d in verdict.divergences
            if d.quantity.step == step and d.quantity.kind == "gradient"
        }
        self.tolerance = {
            name: SLACK * self.roundoff * _largest(gradient_terms(oracle, step, name, value))
            for name, value in self.right.items()
        }

    # -- gradients -----------------------------------------------------------------------------

    def gradient(self) -> str | None:
        names = sorted(self.wrong)
        if not all(self._comparable(run, name) for run in self.found for name in names):
            return None
        if not any(
            _largest(run[n] - self.right[n]) > self.tolerance[n]
            for run in self.found
            for n in names
        ):
            # The wrong values are too near the right ones to tell patterns apart.
            return None
        hypotheses = [self._scaled, self._places, self._lost, self._precision]
        if self._parts_explain():
            hypotheses[1:1] = [self._subset, self._missing, self._replaced]
        for hypothesis in hypotheses:
            found = hypothesis(names)
            if found is not None:
                return found
        return self._uneven(names)

    def _comparable(self, run: Columns, name: str) -> bool:
        """Whether a rank has a gradient that the oracle has too, in the oracle's shape."""
        right, found = self.right.get(name), run.get(name)
        return right is not None and found is not None and found.shape == right.shape

    def _parts_explain(self) -> bool:
        """Whether the mean of the parts is the oracle's gradient; with clipping it is not."""
        if len(self.parts) < 2 or len(self.parts) != len(self.found):
            return False
        return all(
            _near(
                torch.stack([part[name] for part in self.parts]).mean(0),
                value,
                self.tolerance[name],
            )
            for name, value in self.right.items()
        )

    def _scaled(self, names: list[str]) -> str | None:
        factor = _factor([(run[n], self.right[n]) for run in self.found for n in names])
        if factor is None or not all(
            _near(run[n], factor * self.right[n], max(1.0, factor) * self.tolerance[n])
            for run in self.found
            for n in names
        ):
            return None
        if abs(factor - 1) < 4 * SLACK * self.roundoff:
            return None
        # If shards are so short that what each rank lost is the whole tensor.
        if factor == 0 and (lost := self._lost(names)) is not None:
            return lost
        # With only one element, any error looks like a constant factor.
        changed = [(abs(factor - 1) * self.right[n].abs() > self.tolerance[n]) for n in names]
        if sum(int(elements.sum()) for elements in changed) < 2:
            return None
        world = len(self.ranks)
        if not self._parts_explain():
            # Clipping hides the factor by which the gradients were off before.
            return f"gradients off by a constant factor of {factor:.6g}"
        if abs(factor - world) < 1e-3 * world:
            return f"gradients summed, not averaged: a constant factor of the world size, {world}"
        if abs(factor * world - 1) < 1e-3:
            return f"gradients averaged twice: a constant factor of 1/{world}"
        return f"gradients off by a constant factor of {factor:.6g}"

    def _subset(self, names: list[str]) -> str | None:
        """Try means over subsets of the ranks: the same subset for all elements, or different ones."""
        world = len(self.parts)
        if world > MOST_RANKS:
            return None
        for size in range(1, world):
            chosen = list(itertools.combinations(range(world), size))
            for ranks in chosen:
                if self._reproduces(names, [self._mean(names, ranks)]):
                    left = sorted(set(range(world)) - set(ranks))
                    return (
                        f"the mean over ranks {list(ranks)} only: "
                        f"rank {', '.join(map(str, left))} left out of the mean"
                    )
            if self._reproduces(names, [self._mean(names, ranks) for ranks in chosen]):
                if size == 1:
                    return "local gradients, not reduced at all: every element is one rank's own"
                return f"the mean over ranks of a part of the world: {size} of {world}"
        return None

    def _missing(self, names: list[str]) -> str | None:
        world = len(self.parts)
        for rank, part in enumerate(self.parts):
            without = {n: self.right[n] - part[n] / world for n in names}
            if self._reproduces(names, [without]):
                return f"rank {rank}'s contribution missing from the sum"
        return None

    def _replaced(self, names: list[str]) -> str | None:
        world = len(self.parts)
        for one, other in itertools.permutations(range(world), 2):
            swapped = {
                n: self.right[n] + (self.parts[one][n] - self.parts[other][n]) / world
                for n in names
            }
            if self._reproduces(names, [swapped]):
                return f"rank {one}'s contribution in place of rank {other}'s"
        return None

    def _places(self, names: list[str]) -> str | None:
        same = all(
            _near(run[n].flatten().sort()[0], self.right[n].flatten().sort()[0], self.tolerance[n])
            for run in self.found
            for n in names
        )
        return (
            "right values in the wrong places: a shard swapped, shifted or padded wrongly"
            if same
            else None
        )

    def _lost(self, names: list[str]) -> str | None:
        for run, name in itertools.product(self.found, names):
            off = (run[name] - self.right[name]).abs() > self.tolerance[name]
            if run[name][off].any() or int(off.sum()) > len(self.ranks):
                return None
        return "elements lost: zeros in place of values, as in a wrongly padded short shard"

    def _precision(self, names: list[str]) -> str | None:
        """Try formats: errors in all elements, as large as the format's rounding and no larger.

        A sum that is rounded in float16 again and again can be as far off as one rounding to bfloat16.
        Then the numbers themselves tell: those that one of the formats holds were rounded to it.
        """
        terms = {n: torch.stack([p[n].abs() for p in self.parts]).mean(0) for n in names}
        off = [
            (run[n] - self.right[n]).abs() / (terms[n] + 1e-300)
            for run in self.found
            for n in names
        ]
        everything = torch.cat([values.flatten() for values in off])
        largest, middle = float(everything.max()), float(everything.median())
        once = {
            name: largest <= 1.5 * roundoff and middle > roundoff / 32
            for name, roundoff in _FORMATS.items()
        }
        name = "float16" if once["float16"] else "bfloat16"
        if not any(once.values()):
            return None
        # Each term is rounded once, then come p - 1 additions and a division.
        if name == "bfloat16" and largest <= (len(self.ranks) + 1) * _FORMATS["float16"]:
            held = [one for one in _FORMATS if self._held(names, getattr(torch, one))]
            name = held[0] if held else "float16 or bfloat16"
        return f"reduced precision: errors as large as those of rounding to {name}"

    def _held(self, names: list[str], dtype: torch.dtype) -> bool:
        """Whether a format holds every wrong gradient exactly."""
        return all(bool((run[n] == run[n].to(dtype)).all()) for run in self.found for n in names)

    def _uneven(self, names: list[str]) -> str | None:
        world = len(self.ranks)
        uneven = {n for n, value in self.right.items() if not value.shape or value.shape[0] % world}
        if set(names) == uneven and uneven != set(self.right):
            return "only parameters whose dim 0 is not divisible by the world size are wrong"
        return None

    def _mean(self, names: list[str], ranks: tuple[int, ...]) -> Columns:
        return {n: torch.stack([self.parts[r][n] for r in ranks]).mean(0) for n in names}

    def _reproduces(self, names: list[str], candidates: list[Columns]) -> bool:
        """Whether every wrong element equals the same element of one of the candidates."""
        for run, name in itertools.product(self.found, names):
            off = (run[name] - self.right[name]).abs() > self.tolerance[name]
            near = torch.stack([(run[name] - c[name]).abs() for c in candidates]).amin(0)
            if (near[off] > self.tolerance[name]).any():
                return False
            # A right element must also equal a candidate's, or the pattern does not fit.
            if len(candidates) == 1 and (near > self.tolerance[name]).any():
                return False
        return True

    # -- parameters ----------------------------------------------------------------------------

    def parameter(self) -> str | None:
        exact = self.oracle.trajectory
        before = exact.initial if self.step == 0 else exact.steps[self.step - 1].parameter
        rows = list(self._updates(_doubles(before)))
        if not rows:
            return None
        if all(bool(((u.abs() <= t) | ((u - r).abs() <= t)).all()) for u, r, _, t in rows):
            return "stale parameters: elements that the optimizer's step did not move"
        # In the first step momentum has no effect: there the update is along the gradient anyway.
        along = [(update, gradient, slack) for update, _, gradient, slack in rows]
        if self.step > 0 and _proportional(along) is not None:
            return "optimizer state lost: the update is along this step's gradient alone"
        factor = _proportional([(update, right, slack) for update, right, _, slack in rows])
        if factor is not None:
            return f"the update is a constant factor of {factor:.6g} of what it should be"
        return None

    def _updates(
        self, before: Columns
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor, float]]:
        """For every parameter on every rank: its update, the right update, gradient and tolerance."""
        after = _doubles(self.oracle.trajectory.steps[self.step].parameter)
        for run in self.ranks:
            found = _doubles(run.steps[self.step].parameter)
            for name, value in after.items():
                if name in found and name in self.right and found[name].shape == value.shape:
                    slack = SLACK / 8 * self.roundoff * (_largest(value) + _largest(before[name]))
                    update, right = found[name] - before[name], value - before[name]
                    yield update, right, self.right[name], slack


def _doubles(tensors: Tensors) -> Columns:
    return {
        name: tensor.double()
        for name, tensor in tensors.items()
        if tensor is not None and tensor.is_floating_point() and tensor.numel()
    }


def _near(found: torch.Tensor, expected: torch.Tensor, tolerance: float) -> bool:
    return found.shape == expected.shape and _largest(found - expected) <= tolerance


def _factor(pairs: list[tuple[torch.Tensor, torch.Tensor]]) -> float | None:
    """The least-squares factor between found and expected values, over all pairs."""
    below = sum(float((b * b).sum()) for _, b in pairs)
    above = sum(float((a * b).sum()) for a, b in pairs)
    return above / below if below else None


def _proportional(rows: list[tuple[torch.Tensor, torch.Tensor, float]]) -> float | None:
    """The factor by which the second tensor of each row gives the first, within the third."""
    factor = _factor([(found, expected) for found, expected, _ in rows])
    if factor is None or not all(_near(row[0], factor * row[1], row[2]) for row in rows):
        return None
    return factor


def _largest(tensor: torch.Tensor) -> float:
    return float(tensor.abs().max())
