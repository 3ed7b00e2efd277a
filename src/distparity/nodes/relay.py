"""A node: it forks ranks for a controller on another machine, and relays what they say.

It holds nothing of a run that the controller does not tell it. If the controller is gone, so are its
ranks.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from distparity.core import processes
from distparity.core.own_cases import Module, OwnScenario
from distparity.core.spool import Spool
from distparity.core.wire import Channel, Frame, ProtocolError, check
from distparity.nodes.remote import KEPT
from distparity.nodes.tunnel import Tunnel
from distparity.worlds.launcher import Launcher, first_frame
from distparity.worlds.output import OutputFile

__all__ = ["Relay"]

#: Seconds between two looks at the ranks' files, and at their processes.
LOOK_AT_FILES = 0.05
LOOK_AT_PROCESSES = 1.0
#: For so many seconds after a signal to ranks, their processes are looked at as often as their files.
ATTENTION = 10.0
#: As :data:`distparity.worlds.scheduler.PATIENCE` and ``HELLO``.
PATIENCE = 20.0
HELLO = 4096
#: The most bytes of a trajectory in one frame.
_PART = 4 << 20
#: What ranks say to which nothing but the other ranks' same words adds anything, and the most bytes of it.
_MAY_WAIT = ("ready", "answer")
_MOST_HELD = 256 << 10


#: The frames that the controller may send, by operation.
SCHEMAS: dict[str, dict[str, tuple[type, ...]]] = {
    "setup": {
        **dict.fromkeys(("include", "plugins", "own_scenarios", "own_modules"), (list,)),
        "arithmetic": (str,),
        "log": (bool,),
        "backend": (str, type(None)),
        "perturb": (int, type(None)),
    },
    "fork": {"world": (int,), "ranks": (list,)},
    "to": {"world": (int,), "message": (dict,)},
    "tree": {"world": (int,), "folder": (str,), "name": (str,)},
    "signal": {"pids": (list,), "signal": (int,), "main": (bool,)},
    "kill": {"pids": (list,)},
    "empty": {"world": (int,), "rank": (int,)},
    "forget": {"world": (int,)},
    "done": {"failed": (bool,)},
}


class _Rank:
    """One rank of this node."""

    def __init__(self, world: int, spec: dict[str, Any], files: list[OutputFile]) -> None:
        self.of = {"world": world, "rank": spec["rank"]}
        self.token = spec["token"]
        self.files = files
        #: What the controller was told of each file: its size, and when it was changed.
        self.told = [(0, 0)] * len(files)
        self.channel: Channel | None = None
        #: Frames that came before the rank was connected.
        self.early: list[tuple[dict[str, Any], list[bytes]]] = []
        #: The file with its trajectories, and the folder of its checkpoint.
        self.spool: Spool | None = None
        self.folder = ""
        #: When each file of that folder was changed.
        self.seen: dict[str, int] = {}


class Relay:
    """Serves a controller until it says that the run is over, or is gone."""

    def __init__(self, tunnel: Tunnel) -> None:
        self.tunnel = tunnel
        self.controller = Channel(tunnel.inside)
        self.launcher: Launcher | None = None
        self.worlds: dict[int, dict[int, _Rank]] = {}
        self._processes: dict[int, _Rank] = {}
        #: By world: what its ranks have said, and waits for what the others say.
        self._held: dict[int, list[tuple[int, Frame]]] = {}
        self._strangers: dict[Channel, float] = {}
        #: By the controller's name for it: a folder here.
        self._folders: dict[str, str] = {}
        self._selector = selectors.DefaultSelector()
        self._selector.register(self.controller, selectors.EVENT_READ, self._on_controller)
        self._over: str | None = None
        self.failed = False
        self._looked = self._looked_at_processes = 0.0
        self._attention = 0.0

    def run(self) -> str:
        """Serve; returns why the controller is gone, or "" if the run is over: :attr:`failed` or not."""
        try:
            while self._over is None:
                self.turn(LOOK_AT_FILES)
        finally:
            if self.launcher is not None:
                self.launcher.close(reported=True)
            until = time.monotonic() + 2
            with contextlib.suppress(OSError):
                while self.controller.pending and time.monotonic() < until:
                    self.controller.flush()
                    time.sleep(0.01)
            self.close()
        return self._over

    def close(self) -> None:
        """Close every connection."""
        for rank in self._every():
            self._hang_up(rank)
        for channel in [*self._strangers, self.controller]:
            channel.close()
        self._selector.close()
        self.tunnel.join(3)

    def turn(self, patience: float) -> None:
        """Wait at most ``patience`` seconds for events, and pass on what they say."""
        self._flush()
        for key, _ in self._selector.select(patience):
            key.data(key.fileobj)
        self._look()

    # -- the controller ------------------------------------------------------------------------

    def _on_controller(self, _: object) -> None:
        try:
            frames, alive = self.controller.poll()
            for frame in frames:
                getattr(self, f"_on_{check(frame, SCHEMAS)}")(frame)
        except ProtocolError as error:
            self._over, alive = f"the controller said {error}", False
        if not alive and self._over is None:
            self._over = f"the controller {self.tunnel.reason or 'closed the connection'}"

    def _on_done(self, frame: Frame) -> None:
        self.failed = frame["failed"]
        self._over = ""

    def _on_setup(self, frame: Frame) -> None:
        self.launcher = Launcher(
            frame["include"],
            frame["plugins"],
            frame["arithmetic"],
            [OwnScenario.from_json(one) for one in frame["own_scenarios"]],
            [Module.from_json(one) for one in frame["own_modules"]],
            log=frame["log"],
            backend=frame["backend"],
            perturb=frame["perturb"],
        )
        self._selector.register(self.launcher.channel, selectors.EVENT_READ, self._on_fork_server)
        self._selector.register(self.launcher.listener, selectors.EVENT_READ, self._on_connection)

    def _on_fork(self, frame: Frame) -> None:
        specs = [dict(spec) for spec in frame["ranks"]]
        files = self._launcher.fork(frame["world"], specs)
        self.worlds[frame["world"]] = {
            spec["rank"]: _Rank(frame["world"], spec, mine)
            for spec, mine in zip(specs, files, strict=True)
        }

    def _on_to(self, frame: Frame) -> None:
        message = frame["message"]
        for rank in self.worlds.get(frame["world"], {}).values():
            if message["op"] == "task":
                self._prepare(rank, message["args"])
            if rank.channel is None:
                rank.early.append((message, frame.blobs))
            else:
                rank.channel.queue(message, frame.blobs)

    def _prepare(self, rank: _Rank, args: dict[str, Any]) -> None:
        """Put this machine's file and folder in the place of the controller's."""
        # A rank empties its output when a task begins.
        rank.told = [(0, 0)] * len(rank.told)
        if rank.spool is not None:
            rank.spool.close()
            rank.spool = None
        rank.folder = ""
        if args.get("spool"):
            rank.spool = self._launcher.spools.case()
            args["spool"] = rank.spool.path
        if args.get("folder"):
            rank.folder = args["folder"] = self._folder(args["folder"])
            rank.seen = dict(_changes(rank.folder))

    def _folder(self, name: str) -> str:
        if name not in self._folders:
            path = Path(self._launcher.directory, f"checkpoint-{len(self._folders)}")
            path.mkdir(mode=0o700)
            self._folders[name] = str(path)
        return self._folders[name]

    def _on_tree(self, frame: Frame) -> None:
        path = Path(self._folder(frame["folder"]), frame["name"])
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"".join(frame.blobs))

    def _on_signal(self, frame: Frame) -> None:
        self._attention = time.monotonic() + ATTENTION
        self._launcher.signal(frame["pids"], frame["signal"], main=frame["main"])

    def _on_kill(self, frame: Frame) -> None:
        self._launcher.kill(frame["pids"])

    def _on_empty(self, frame: Frame) -> None:
        rank = self.worlds.get(frame["world"], {}).get(frame["rank"])
        if rank is not None:
            rank.files[0].empty()

    def _on_forget(self, frame: Frame) -> None:
        self._held.pop(frame["world"], None)
        for rank in self.worlds.pop(frame["world"], {}).values():
            self._hang_up(rank)
            if rank.spool is not None:
                rank.spool.close()
        self._launcher.forget(frame["world"])
        used = {rank.folder for world in self.worlds.values() for rank in world.values()}
        for name, folder in list(self._folders.items()):
            if folder not in used:
                shutil.rmtree(folder, ignore_errors=True)
                del self._folders[name]

    @property
    def _launcher(self) -> Launcher:
        assert self.launcher is not None
        return self.launcher

    # -- the fork server and the ranks ---------------------------------------------------------

    def _on_fork_server(self, _: object) -> None:
        try:
            frames, alive = self._launcher.channel.poll()
        except ProtocolError:
            frames, alive = [], False
        for frame in frames:
            if frame["op"] == "forked":
                mine = self.worlds.get(frame["world"], {}).values()
                self._processes.update(zip(frame["pids"], mine, strict=False))
            elif frame["op"] == "exit":
                rank = self._processes.pop(frame["pid"], None)
                if rank is not None:
                    # What it wrote and said last comes before its end.
                    self._tell_files(rank)
                    self._tell_held(rank.of["world"])
            self.controller.queue(frame)
        if not alive:
            self._over = "the fork server of this node died"
            self.controller.queue(
                {"op": "gone", "why": "lost its fork server, and every rank with it"}
            )

    def _on_connection(self, _: object) -> None:
        channel = self._launcher.accept(HELLO)
        if channel is not None:
            self._strangers[channel] = time.monotonic() + PATIENCE
            self._selector.register(channel, selectors.EVENT_READ, self._on_hello)

    def _on_hello(self, channel: Any) -> None:
        try:
            frames, alive = channel.poll()
        except (ProtocolError, OSError):
            frames, alive = [], False
        if alive and not frames:
            return
        del self._strangers[channel]
        self._selector.unregister(channel)
        token = first_frame(frames[0]) if frames else None
        rank = next(
            (one for one in self._every() if one.token == token and one.channel is None), None
        )
        if rank is None:
            channel.close()
            return
        channel.trust()
        rank.channel = channel
        self._selector.register(channel, selectors.EVENT_READ, lambda _: self._on_rank(rank))
        for message, blobs in rank.early:
            channel.queue(message, blobs)
        rank.early.clear()
        self._hear(rank, frames[1:])

    def _every(self) -> Iterator[_Rank]:
        for world in self.worlds.values():
            yield from world.values()

    def _on_rank(self, rank: _Rank) -> None:
        if rank.channel is None:
            return
        try:
            frames, alive = rank.channel.poll()
        except ProtocolError as error:
            self._hang_up(rank)
            self._tell_held(rank.of["world"])
            self.controller.queue({"op": "rubbish", **rank.of, "text": str(error)})
            return
        self._hear(rank, frames)
        if not alive:
            self._hang_up(rank)

    def _hear(self, rank: _Rank, frames: list[Frame]) -> None:
        for frame in frames:
            if frame.get("op") == "answer":
                self._send_results(rank)
            elif frame.get("op") == "raised":
                self._tell_files(rank)
            world = rank.of["world"]
            held = self._held.setdefault(world, [])
            held.append((rank.of["rank"], frame))
            waits = frame.get("op") in _MAY_WAIT and not frame.blobs and frame.size <= _MOST_HELD
            if not waits or len(held) >= len(self.worlds.get(world, ())):
                self._tell_held(world)

    def _tell_held(self, world: int) -> None:
        """Tell the controller what ranks of a world have said, in one frame."""
        said = self._held.pop(world, [])
        if said:
            told = {"op": "from", "world": world, "now": time.monotonic(), "said": said}
            self.controller.queue(told, said[-1][1].blobs)

    def _send_results(self, rank: _Rank) -> None:
        """Send what the rank has put into its file and its folder, before its answer."""
        if rank.spool is not None:
            with Path(rank.spool.path).open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                for at in range(0, size, _PART):
                    part = {"op": "spool", **rank.of, "size": size, "at": at}
                    self.controller.queue(part, [file.read(_PART)])
        if rank.folder:
            for name, changed in _changes(rank.folder):
                if rank.seen.get(name) != changed:
                    data = Path(rank.folder, name).read_bytes()
                    self.controller.queue({"op": "tree", **rank.of, "name": name}, [data])

    def _hang_up(self, rank: _Rank) -> None:
        channel, rank.channel = rank.channel, None
        if channel is not None:
            with contextlib.suppress(KeyError, ValueError):
                self._selector.unregister(channel)
            channel.close()

    def _flush(self) -> None:
        for channel in [self.controller, *(rank.channel for rank in self._every())]:
            if channel is None:
                continue
            with contextlib.suppress(OSError):
                channel.flush()
            wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if channel.pending else 0)
            key = self._selector.get_map().get(channel.fileno())
            if key is not None and key.events != wanted:
                self._selector.modify(channel, wanted, key.data)
        if self.launcher is not None:
            with contextlib.suppress(OSError):
                self.launcher.channel.flush()

    # -- what the controller would see on its own machine --------------------------------------

    def _look(self) -> None:
        now = time.monotonic()
        if now < self._looked + LOOK_AT_FILES:
            return
        self._looked = now
        for world in list(self._held):
            self._tell_held(world)
        for rank in self._every():
            self._tell_files(rank)
        often = now < self._attention
        if self._processes and (often or now >= self._looked_at_processes + LOOK_AT_PROCESSES):
            self._looked_at_processes = now
            states = {
                str(pid): [processes.state(pid), often and processes.wants_to_run(pid)]
                for pid in self._processes
            }
            self.controller.queue({"op": "states", "states": states})
        for channel, until in list(self._strangers.items()):
            if now > until:
                del self._strangers[channel]
                self._selector.unregister(channel)
                channel.close()

    def _tell_files(self, rank: _Rank) -> None:
        for which, file in enumerate(rank.files):
            size, changed = file.stamp()
            before = rank.told[which]
            if (size, changed) == before:
                continue
            rank.told[which] = size, changed
            # A file that has shrunk was emptied in between.
            whole = before[0] == 0 or size < before[0]
            start = max(0 if whole else before[0], size - KEPT)
            told = {"op": "file", **rank.of, "which": which, "size": size, "start": start}
            self.controller.queue({**told, "whole": int(whole)}, [file.read(size - start, start)])


def _changes(folder: str) -> Iterator[tuple[str, int]]:
    """The files in a folder, and when each was changed, in nanoseconds."""
    for path in Path(folder).rglob("*"):
        if path.is_file() and not path.is_symlink():
            yield str(path.relative_to(folder)), path.stat().st_mtime_ns
