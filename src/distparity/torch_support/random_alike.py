"""Random numbers that are the same, but for nothing, in whatever dtype the tensors are that get them."""

from __future__ import annotations

from typing import Any

import torch
from torch.overrides import TorchFunctionMode

__all__ = ["RandomAlike"]

_IN_PLACE = frozenset({"normal_", "uniform_", "exponential_", "log_normal_", "cauchy_"})
_LIKE = frozenset({"randn_like", "rand_like"})


class RandomAlike(TorchFunctionMode):
    """Within it, what draws numbers into a tensor, or like one, draws them in ``dtype``.

    torch draws other numbers into a float64 tensor than into a float32 one.
    """

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        name = getattr(func, "__name__", "")
        # torch.nn.init passes its tensor by name.
        target = args[0] if args else kwargs.get("tensor")
        if name not in _IN_PLACE | _LIKE or not isinstance(target, torch.Tensor):
            return func(*args, **kwargs)
        kwargs.pop("tensor", None)
        drawn = torch.empty(target.shape, dtype=self.dtype, device=target.device)
        drawn = func(drawn, *args[1:], **kwargs)
        if name in _LIKE:
            return drawn.to(kwargs.get("dtype") or target.dtype)
        with torch.no_grad():
            return target.copy_(drawn)
