"""An operation that is called a second time, with other numbers, another dim or another dtype.

DTensor caches how an operation is distributed, but its key does not include all arguments. Their
values must come from the present call.
"""

from __future__ import annotations

from torch.nn import functional as F

from distparity.operations.dtensor.base import COLUMNS, Subject, TensorOperation


class Again(TensorOperation):
    subjects = (
        Subject("clamp", lambda x: (x.clamp(None, 0.25), x.clamp(None, 1.25))),
        Subject("power", lambda x: (x**2, x**3)),
        Subject("factor", lambda x: (x * 2, x * 3)),
        Subject("leaky_relu", lambda x: (F.leaky_relu(x, 0.1), F.leaky_relu(x, 0.3))),
        Subject("masked_fill", lambda x: (x.masked_fill(x > 0, 0.5), x.masked_fill(x > 0, 1.5))),
        Subject("sum over a dim", lambda x: (x.sum(1), x.sum(0), x.sum(1, keepdim=True))),
        Subject("softmax", lambda x: (x.softmax(1), x.softmax(0))),
        Subject("columns", lambda x: (x[:, :2], x[:, 2:4], x[:, 2:6])),
        Subject("view", lambda x: (x.view(-1, 2, COLUMNS // 2), x.view(-1, COLUMNS // 2, 2))),
        Subject("transpose", lambda x: (x.transpose(1, 2), x.transpose(1, 0)), ("cube",)),
        Subject(
            "gather in two dtypes",
            # The first result is gathered before the second call.
            lambda x, n: (x.gather(1, n[:, None]).exp(), x.double().gather(1, n[:, None]).exp()),
            ("x", "labels"),
        ),
    )
