"""Losses, each with every reduction: a mean over uneven shards is not the mean of their means."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.nn import functional as F

from distparity.core.known_limit import Limit
from distparity.operations.dtensor.base import Subject, TensorOperation

_PLAIN: dict[str, Callable[..., Any]] = {
    "mse_loss": F.mse_loss,
    "l1_loss": F.l1_loss,
    "smooth_l1_loss": F.smooth_l1_loss,
    "huber_loss": F.huber_loss,
}


def _with(function: Callable[..., Any], reduction: str, **more: Any) -> Callable[..., Any]:
    return lambda *inputs: function(*inputs, reduction=reduction, **more)


def _weighted(reduction: str) -> Callable[..., Any]:
    return lambda x, labels, b: F.cross_entropy(x, labels, b.detach().abs(), reduction=reduction)


def _nll(reduction: str) -> Callable[..., Any]:
    return lambda x, labels: F.nll_loss(F.log_softmax(x, -1), labels, reduction=reduction)


def _subjects() -> Iterator[Subject]:
    for how in ("mean", "sum", "none"):
        for name, function in _PLAIN.items():
            yield Subject(f"{name}, {how}", _with(function, how), ("x", "y"))
        yield Subject(
            f"binary_cross_entropy_with_logits, {how}",
            lambda x, y, how=how: F.binary_cross_entropy_with_logits(
                x, torch.sigmoid(y), reduction=how
            ),
            ("x", "y"),
        )
        yield Subject(
            f"kl_div, {how}",
            lambda x, y, how=how: F.kl_div(F.log_softmax(x, -1), F.softmax(y, -1), reduction=how),
            ("x", "y"),
        )
        yield Subject(f"nll_loss, {how}", _nll(how), ("x", "labels"))
        yield Subject(f"cross_entropy, {how}", _with(F.cross_entropy, how), ("x", "labels"))
        yield Subject(
            f"cross_entropy with ignored labels, {how}",
            _with(F.cross_entropy, how, ignore_index=3),
            ("x", "labels"),
        )
        yield Subject(
            f"cross_entropy with smoothed labels, {how}",
            _with(F.cross_entropy, how, label_smoothing=0.1),
            ("x", "labels"),
        )
        yield Subject(f"cross_entropy with weights, {how}", _weighted(how), ("x", "labels", "bias"))


class Losses(TensorOperation):
    limits = (
        *TensorOperation.limits,
        Limit(
            fact="the mean of a loss over uneven shards",
            answer=r"cannot be evenly sharded,\s+resulting in biased mean",
        ),
    )
    subjects = tuple(_subjects())
