r"""How far from the oracle a quantity may be: what rounding explains, times one factor.

``docs/verdict.md`` derives it. Everything is held in the max norm, per tensor and per step. With

- :math:`x^*` the oracle's tensor (float64, one process, global batch),
- :math:`\hat x_1 \dots \hat x_V` the same tensor of the native runs,
- :math:`p` the world size, :math:`u` the unit roundoff of the case's dtype (half of torch's
  ``eps``), and :math:`u_c` that of the dtype in which gradients travel between ranks,
- :math:`\sigma` the tensor's scale: for a gradient the largest element of the mean over ranks of
  their absolute gradients, else the largest element of :math:`|x^*|`,

what rounding alone explains is

.. math:: E_t = \max(b\,\sigma_t, \; \max_{v,\, s \le t} \|\hat x_{v,s} - x^*_s\|_\infty)

with :math:`b = p\,u` for a gradient (one more sum of *p* terms and one division: Higham, *Accuracy and
Stability of Numerical Algorithms*, 2nd ed., section 4.2) and :math:`b = u` for all else, and a
distributed run may have :data:`FACTOR` times that. A gradient that travels in a lower precision may
have :math:`(p+1)\,u_c\,\sigma_t`, where that is more: the bound of those roundings, which needs no
factor.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from distparity.training.reference import Oracle
from distparity.training.trajectory import Tensors, Trajectory
from distparity.verification.constants import FACTOR
from distparity.verification.findings import Quantity

__all__ = ["Allowed", "Tolerance", "gradient_scale", "quantities"]


@dataclass(frozen=True)
class Allowed:
    """The largest error that a tensor may have, in its own unit; 0 is *equal to the bit*."""

    error: float = 0.0
    #: The tensor's scale, to which rounding errors are proportional.
    scale: float = 0.0


def quantities(run: Trajectory) -> Iterator[tuple[int | None, str, Tensors]]:
    """Every group of tensors of a run, in the order in time."""
    yield None, "initial", run.initial
    for number, step in enumerate(run.steps):
        for kind, tensors in step.kinds():
            yield number, kind, tensors
    yield None, "optimizer", run.optimizer


class Tolerance:
    """What every quantity of a case is allowed. ``ranks`` is the world size.

    ``reduce_dtype`` is the dtype in which gradients are exchanged, where it is not the case's own.
    ``multiplies`` says that gradients go through two products of matrices of their size on the way.
    """

    def __init__(
        self,
        oracle: Oracle,
        reference_runs: list[Trajectory],
        ranks: int,
        dtype: torch.dtype,
        reduce_dtype: torch.dtype | None = None,
        *,
        multiplies: bool = False,
    ) -> None:
        self.oracle = oracle
        self.reference_runs = reference_runs
        self.dtype = dtype
        self._roundoff = torch.finfo(dtype).eps / 2
        self._sum = ranks * self._roundoff
        self._multiplies = multiplies
        # One rounding on the way out, p - 1 additions, one division: p + 1 roundings.
        self._travel = (
            0.0 if reduce_dtype is None else (ranks + 1) * torch.finfo(reduce_dtype).eps / 2
        )
        self._explained: dict[tuple[str, str], float] = {}
        self._allowed = {
            Quantity(step, kind, name): self._of(Quantity(step, kind, name), value)
            for step, kind, tensors in quantities(oracle.trajectory)
            for name, value in tensors.items()
        }

    def of(self, quantity: Quantity) -> Allowed:
        """What a quantity of the oracle's trajectory is allowed; raises ``KeyError`` on another."""
        return self._allowed[quantity]

    def _of(self, quantity: Quantity, value: torch.Tensor | None) -> Allowed:
        if value is None or not value.numel() or not value.is_floating_point():
            return Allowed()
        found = [
            group_of(run, quantity.step, quantity.kind).get(quantity.name)
            for run in self.reference_runs
        ]
        # The initial state is touched by no arithmetic, a counter by none that rounds.
        if quantity.kind == "initial" or _counter(quantity, value, found):
            return Allowed()
        scale, beyond, travel = float(value.abs().max()), self._roundoff, 0.0
        if quantity.kind == "gradient" and quantity.step is not None:
            scale = gradient_scale(self.oracle, quantity.step, quantity.name, scale)
            beyond, travel = self._sum, self._travel
            if self._multiplies and value.dim() > 1:
                # Seen as a matrix: an inner product over each of its sides.
                beyond += (value.shape[0] + value[0].numel()) * self._roundoff
        key = (quantity.kind, quantity.name)
        errors = [_error(one, value) for one in found]
        self._explained[key] = max(self._explained.get(key, 0.0), beyond * scale, *errors)
        return Allowed(max(FACTOR * self._explained[key], travel * scale), scale)


def _counter(quantity: Quantity, value: torch.Tensor, found: list[torch.Tensor | None]) -> bool:
    """Whether an optimizer's tensor counts: whole numbers that every native run has exactly."""
    return (
        quantity.kind == "optimizer"
        and torch.equal(value, value.round())
        and all(one is not None and torch.equal(one.double(), value.double()) for one in found)
    )


def gradient_scale(oracle: Oracle, step: int, name: str, largest: float) -> float:
    """The scale of a gradient's terms: of the ranks' own gradients, before they cancel.

    ``largest`` is the largest element of the gradient that the optimizer saw. Clipping scales the
    gradient as a whole, and so its terms.
    """
    before = oracle.mean(step, name)
    if before is None:
        return largest
    return oracle.magnitude(step, name) * (largest / before if before else 1.0)


def group_of(run: Trajectory, step: int | None, kind: str) -> Tensors:
    """The tensors of a kind at a step; raises ``IndexError`` where the run has no such step."""
    found: Tensors = getattr(run if step is None else run.steps[step], kind)
    return found


def _error(found: torch.Tensor | None, expected: torch.Tensor) -> float:
    if found is None or found.shape != expected.shape:
        return 0.0
    return float((found.double() - expected.double()).abs().max())
