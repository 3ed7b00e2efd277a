"""Softmax over the sharded dim and over the other, and attention written out with it."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from distparity.operations.dtensor.base import Subject, TensorOperation


class Softmax(TensorOperation):
    subjects = (
        Subject("softmax over columns", lambda x: F.softmax(x, -1)),
        Subject("softmax over rows", lambda x: F.softmax(x, 0)),
        Subject("log_softmax over columns", lambda x: F.log_softmax(x, -1)),
        Subject("log_softmax over rows", lambda x: F.log_softmax(x, 0)),
        Subject(
            "attention by hand",
            lambda q, k: torch.softmax(q @ k.transpose(-1, -2), -1) @ k,
            ("heads", "heads"),
        ),
    )
