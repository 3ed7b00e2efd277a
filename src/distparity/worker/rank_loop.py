"""The loop of a rank process: join a world, run tasks, answer.

Only the death of the process ends the loop early. After an exception in a task, the controller decides
whether the world can run another task.
"""

from __future__ import annotations

import contextlib
import datetime
import faulthandler
import os
import resource
import signal
import socket
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distparity.core import processes
from distparity.core.redact import DOTS, LEFT_OUT
from distparity.core.wire import Channel, Frame, TooLarge

if TYPE_CHECKING:
    import torch
    import torch.distributed as dist

    from distparity.devices import Device
    from distparity.devices.context import RankContext

__all__ = ["Task", "main"]

#: A task: it takes JSON and byte strings, and returns JSON and byte strings.
Task = Callable[["RankContext", dict[str, Any], list[bytes]], tuple[dict[str, Any], list[bytes]]]

LOOPBACK = "127.0.0.1"
#: The most characters of an exception's text, and of its traceback, that are sent.
_MAX_TEXT = 20_000

#: What of a task's arguments decides its delays: what the case is, and the seed of its data.
_KNOWN_BY = ("scenario", "strategy", "operation", "way", "dtype", "phase", "seed")


def main(spec: dict[str, Any], tasks: Mapping[str, Task]) -> None:
    """Run one rank with these ``tasks`` until its channel closes.

    ``spec`` is the controller's: ``token``, ``socket`` (the controller's address), ``rank``,
    ``world_size``, ``local_rank``, ``device`` (a kind, or "" for a bare process), ``index`` (of its
    device), ``sharing`` (the way in which ranks share a device, or ""), ``group`` (whether to make
    a process group), ``store`` (a file through which its ranks meet), ``output`` (a file), ``scratch``
    (a folder to make), ``timeout`` (seconds, of collectives), ``local_size`` (how many of the ranks are
    on this machine). If they are on several machines, also ``address`` (of rank 0's) and ``interface``
    (of this machine, for traffic between ranks).
    """
    output = _redirect(spec["output"])
    _use_directory(spec["scratch"])
    # A rank has one thread, so that its sums have one order, and other ranks can use the other cores.
    os.environ["OMP_NUM_THREADS"] = "1"
    channel = _connect(spec)
    try:
        from distparity.worker.stack_reporter import StackReporter

        reporter = StackReporter(f"{spec['output']}.where")
        context = _join(channel, spec)
        from distparity.devices import delays

        if spec["group"]:
            reporter.joined()
            if delays.chosen():
                from distparity.worker import wrapping

                wrapping.before_each(delays.pause)
                wrapping.before_each_copy(delays.pause_to_copy)
        from distparity.worker.leak_check import Snapshot

        before = Snapshot(context.kind)
    except BaseException as error:
        channel.send(_raised(0, error))
        return
    from distparity.torch_support import origin, private

    channel.send({"op": "ready"})
    while (frame := channel.receive()) is not None:
        # If this task fails, only its own output is of interest.
        os.ftruncate(output, 0)
        before.restore_generators()
        private.forget_dtensor()
        reporter.begin()
        context.kind.findings()
        if spec["group"]:
            task = " ".join(str(frame["args"].get(name)) for name in _KNOWN_BY)
            delays.begin(context.kind, context.device, context.rank, task)
        started = time.perf_counter()
        try:
            result, blobs = tasks[frame["task"]](context, frame["args"], frame.blobs)
            context.kind.synchronize()
        except BaseException as error:
            # SystemExit too: a library that calls sys.exit() must not end a rank silently.
            whose = origin.of(error, context.kind.packages)
            channel.send(_raised(frame["id"], error, reporter.of_error(error), whose))
        else:
            answer = {
                "op": "answer",
                "id": frame["id"],
                "result": result,
                "seconds": time.perf_counter() - started,
                "calls": reporter.calls(),
                "left": before.left_behind(),
                "findings": list(context.kind.findings()),
            }
            try:
                channel.send(answer, blobs)
            except TooLarge as error:
                channel.send(_raised(frame["id"], error))
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                stream.flush()


def _redirect(output: str) -> int:
    """Redirect this process's output to its own file, and have its stacks written on SIGUSR1.

    Returns another descriptor of the file, which no task knows.
    """
    null = os.open(os.devnull, os.O_RDONLY)
    out = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(null, 0)
    os.dup2(out, 1)
    os.dup2(out, 2)
    os.close(null)
    # No core files: a rank that is killed for its stacks would leave one too.
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    # Before faulthandler is enabled: faulthandler writes first, and then calls the previous handler.
    # This uses torch, which the fork server has imported by now.
    from distparity.torch_support import private

    private.tell_native_stacks()
    # faulthandler writes from the signal handler itself, so it works in an endless Python loop, and in
    # a C call that holds the GIL.
    stacks = Path(f"{output}.stacks").open("wb", buffering=0)  # noqa: SIM115  stays open
    faulthandler.enable(stacks, all_threads=True)
    processes.widen_signal_stack()
    faulthandler.register(signal.SIGUSR1, stacks, all_threads=True, chain=False)
    # Processes that a case forks must not answer in the rank's name.
    os.register_at_fork(after_in_child=lambda: faulthandler.enable(2))
    return out


