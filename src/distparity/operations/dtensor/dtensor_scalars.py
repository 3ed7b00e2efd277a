"""Computations with the result of a reduction, before the ranks' partial results are reduced.

After a sum over a sharded dim, every rank has a partial sum. Each may be multiplied by a number, but
a number must not be added to each.
"""

from __future__ import annotations

import torch

from distparity.operations.dtensor.base import Subject, TensorOperation

_NORM = torch.linalg.vector_norm


class Scalars(TensorOperation):
    subjects = (
        Subject("sum + 1", lambda x: x.sum() + 1),
        Subject("1 - sum", lambda x: 1 - x.sum()),
        Subject("sum * 3", lambda x: x.sum() * 3),
        Subject("sum / 3", lambda x: x.sum() / 3),
        Subject("-sum", lambda x: -x.sum()),
        Subject("3 / sum", lambda x: 3 / x.sum(), ("positive",)),
        Subject("sum ** 2", lambda x: x.sum() ** 2),
        Subject("exp of mean", lambda x: x.mean().exp()),
        Subject("sqrt of mean + 1", lambda x: (x.mean() + 1).sqrt(), ("positive",)),
        Subject("sum + sum", lambda x, y: x.sum() + y.sum(), ("x", "y")),
        Subject("sum - sum", lambda x, y: x.sum() - y.sum(), ("x", "y")),
        Subject("sum * sum", lambda x, y: x.sum() * y.sum(), ("x", "y")),
        Subject("sum / sum", lambda x, y: x.sum() / y.sum(), ("x", "positive")),
        Subject("mean + 1", lambda x: x.mean() + 1),
        Subject("mean * 3", lambda x: x.mean() * 3),
        Subject("sum over rows + row", lambda x, b: x.sum(0) + b, ("x", "bias")),
        Subject("sum over rows * row", lambda x, b: x.sum(0) * b, ("x", "bias")),
        Subject("x - mean over rows", lambda x: x - x.mean(0)),
        Subject("x / sum", lambda x: x / x.sum(), ("positive",)),
        Subject("sum clamped", lambda x: x.sum().clamp(max=1.0)),
        Subject("abs of sum", lambda x: x.sum().abs()),
        Subject("sum > 0", lambda x: x.sum() > 0),
        Subject("norm * 3", lambda x: _NORM(x) * 3),
        Subject("norm + 1", lambda x: _NORM(x) + 1),
        Subject("1 - norm", lambda x: 1 - _NORM(x)),
        Subject("-norm", lambda x: -_NORM(x)),
        Subject("norm / 3", lambda x: _NORM(x) / 3),
        Subject("1 / norm", lambda x: 1 / (_NORM(x) + 1e-6)),
        Subject("norm ** 2", lambda x: _NORM(x) ** 2),
        Subject("norm + norm", lambda x, y: _NORM(x) + _NORM(y), ("x", "y")),
        Subject("norm of norms", lambda x, y: _NORM(torch.stack([_NORM(x), _NORM(y)])), ("x", "y")),
        Subject("x / norm", lambda x: x / _NORM(x)),
        Subject("x clipped to norm 1", lambda x: x * (1 / (_NORM(x) + 1e-6)).clamp(max=1.0)),
    )
