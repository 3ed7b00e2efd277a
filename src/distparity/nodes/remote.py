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

Fields = dict[str, "type | tuple[type, ...]"]

#: The frames that a node may send, by operation.
SCHEMAS: dict[str, Fields] = {
    "ready": {"facts": dict},
    "failed": {"error": str, "traceback": str},
    "gone": {"why": str},
    "forked": {"world": int, "pids": list, "error": str},
    "exit": {"pid": int, "status": int},
    "connected": {"world": int, "rank": int},
    "from": {"world": int, "rank": int, "now": (int, float), "message": dict},
    "rubbish": {"world": int, "rank": int, "text": str},
    "file": {"world": int, "rank": int, "which": int, "size": int, "start": int, "whole": int},
    "states": {"states": dict},
    "spool": {"world": int, "rank": int, "size": int, "at": int},
    "tree": {"world": int, "rank": int, "name": str},
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
        #: The controller's own file and folder that the rank's task names.
        self.spool = self.folder = ""
        #: Where in that file the rank's trajectories begin, and why they could not be stored.
        self.base = 0
        self.error = ""


class RemoteLink:
    """Where frames for a rank on another node are queued."""

    def __init__(self, node: RemoteNode, world: int, rank: int) -> None:
        self._node, self._world, self._rank = node, world, rank

    def queue(self, message: dict[str, Any], blobs: Sequence[bytes] = ()) -> None:
        self._node.send(self._world, self._rank, message, blobs)


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
        self._ranks: dict[tuple[int, int], _RemoteRank] = {}
        #: The last task of each world whose folder was sent.
        self._sent: dict[int, int] = {}
        self.channel.queue({"op": "setup", **setup})

    @property
    def reason(self) -> str:
        """Why it is gone."""
        return self._said or self.tunnel.reason or "closed the connection"

    # -- what the fleet asks -------------------------------------------------------------------

    def fork(self, world: int, specs: list[dict[str, Any]]) -> list[list[RemoteFile]]:
        found = []
        for one in specs:
            # The node makes the one that its rank gets.
            one["token"] = secrets.token_hex(16)
            files = [RemoteFile(self, world, one["rank"]) for _ in range(FILES)]
            self._ranks[world, one["rank"]] = _RemoteRank(files)
            found.append(files)
        self.channel.queue({"op": "fork", "world": world, "ranks": specs})
        return found

    def forget(self, world: int) -> None:
        mine = [key for key in self._ranks if key[0] == world]
        for key in mine:
            del self._ranks[key]
        self._sent.pop(world, None)
        if mine:
            self.channel.queue({"op": "forget", "world": world})

    def signal(self, pids: list[int], number: int, *, main: bool = False) -> None:
        self.channel.queue({"op": "signal", "pids": pids, "signal": int(number), "main": main})

    def kill(self, pids: list[int]) -> None:
        self.channel.queue({"op": "kill", "pids": pids})

    def state(self, pid: int) -> str:
        return self._states.get(pid, ("gone", False))[0]

    def wants_to_run(self, pid: int, *, main: bool = True) -> bool:
        return self._states.get(pid, ("gone", False))[1]

    def send(
        self, world: int, rank: int, message: dict[str, Any], blobs: Sequence[bytes] = ()
    ) -> None:
        """Send a frame to a rank; a folder that its task names goes ahead."""
        known = self._ranks.get((world, rank))
        if known is None:
            return
        if message["op"] == "task":
            args = message["args"]
            known.spool, known.folder = args.get("spool") or "", args.get("folder") or ""
            known.error = ""
            if known.folder and self._sent.get(world) != message["id"]:
                self._sent[world] = message["id"]
                self._send_folder(world, known.folder)
        self.channel.queue({"op": "to", "world": world, "rank": rank, "message": message}, blobs)

    def _send_folder(self, world: int, folder: str) -> None:
        for path in Path(folder).rglob("*"):
            if path.is_file():
                name = str(path.relative_to(folder))
                tree = {"op": "tree", "world": world, "folder": folder, "name": name}
                self.channel.queue(tree, [path.read_bytes()])

    def dismiss(self) -> None:
        """Tell it that the run is over."""
        self.channel.queue({"op": "done"})

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
        elif op == "forked":
            frame["pids"] = [processes.on_node(self.number, int(pid)) for pid in frame["pids"]]
            return frame
        elif op == "exit":
            frame["pid"] = processes.on_node(self.number, frame["pid"])
            frame["memory"] = frame.get("memory") is True
            return frame
        else:
            return self._of_rank(op, frame)
        return None

    def _of_rank(self, op: str, frame: Frame) -> Frame | None:
        known = self._ranks.get((frame["world"], frame["rank"]))
        if known is None:
            return None
        if op == "file":
            if not 0 <= frame["which"] < FILES:
                raise ProtocolError("no such file")
            known.files[frame["which"]].told(frame)
        elif op == "spool":
            self._store(known, frame)
        elif op == "tree":
            _write(known, frame["name"], frame.blobs)
        else:
            if op == "from":
                self._adapt(known, frame)
            return frame
        return None

    def _store(self, known: _RemoteRank, frame: Frame) -> None:
        """Put a part of a rank's trajectories into the file of its case."""
        try:
            if frame["at"] == 0:
                known.base = spool.reserve(known.spool, frame["size"])
            if not known.error:
                with Path(known.spool).open("r+b") as file:
                    file.seek(known.base + frame["at"])
                    file.writelines(frame.blobs)
        except OSError as error:
            known.error = f"the controller cannot store the trajectories: {error}"

    def _adapt(self, known: _RemoteRank, frame: Frame) -> None:
        """Put a rank's frame into this machine's terms: its clock, and places in the case's file."""
        message = frame["message"]
        if isinstance(message.get("when"), (int, float)):
            # The clocks of two machines began at different times.
            message["when"] += time.monotonic() - frame["now"]
        result = message.get("result")
        if isinstance(result, dict) and isinstance(result.get("places"), list):
            if known.error:
                frame["message"] = {
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

    def link(self, world: int, rank: int) -> RemoteLink:
        return RemoteLink(self, world, rank)


def _write(known: _RemoteRank, name: str, blobs: list[bytes]) -> None:
    """Write a file of a checkpoint into the folder of the rank's task, and nowhere else."""
    parts = Path(name).parts
    if not known.folder or not parts or ".." in parts or os.path.isabs(name):  # noqa: PTH117
        raise ProtocolError(f"not a file of a checkpoint: {name[:60]!r}")
    path = Path(known.folder, *parts)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(blobs))
