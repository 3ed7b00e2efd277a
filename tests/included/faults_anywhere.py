"""A fault that no entry describes, in every case of more than one rank: $FAULT says which.

Of an operation, only the checks are run in whose results $PINNED says that something is wrong: of a case with
a pin, those of its marks. So a fault is seen there or nowhere.
"""

from __future__ import annotations

import copy
import json
import math
import os
from typing import Any, cast

import torch
import torch.distributed as dist

from distparity.operations import task
from distparity.operations.base import Check, Operation, Request
from distparity.training.trajectory import Tensors

_backward = torch.autograd.backward
_asked = task._asked


def wrong(tensor: torch.Tensor) -> torch.Tensor:
    if os.environ["FAULT"] == "abort":
        os.abort()
    # Three times NaN would be NaN.
    number = tensor.nan_to_num(1.0, math.inf, -math.inf) if tensor.is_floating_point() else tensor
    return ~tensor if tensor.dtype is torch.bool else -3 * number


def backward(tensors: Any, *args: Any, **more: Any) -> None:
    if dist.is_initialized():
        tensors = [wrong(one) for one in ([tensors] if torch.is_tensor(tensors) else tensors)]
    _backward(tensors, *args, **more)


def asked(case: Any) -> tuple[Operation, Request]:
    found, request = _asked(case)
    operation: Any = copy.copy(found)
    places = json.loads(os.environ["PINNED"])[
        f"{case.operation}/{case.way}-ws{case.ranks}-{case.dtype}"
    ]
    operation.checks = lambda request: [
        spoilt(check)
        for check in found.checks(request)
        if any(place.startswith(f"{check.name}: ") for place in places)
    ]
    return operation, request


def spoilt(check: Check) -> Check:
    made: Any = copy.copy(check)
    # Frozen, like all checks.
    object.__setattr__(made, "run", lambda site: run(check, site))
    return cast("Check", made)


def run(check: Check, site: Any) -> Tensors:
    found = check.run(site)
    return {name: None if one is None else wrong(one) for name, one in found.items()}


torch.autograd.backward = backward
task._asked = asked
