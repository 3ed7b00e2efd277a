r"""Reductions over ranks in plain arithmetic, with bounds of the rounding error.

A sum of :math:`p` terms in any order has an error of at most :math:`\gamma_{p-1} \sum_i |x_i|`, a
product one of :math:`\gamma_{p-1} \prod_i |x_i|`, with :math:`\gamma_n = nu / (1 - nu)` and
:math:`u` the unit roundoff of the dtype in which it is made (Higham, *Accuracy and Stability of
Numerical Algorithms*, 2nd ed., sections 3.1 and 4.2); a mean has one more division. These are
bounds, not estimates: nothing is measured, and there is no safety factor.
"""

from __future__ import annotations

import torch

from distparity.operations.exact import Exact

__all__ = ["draw", "gamma", "ops", "reduce", "wide"]

_FOR_ALL = ("SUM", "PRODUCT", "MIN", "MAX")
_OF_BITS = ("BAND", "BOR", "BXOR")


def ops(dtype: torch.dtype, ranks: int) -> list[str]:
    """The reductions that are defined for a dtype, by their names in ``ReduceOp``.

    The mean of integers is included if it is an integer, and the dtype can represent the sum.
    """
    if dtype is torch.bool:
        return [*_FOR_ALL, *_OF_BITS]
    if dtype.is_floating_point:
        return [*_FOR_ALL, "AVG"]
    return [*_FOR_ALL, *_OF_BITS, *(["AVG"] if _most_mean(dtype, ranks) else [])]


def _most_mean(dtype: torch.dtype, ranks: int) -> int:
    """The largest mean of integers whose intermediate sums fit into the dtype."""
    return min(9, torch.iinfo(dtype).max // ranks**2)


def draw(
    generator: torch.Generator,
    shape: tuple[int, ...],
    dtype: torch.dtype,
    op: str | None,
    ranks: int,
) -> torch.Tensor:
    """The contribution of one of ``ranks`` ranks: values whose reduction neither overflows nor hides
    a contribution.
    """
    if dtype is torch.bool:
        # In three quarters of the elements, this rank's value decides the result.
        rare = torch.randint(0, 4, shape, generator=generator) == 0
        return ~rare if op in ("PRODUCT", "MIN", "BAND") else rare
    if dtype.is_floating_point:
        drawn = torch.randn(shape, generator=generator, dtype=torch.float64)
        if op == "PRODUCT":
            drawn = drawn.sign() * (0.5 + drawn.abs().clamp(max=1.5))
        return drawn.to(dtype)
    signed = torch.iinfo(dtype).min < 0
    if op == "PRODUCT":
        low, high = (-3 if signed else 1), 4
    elif op == "AVG":
        most = _most_mean(dtype, ranks)
        low, high = (-most if signed else 0), most + 1
    else:
        low, high = (-30 if signed else 0), 31
    drawn = torch.randint(low, high, shape, generator=generator)
    return (drawn * ranks if op == "AVG" else drawn).to(dtype)


def wide(tensor: torch.Tensor) -> torch.Tensor:
    """Convert to float64, int64 or bool: exact, and wide enough to compute in."""
    if tensor.dtype is torch.bool:
        return tensor
    return tensor.double() if tensor.is_floating_point() else tensor.long()


def gamma(count: int, dtype: torch.dtype) -> float:
    r"""The bound :math:`\gamma_n` of the relative error of ``count`` roundings."""
    roundoff = torch.finfo(dtype).eps / 2
    return count * roundoff / (1 - count * roundoff)


def reduce(op: str, terms: list[torch.Tensor]) -> Exact:
    """The exact reduction of one tensor per rank, with the allowed error."""
    dtype = terms[0].dtype
    stack = torch.stack([wide(term) for term in terms])
    if dtype is torch.bool:
        return Exact(_bools(op, stack), dtype)
    value = _reduced(op, stack)
    if not dtype.is_floating_point or op in ("MIN", "MAX"):
        # Cast and cast back, so that integers wrap around as in their own dtype.
        return Exact(value.to(dtype).to(value.dtype), dtype)
    count = len(terms)
    roundings = {"SUM": count - 1, "PRODUCT": count - 1, "AVG": count if count > 1 else 0}[op]
    # The value itself was rounded in float64 as many times.
    bound = gamma(roundings, dtype) + gamma(roundings, torch.float64)
    return Exact(value, dtype, bound * _reduced(op, stack.abs()))


def _reduced(op: str, stack: torch.Tensor) -> torch.Tensor:
    if op == "SUM":
        return stack.sum(0)
    if op == "AVG":
        return stack.mean(0) if stack.is_floating_point() else stack.sum(0) // len(stack)
    if op == "PRODUCT":
        return stack.prod(0)
    if op in ("MIN", "MAX"):
        return stack.amin(0) if op == "MIN" else stack.amax(0)
    value = stack[0]
    for term in stack[1:]:
        value = value & term if op == "BAND" else value | term if op == "BOR" else value ^ term
    return value


def _bools(op: str, stack: torch.Tensor) -> torch.Tensor:
    if op == "BXOR":
        return stack.sum(0) % 2 == 1
    return stack.all(0) if op in ("PRODUCT", "MIN", "BAND") else stack.any(0)
