"""Check that a scenario is evidence: that faults which the verdict must catch would show in it.

For each such fault, the change that it would make to the oracle's run is compared, element by
element, with the error that the verdict allows.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator

import torch

from distparity.scenarios import Scenario
from distparity.training.trajectory import KINDS, Step
from distparity.verification.findings import Quantity
from distparity.verification.tolerance import Tolerance, quantities

__all__ = ["CLEAR", "faults", "one_rank_shows_below", "wrong_in_one_process"]

#: A lost gradient, or one rank's own gradient, must be off by so many times the allowed error.
CLEAR = 4.0
#: The kinds of quantity that a scenario may exclude from the comparison, with a reason.
EXEMPTIBLE = ("initial", "loss", "buffer", "optimizer")


def faults(scenario: Scenario, tolerance: Tolerance) -> list[str]:
    """Why the scenario is no evidence, one line per reason; empty if it is evidence."""
    oracle = tolerance.oracle
    found = [
        f"it exempts {kind!r} ({why}), but without that quantity nothing is compared"
        if kind in KINDS
        else f"it exempts {kind!r}, which is not a kind of quantity"
        for kind, why in scenario.exempt.items()
        if kind not in EXEMPTIBLE
    ]
    before = oracle.trajectory.initial
    for number, step in enumerate(oracle.trajectory.steps):
        idle = set(scenario.idle(number))
        found += [f"step {number}: there is no parameter {name!r}" for name in idle - before.keys()]
        for name in step.gradient:
            what = _dead(tolerance, number, name, step, before[name], idle)
            found += [f"step {number}, {name}: {problem}" for problem in what]
        before = step.parameter
    losses = [_scalar(step) for step in oracle.trajectory.steps]
    if any(loss == 0 for loss in losses) or len(set(losses)) < min(2, len(losses)):
        found.append(f"the loss is constant or zero: {losses}")
    return [*found, *_not_numbers(tolerance)]


def wrong_in_one_process(tolerance: Tolerance) -> list[str]:
    """The quantities that one process on this device computes wrong, one line each.

    They are farther from the oracle than rounding explains.
    """
    return [
        f"{one.quantity}: off by {one.error:.3g}; one process may be off by at most {one.most:.3g}"
        for one in tolerance.one_process
        if not one.sound
    ]


def one_rank_shows_below(tolerance: Tolerance) -> int | None:
    """The smallest world size at which one rank's gradient could be missing with no ratio above 1.

    One of p ranks contributes 1/p of the mean, and the allowed error grows with p by the rounding
    error of a sum of p terms. For each step and rank, the parameter that shows the fault best
    counts; of all steps and ranks, the worst. None if there is only one rank.
    """
    oracle, least = tolerance.oracle, math.inf
    if len(oracle.parts) < 2:
        return None
    for number, step in enumerate(oracle.trajectory.steps):
        shows = torch.zeros(len(oracle.parts))
        for name, gradient in step.gradient.items():
            parts = oracle.gradients(number, name)
            if gradient is None or parts is None or not gradient.numel():
                continue
            each = tolerance.by_rank(Quantity(number, "gradient", name))
            allowed = tolerance.of(Quantity(number, "gradient", name)).error
            assert allowed is not None
            fixed = allowed - tolerance.ranks * each
            # Solves p (fixed + p each) = |g| for p, in a form that does not divide by ``each``.
            size = parts.abs()
            most = 2 * size / (fixed + (fixed * fixed + 4 * each * size).sqrt())
            shows = torch.maximum(shows, most.reshape(len(most), -1).amax(1))
        if step.gradient and shows.any():
            least = min(least, float(shows.min()))
    return None if math.isinf(least) else math.floor(least) + 1


def _dead(
    tolerance: Tolerance,
    number: int,
    name: str,
    step: Step,
    before: torch.Tensor | None,
    idle: Collection[str],
) -> Iterator[str]:
    """Why one parameter at one step is no evidence."""
    gradient, now = step.gradient[name], step.parameter[name]
    assert now is not None
    assert before is not None
    if name in idle:
        if gradient is not None:
            yield "it has a gradient, but the scenario declares none"
        return
    if not now.isfinite().all() or not (gradient is None or gradient.isfinite().all()):
        yield "not finite"
        return
    if not now.numel():
        return
    if gradient is None:
        yield "there is no gradient"
        return
    allowed = tolerance.of(Quantity(number, "gradient", name)).error
    assert allowed is not None
    if not _clear(gradient, allowed):
        size, bound = float(gradient.abs().max()), float(allowed.max())
        yield f"the gradient is negligible: {size:.1e}, allowed error {bound:.1e}"
        return
    moved = (now - before).abs()
    allowed_now = tolerance.of(Quantity(number, "parameter", name)).error
    assert allowed_now is not None
    # A step that was not made has a ratio above 1.
    if not (moved > allowed_now).any():
        size, bound = float(moved.max()), float(allowed_now.max())
        yield f"the parameter does not move: by {size:.1e}, allowed error {bound:.1e}"
    parts = tolerance.oracle.gradients(number, name)
    if parts is None or len(parts) < 2:
        return
    spread = (parts - parts.mean(0)).abs().amax(0)
    if not _clear(spread, allowed):
        size, bound = float(spread.max()), float(allowed.max())
        yield f"every rank has the same gradient: up to {size:.1e}, allowed error {bound:.1e}"


def _clear(change: torch.Tensor, allowed: torch.Tensor) -> bool:
    """Whether a change of this size would have a ratio of at least :data:`CLEAR`."""
    size = change.abs()
    return bool(((size > 0) & (size >= CLEAR * allowed)).any())


def _not_numbers(tolerance: Tolerance) -> Iterator[str]:
    """The oracle's quantities that are not finite; infinity is allowed in buffers only (masks)."""
    for step, kind, tensors in quantities(tolerance.oracle.trajectory):
        for name, value in tensors.items():
            if value is None or not value.is_floating_point():
                continue
            parameter = kind in ("gradient", "parameter")
            masks = kind == "buffer" or (
                kind == "initial" and name in tolerance.oracle.trajectory.steps[0].buffer
            )
            wrong = value.isnan() if masks else ~value.isfinite()
            if wrong.any() and not parameter:
                yield f"{Quantity(step, kind, name)}: not finite"


def _scalar(step: Step) -> float:
    loss = step.loss["loss"]
    assert loss is not None
    return float(loss)
