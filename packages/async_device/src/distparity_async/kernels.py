"""Operations for which torch asks devices alone: the CPU has no kernel for them.

Written as torch composes them elsewhere: cells of recurrent layers, and batch normalisation over ranks.
Channels are the second dimension of a batch.
"""

from __future__ import annotations

from typing import Any

import torch

__all__ = ["ALL"]


def _lstm_cell(one: Any, other: Any, cell: Any, *biases: Any) -> Any:
    gates = sum((bias for bias in biases if bias is not None), one + other)
    enters, stays, fresh, leaves = gates.chunk(4, 1)
    enters, stays, leaves = enters.sigmoid(), stays.sigmoid(), leaves.sigmoid()
    fresh = fresh.tanh()
    cell = stays * cell + enters * fresh
    return leaves * cell.tanh(), cell, torch.cat([enters, stays, fresh, leaves], 1)


def _lstm_cell_backward(
    by_out: Any, by_cell: Any, before: Any, cell: Any, gates: Any, _has_bias: bool
) -> Any:
    enters, stays, fresh, leaves = gates.chunk(4, 1)
    seen = cell.tanh()
    by_out = torch.zeros_like(cell) if by_out is None else by_out
    through = by_out * leaves * (1 - seen * seen) + (0 if by_cell is None else by_cell)
    given = [
        through * fresh * enters * (1 - enters),
        through * before * stays * (1 - stays),
        through * enters * (1 - fresh * fresh),
        by_out * seen * leaves * (1 - leaves),
    ]
    gradient = torch.cat(given, 1)
    return gradient, through * stays, gradient.sum(0)


def _gru_cell(one: Any, other: Any, before: Any, bias: Any = None, other_bias: Any = None) -> Any:
    one = one if bias is None else one + bias
    other = other if other_bias is None else other + other_bias
    (r, z, n), (hr, hz, hn) = one.chunk(3, 1), other.chunk(3, 1)
    reset, update = (r + hr).sigmoid(), (z + hz).sigmoid()
    fresh = (n + reset * hn).tanh()
    out = fresh + update * (before - fresh)
    return out, torch.cat([reset, update, fresh, before, hn], 1)


def _gru_cell_backward(by_out: Any, kept: Any, _has_bias: bool) -> Any:
    reset, update, fresh, before, hidden = kept.chunk(5, 1)
    to_fresh = by_out * (1 - update) * (1 - fresh * fresh)
    to_update = by_out * (before - fresh) * update * (1 - update)
    to_reset = to_fresh * hidden * reset * (1 - reset)
    one = torch.cat([to_reset, to_update, to_fresh], 1)
    other = torch.cat([to_reset, to_update, to_fresh * reset], 1)
    return one, other, by_out * update, one.sum(0), other.sum(0)


def _but_channels(x: torch.Tensor) -> list[int]:
    return [dim for dim in range(x.dim()) if dim != 1]


def _channels(values: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """One value for each channel, so that it broadcasts over ``x``."""
    return values.view(1, -1, *[1] * (x.dim() - 2))


def _batch_norm_stats(x: Any, eps: float) -> Any:
    dims = _but_channels(x)
    return x.mean(dims), (x.var(dims, unbiased=False) + eps).rsqrt()


def _batch_norm_gather(
    _: Any,
    mean: Any,
    invstd: Any,
    run_mean: Any,
    run_var: Any,
    momentum: float,
    eps: float,
    counts: Any,
) -> Any:
    counts = counts.to(mean.dtype).view(-1, 1)
    total = counts.sum()
    whole = (mean * counts).sum(0) / total
    spread = ((invstd.pow(-2) - eps + (mean - whole) ** 2) * counts).sum(0) / total
    for running, seen in ((run_mean, whole), (run_var, spread * total / (total - 1))):
        if running is not None:
            running.mul_(1 - momentum).add_(momentum * seen)
    return whole, (spread + eps).rsqrt()


def _batch_norm_elements(
    x: Any, weight: Any, bias: Any, mean: Any, invstd: Any, _eps: float
) -> Any:
    out = (x - _channels(mean, x)) * _channels(invstd, x)
    out = out if weight is None else out * _channels(weight, x)
    return (out if bias is None else out + _channels(bias, x)).to(x.dtype)


def _batch_norm_reduce(
    gradient: Any, x: Any, mean: Any, invstd: Any, _weight: Any, *_wanted: bool
) -> Any:
    dims = _but_channels(x)
    plain, about = gradient.sum(dims), (gradient * (x - _channels(mean, x))).sum(dims)
    return plain, about, about * invstd, plain.clone()


def _batch_norm_elements_backward(
    gradient: Any, x: Any, mean: Any, invstd: Any, weight: Any, plain: Any, about: Any, counts: Any
) -> Any:
    total = counts.sum()
    scale = invstd if weight is None else invstd * weight
    away = (x - _channels(mean, x)) * _channels(invstd.square() * about / total, x)
    found = (gradient - _channels(plain / total, x) - away) * _channels(scale, x)
    return found.to(x.dtype)


#: By name, as ``torch.ops.aten`` has them.
ALL = {
    "_thnn_fused_lstm_cell": _lstm_cell,
    "_thnn_fused_lstm_cell_backward_impl": _lstm_cell_backward,
    "_thnn_fused_gru_cell": _gru_cell,
    "_thnn_fused_gru_cell_backward": _gru_cell_backward,
    "batch_norm_stats": _batch_norm_stats,
    "batch_norm_gather_stats_with_counts": _batch_norm_gather,
    "batch_norm_elemt": _batch_norm_elements,
    "batch_norm_backward_reduce": _batch_norm_reduce,
    "batch_norm_backward_elemt": _batch_norm_elements_backward,
}
