"""Frames between processes: one JSON object and any number of byte strings.

What crosses is data, never pickled code. A frame is a 12-byte head (magic, length of the JSON
text), the JSON text, then the blobs, whose lengths the JSON object lists under ``"blobs"``.
"""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Sequence
from typing import Any

__all__ = ["Channel", "Frame", "ProtocolError", "TooLarge", "check"]

_HEAD = struct.Struct(">8sI")
_MAGIC = b"dparity1"
_MAX_JSON = 64 << 20
#: The trajectories of all ranks of a case go to the judge in one frame, and are in memory there.
_MAX_BLOBS = 16 << 30
_CHUNK = 1 << 20
#: What one call of :meth:`Channel.poll` takes at most, so that a flood from one end leaves the
#: others their turn.
_GULP = 64


class ProtocolError(Exception):
    """The bytes received are not a frame."""


class TooLarge(ValueError):
    """More bytes than one frame may have."""


class Frame(dict[str, Any]):
    """A received JSON object, with its byte strings in :attr:`blobs`."""

    blobs: list[bytes]


def check(frame: Frame, schemas: dict[str, dict[str, type | tuple[type, ...]]]) -> str:
    """The frame's ``op``, once its fields have the types that ``schemas`` has for it.

    Raises :class:`ProtocolError` when the operation is unknown, or a field missing or of another
    type.
    """
    op = frame.get("op")
    if not isinstance(op, str) or op not in schemas:
        raise ProtocolError(f"not an operation: {str(op)[:60]!r}")
    for name, kind in schemas[op].items():
        value = frame.get(name)
        # JSON's true is no number, whatever Python thinks of bool.
        if not isinstance(value, kind) or isinstance(value, bool):
            raise ProtocolError(f"{op}: {name!r} is {type(value).__name__}")
    return op


def _pack(message: dict[str, Any], blobs: Sequence[bytes]) -> list[bytes]:
    size = sum(map(len, blobs))
    if size > _MAX_BLOBS:
        raise TooLarge(
            f"{size / 2**30:.1f} GiB are more than the {_MAX_BLOBS >> 30} GiB that a process can "
            "send at once: the model is too large, or has too many steps"
        )
    text = json.dumps({**message, "blobs": [len(blob) for blob in blobs]}).encode()
    return [_HEAD.pack(_MAGIC, len(text)) + text, *blobs]


class Channel:
    """Frames over a connected stream socket, for a blocking or a polling user.

    A rank calls :meth:`send` and :meth:`receive`, which block. The controller calls :meth:`queue`,
    :meth:`flush` and :meth:`poll` from its event loop, which never do: a rank that is stopped or
    hung cannot hold the controller.

    :attr:`most` bounds the size of a frame, in bytes; a longer one is rubbish.
    """

    def __init__(self, sock: socket.socket, most: int = _MAX_BLOBS) -> None:
        self.sock = sock
        self.most = most
        self._in = bytearray()
        self._out: list[memoryview] = []
        self._need: tuple[int, dict[str, Any], list[int]] | None = None

    def trust(self) -> None:
        """Take frames of any size from now on: the other end has said who it is."""
        self.most = _MAX_BLOBS

    def fileno(self) -> int:
        return self.sock.fileno()

    def close(self) -> None:
        self.sock.close()

    # -- blocking ------------------------------------------------------------------------------

    def send(self, message: dict[str, Any], blobs: Sequence[bytes] = ()) -> None:
        """Send one frame; raises ``OSError`` when the other end is gone."""
        for part in _pack(message, blobs):
            self.sock.sendall(part)

    def receive(self) -> Frame | None:
        """The next frame, or None at end of file; raises :class:`ProtocolError` on rubbish."""
        while (frame := self._parse()) is None:
            data = self.sock.recv(_CHUNK)
            if not data:
                return None
            self._in += data
        return frame

    # -- polling -------------------------------------------------------------------------------

    def queue(self, message: dict[str, Any], blobs: Sequence[bytes] = ()) -> None:
        """Put one frame in the output buffer; :meth:`flush` sends it as the socket takes it."""
        self._out.extend(memoryview(part) for part in _pack(message, blobs) if part)

    @property
    def pending(self) -> bool:
        """True while the output buffer holds something."""
        return bool(self._out)

    def flush(self) -> None:
        """Send what the socket takes without blocking; raises ``OSError`` when it is closed."""
        while self._out:
            try:
                sent = self.sock.send(self._out[0], socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            if sent == len(self._out[0]):
                self._out.pop(0)
            else:
                self._out[0] = self._out[0][sent:]

    def poll(self) -> tuple[list[Frame], bool]:
        """Complete frames that have come, and whether the other end is still there.

        Raises :class:`ProtocolError` on rubbish.
        """
        frames: list[Frame] = []
        open_ = True
        for _ in range(_GULP):
            try:
                data = self.sock.recv(_CHUNK, socket.MSG_DONTWAIT)
            except BlockingIOError:
                break
            except ConnectionError:
                open_ = False
                break
            if not data:
                open_ = False
                break
            self._in += data
            while (frame := self._parse()) is not None:
                frames.append(frame)
        return frames, open_

    # -- both ----------------------------------------------------------------------------------

    def _parse(self) -> Frame | None:
        if self._need is None:
            if len(self._in) < _HEAD.size:
                return None
            magic, length = _HEAD.unpack_from(self._in)
            if magic != _MAGIC or length > min(_MAX_JSON, self.most):
                raise ProtocolError(f"not a frame: it begins with {bytes(self._in[:16])!r}")
            if len(self._in) < _HEAD.size + length:
                return None
            try:
                message = json.loads(self._in[_HEAD.size : _HEAD.size + length])
                sizes = message.pop("blobs")
            except (ValueError, AttributeError, KeyError, TypeError, RecursionError) as error:
                raise ProtocolError(f"not a frame: {str(error)[:200]!r}") from None
            if not (
                isinstance(sizes, list)
                and all(type(size) is int and size >= 0 for size in sizes)
                and sum(sizes) <= self.most
            ):
                raise ProtocolError("not a frame: blob sizes")
            self._need = (_HEAD.size + length, message, sizes)
        start, message, sizes = self._need
        if len(self._in) < start + sum(sizes):
            return None
        frame = Frame(message)
        frame.blobs = []
        with memoryview(self._in) as view:
            for size in sizes:
                frame.blobs.append(bytes(view[start : start + size]))
                start += size
        del self._in[:start]
        self._need = None
        return frame
