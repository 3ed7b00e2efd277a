r"""How far from the oracle each element of a quantity may be: the error that rounding explains.

``docs/verdict.md`` derives it. For a floating-point tensor, with

- :math:`x^*` the oracle's (float64, one process, global batch) and :math:`u_{64} = 2^{-53}`,
- :math:`\hat x_1 \dots \hat x_V` the same tensor of the reference runs,
- :math:`p` the number of ranks, :math:`u` the unit roundoff of the case's dtype (half of torch's
  ``eps``), :math:`\eta` its smallest subnormal number, :math:`u_c` the unit roundoff of the dtype in
  which gradients are exchanged,
- :math:`S` the magnitude of its terms, element by element: for a gradient the mean over ranks of
  their absolute gradients, else :math:`|x^*|`,
- :math:`\sigma`, the scale of an element. For gradients and the optimizer's state of at least two
  dims, :math:`\sigma_{ij} = \min(\max_k S_{ik}, \max_k S_{kj})`: the smaller one of the largest of its
  row and of its column (of a tensor seen as a matrix of ``shape[0]`` rows). For those of one dim,
  :func:`gradient_sizes` and :func:`state_scale`. Else the largest of all elements,

let :math:`e_v = |\hat x_v - x^*|`, element by element, and :math:`r = (u + u_{64})\,|x^*|` the
rounding error of storing. Over all elements and reference runs,

.. math:: D = \max e_v, \quad R = \max e_v / \sigma

over the step itself; for parameters and buffers, over all steps up to it. Rounding explains

.. math:: E_{ij} = \min\bigl(D + r_{ij},\; R\,\sigma_{ij} + r_{ij},\; \max(D, \max r)\bigr)

and the error allowed to element :math:`i, j` is :math:`C\,(E_{ij} + \eta)`, for a gradient

.. math:: \max\bigl(C\,(E_{ij} + \eta),\; (p+1)\,u_c\,S_{ij}\bigr) + p\,(u + u_{64})\,S_{ij} + p\,\eta,

and for a parameter, whose step :math:`s` moves it by :math:`\Delta_s` for the gradient :math:`g_s`,

.. math:: C\,(E_{ij} + \eta) + \sum_s \frac{\max|\Delta_s|}{\max|g_s|}\; p\,(u + u_{64})\,S_{s,ij},

with :math:`\max S_s` in place of :math:`S_{s,ij}` for parameters of more than :data:`SMALL` elements.

:math:`e_v` is limited to the error that :func:`most_of_one_process` allows to one process.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeGuard

import torch

from distparity.training.reference import Oracle
from distparity.training.trajectory import Tensors, Trajectory
from distparity.verification.constants import FACTOR
from distparity.verification.findings import Quantity

__all__ = [
    "Allowed",
    "OneProcess",
    "Tolerance",
    "gradient_sizes",
    "gradient_terms",
    "group_of",
    "matrix_scale",
    "most_of_one_process",
    "quantities",
    "state_scale",
]

#: The most elements of a parameter for which carried errors are kept one by one.
SMALL = 1 << 16
#: Unit roundoff of the oracle.
ORACLE = 2.0**-53

#: Kinds of quantity that are made of gradients, which are products of two matrices.
_PRODUCTS = ("gradient", "optimizer")

#: The most bytes of allowed errors that a tolerance keeps; what is more is computed again when it is
#: needed, from a few numbers per quantity.
KEPT = 64 << 20
#: The most elements of a tensor that are compared with all reference runs at a time.
AT_A_TIME = 1 << 18

#: Kinds of quantity in which an error stays in all later steps.
_KEPT = ("parameter", "buffer")


@dataclass(frozen=True)
class Allowed:
    """The error that a tensor may have.

    ``error`` has the allowed error of each element: float64, in the tensor's shape. It is None if the
    tensor must be equal bit for bit. ``scale`` is the largest magnitude of the tensor's terms, to
    which rounding errors are proportional.
    """

    error: torch.Tensor | None = None
    scale: float = 0.0


@dataclass(frozen=True)
class OneProcess:
    """How far the reference runs are from the oracle in one quantity.

    ``error`` is the largest over all runs and elements; infinite if a run has another shape, or a
    number that is not finite where the oracle's is. ``most`` is the error that one process may have.
    """

    quantity: Quantity
    error: float
    most: float

    @property
    def sound(self) -> bool:
        """Whether the error is within what one process may have."""
        return self.error <= self.most


@dataclass(frozen=True)
class _Seen:
    """The largest error of the reference runs: absolute, and relative to the scale."""

    error: float
    relative: float
    #: The largest unit roundoff of what they store.
    roundoff: float = 0.0
    #: What the sums over ranks carry to a parameter, whatever the samples are: element by element, or
    #: the largest.
    carried: torch.Tensor | float = 0.0

    def or_more(self, other: _Seen) -> _Seen:
        return _Seen(max(self.error, other.error), max(self.relative, other.relative))


def quantities(run: Trajectory) -> Iterator[tuple[int | None, str, Tensors]]:
    """Yield every group of tensors of a run in the order of training: step, kind, tensors.

    The step is None for the initial state, and for what exists only at the end.
    """
    yield None, "initial", run.initial
    for number, step in enumerate(run.steps):
        for kind, tensors in step.kinds():
            yield number, kind, tensors
    yield None, "optimizer", run.optimizer


class Tolerance:
    """The allowed error of every quantity of a case. ``ranks`` is the world size.

    ``reduce_dtype`` is the dtype in which gradients are exchanged, and ``compute_dtype`` the one in
    which losses are computed, if they are not the case's own. ``multiplies`` says that gradients go
    through two matrix products of their own size on the way, as in a low-rank compression.
    """

    def __init__(
        self,
        oracle: Oracle,
        reference_runs: list[Trajectory],
        ranks: int,
        dtype: torch.dtype,
        reduce_dtype: torch.dtype | None = None,
        compute_dtype: torch.dtype | None = None,
        *,
        multiplies: bool = False,
    ) -> None:
        self.oracle = oracle
        self.reference_runs = reference_runs
        self.ranks = ranks
        self.dtype = dtype
        known = [dtype, *(one for one in (reduce_dtype, compute_dtype) if one is not None)]
        self._roundoff = _roundoff(dtype)
        products = [run.products for run in reference_runs]
        self._of_products = max([self._roundoff, *products])
        self._coarsest = max([*map(_roundoff, known), *products])
        self._of_loss = max(_roundoff(one) for one in (dtype, compute_dtype or dtype))
        self._subnormal = torch.finfo(dtype).smallest_normal * torch.finfo(dtype).eps
        self._multiplies = multiplies
        # One rounding to the exchange dtype, p - 1 additions, one division: p + 1 roundings.
        self._travel = 0.0 if reduce_dtype is None else (ranks + 1) * _roundoff(reduce_dtype)
        #: The largest errors up to a step, by kind and name.
        self._so_far: dict[tuple[str, str], _Seen] = {}
        self._of_losses: dict[int, _Seen] = {}
        #: By step: the inner products of the parts' gradients, ``[parts, parts]``, each parameter's times
        #: the square of its error before the step.
        self._products: dict[int, torch.Tensor] = {}
        #: What the reference runs show; None for a quantity that must be equal bit for bit.
        self._shown: dict[Quantity, _Seen | None] = {}
        #: The allowed errors that are kept, with the magnitude of the terms, and the room for more.
        self._kept: dict[Quantity, tuple[Allowed, torch.Tensor | None]] = {}
        self._room = KEPT
        #: The last that was computed, because a quantity is asked for several times in a row.
        self._last: dict[Quantity, tuple[Allowed, torch.Tensor | None]] = {}
        #: By parameter: the step, the largest element of its gradient, and how far the sum over ranks may
        #: be off. Then what these errors have carried to the parameter so far.
        self._summed: dict[str, tuple[int, float, torch.Tensor]] = {}
        self._carried: dict[str, torch.Tensor | float] = {}
        #: The largest magnitude of each vector's gradients so far, element by element, by parameter.
        self._reached: dict[str, torch.Tensor] = {}
        #: How far the reference runs are from the oracle, quantity by quantity, in order.
        self.one_process: list[OneProcess] = []
        for step, kind, tensors in quantities(oracle.trajectory):
            for name, value in tensors.items():
                self._look(Quantity(step, kind, name), value)

    def of(self, quantity: Quantity) -> Allowed:
        """The allowed error of a quantity of the oracle's trajectory; raises ``KeyError`` for others."""
        return self._of(quantity)[0]

    def of_loss(self, step: int, parts: Sequence[int]) -> Allowed:
        """The allowed error of the mean loss of some of the oracle's parts.

        The mean over all rows is a mean of such losses, and their forwards have independent errors. So
        each may have ``sqrt(1 / share)`` times the error of the mean, and proportionally more if it is
        larger than the mean. The error of the parameters is common to all, and may cancel in the mean:
        :meth:`_by_parameters`.
        """
        seen, losses = self._of_losses[step], self.oracle.losses(step)
        assert losses is not None
        expected, share = float(losses[list(parts)].mean()), len(parts) / len(losses)
        typical = float(losses.abs().mean())
        larger = max(1.0, abs(expected) / typical) if typical else 1.0
        carried = max(seen.error / math.sqrt(share) * larger, self._by_parameters(step, parts))
        stored = (self._of_loss + ORACLE) * abs(expected)
        error = FACTOR * (carried + stored + self._subnormal)
        return Allowed(torch.tensor(error, dtype=torch.float64), max(typical, abs(expected)))

    def _by_parameters(self, step: int, parts: Sequence[int]) -> float:
        """The error that the parameters' errors carry to the mean loss of some parts.

        To first order it is the sum of gradient times error over all elements; the elements' errors are
        independent, and at most the largest that the reference runs had before the step.
        """
        if step not in self._products:
            found = torch.zeros(len(self.oracle.parts), len(self.oracle.parts), dtype=torch.float64)
            for name in self.oracle.trajectory.steps[step].gradient:
                before = self._shown.get(Quantity(step - 1, "parameter", name))
                gradients = self.oracle.gradients(step, name)
                if before is not None and gradients is not None:
                    flat = gradients.reshape(len(gradients), -1)
                    found += before.error**2 * (flat @ flat.T)
            self._products[step] = found
        mine = list(parts)
        square = float(self._products[step][mine][:, mine].mean())
        # What is not finite explains nothing. Rounding may make a sum that cancels negative.
        return math.sqrt(max(0.0, square)) if math.isfinite(square) else 0.0

    def by_rank(self, quantity: Quantity) -> torch.Tensor:
        """The error that each additional rank adds to the allowed error of a gradient, per element.

        Raises ``KeyError`` for what is not a gradient.
        """
        terms = self._of(quantity)[1]
        if terms is None:
            raise KeyError(quantity)
        return (self._roundoff + ORACLE) * terms

    def of_replica(self, quantity: Quantity) -> torch.Tensor | None:
        """How far the replicas of two ranks may differ if ranks sum in different orders.

        Each of two sums of p terms is within p - 1 roundings of the exact sum, and is stored. In later
        steps, and in everything computed from gradients, the difference of the first gradients is
        carried on, and the bound of each replica is the tolerance's. None means equal bit for bit.
        """
        of, terms = self._of(quantity)
        allowed = of.error
        if allowed is None or terms is None:
            return allowed
        # The division rounds too, on both ranks.
        order = 2 * self.ranks * (self._roundoff * terms + self._subnormal)
        return order if quantity.step == 0 else order + allowed

    def _of(self, quantity: Quantity) -> tuple[Allowed, torch.Tensor | None]:
        """The allowed error of a quantity, and the magnitude of a gradient's terms."""
        if quantity in self._kept:
            return self._kept[quantity]
        value = group_of(self.oracle.trajectory, quantity.step, quantity.kind)[quantity.name]
        if self._shown[quantity] is None or value is None:
            return Allowed(), None
        if quantity not in self._last:
            # The memory of the one before is free before this one is computed.
            self._last.clear()
            self._last[quantity] = self._allow(quantity, *self._sizes(quantity, value.double()))
        return self._last[quantity]

    def _look(self, quantity: Quantity, value: torch.Tensor | None) -> None:
        """See how far the reference runs are from the oracle in one quantity."""
        self._shown[quantity] = None
        if value is None or not value.numel() or not value.is_floating_point():
            return
        found = [
            group_of(run, quantity.step, quantity.kind).get(quantity.name)
            for run in self.reference_runs
        ]
        # No arithmetic touches the initial state, and counting does not round.
        if quantity.kind == "initial" or _counter(quantity, value, found):
            return
        roundoff = max([self._roundoff, *(_roundoff(one.dtype) for one in found if _floats(one))])
        if quantity.kind == "loss":
            roundoff = self._of_loss
        value = value.double()
        finite, terms, scale = self._sizes(quantity, value)
        seen = self._seen(quantity, _errors(found, value), scale, float(terms.max()))
        seen = replace(seen, roundoff=roundoff)
        if quantity.kind == "gradient" and quantity.step is not None:
            sums = self._sum_over_ranks(seen, terms)
            sums = sums if sums.numel() <= SMALL else sums.max()
            self._summed[quantity.name] = quantity.step, float(finite.abs().max()), sums
        elif quantity.kind == "parameter":
            seen = replace(seen, carried=self._carry(quantity, finite))
        self._shown[quantity] = seen
        size = 16 * value.numel()
        # The scale of a vector's state comes from all steps before, and vectors are small.
        if size <= self._room or value.dim() < 2:
            self._room -= size
            self._kept[quantity] = self._allow(quantity, finite, terms, scale)

    def _sizes(
        self, quantity: Quantity, value: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """A quantity with 0 for what is not finite, the magnitude of its terms, and its scale."""
        infinite = not math.isfinite(float(value.sum()))
        finite = torch.where(value.isfinite(), value, 0.0) if infinite else value
        terms = finite.abs()
        if quantity.kind == "gradient" and quantity.step is not None:
            terms = gradient_terms(self.oracle, quantity.step, quantity.name, finite)
        elif quantity.kind == "loss" and quantity.step is not None:
            losses = self.oracle.losses(quantity.step)
            terms = terms if losses is None else losses.abs().mean().reshape(terms.shape)
        return finite, terms, self._scale(quantity, finite, terms)

    def _allow(
        self, quantity: Quantity, value: torch.Tensor, terms: torch.Tensor, scale: torch.Tensor
    ) -> tuple[Allowed, torch.Tensor | None]:
        seen = self._shown[quantity]
        assert seen is not None
        largest = float(terms.max())
        stored = (seen.roundoff + ORACLE) * value.abs()
        explained = _times(seen.relative, scale).clamp(max=seen.error)
        explained = (explained + stored).clamp(max=max(seen.error, float(stored.max())))
        error = FACTOR * (explained + self._subnormal)
        gradient = quantity.kind == "gradient"
        # The norm of gradients has their errors.
        if quantity.kind in ("gradient", "norm"):
            error = torch.maximum(error, self._travel * terms)
            error = error + self._sum_over_ranks(seen, terms) + self.ranks * self._subnormal
        error = error + seen.carried
        if self._multiplies and quantity.kind in _PRODUCTS and value.dim() > 1:
            # As a matrix: one inner product over each of its dims. A square is off by twice as much.
            sides = value.shape[0] + value[0].numel()
            power = 1 if gradient or bool((value < 0).any()) else 2
            error = error + power * FACTOR * sides * self._of_products * largest
        return Allowed(error, largest), terms if gradient else None

    def _sum_over_ranks(self, seen: _Seen, terms: torch.Tensor) -> torch.Tensor:
        """How far a mean over ranks may be off, in whatever order: in proportion to its ``terms``."""
        return self.ranks * (seen.roundoff + ORACLE) * terms

    def _carry(self, quantity: Quantity, value: torch.Tensor) -> torch.Tensor | float:
        """What the sums over ranks carry to a parameter, up to a step.

        A step moves the parameter by its gradient times a factor, to first order, and moves it by the
        gradient's error times the same factor.
        """
        number, name = quantity.step, quantity.name
        run = self.oracle.trajectory
        before = run.initial if not number else run.steps[number - 1].parameter
        start, summed = before.get(name), self._summed.get(name)
        if summed is not None and start is not None and start.shape == value.shape:
            step, largest, sums = summed
            if step == number and largest > 0:
                factor = float((value - start.double()).abs().max()) / largest
                self._carried[name] = self._carried.get(name, 0.0) + factor * sums
        return self._carried.get(name, 0.0)

    def _scale(self, quantity: Quantity, value: torch.Tensor, terms: torch.Tensor) -> torch.Tensor:
        """The scale of each element, to which errors carried to it are proportional."""
        if quantity.kind not in _PRODUCTS:
            return terms.max().expand_as(terms)
        if value.dim() > 1:
            return matrix_scale(terms)
        if quantity.kind == "gradient":
            assert quantity.step is not None
            sizes = gradient_sizes(self.oracle, quantity.step, quantity.name, value, terms)
            known = self._reached.get(quantity.name, sizes)
            self._reached[quantity.name] = torch.maximum(known, sizes)
            return sizes
        parameter, _, _ = quantity.name.rpartition(".")
        return state_scale(value, self._reached.get(parameter), len(self.oracle.trajectory.steps))

    def _seen(
        self,
        quantity: Quantity,
        errors: torch.Tensor,
        scale: torch.Tensor,
        largest: float,
    ) -> _Seen:
        """The largest errors of the reference runs, of this step or of all steps up to it."""
        most = most_of_one_process(self._coarsest) * largest
        floor = FACTOR * self._subnormal
        self.one_process.append(OneProcess(quantity, float(errors.max()), most + floor))
        # A run with a larger error than one process may have is no sample of rounding.
        errors = errors.clamp(max=most)
        relative = torch.where(errors > 0, errors / scale, 0.0)
        seen = _Seen(float(errors.max()), float(relative.max()))
        if quantity.kind in _KEPT:
            key = (quantity.kind, quantity.name)
            seen = self._so_far[key] = seen.or_more(self._so_far.get(key, seen))
        elif quantity.kind == "loss" and quantity.step is not None:
            self._of_losses[quantity.step] = seen
        return seen


def most_of_one_process(roundoff: float) -> float:
    """The error that one process may have, in units of a tensor's scale: ten bits, or half of all bits.

    A process that loses more in a few steps computes something else, or the scenario is so
    ill-conditioned that it shows nothing.
    """
    return min(2.0**10 * roundoff, math.sqrt(roundoff))


def gradient_terms(oracle: Oracle, step: int, name: str, gradient: torch.Tensor) -> torch.Tensor:
    """The magnitude of a gradient's terms, element by element: the mean of the ranks' |gradient|.

    ``gradient`` is the one that the optimizer saw. Clipping scales a gradient and so its terms; the
    factor is taken from elements that did not nearly cancel. If the scaled mean of the parts is
    smaller than the gradient, all elements get the largest magnitude.
    """
    parts = oracle.gradients(step, name)
    if parts is None or not gradient.numel():
        return gradient.abs()
    left, explained = _left(parts, gradient)
    terms = parts.abs().mean(0) * left
    if explained:
        return terms
    # The gradient is not made of the parts element by element (batch norm over all rows).
    return torch.full_like(terms, float(torch.maximum(terms, gradient.abs()).max()))


def _left(parts: torch.Tensor, gradient: torch.Tensor) -> tuple[float, bool]:
    """The factor by which clipping scaled a gradient, and whether the parts explain the gradient."""
    size, before = gradient.abs(), parts.mean(0).abs()
    large = before > 2.0**-10 * before.max()
    left = float(torch.where(large, size / before, 0.0).max()) if large.any() else 1.0
    return left, bool((size <= before * left + 1e-9 * size.max()).all())


def gradient_sizes(
    oracle: Oracle, step: int, name: str, gradient: torch.Tensor, terms: torch.Tensor
) -> torch.Tensor:
    """The scale of a gradient of one dim, element by element: the mean of the rows' |gradient|.

    ``terms`` is what :func:`gradient_terms` returns. Terms of several rows may cancel within a rank, so
    a scale by rows is at least ``terms``. If rows cannot be trained alone, or the parts do not explain
    the gradient, all elements get the largest magnitude.
    """
    parts = oracle.gradients(step, name)
    steps = oracle.rows.steps
    rows = steps[step].gradient.get(name) if step < len(steps) else None
    if parts is not None and rows is not None:
        left, explained = _left(parts, gradient)
        if explained:
            return torch.maximum(rows * left, terms)
    return terms.max().expand_as(terms)


def state_scale(value: torch.Tensor, reached: torch.Tensor | None, steps: int) -> torch.Tensor:
    """The scale of an optimizer's state of one dim, from the parameter's gradients.

    ``reached`` is the largest scale of each element's gradients so far. A state that is a sum or a
    mean of gradients has that scale. One of squares has the magnitude of ``sqrt(value) * reached``: a
    gradient's square has twice the error of the gradient, times the gradient. What is neither (an
    average of parameters, for example) has one scale for all elements.
    """
    size = value.abs()
    if reached is None or reached.shape != value.shape:
        return size.max().expand_as(size)
    if bool(((value >= 0) & (value <= steps * reached**2)).all()):
        return value.sqrt() * reached
    if bool((size <= steps * reached).all()):
        return reached
    return size.max().expand_as(size)


def matrix_scale(terms: torch.Tensor) -> torch.Tensor:
    """For each element, the smaller of the maximum of its row and the maximum of its column.

    ``terms`` has at least two dims, and is treated as a matrix of ``shape[0]`` rows.
    """
    if not terms.numel():
        return terms
    matrix = terms.reshape(terms.shape[0], -1)
    scale = torch.minimum(matrix.amax(1, keepdim=True), matrix.amax(0))
    return scale.reshape(terms.shape)


def group_of(run: Trajectory, step: int | None, kind: str) -> Tensors:
    """The tensors of a kind at a step; raises ``IndexError`` if the run has no such step."""
    found: Tensors = getattr(run if step is None else run.steps[step], kind)
    return found


def _counter(quantity: Quantity, value: torch.Tensor, found: list[torch.Tensor | None]) -> bool:
    """Whether a tensor of an optimizer counts steps: integers that every reference run has exactly."""
    return (
        quantity.kind == "optimizer"
        and torch.equal(value, value.round())
        and all(one is not None and torch.equal(one.double(), value.double()) for one in found)
    )


def _errors(found: list[torch.Tensor | None], expected: torch.Tensor) -> torch.Tensor:
    """The largest absolute error of each element; infinite if not finite and not equal."""
    if not found or any(one is None or one.shape != expected.shape for one in found):
        return torch.full_like(expected, math.inf)
    flat = [one.reshape(-1) for one in found if one is not None]
    parts = zip(
        expected.reshape(-1).split(AT_A_TIME),
        *(one.split(AT_A_TIME) for one in flat),
        strict=True,
    )
    worst = [_largest(right, torch.stack([one.double() for one in mine])) for right, *mine in parts]
    return torch.cat(worst).reshape(expected.shape)


def _largest(expected: torch.Tensor, stack: torch.Tensor) -> torch.Tensor:
    """The largest error of each element of a stack: ``[runs, n]``, expected is ``[n]``."""
    off = (stack - expected).abs()
    if not math.isfinite(float(off.sum())):
        off = torch.where(stack == expected, 0.0, off.nan_to_num(nan=math.inf, posinf=math.inf))
    return off.amax(0)


def _times(relative: float, scale: torch.Tensor) -> torch.Tensor:
    """``relative * scale``; infinite if ``relative`` is, even where the scale is 0."""
    return torch.full_like(scale, math.inf) if math.isinf(relative) else relative * scale


def _floats(tensor: torch.Tensor | None) -> TypeGuard[torch.Tensor]:
    return tensor is not None and tensor.is_floating_point()


def _roundoff(dtype: torch.dtype) -> float:
    return torch.finfo(dtype).eps / 2
