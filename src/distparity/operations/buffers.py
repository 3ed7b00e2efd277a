"""Memory that a collective reads or writes, filled with garbage values, inside and around it."""

from __future__ import annotations

import torch

__all__ = ["LAYOUTS", "Buffer", "rubbish"]

#: Memory layouts of a tensor: in order; every other element; first dim fastest.
LAYOUTS = ("contiguous", "strided", "transposed")
#: The number of elements before and after a tensor, and the garbage value.
_MARGIN = 3
_RUBBISH = 77


class Buffer:
    """A tensor of a shape and layout inside a larger storage.

    It is filled with garbage values unless ``value`` is given. The memory around it must not change.
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
        """The elements of the storage that are not in the tensor: 1-D, on the CPU."""
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
    """A CPU tensor filled with garbage values."""
    if dtype is torch.bool:
        return (torch.arange(torch.Size(shape).numel()) % 2 == 0).reshape(shape)
    return torch.full(shape, _RUBBISH, dtype=dtype)
