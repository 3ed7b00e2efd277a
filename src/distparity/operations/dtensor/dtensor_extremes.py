"""Maxima, minima and infinity norms, and computations with them before they are reduced over ranks.

After a maximum over a sharded dim, a number may be added to each rank's own maximum, and a minus sign
turns it into a minimum. This is a family of its own because a rank without elements has no maximum.
"""

from __future__ import annotations

import torch

from distparity.operations.dtensor.base import Subject, TensorOperation

_NORM = torch.linalg.vector_norm


class Extremes(TensorOperation):
    subjects = (
        Subject("argmax", lambda x: x.argmax()),
        Subject("argmax over rows", lambda x: x.argmax(0)),
        Subject("max", lambda x: x.max()),
        Subject("min", lambda x: x.min()),
        Subject("amax over rows", lambda x: x.amax(0)),
        Subject("inf norm", lambda x: _NORM(x, float("inf"))),
        Subject("-inf norm", lambda x: _NORM(x, -float("inf"))),
        Subject("max + 1", lambda x: x.max() + 1),
        Subject("max * 3", lambda x: x.max() * 3),
        Subject("-max", lambda x: -x.max()),
        Subject("1 - max", lambda x: 1 - x.max()),
        Subject("-amax over rows", lambda x: -x.amax(0)),
        Subject("-min", lambda x: -x.min()),
        Subject("max - min", lambda x: x.max() - x.min()),
        Subject("max + max", lambda x, y: x.max() + y.max(), ("x", "y")),
        Subject("max * sum", lambda x: x.max() * x.sum()),
        Subject("inf norm * 3", lambda x: _NORM(x, float("inf")) * 3),
        Subject("-(inf norm)", lambda x: -_NORM(x, float("inf"))),
    )
