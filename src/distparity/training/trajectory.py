"""The record of a training run, in memory and as bytes."""

from __future__ import annotations

import ctypes
import json
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch

__all__ = ["KINDS", "Step", "Tensors", "Trajectory"]

Tensors = dict[str, "torch.Tensor | None"]

#: The kinds of quantity of one step, in the order in which training computes them.
KINDS = ("loss", "gradient", "parameter", "buffer", "optimizer")


@dataclass
class Step:
    """One optimizer step: tensors by name, for each kind in :data:`KINDS`.

    All tensors are copies on the CPU, in the dtype in which the run stored them (float64 in the
    oracle). They are full tensors of the model's shapes, never shards. A complex tensor of shape
    ``s`` is recorded as a real one of shape ``[*s, 2]``, and a sparse gradient as a dense one.
    A value is None if there is no such tensor, for example no gradient. A step that this process did
    not make is empty.
    """

    #: One scalar tensor of shape ``[]`` named ``loss``: the mean over this process's rows.
    loss: Tensors = field(default_factory=dict)
    #: By parameter: the gradient that the optimizer saw, after accumulation, reduction and clipping.
    gradient: Tensors = field(default_factory=dict)
    #: By parameter: its value after the optimizer's step.
    parameter: Tensors = field(default_factory=dict)
    #: By buffer: its value after the optimizer's step.
    buffer: Tensors = field(default_factory=dict)
    #: The optimizer's state after the step, named ``parameter.key``: tensors of the parameters' shapes.
    #: A rank may have only some parameters' state.
    optimizer: Tensors = field(default_factory=dict)

    def kinds(self) -> Iterator[tuple[str, Tensors]]:
        """Each kind with its tensors, in the order of :data:`KINDS`."""
        for kind in KINDS:
            yield kind, getattr(self, kind)


@dataclass
class Trajectory:
    """What one process recorded: initial state, one :class:`Step` per optimizer step, final state.

    Names are those of the model before it was wrapped. Tensors are as in :class:`Step`: full copies
    on the CPU, with no dimension for ranks; each rank has a trajectory of its own.
    """

    #: Parameters and buffers before training; empty if this process takes over from another world.
    initial: Tensors = field(default_factory=dict)
    #: As many as the scenario has steps, whichever of them this process made.
    steps: list[Step] = field(default_factory=list)
    #: The optimizer's state after the last step, named ``parameter.key``, for example
    #: ``weight.momentum_buffer``; empty if another world makes the last step.
    optimizer: Tensors = field(default_factory=dict)
    #: Row indices into the global batch that this process trains on; None if unknown.
    rows: list[int] | None = None
    #: The measured unit roundoff of the device's matrix products; 0 if not measured.
    products: float = 0.0

    def to_bytes(self) -> bytes:
        """Serialize: a line of JSON that lists the tensors, then their bytes in the same order."""
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
                # Without numpy, which torch does not require.
                parts.append(ctypes.string_at(whole.data_ptr(), size) if size else b"")
        return b"".join(
            [json.dumps([len(self.steps), self.rows, self.products, index]).encode(), b"\n", *parts]
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> Trajectory:
        """Inverse of :meth:`to_bytes`; raises ``ValueError`` if bytes are missing."""
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
