"""Matrix products: sharded rows, a sharded inner dim, whose products are parts of a sum."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from distparity.operations.dtensor.base import Subject, TensorOperation


class Matmuls(TensorOperation):
    subjects = (
        Subject("x @ w.T", lambda x, w: x @ w.t(), ("x", "weight")),
        Subject("x.T @ y", lambda x, y: x.t() @ y, ("x", "y")),
        Subject("x @ y.T", lambda x, y: x @ y.t(), ("x", "y")),
        Subject("linear", F.linear, ("x", "weight")),
        Subject("linear with bias", F.linear, ("x", "weight", "short")),
        Subject("linear of a cube", F.linear, ("cube", "weight", "short")),
        Subject("addmm", lambda x, w, b: torch.addmm(b, x, w.t()), ("x", "weight", "short")),
        Subject(
            "addmm with factors",
            lambda x, w, b: torch.addmm(b, x, w.t(), beta=0.5, alpha=2.0),
            ("x", "weight", "short"),
        ),
        Subject("linear after relu", lambda x, w: F.linear(F.relu(x), w), ("x", "weight")),
        Subject("relu after linear", lambda x, w: F.relu(F.linear(x, w)), ("x", "weight")),
        Subject("bmm", lambda x: torch.bmm(x, x.transpose(1, 2)), ("cube",)),
        Subject("matmul of heads", lambda x: x @ x.transpose(-1, -2), ("heads",)),
        Subject("einsum", lambda x, w: torch.einsum("bsc,oc->bso", x, w), ("cube", "weight")),
        Subject("x @ vector", lambda x, b: x @ b, ("x", "bias")),
        Subject("outer", lambda n: torch.outer(n, n), ("bias",)),
    )
