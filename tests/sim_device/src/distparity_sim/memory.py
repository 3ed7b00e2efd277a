"""The device's memory: tensors of device type ``sim`` over the bytes of CPU tensors, and back.

A DLPack capsule says on which kind of device its bytes lie, and torch makes of ``kDLExtDev`` a
tensor of the renamed ``PrivateUse1`` device, with a storage of its own. So a tensor changes sides
when that field is rewritten between export and import; the bytes stay where they are, and torch
itself keeps them alive.
"""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch.utils.dlpack import from_dlpack, to_dlpack

__all__ = ["install", "on_device", "on_host", "poison"]

_CPU, _EXTENSION = 1, 12
#: ``DLManagedTensor`` begins with a pointer to the data, then the device's type and index; further on
#: is a pointer to the strides.
_DEVICE_TYPE, _DEVICE_INDEX, _STRIDES = 8, 12, 32

_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_pointer.restype = ctypes.c_void_p
_pointer.argtypes = [ctypes.py_object, ctypes.c_char_p]

#: Storages (by the address of their C++ object) that were resized to nothing.
_freed: set[int] = set()


def on_device(tensor: torch.Tensor) -> torch.Tensor:
    """The bytes of a CPU tensor as a tensor on ``sim:0``."""
    found = _relabel(tensor, _EXTENSION)
    # A new storage may stand where one that was freed stood.
    _freed.discard(found.untyped_storage()._cdata)
    return found


def on_host(tensor: torch.Tensor) -> torch.Tensor:
    """The bytes of a tensor on ``sim:0`` as a CPU tensor."""
    return _relabel(tensor, _CPU)


def poison(tensor: torch.Tensor) -> None:
    """Make fresh memory something that shows where it is read: NaN, -1, True."""
    _spoil(tensor.untyped_storage().data_ptr(), tensor.untyped_storage().nbytes())


def _spoil(address: int, size: int) -> None:
    if size:
        ctypes.memset(address, 0xFF, size)


def _relabel(tensor: torch.Tensor, kind: int) -> torch.Tensor:
    capsule = to_dlpack(tensor)
    address = _pointer(capsule, b"dltensor")
    ctypes.c_int32.from_address(address + _DEVICE_TYPE).value = kind
    ctypes.c_int32.from_address(address + _DEVICE_INDEX).value = 0
    strides = ctypes.c_void_p.from_address(address + _STRIDES).value
    if strides is not None and tensor.dim():
        # The export has 1 for those of dims without a second element, and DTensor compares them.
        (ctypes.c_int64 * tensor.dim()).from_address(strides)[:] = list(tensor.stride())
    found: torch.Tensor = from_dlpack(capsule)
    # That bytes are read as their conjugates, or negated, is not in a capsule.
    if tensor.is_conj():
        found = found.conj()
    return torch._neg_view(found) if tensor.is_neg() else found


def install() -> None:
    """Let a storage on ``sim`` be resized to nothing and back, which sharding strategies do.

    torch cannot resize memory that came from outside. So the bytes stay, poisoned, and the storage
    says that it has none: who reads it meanwhile reads NaN. Nor can torch make a storage on ``sim`` for
    what is loaded from a file: it calls an allocator, and there is none.
    """
    storage: Any = torch.UntypedStorage
    resize, nbytes, to = storage.resize_, storage.nbytes, storage.to

    def resize_(self: Any, size: int) -> Any:
        if self.device.type != "sim":
            return resize(self, size)
        full = nbytes(self)
        if size not in (0, full):
            raise RuntimeError(f"sim: a storage of {full} bytes cannot be resized to {size}")
        if size == 0:
            _freed.add(self._cdata)
            _spoil(self.data_ptr(), full)
        else:
            _freed.discard(self._cdata)
        return self

    def count(self: Any) -> int:
        return 0 if self.device.type == "sim" and self._cdata in _freed else int(nbytes(self))

    def moved(self: Any, *, device: Any, non_blocking: bool = False) -> Any:
        if torch.device(device).type != "sim" or self.device.type != "cpu":
            return to(self, device=device, non_blocking=non_blocking)
        taken = torch.empty(0, dtype=torch.uint8).set_(self.clone())
        return on_device(taken).untyped_storage()

    storage.resize_, storage.to = resize_, moved
    storage.nbytes = storage.size = storage.__len__ = count
