"""What DTensor remembers of operations, forgotten.

DTensor decides once how an operation is distributed and how its inputs get there, and keeps both, by
the placements and shapes of tensors and by some of the other arguments. Where one is left out that
matters, an operation takes what an earlier one was called with (``defects/dtensor_first_number.py``,
``defects/dtensor_gather_again.py``): what a case computes would depend on what ran before it in the
same process.
"""

from __future__ import annotations

import sys
from typing import Any

import torch

__all__ = ["forget"]

#: Where DTensor is, now and before 2.5.
_HOMES = {"torch.distributed.tensor": "_api", "torch.distributed._tensor": "api"}


def forget() -> None:
    """Have the next operation of every kind be looked at as if it were the first.

    Costs next to nothing where nobody has used DTensor. Later releases keep what they decided in C++
    as well, that of each thread apart: there it is this thread's.
    """
    for home, api in _HOMES.items():
        dtensor: Any = getattr(sys.modules.get(f"{home}.{api}"), "DTensor", None)
        if dtensor is not None:
            _empty(dtensor._op_dispatcher.sharding_propagator)
            sys.modules[f"{home}._redistribute"]._gen_transform_infos.cache_clear()
            break
    in_c = getattr(torch._C, "_clear_DTensor_sharding_propagator_cache", None)
    if in_c is not None:
        in_c()


def _empty(propagator: Any) -> None:
    kept = propagator.propagate_op_sharding
    if hasattr(kept, "cache"):
        # A cache of each thread: a new one is new to all of them.
        propagator.propagate_op_sharding = type(kept)(propagator.propagate_op_sharding_non_cached)
    else:
        kept.cache_clear()
    for value in vars(type(propagator)).values():
        if hasattr(value, "cache_clear"):
            value.cache_clear()
