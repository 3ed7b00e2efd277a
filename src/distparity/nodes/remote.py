"""The controller's end of another node: its ranks, as if they were here."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from distparity.core import processes, spool
from distparity.core.wire import Channel, Frame, ProtocolError, check
from distparity.nodes.door import Guest
from distparity.worlds.output import OutputFile

__all__ = ["FILES", "RemoteNode"]

#: The frames that a node may send, by operation.
SCHEMAS: dict[str, dict[str, tuple[type, ...]]] = {
    "ready": {"facts": (dict,)},
    "failed": {"error": (str,), "traceback": (str,)},
    "gone": {"why": (str,)},
    "forked": {"world": (int,), "pids": (list,), "error": (str,)},
    "exit": {"pid": (int,), "status": (int,)},
    "from": {"world": (int,), "now": (int, float), "said": (list,)},
    "rubbish": {"world": (int,), "rank": (int,), "text": (str,)},
    "file": {
        "world": (int,),
        "rank": (int,),
        "which": (int,),
        "size": (int,),
        "start": (int,),
        "whole": (int,),
    },
    "states": {"states": (dict,)},
    "spool": {"world": (int,), "rank": (int,), "size": (int,), "at": (int,)},
    "tree": {"world": (int,), "rank": (int,), "name": (str,)},
}
#: A rank's files: the output, the stacks, the stack reporter's line.
FILES = 3
#: The most bytes of a rank's file that are kept: its end.
KEPT = 1 << 20


class RemoteFile(OutputFile):
    """The end of a file of a rank on another node, as the node last told it."""

    def __init__(self, node: RemoteNode, world: int, rank: int) -> None:
        self._node = node
        self._of = {"world": world, "rank": rank}
        self._size = 0
        self._start = 0
        self._data = bytearray()

    def told(self, frame: Frame) -> None:
        """Take what the node tells: all that is kept, or what was appended."""
        if frame["whole"] or frame["start"] != self._start + len(self._data):
            self._start, self._data = frame["start"], bytearray()
        self._data += b"".join(frame.blobs)
        self._size = frame["size"]
        cut = max(0, len(self._data) - KEPT)
        del self._data[:cut]
        self._start += cut

    def size(self) -> int:
        return self._size

    def read(self, size: int, start: int = 0) -> bytes:
        begin = start - self._start
        return bytes(self._data[begin : begin + size]) if begin >= 0 else b""

    def empty(self) -> None:
        self._node.channel.queue({"op": "empty", **self._of})

    def close(self) -> None:
        pass


class _RemoteRank:
    """What is known here of one rank there."""

    def __init__(self, files: list[RemoteFile]) -> None:
        self.files = files
        #: Where in its task's file the rank's trajectories begin, and why they could not be stored.
        self.base = 0
        self.error = ""


class _RemoteWorld:
    """The ranks that a world has there."""

    def __init__(self) -> None:
        self.ranks: dict[int, _RemoteRank] = {}
        #: The controller's own file and folder that its task names.
        self.spool = self.folder = ""


class RemoteLink:
    """Where frames for all ranks that a world has on another node are queued."""

    def __init__(self, node: RemoteNode, world: int) -> None:
        self._node, self._world = node, world

    def queue(self, message: dict[str, Any], blobs: Sequence[bytes] = ()) -> None:
        self._node.send(self._world, message, blobs)


class RemoteNode:
    """A node that has joined (:class:`distparity.worlds.fleet.Node`)."""

    def __init__(self, number: int, name: str, guest: Guest, setup: dict[str, Any]) -> None:
        self.number = number
        self.name = name
        self.about = guest.about
        self.address = str(guest.about.get("address", ""))
        self.interface = str(guest.about.get("interface", ""))
        self.tunnel = guest.tunnel
        self.channel = Channel(guest.tunnel.inside)
        #: Its torch, once it is imported; or why it cannot be.
        self.facts: dict[str, Any] | None = None
        self.failed = ""
        self._said = ""
        self._states: dict[int, tuple[str, bool]] = {}
        self.stopped: set[int] = set()
        self._worlds: dict[int, _RemoteWorld] = {}
        self.channel.queue({"op": "setup", **setup})

    @property
    def reason(self) -> str:
        """Why it is gone."""
        return self._said or self.tunnel.reason or "closed the connection"

    # -- what the fleet asks -------------------------------------------------------------------

    def fork(self, world: int, specs: list[dict[str, Any]]) -> list[list[RemoteFile]]:
        found = []
        ranks = self._worlds.setdefault(world, _RemoteWorld()).ranks
        for one in specs:
            # The node makes the one that its rank gets.
            one["token"] = secrets.token_hex(16)
            files = [RemoteFile(self, world, one["rank"]) for _ in range(FILES)]
            ranks[one["rank"]] = _RemoteRank(files)
            found.append(files)
        self.channel.queue({"op": "fork", "world": world, "ranks": specs})
        return found

    def forget(self, world: int) -> None:
        if self._worlds.pop(world, None):
            self.channel.queue({"op": "forget", "world": world})

    def signal(self, pids: list[int], number: int, *, main: bool = False) -> None:
        self.channel.queue({"op": "signal", "pids": pids, "signal": int(number), "main": main})

    def kill(self, pids: list[int]) -> None:
        self.channel.queue({"op": "kill", "pids": pids})

    def state(self, pid: int) -> str:
        return self._states.get(pid, ("gone", False))[0]

    def wants_to_run(self, pid: int, *, main: bool = True) -> bool:
        return self._states.get(pid, ("gone", False))[1]

    def send(self, world: int, message: dict[str, Any], blobs: Sequence[bytes] = ()) -> None:
        """Send a frame to all ranks of a world there; a folder that their task names goes ahead."""
        known = self._worlds.get(world)
        if known is None:
            return
        if message["op"] == "task":
            args = message["args"]
            known.spool, known.folder = args.get("spool") or "", args.get("folder") or ""
            for rank in known.ranks.values():
                rank.error = ""
            if known.folder:
                self._send_folder(world, known.folder)
        self.channel.queue({"op": "to", "world": world, "message": message}, blobs)

    def _send_folder(self, world: int, folder: str) -> None:
        for path in Path(folder).rglob("*"):
            if path.is_file():
                name = str(path.relative_to(folder))
                tree = {"op": "tree", "world": world, "folder": folder, "name": name}
                self.channel.queue(tree, [path.read_bytes()])

    def dismiss(self, *, failed: bool) -> None:
        """Tell it that the run is over, and whether it failed."""
        self.channel.queue({"op": "done", "failed": failed})

    def has_left(self) -> bool:
        """Whether it has ended its ranks and closed the connection, after it was dismissed."""
        # Read what it says: closing a connection with unread bytes would discard our last words.
        try:
            self.channel.flush()
            return not self.channel.poll()[1]
        except (OSError, ProtocolError):
            return True

    def hang_up(self) -> None:
        self.channel.close()
        self.tunnel.join(3)

    # -- what it says --------------------------------------------------------------------------

    def hear(self, frame: Frame) -> Frame | None:
        """Take a frame; returns it if the scheduler has to act on it.

        Its process ids are then those of :func:`processes.on_node`. Raises :class:`ProtocolError`.
        """
        op = check(frame, SCHEMAS)
        if op == "ready":
            self.facts = frame["facts"]
            return frame
        if op == "failed":
            self.failed = f"{frame['error']}\n{frame['traceback']}"
            return frame
        if op == "gone":
            self._said = frame["why"]
        elif op == "states":
            self._states = {
                int(pid): (str(state), bool(wants))
                for pid, (state, wants) in frame["states"].items()
            }
            self.stopped = {
                processes.on_node(self.number, pid)
                for pid, (state, _) in self._states.items()
                if state == "stopped"
            }
        elif op == "forked":
            frame["pids"] = [processes.on_node(self.number, int(pid)) for pid in frame["pids"]]
            return frame
        elif op == "exit":
            frame["pid"] = processes.on_node(self.number, frame["pid"])
            frame["memory"] = frame.get("memory") is True
            return frame
        else:
            return self._of_world(op, frame)
        return None

    def _of_world(self, op: str, frame: Frame) -> Frame | None:
        world = self._worlds.get(frame["world"])
        if world is None:
            return None
        if op == "from":
            ahead = time.monotonic() - frame["now"]
            frame["said"] = [_heard(world, ahead, one) for one in frame["said"]]
            if frame["said"]:
                # Whatever has byte strings is the last in its frame.
                frame["said"][-1][1].blobs = frame.blobs
            return frame
        known = world.ranks.get(frame["rank"])
        if known is None:
            return None
        if op == "file":
            if not 0 <= frame["which"] < FILES:
                raise ProtocolError("no such file")
            known.files[frame["which"]].told(frame)
        elif op == "spool":
            self._store(known, world.spool, frame)
        elif op == "tree":
            _write(world.folder, frame["name"], frame.blobs)
        else:
            return frame
        return None

    def _store(self, known: _RemoteRank, path: str, frame: Frame) -> None:
        """Put a part of a rank's trajectories into the file of its case."""
        try:
            if frame["at"] == 0:
                known.base = spool.reserve(path, frame["size"])
            if not known.error:
                with Path(path).open("r+b") as file:
                    file.seek(known.base + frame["at"])
                    file.writelines(frame.blobs)
        except OSError as error:
            known.error = f"the controller cannot store the trajectories: {error}"

    def link(self, world: int) -> RemoteLink:
        return RemoteLink(self, world)