def _use_directory(scratch: str) -> None:
    """Use a folder for temporary files that is removed with the world."""
    Path(scratch).mkdir(mode=0o700, exist_ok=True)
    os.environ["TMPDIR"] = tempfile.tempdir = scratch


def _connect(spec: dict[str, Any]) -> Channel:
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(spec["socket"])
    channel = Channel(sock)
    channel.send({"op": "hello", "token": spec["token"], "pid": os.getpid()})
    return channel


def _join(channel: Channel, spec: dict[str, Any]) -> RankContext:
    from distparity import devices
    from distparity.devices import arithmetic, backends
    from distparity.devices.context import RankContext

    kind = devices.get(spec["device"] or "cpu")
    if spec["device"]:
        # Some vendors' packages choose their device from these variables while they are imported.
        os.environ.update(
            RANK=str(spec["rank"]),
            LOCAL_RANK=str(spec["local_rank"]),
            WORLD_SIZE=str(spec["world_size"]),
            LOCAL_WORLD_SIZE=str(spec["local_size"]),
        )
        os.environ.update(kind.environment(spec["index"]))
        kind.load()
    import torch

    from distparity.torch_support import private

    torch.set_num_threads(1)
    device = torch.device("cpu")
    if spec["device"]:
        shared = _share(kind, spec["sharing"]) if spec["sharing"] else None
        device = kind.take(spec["index"])
        arithmetic.apply(kind)
        private.sanitize(device.type)
        if spec["group"]:
            _make_group(channel, spec, shared or backends.of(kind), device)
    return RankContext(spec["rank"], spec["world_size"], device, kind)


def _share(kind: Device, name: str) -> str:
    """Prepare for a device that other ranks also use; returns the backend."""
    way = next(way for way in kind.sharing() if way.name == name)
    os.environ.update(way.environment)
    return way.backend


def _make_group(channel: Channel, spec: dict[str, Any], backend: str, device: torch.device) -> None:
    import torch
    import torch.distributed as dist

    from distparity.torch_support.version import installed
    from distparity.worker import stack_reporter

    older = installed() < (2, 8)
    for name, value in stack_reporter.environment(older=older).items():
        os.environ.setdefault(name, value)
    if spec.get("interface"):
        for library in ("GLOO", "NCCL"):
            os.environ[f"{library}_SOCKET_IFNAME"] = spec["interface"]
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    timeout = datetime.timedelta(seconds=spec["timeout"])
    if backend == "gloo" and "address" not in spec:
        # A file in the run's folder, which only the user can access. Anybody on the machine could
        # write to a TCP store, from which ranks learn each other's addresses.
        store: dist.Store = dist.FileStore(spec["store"], spec["world_size"])
        store.set_timeout(timeout)
    else:
        store = _listening_store(channel, spec, timeout, older=older)
    dist.init_process_group(
        backend,
        store=store,
        rank=spec["rank"],
        world_size=spec["world_size"],
        timeout=timeout,
    )
    # Instead of a barrier: before the first collective, a barrier guesses the device from the rank,
    # which is wrong on a machine with several worlds.
    here = torch.ones(1, device=device)
    dist.all_gather([torch.empty_like(here) for _ in range(spec["world_size"])], here)


def _listening_store(
    channel: Channel, spec: dict[str, Any], timeout: datetime.timedelta, *, older: bool
) -> dist.Store:
    """A TCP store, for several machines, and for backends that are not known to work with a file."""
    import torch.distributed as dist

    options: dict[str, Any] = {}
    host = spec.get("address", LOOPBACK)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    if spec["rank"] == 0:
        # The store uses a socket that is bound already, on one address, to a port that the kernel chose:
        # nobody can take the port between the choice and the use.
        listener = socket.create_server((host, 0), family=family, backlog=128)
        channel.send({"op": "store", "port": listener.getsockname()[1]})
        options["master_listen_fd"] = listener.detach()
        if older:
            # In these releases the libuv store cannot use a listening socket; the older store can.
            options["use_libuv"] = False
    frame: Frame | None = channel.receive()
    if frame is None:
        raise EOFError("the controller ended before the world was complete")
    return dist.TCPStore(
        host,
        frame["port"],
        world_size=spec["world_size"],
        is_master=spec["rank"] == 0,
        timeout=timeout,
        wait_for_workers=False,
        **options,
    )


def _raised(
    task: int, error: BaseException, seen: dict[str, Any] | None = None, origin: str = "other"
) -> dict[str, Any]:
    when = time.monotonic()
    try:
        text, trace = str(error), "".join(traceback.format_exception(error))
    except Exception as another:
        # The exception's __str__ may raise, or memory may have run out.
        text = f"(its text is not available: {type(another).__name__})"
        trace = "".join(traceback.format_tb(error.__traceback__))
    return {
        "op": "raised",
        "id": task,
        "kind": type(error).__name__,
        "text": text if len(text) <= _MAX_TEXT else text[:_MAX_TEXT] + DOTS,
        "traceback": trace if len(trace) <= _MAX_TEXT else LEFT_OUT + trace[-_MAX_TEXT:],
        "when": when,
        "seen": seen or {},
        "origin": origin,
    }
