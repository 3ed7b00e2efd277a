"""Sums, means and indices of maxima, over all dims and over one, and computations with them.

After a reduction over a sharded dim, every rank has a partial result. A computation with it, before
the partial results are reduced, must respect the reduction that will be used.
"""

from __future__ import annotations

from distparity.operations.dtensor.base import Subject, TensorOperation


class Reductions(TensorOperation):
    subjects = (
        Subject("sum", lambda x: x.sum()),
        Subject("sum over rows", lambda x: x.sum(0)),
        Subject("sum over columns", lambda x: x.sum(1, keepdim=True)),
        Subject("mean", lambda x: x.mean()),
        Subject("mean over rows", lambda x: x.mean(0)),
        Subject("mean over columns", lambda x: x.mean(-1)),
        Subject("mean of means", lambda x: x.mean(0).mean()),
        Subject("var over columns", lambda x: x.var(1, correction=0)),
        Subject("var over rows", lambda x: x.var(0, correction=0)),
        Subject("amin over columns", lambda x: x.amin(1)),
        Subject("max over rows with places", lambda x: x.max(0)),
        Subject("min over columns with places", lambda x: x.min(1)),
        Subject("argmax over columns", lambda x: x.argmax(1)),
        Subject("prod", lambda x: x.prod()),
        Subject("logsumexp over columns", lambda x: x.logsumexp(1)),
        Subject("logsumexp over rows", lambda x: x.logsumexp(0)),
        Subject("cumsum over rows", lambda x: x.cumsum(0)),
        Subject("cumsum over columns", lambda x: x.cumsum(1)),
        Subject("any", lambda x: (x > 1).any()),
        Subject("all", lambda x: (x > 1).all()),
        Subject("topk over columns", lambda x: x.topk(2, 1)),
        Subject("topk over rows", lambda x: x.topk(1, 0)),
        Subject("sort over columns", lambda x: x.sort(1)),
    )
