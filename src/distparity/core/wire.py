"""Frames between processes: one JSON object and any number of byte strings.

Processes exchange data, never pickled code. A frame is a 12-byte header (magic, length of the JSON
text), the JSON text, then the byte strings, whose lengths the JSON object lists under ``"blobs"``.
"""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Sequence
from typing import Any, Protocol

__all__ = ["Channel", "Frame", "Link", "ProtocolError", "TooLarge", "check"]

_HEAD = struct.Struct(">8sI")
_MAGIC = b"dparity1"
_MAX_JSON = 64 << 20
#: In bytes. Large results go through files (:mod:`distparity.core.spool`).
_MAX_BLOBS = 1 << 30
_CHUNK = 1 << 20
#: The most reads in one call of :meth:`Channel.poll`, so that a flood from one rank does not block
#: the others.
_GULP = 64


class ProtocolError(Exception):
    """The bytes received are not a frame."""


class TooLarge(ValueError):
    """A frame would have more bytes than is allowed."""


class Frame(dict[str, Any]):
    """A received JSON object, with its byte strings in :attr:`blobs`."""

    blobs: list[bytes]
    #: The bytes of its JSON text.
    size: int = 0


def check(frame: Frame, schemas: dict[str, dict[str, tuple[type, ...]]]) -> str:
    """Check the types of a frame's fields; returns its ``op``.

    ``schemas`` has the possible types of each field, by operation. Raises :class:`ProtocolError` if the
    operation is unknown, or a field is missing or of another type.
    """
    op = frame.get("op")
    if not isinstance(op, str) or op not in schemas:
        raise ProtocolError(f"not an operation: {str(op)[:60]!r}")
    for name, kinds in schemas[op].items():
        # Its very type: in JSON true is not a number, although a bool is an int in Python.
        kind = type(frame.get(name))
        if kind not in kinds:
            raise ProtocolError(f"{op}: {name!r} is {kind.__name__}")
    return op


def _pack(message: dict[str, Any], blobs: Sequence[bytes]) -> list[bytes]:
    size = sum(map(len, blobs))
    if size > _MAX_BLOBS:
        raise TooLarge(
            f"{size / 2**30:.1f} GiB is more than the {_MAX_BLOBS >> 30} GiB that a process can "
            "send at once"
        )
    text = json.dumps({**message, "blobs": [len(blob) for blob in blobs]}).encode()
    return [_HEAD.pack(_MAGIC, len(text)) + text, *blobs]


class Link(Protocol):
    """Where frames for a rank are queued, and sent as soon as they fit."""

    def queue(self, message: dict[str, Any], blobs: Sequence[bytes] = ()) -> None: ...


class Channel:
    """Frames over a connected stream socket, for blocking or polling use.

    A rank calls :meth:`send` and :meth:`receive`, which block. The controller calls :meth:`queue`,
    :meth:`flush` and :meth:`poll` from its event loop. These never block, so a rank that is stopped
    or hangs cannot stop the controller.

    :attr:`most` is the largest size of a received frame, in bytes; a larger one is a
    :class:`ProtocolError`.
    """

    def __init__(self, sock: socket.socket, most: int = _MAX_BLOBS) -> None:
        self.sock = sock
        self.most = most
        self._in = bytearray()
        self._out: list[memoryview] = []
        self._need: tuple[int, dict[str, Any], list[int]] | None = None

    def trust(self) -> None:
        """Accept frames of up to 1 GiB from now on, because the other end is known to be a rank."""
        self.most = _MAX_BLOBS

    def fileno(self) -> int:
        return self.sock.fileno()

    def close(self) -> None:
        self.sock.close()

    # -- blocking ------------------------------------------------------------------------------

    def send(self, message: dict[str, Any], blobs: Sequence[bytes] = ()) -> None:
        """Send one frame. Raises ``OSError`` if the other end is gone, :class:`TooLarge` if too large."""
        for part in _pack(message, blobs):
            self.sock.sendall(part)

    def receive(self) -> Frame | None:
        """The next frame; None at end of file. Raises :class:`ProtocolError` for other bytes."""
        while (frame := self._parse()) is None:
            data = self.sock.recv(_CHUNK)
            if not data:
                return None
            self._in += data
        return frame

    # -- polling -------------------------------------------------------------------------------

    def queue(self, message: dict[str, Any], blobs: Sequence[bytes] = ()) -> None:
        """Put one frame into the output buffer, for :meth:`flush`. Raises :class:`TooLarge`."""
        self._out.extend(memoryview(part) for part in _pack(message, blobs) if part)

    @property
    def pending(self) -> bool:
        """True if the output buffer is not empty."""
        return bool(self._out)

    def flush(self) -> None:
        """Send as much as possible without blocking. Raises ``OSError`` if the socket is closed."""
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
        """The complete frames that have arrived, and whether the other end is still connected.

        Raises :class:`ProtocolError` for bytes that are not a frame.
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
        frame.size = start - _HEAD.size
        with memoryview(self._in) as view:
            for size in sizes:
                frame.blobs.append(bytes(view[start : start + size]))
                start += size
        del self._in[:start]
        self._need = None
        return frame
