"""Norms of vectors, and the layers that normalise."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from distparity.operations.dtensor.base import COLUMNS, Subject, TensorOperation

_NORM = torch.linalg.vector_norm


class Norms(TensorOperation):
    subjects = (
        Subject("2-norm", _NORM),
        Subject("1-norm", lambda x: _NORM(x, 1)),
        Subject("3-norm", lambda x: _NORM(x, 3)),
        Subject("0-norm", lambda x: _NORM(x, 0)),
        Subject("2-norm over rows", lambda x: _NORM(x, 2, 0)),
        Subject("2-norm over columns", lambda x: _NORM(x, 2, 1)),
        Subject("foreach norm", lambda x, y: torch._foreach_norm([x, y], 2.0), ("x", "y")),  # noqa: SLF001  clipping's
        Subject("normalize", F.normalize),
        Subject("layer_norm", lambda x: F.layer_norm(x, (COLUMNS,))),
        Subject(
            "layer_norm with weight and bias",
            lambda x, w, b: F.layer_norm(x, (COLUMNS,), w, b),
            ("x", "bias", "bias"),
        ),
        Subject("layer_norm of a cube", lambda x: F.layer_norm(x, (COLUMNS,)), ("cube",)),
        Subject("rms_norm", lambda x, w: F.rms_norm(x, (COLUMNS,), w, 1e-6), ("x", "bias")),
        Subject("group_norm", lambda x: F.group_norm(x, 2), ("cube",)),
    )
