"""The record of a training run, in memory, as bytes, and in a file."""

from __future__ import annotations

import ctypes
import itertools
import json
from collections.abc import Callable, Iterator, MutableMapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch

from distparity.core.spool import reserve

__all__ = ["KINDS", "Step", "Tensors", "Trajectory"]

Tensors = MutableMapping[str, "torch.Tensor | None"]

#: The kinds of quantity of one step, in the order in which training computes them.
KINDS = ("loss", "gradient", "norm", "parameter", "buffer", "optimizer")

#: A trajectory in a file is read as a whole if it has at most so many bytes. Of a larger one, each
#: tensor is read when it is needed, and again when it is needed again.
WHOLE = 4 << 20


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
    #: One scalar tensor named ``norm``: what clipping returned, if the scenario compares it.
    norm: Tensors = field(default_factory=dict)

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
        head, tensors = self._serialized()
        return b"".join([head, *map(bytes, tensors)])

    @classmethod
    def from_bytes(cls, data: bytes) -> Trajectory:
        """Inverse of :meth:`to_bytes`; raises ``ValueError`` if bytes are missing."""
        text, _, raw = data.partition(b"\n")
        buffer = bytearray(raw)

        def tensor(start: int, dtype: torch.dtype, shape: list[int]) -> torch.Tensor:
            numel = int(torch.Size(shape).numel())
            if not numel:
                return torch.empty(shape, dtype=dtype)
            found = torch.frombuffer(buffer, dtype=dtype, count=numel, offset=start)
            return found.clone().reshape(shape)

        return cls._made(json.loads(text), tensor)

    def save(self, path: str) -> int:
        """Append it, serialized, to a file to which other processes append too; returns its place.

        Raises ``OSError`` if there is no space.
        """
        head, tensors = self._serialized()
        parts: list[bytes | memoryview] = [head, *tensors]
        place = reserve(path, sum(map(len, parts)))
        with Path(path).open("r+b") as file:
            file.seek(place)
            file.writelines(parts)
        return place

    @classmethod
    def load(cls, path: str, place: int) -> Trajectory:
        """What :meth:`save` has put at a place of a file.

        Tensors of a large trajectory (:data:`WHOLE`) are read when they are needed, so that it takes no
        memory; the file must exist until then. Raises ``ValueError`` if there is no trajectory.
        """
        with Path(path).open("rb") as file:
            file.seek(place)
            head = file.readline()
            listed = json.loads(head)
            size = sum(_size(dtype, shape) for *_, dtype, shape in listed[-1] if dtype is not None)
            if size <= WHOLE:
                return cls.from_bytes(head + file.read(size))
        begin = place + len(head)
        return cls._made(
            listed, lambda start, dtype, shape: _Place(path, begin + start, dtype, shape), _Stored
        )

    def same(self, other: Trajectory) -> bool:
        """Whether two trajectories are equal bit for bit, the sign of zeros and NaN included."""
        if (len(self.steps), self.rows, self.products) != (
            len(other.steps),
            other.rows,
            other.products,
        ):
            return False
        pairs = itertools.zip_longest(self._tensors(), other._tensors(), fillvalue=((), None))
        return all(
            one == two and (a is b or _bytes(a) == _bytes(b)) for (one, a), (two, b) in pairs
        )

    def _serialized(self) -> tuple[bytes, list[memoryview]]:
        found = list(self._tensors())
        head = [len(self.steps), self.rows, self.products, [list(entry) for entry, _ in found]]
        return json.dumps(head).encode() + b"\n", [_bytes(tensor) for _, tensor in found]

    def _tensors(self) -> Iterator[tuple[tuple[object, ...], torch.Tensor | None]]:
        """Each tensor, with the entry that lists it."""
        for place, tensors in self._groups():
            for name, tensor in tensors.items():
                if tensor is None:
                    yield (*place, name, None, None), None
                else:
                    dtype = str(tensor.dtype).removeprefix("torch.")
                    yield (*place, name, dtype, list(tensor.shape)), tensor

    @classmethod
    def _made(
        cls,
        listed: list[Any],
        tensor: Callable[[int, torch.dtype, list[int]], Any],
        group: Callable[[], Any] = dict,
    ) -> Trajectory:
        """A trajectory from its list of tensors; ``tensor`` makes each from its place in the bytes."""
        count, rows, products, index = listed
        steps = [Step(*(group() for _ in KINDS)) for _ in range(count)]
        found = cls(group(), steps, group(), rows, products)
        start = 0
        for step, kind, name, dtype, shape in index:
            tensors = getattr(found if step is None else found.steps[step], kind)
            if dtype is None:
                tensors[name] = None
                continue
            tensors[name] = tensor(start, getattr(torch, dtype), shape)
            start += _size(dtype, shape)
        return found

    def _groups(self) -> Iterator[tuple[tuple[int | None, str], Tensors]]:
        yield (None, "initial"), self.initial
        yield (None, "optimizer"), self.optimizer
        for number, step in enumerate(self.steps):
            for kind, tensors in step.kinds():
                yield (number, kind), tensors


class _Place(NamedTuple):
    """Where a file has a tensor."""

    path: str
    start: int
    dtype: torch.dtype
    shape: list[int]

    def read(self) -> torch.Tensor:
        numel = int(torch.Size(self.shape).numel())
        if not numel:
            return torch.empty(self.shape, dtype=self.dtype)
        with Path(self.path).open("rb") as file:
            file.seek(self.start)
            data = bytearray(numel * self.dtype.itemsize)
            if file.readinto(data) < len(data):
                raise ValueError(f"{self.path} has no tensor at {self.start}")
        return torch.frombuffer(data, dtype=self.dtype).reshape(self.shape)


class _Stored(Tensors):
    """Tensors by name, each read from its file at every access."""

    def __init__(self) -> None:
        self._known: dict[str, torch.Tensor | _Place | None] = {}

    def __getitem__(self, name: str) -> torch.Tensor | None:
        found = self._known[name]
        return found.read() if isinstance(found, _Place) else found

    def __setitem__(self, name: str, value: torch.Tensor | None) -> None:
        self._known[name] = value

    def __delitem__(self, name: str) -> None:
        del self._known[name]

    def __contains__(self, name: object) -> bool:
        return name in self._known

    def __iter__(self) -> Iterator[str]:
        return iter(self._known)

    def __len__(self) -> int:
        return len(self._known)


def _size(dtype: str, shape: list[int]) -> int:
    """The bytes of a tensor."""
    kind: torch.dtype = getattr(torch, dtype)
    return int(torch.Size(shape).numel()) * kind.itemsize


def _bytes(tensor: torch.Tensor | None) -> memoryview:
    """A tensor's bytes, of which it keeps the memory; empty for None."""
    if tensor is None or not tensor.numel():
        return memoryview(b"")
    # Without numpy, which torch does not require.
    whole = tensor.contiguous()
    kind = ctypes.c_char * (whole.numel() * whole.element_size())
    found = kind.from_address(whole.data_ptr())
    # The memory must live as long as the bytes are used.
    found._tensor = whole  # type: ignore[attr-defined]  # noqa: SLF001
    return memoryview(found).cast("B")
