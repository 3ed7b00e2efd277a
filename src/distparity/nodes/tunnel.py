"""Bytes between two nodes: encrypted, in order, and with a heartbeat.

A thread carries them, so that a node whose main thread is busy is not taken for lost. The rest of the
process uses an ordinary socket, :attr:`Tunnel.inside`.
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import struct
import threading
import time

__all__ = ["BEAT", "CONTROLLER_LOST", "NODE_LOST", "Tunnel"]

#: Seconds between two heartbeats; a record of no bytes is one.
BEAT = 0.5
#: Seconds without a byte after which the controller takes a node for lost, and a node the controller.
#: The controller comes first, so that it can say why the case under way failed.
NODE_LOST = 3.5
CONTROLLER_LOST = 6.0
#: Seconds for what was written before the end to leave.
_LAST_WORDS = 2.0
_HEAD = struct.Struct(">I")
#: The most bytes in a record, and those that wait in one direction.
_RECORD = 1 << 16
_WAITING = 4 << 20


class Tunnel(threading.Thread):
    """Carries bytes until one end closes, or nothing is heard for ``limit`` seconds.

    Afterwards :attr:`inside` is at its end, and :attr:`reason` says why.
    """

    def __init__(self, sock: ssl.SSLSocket, limit: float) -> None:
        super().__init__(name="distparity-tunnel", daemon=True)
        self.inside, self._near = socket.socketpair()
        self._far = sock
        self._limit = limit
        self.reason = ""
        self._outward = bytearray()
        self._inward = bytearray()
        self._record = bytearray()
        self._heard = self._beat = time.monotonic()
        for end in (self._near, self._far):
            end.setblocking(False)
        self.start()

    def run(self) -> None:
        try:
            while not self.reason:
                self._turn()
        except (OSError, ValueError) as error:
            self.reason = f"closed the connection ({error})"
        self._deliver()
        for end in (self._near, self._far):
            with contextlib.suppress(OSError):
                end.close()

    def _turn(self) -> None:
        now = time.monotonic()
        if now - self._beat >= BEAT:
            self._beat = now
            self._outward += _HEAD.pack(0)
        if not self._far.pending():
            self._wait()
        self._read_far()
        self._read_near()
        self._write()
        # After reading: this process itself may have been stopped, with heartbeats waiting.
        if time.monotonic() - self._heard > self._limit:
            self.reason = f"has sent no heartbeat for {self._limit:g} s"

    def _wait(self) -> None:
        poll = select.poll()
        far = select.POLLOUT if self._outward else 0
        near = select.POLLOUT if self._inward else 0
        if len(self._inward) < _WAITING:
            far |= select.POLLIN
        if len(self._outward) < _WAITING:
            near |= select.POLLIN
        poll.register(self._far, far)
        poll.register(self._near, near)
        poll.poll(1000 * BEAT / 2)

    def _read_far(self) -> None:
        while len(self._inward) < _WAITING:
            try:
                data = self._far.recv(_RECORD)
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                break
            if not data:
                self.reason = "closed the connection"
                break
            self._heard = time.monotonic()
            self._record += data
            self._unpack()

    def _unpack(self) -> None:
        while len(self._record) >= _HEAD.size:
            (size,) = _HEAD.unpack_from(self._record)
            if size > _RECORD:
                raise ValueError("not a record")
            if len(self._record) < _HEAD.size + size:
                return
            self._inward += self._record[_HEAD.size : _HEAD.size + size]
            del self._record[: _HEAD.size + size]

    def _read_near(self) -> None:
        while len(self._outward) < _WAITING:
            try:
                data = self._near.recv(_RECORD)
            except BlockingIOError:
                return
            if not data:
                self.reason = self.reason or "was closed here"
                return
            self._outward += _HEAD.pack(len(data)) + data

    def _write(self) -> None:
        with contextlib.suppress(ssl.SSLWantReadError, ssl.SSLWantWriteError):
            while self._outward:
                del self._outward[: self._far.send(self._outward[:_RECORD])]
        with contextlib.suppress(BlockingIOError):
            while self._inward:
                del self._inward[: self._near.send(self._inward[:_RECORD])]

    def _deliver(self) -> None:
        """Hand over what was there before the end."""
        until = time.monotonic() + _LAST_WORDS
        with contextlib.suppress(OSError):
            while (self._inward or self._outward) and time.monotonic() < until:
                if self._inward:
                    with contextlib.suppress(BlockingIOError):
                        del self._inward[: self._near.send(self._inward[:_RECORD])]
                if self._outward and self.reason == "was closed here":
                    with contextlib.suppress(ssl.SSLWantReadError, ssl.SSLWantWriteError):
                        del self._outward[: self._far.send(self._outward[:_RECORD])]
                        continue
                elif not self._inward:
                    return
                time.sleep(0.01)
