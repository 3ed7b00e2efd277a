"""The loop in a rank process: join a world, take tasks, answer.

Nothing that happens in a task ends the loop, short of the process's death; whether the world is
still fit for another task after an exception is the controller's to decide.
"""

from __future__ import annotations

import datetime
import faulthandler
import importlib
import os
import signal
import socket
import sys
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distparity.worlds.wire import Channel, Frame

if TYPE_CHECKING:
    import torch

    from distparity.devices import Device

__all__ = ["Place", "main"]

LOOPBACK = "127.0.0.1"


@dataclass
class Place:
    """Where a task finds itself: its rank, the world's size, and its device."""

    rank: int
    world_size: int
    device: torch.device
    kind: Device
    #: The optimizer step that is under way.
    step: int = 0


def main(spec: dict[str, Any]) -> None:
    """Run one rank until its channel closes.

    ``spec`` is the controller's: ``token``, ``socket`` (the controller's address), ``rank``,
    ``world_size``, ``local_rank``, ``device`` (a kind, or "" for a bare process), ``group`` (whether to make a process
    group), ``output`` (a file), ``timeout`` (seconds, of collectives).
    """
    _redirect(spec["output"])
    # A rank has one thread, so that its sums have one order, and cores are left to other ranks.
    os.environ["OMP_NUM_THREADS"] = "1"
    channel = _connect(spec)
    try:
        place = _join(channel, spec)
    except BaseException as error:
        channel.send(_raised(0, error))
        return
    tasks = importlib.import_module("distparity.tasks")
    channel.send({"op": "ready"})
    while (frame := channel.receive()) is not None:
        started = time.perf_counter()
        try:
            result, blobs = tasks.TASKS[frame["task"]](place, frame["args"], frame.blobs)
            place.kind.synchronize()
        except SystemExit as error:
            # A test or a library that calls sys.exit() in mid-case means to end the process.
            channel.send(_raised(frame["id"], error))
        except BaseException as error:
            channel.send(_raised(frame["id"], error))
        else:
            seconds = time.perf_counter() - started
            channel.send(
                {"op": "answer", "id": frame["id"], "result": result, "seconds": seconds}, blobs
            )
        sys.stdout.flush()
        sys.stderr.flush()


def _redirect(output: str) -> None:
    """Give this process its own output file, and have stacks written beside it on SIGUSR1."""
    null = os.open(os.devnull, os.O_RDONLY)
    out = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(null, 0)
    os.dup2(out, 1)
    os.dup2(out, 2)
    os.close(null)
    os.close(out)
    # faulthandler writes from the signal handler itself: a Python loop that never ends, or a C
    # call that holds the interpreter lock, does not keep it from telling where the rank is.
    stacks = Path(f"{output}.stacks").open("wb", buffering=0)  # noqa: SIM115  stays open
    faulthandler.enable(stacks, all_threads=True)
    faulthandler.register(signal.SIGUSR1, stacks, all_threads=True, chain=False)


def _connect(spec: dict[str, Any]) -> Channel:
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(spec["socket"])
    channel = Channel(sock)
    channel.send({"op": "hello", "token": spec["token"], "pid": os.getpid()})
    return channel


def _join(channel: Channel, spec: dict[str, Any]) -> Place:
    from distparity import devices

    kind = devices.get(spec["device"] or "cpu")
    if spec["device"]:
        # Some vendors' packages choose their device from these while they are imported.
        os.environ.update(
            RANK=str(spec["rank"]),
            LOCAL_RANK=str(spec["local_rank"]),
            WORLD_SIZE=str(spec["world_size"]),
            LOCAL_WORLD_SIZE=str(spec["world_size"]),
        )
        os.environ.update(kind.environment(spec["local_rank"]))
        kind.load()
    import torch

    torch.set_num_threads(1)
    device = kind.take(spec["local_rank"]) if spec["group"] else torch.device("cpu")
    if spec["group"]:
        kind.exact()
        _make_group(channel, spec, kind)
    return Place(spec["rank"], spec["world_size"], device, kind)


def _make_group(channel: Channel, spec: dict[str, Any], kind: Device) -> None:
    import torch.distributed as dist

    from distparity.torchversion import installed

    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    options: dict[str, Any] = {}
    if spec["rank"] == 0:
        # The store listens on a socket that is bound already, on loopback, to a port that the
        # kernel chose: no port can be taken by somebody else between the choice and the use.
        listener = socket.create_server((LOOPBACK, 0), backlog=128)
        channel.send({"op": "store", "port": listener.getsockname()[1]})
        options["master_listen_fd"] = listener.detach()
        if installed() < (2, 8):
            # Their libuv store cannot take a listening socket; the older one can.
            options["use_libuv"] = False
    frame: Frame | None = channel.receive()
    if frame is None:
        raise EOFError("the controller went away before the world was complete")
    timeout = datetime.timedelta(seconds=spec["timeout"])
    store = dist.TCPStore(
        LOOPBACK,
        frame["port"],
        world_size=spec["world_size"],
        is_master=spec["rank"] == 0,
        timeout=timeout,
        wait_for_workers=False,
        **options,
    )
    dist.init_process_group(
        kind.backend(),
        store=store,
        rank=spec["rank"],
        world_size=spec["world_size"],
        timeout=timeout,
    )
    dist.barrier()


def _raised(task: int, error: BaseException) -> dict[str, Any]:
    return {
        "op": "raised",
        "id": task,
        "kind": type(error).__name__,
        "text": str(error),
        "traceback": "".join(traceback.format_exception(error)),
        "when": time.monotonic(),
    }


def tail(path: str, size: int = 8192) -> str:
    """The last ``size`` bytes of a rank's file, as text; empty when there is none."""
    try:
        with Path(path).open("rb") as file:
            file.seek(0, os.SEEK_END)
            length = file.tell()
            file.seek(max(0, length - size))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return ""
    return text if length <= size else f"[{length - size} bytes before this left out]\n{text}"
