"""Memory that a collective reads or writes, with rubbish in it and around it."""

from __future__ import annotations

import torch

__all__ = ["LAYOUTS", "Buffer", "rubbish"]

#: How a tensor lies in memory: in order; every other element; first dim fastest.
LAYOUTS = ("contiguous", "strided", "transposed")
#: Elements before and after a tensor, and what is in memory before anything is written.
_MARGIN = 3
_RUBBISH = 77


class Buffer:
    """A tensor of a shape and layout within a larger storage.

    It begins as rubbish, unless ``value`` is given. What lies around it must stay as it is.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        dtype: torch.dtype,
        layout: str,
        device: torch.device,
        value: torch.Tensor | None = None,
    ) -> None:
        step = 2 if layout == "strided" else 1
        numel = torch.Size(shape).numel()
        self.storage = rubbish((step * numel + 2 * _MARGIN,), dtype).to(device)
        self.view = _lay(self.storage, shape, layout, step)
        mark = torch.ones(self.storage.shape, dtype=torch.bool)
        _lay(mark, shape, layout, step).fill_(value=False)
        self._outside = mark
        if value is not None:
            self.view.copy_(value)

    def around(self) -> torch.Tensor:
        """What lies around the tensor, on the CPU."""
        return self.storage.cpu()[self._outside]


def _lay(storage: torch.Tensor, shape: tuple[int, ...], layout: str, step: int) -> torch.Tensor:
    strides, stride = [], step
    for size in shape if layout == "transposed" else reversed(shape):
        strides.append(stride)
        stride *= max(size, 1)
    if layout != "transposed":
        strides.reverse()
    return storage.as_strided(shape, strides, _MARGIN)


def rubbish(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """What memory holds before anything is written to it."""
    if dtype is torch.bool:
        return (torch.arange(torch.Size(shape).numel()) % 2 == 0).reshape(shape)
    return torch.full(shape, _RUBBISH, dtype=dtype)
