"""Embedding lookups: with sharded indices, or with a sharded table."""

from __future__ import annotations

from torch.nn import functional as F

from distparity.operations.dtensor.base import Subject, TensorOperation


class Embedding(TensorOperation):
    subjects = (
        Subject("embedding", F.embedding, ("labels", "table")),
        Subject(
            "embedding with padding",
            lambda n, w: F.embedding(n, w, padding_idx=3),
            ("labels", "table"),
        ),
        Subject("embedding then sum", lambda n, w: F.embedding(n, w).sum(), ("labels", "table")),
        Subject(
            "embedding from the placed", lambda n, w: F.embedding(n % len(w), w), ("labels", "x")
        ),
        Subject("one_hot", lambda n: F.one_hot(n, 8), ("labels",)),
    )
