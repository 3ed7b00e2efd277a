"""Element-wise functions: with broadcasting, with scalars, and with tensors of other placements."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from distparity.operations.dtensor.base import Subject, TensorOperation


class Pointwise(TensorOperation):
    subjects = (
        Subject("x + y", lambda x, y: x + y, ("x", "y")),
        Subject("x * y", lambda x, y: x * y, ("x", "y")),
        Subject("x / y", lambda x, y: x / y, ("x", "positive")),
        Subject("x + replicated", lambda x, w: x + w, ("x", "whole")),
        Subject("replicated - x", lambda x, w: w - x, ("x", "whole")),
        Subject("x * replicated", lambda x, w: x * w, ("x", "whole")),
        Subject("x + row", lambda x, b: x + b, ("x", "bias")),
        Subject("x * row", lambda x, b: x * b, ("x", "bias")),
        Subject("x + 1", lambda x: x + 1),
        Subject("1 - x", lambda x: 1 - x),
        Subject("x * 3", lambda x: x * 3),
        Subject("x / 3", lambda x: x / 3),
        Subject("-x", lambda x: -x),
        Subject("3 x + 1", lambda x: 3 * x + 1),
        Subject("x ** 2", lambda x: x**2),
        Subject("1 / x", lambda x: 1 / x, ("positive",)),
        Subject("abs", lambda x: x.abs()),
        Subject("exp", torch.exp),
        Subject("sqrt", torch.sqrt, ("positive",)),
        Subject("rsqrt", torch.rsqrt, ("positive",)),
        Subject("log", torch.log, ("positive",)),
        Subject("tanh", torch.tanh),
        Subject("sigmoid", torch.sigmoid),
        Subject("relu", F.relu),
        Subject("gelu", F.gelu),
        Subject("silu", F.silu),
        Subject("clamp", lambda x: x.clamp(-0.5, 0.5)),
        Subject("maximum", torch.maximum, ("x", "y")),
        Subject("where", lambda x, y: torch.where(x > 0, x, y), ("x", "y")),
        Subject("lerp", lambda x, y: torch.lerp(x, y, 0.25), ("x", "y")),
        Subject("addcmul", lambda x, y: torch.addcmul(x, x, y, value=0.5), ("x", "y")),
        Subject("x > y", lambda x, y: x > y, ("x", "y")),
        Subject("isfinite", lambda x: x.isfinite()),
    )
