"""``torch.sim``: what torch and its wrappers ask of a device's module."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from distparity_sim import faults

_PRIVATE_USE_1 = 20


class Stream(torch.Stream):
    """The only order there is: everything is done when the call returns."""

    def __new__(cls, *_: Any, **__: Any) -> Any:
        return super().__new__(cls, stream_id=0, device_index=0, device_type=_PRIVATE_USE_1)

    def wait_stream(self, stream: Any) -> None:
        pass

    def wait_event(self, event: Any) -> None:
        pass

    def synchronize(self) -> None:
        pass

    def query(self) -> bool:
        return True

    def record_event(self, event: Any = None) -> Any:
        return event or Event()


class Event:
    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def record(self, stream: Any = None) -> None:
        pass

    def wait(self, stream: Any = None) -> None:
        pass

    def synchronize(self) -> None:
        pass

    def query(self) -> bool:
        return True


def _sleep(cycles: int) -> None:
    """As ``torch.cuda`` has it. A device whose calls return when all is done can only return later."""
    time.sleep(cycles / 1.5e9)


@contextlib.contextmanager
def stream(_: Any) -> Iterator[None]:
    yield


@contextlib.contextmanager
def device(_: Any) -> Iterator[None]:
    yield


def current_stream(_: Any = None) -> Any:
    return Stream()


default_stream = current_stream


def set_stream(_: Any) -> None:
    pass


def is_available() -> bool:
    return True


def is_initialized() -> bool:
    return True


def is_bf16_supported() -> bool:
    return True


def device_count() -> int:
    """How many the machine has; a process owns one of them, and calls it 0."""
    return int(os.environ.get("SIM_DEVICE_COUNT", "4"))


def current_device() -> int:
    return 0


_taken: list[Any] = []


def set_device(index: Any) -> None:
    """Take one, by its number.

    ``SIM_FOLDER`` names a folder in which it is written down which rank of how many took which.
    With ``SIM_EXCLUSIVE`` as well, nobody else gets it while this process lives.
    """
    if not 0 <= int(index) < device_count():
        raise RuntimeError(f"sim: invalid device ordinal {index} of {device_count()}")
    if "SIM_FOLDER" not in os.environ:
        return
    file = Path(os.environ["SIM_FOLDER"], f"device{index}").open("a", encoding="utf-8")  # noqa: SIM115
    if "SIM_EXCLUSIVE" in os.environ:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise RuntimeError(f"sim: device {index} is in use by another process") from None
        _taken.append(file)
    print(
        f"{os.environ.get('RANK', '0')}/{os.environ.get('WORLD_SIZE', '1')}", file=file, flush=True
    )


def get_device_name(_: Any = None) -> str:
    return "host memory"


def synchronize(_: Any = None) -> None:
    faults.land()


def manual_seed(seed: int) -> None:
    """The device draws from the CPU's generator, and ``torch.manual_seed`` has seeded that."""


manual_seed_all = manual_seed


def get_rng_state(_: Any = None) -> torch.Tensor:
    return torch.get_rng_state()


def set_rng_state(state: torch.Tensor, _: Any = None) -> None:
    torch.set_rng_state(state)


def _is_in_bad_fork() -> bool:
    return False


def get_amp_supported_dtype() -> list[torch.dtype]:
    return [torch.float16, torch.bfloat16]