def _heard(world: _RemoteWorld, ahead: float, one: Any) -> tuple[int, Frame]:
    """A rank's number, and what it said in this machine's terms: its clock, its places in the file.

    The clock here is ``ahead`` of the node's, in seconds. Raises :class:`ProtocolError`.
    """
    number, message = one if type(one) is list and len(one) == 2 else (-1, None)
    known = world.ranks.get(number) if type(number) is int else None
    if known is None or type(message) is not dict:
        raise ProtocolError("not what a rank said")
    if type(message.get("when")) in (int, float):
        # The clocks of two machines began at different times.
        message["when"] += ahead
    result = message.get("result")
    if type(result) is dict and type(result.get("places")) is list:
        if known.error:
            message = {
                "op": "raised",
                "id": message.get("id"),
                "kind": "OSError",
                "text": known.error,
                "traceback": "",
                "when": time.monotonic(),
                "seen": {},
                "origin": "other",
            }
        else:
            result["places"] = [known.base + place for place in result["places"]]
    found = Frame(message)
    found.blobs = []
    return number, found


def _write(folder: str, name: str, blobs: list[bytes]) -> None:
    """Write a file of a checkpoint into the folder of a task, and nowhere else."""
    parts = Path(name).parts
    if not folder or not parts or ".." in parts or os.path.isabs(name):  # noqa: PTH117
        raise ProtocolError(f"not a file of a checkpoint: {name[:60]!r}")
    path = Path(folder, *parts)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(blobs))
