"""``torch.asim``: what torch and its wrappers ask of a device's module."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

from distparity_async import state

_KIND = "asim"


def _index(device: Any = None) -> int:
    if device is None:
        return current_device()
    if isinstance(device, int):
        return device
    index = torch.device(device).index
    return current_device() if index is None else int(index)


class Stream(torch.Stream):
    """A stream of this device; with numbers, one that exists."""

    def __new__(cls, device: Any = None, priority: int = 0, **numbers: Any) -> Any:
        if numbers:
            return super().__new__(cls, priority=priority, **numbers)
        return super().__new__(cls, device=torch.device(_KIND, _index(device)), priority=priority)


class Event(torch.Event):
    """An event of this device."""

    def __new__(cls, enable_timing: bool = False, blocking: bool = False, **_: Any) -> Any:
        return super().__new__(cls, device=_KIND, enable_timing=enable_timing, blocking=blocking)


def current_stream(device: Any = None) -> Any:
    index = _index(device)
    return _stream(index, state.native().current_stream(index))


def default_stream(device: Any = None) -> Any:
    return _stream(_index(device), 0)


def _stream(index: int, number: int) -> Any:
    kind = torch._C._autograd.DeviceType.PrivateUse1.value
    return Stream(stream_id=number, device_index=index, device_type=kind)


def set_stream(stream: torch.Stream | None) -> None:
    if stream is not None:
        state.native().set_stream(stream.device_index, stream.stream_id)


@contextlib.contextmanager
def stream(stream: torch.Stream | None) -> Iterator[None]:
    if stream is None:
        yield
        return
    before = state.native().set_stream(stream.device_index, stream.stream_id)
    try:
        yield
    finally:
        state.native().set_stream(stream.device_index, before)


@contextlib.contextmanager
def device(device: Any) -> Iterator[None]:
    before = current_device()
    set_device(before if device is None else device)
    try:
        yield
    finally:
        set_device(before)


def is_available() -> bool:
    return True


def _lazy_init() -> None:
    """Nothing; but torch 2.10 and 2.11 synchronize only devices that have been initialized by this."""


def is_initialized() -> bool:
    return True


def is_bf16_supported() -> bool:
    return True


def device_count() -> int:
    return state.runtime().devices


def current_device() -> int:
    return int(state.native().current_device())


def set_device(device: Any) -> None:
    index = device if isinstance(device, int) else torch.device(device).index
    if index is not None and index >= 0:
        torch._C._accelerator_setDeviceIndex(index)


def get_device_name(_: Any = None) -> str:
    return f"host memory, mode {state.runtime().mode}"


def synchronize(device: Any = None) -> None:
    state.runtime().synchronize_device(_index(device))


# -- memory ----------------------------------------------------------------------------------------


def memory_allocated(device: Any = None) -> int:
    return torch.accelerator.memory_allocated(_index(device))


def max_memory_allocated(device: Any = None) -> int:
    return torch.accelerator.max_memory_allocated(_index(device))


def reset_peak_memory_stats(device: Any = None) -> None:
    torch.accelerator.reset_peak_memory_stats(_index(device))


def memory_stats(device: Any = None) -> dict[str, Any]:
    return torch.accelerator.memory_stats(_index(device))


def empty_cache() -> None:
    torch.accelerator.empty_cache()


# -- numbers by chance -----------------------------------------------------------------------------


def manual_seed(seed: int) -> None:
    draws = state.runtime().draws_of(current_device())
    draws.seed, draws.offset = seed % 2**63, 0


def manual_seed_all(seed: int) -> None:
    for index in range(device_count()):
        draws = state.runtime().draws_of(index)
        draws.seed, draws.offset = seed % 2**63, 0


def initial_seed() -> int:
    return state.runtime().draws_of(current_device()).seed


def get_rng_state(device: Any = None) -> torch.Tensor:
    """Seed and offset, 8 bytes each, as CUDA has them."""
    draws = state.runtime().draws_of(_index(device))
    return torch.tensor([draws.seed, draws.offset]).view(torch.uint8)


def set_rng_state(new_state: torch.Tensor, device: Any = None) -> None:
    draws = state.runtime().draws_of(_index(device))
    draws.seed, draws.offset = new_state.cpu().clone().view(torch.int64).tolist()[:2]


def get_rng_state_all() -> list[torch.Tensor]:
    return [get_rng_state(index) for index in range(device_count())]


def set_rng_state_all(states: list[torch.Tensor]) -> None:
    for index, one in enumerate(states):
        set_rng_state(one, index)


def _is_in_bad_fork() -> bool:
    return False


def get_amp_supported_dtype() -> list[torch.dtype]:
    return [torch.float16, torch.bfloat16]
