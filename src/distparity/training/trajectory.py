"""What a run recorded, in memory and as bytes."""

from __future__ import annotations

import ctypes
import json
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch

__all__ = ["KINDS", "Step", "Trajectory"]

Tensors = dict[str, "torch.Tensor | None"]

#: The kinds of quantity of one step, in the order in which they come to be.
KINDS = ("loss", "gradient", "parameter", "buffer")


@dataclass
class Step:
    """One optimizer step. All tensors are full, on the CPU, copies.

    ``loss`` holds one scalar under the name ``loss``: the mean over this rank's rows.
    ``gradient`` is what the optimizer saw; ``parameter`` and ``buffer`` are what it left.
    """

    loss: Tensors = field(default_factory=dict)
    gradient: Tensors = field(default_factory=dict)
    parameter: Tensors = field(default_factory=dict)
    buffer: Tensors = field(default_factory=dict)

    def kinds(self) -> Iterator[tuple[str, Tensors]]:
        for kind in KINDS:
            yield kind, getattr(self, kind)


@dataclass
class Trajectory:
    """What one process recorded: initial state, one :class:`Step` per optimizer step, final state.

    ``initial`` holds the parameters and buffers before training, in the dtypes they are stored in.
    """

    initial: Tensors = field(default_factory=dict)
    steps: list[Step] = field(default_factory=list)
    #: The optimizer's state after the last step, ``parameter.key``.
    optimizer: Tensors = field(default_factory=dict)
    #: The positions in the global batch of the rows that this process trains on; None: not known.
    rows: list[int] | None = None
    #: The unit roundoff of the device's products of matrices, where that was measured.
    products: float = 0.0

    def to_bytes(self) -> bytes:
        """A line of JSON that lists the tensors, then their bytes, in order."""
        index: list[list[object]] = []
        parts: list[bytes] = []
        for place, tensors in self._groups():
            for name, tensor in tensors.items():
                if tensor is None:
                    index.append([*place, name, None, None])
                    continue
                whole = tensor.contiguous()
                dtype = str(whole.dtype).removeprefix("torch.")
                index.append([*place, name, dtype, list(whole.shape)])
                size = whole.numel() * whole.element_size()
                # Not by way of numpy: torch does not require it.
                parts.append(ctypes.string_at(whole.data_ptr(), size) if size else b"")
        return b"".join(
            [json.dumps([len(self.steps), self.rows, self.products, index]).encode(), b"\n", *parts]
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> Trajectory:
        """Inverse of :meth:`to_bytes`."""
        text, _, raw = data.partition(b"\n")
        count, rows, products, index = json.loads(text)
        found = cls(steps=[Step() for _ in range(count)], rows=rows, products=products)
        buffer = bytearray(raw)
        start = 0
        for step, kind, name, dtype, shape in index:
            tensor = None
            if dtype is not None:
                kind_of = getattr(torch, dtype)
                numel = int(torch.Size(shape).numel())
                if numel:
                    tensor = torch.frombuffer(buffer, dtype=kind_of, count=numel, offset=start)
                    tensor = tensor.clone().reshape(shape)
                else:
                    tensor = torch.empty(shape, dtype=kind_of)
                start += numel * tensor.element_size()
            group = getattr(found if step is None else found.steps[step], kind)
            group[name] = tensor
        return found

    def _groups(self) -> Iterator[tuple[tuple[int | None, str], Tensors]]:
        yield (None, "initial"), self.initial
        yield (None, "optimizer"), self.optimizer
        for number, step in enumerate(self.steps):
            for kind, tensors in step.kinds():
                yield (number, kind), tensors
