"""Bytes between two nodes: encrypted, in order, and with a heartbeat.

One thread carries those of all tunnels, so that a node whose main thread is busy is not taken for lost.
The rest of the process uses an ordinary socket, :attr:`Tunnel.inside`.
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import struct
import threading
import time

__all__ = ["BEAT", "CONTROLLER_LOST", "NODE_LOST", "Carrier", "Tunnel"]

#: Seconds between two heartbeats; a record of no bytes is one.
BEAT = 0.5
#: Seconds without a byte after which the controller takes a node for lost, and a node the controller.
#: The controller comes first, so that it can say why the case under way failed.
NODE_LOST = 3.5
CONTROLLER_LOST = 6.0
#: Seconds for what was written before the end to leave.
_LAST_WORDS = 2.0
_CLOSED_HERE = "was closed here"
_HEAD = struct.Struct(">I")
#: The most bytes in a record, and those that wait in one direction.
_RECORD = 1 << 16
_WAITING = 4 << 20


class Carrier(threading.Thread):
    """Carries the bytes of any number of tunnels, until it is closed and none is left."""

    def __init__(self) -> None:
        super().__init__(name="distparity-carrier", daemon=True)
        self._poll = select.epoll()
        #: By the descriptors of both ends.
        self._tunnels: dict[int, Tunnel] = {}
        self._lock = threading.Lock()
        self._over = False
        self.start()

    def add(self, tunnel: Tunnel) -> None:
        with self._lock:
            for number in tunnel.wanted():
                self._tunnels[number] = tunnel
                tunnel.registered[number] = select.EPOLLIN
                self._poll.register(number, select.EPOLLIN)

    def close(self) -> None:
        """End once every tunnel has ended."""
        self._over = True

    def run(self) -> None:
        looked = time.monotonic()
        while self._tunnels or not self._over:
            for number, events in self._poll.poll(BEAT / 2):
                with self._lock:
                    tunnel = self._tunnels.get(number)
                    if tunnel is not None:
                        tunnel.turn(number, events)
                        self._attend(tunnel)
            now = time.monotonic()
            if now - looked >= BEAT / 2:
                looked = now
                with self._lock:
                    # After reading: this process may have been stopped, with heartbeats waiting.
                    for tunnel in set(self._tunnels.values()):
                        tunnel.look(now)
                        self._attend(tunnel)
        self._poll.close()

    def _attend(self, tunnel: Tunnel) -> None:
        """Wait for what the tunnel waits for, or end it."""
        wanted = {} if tunnel.delivered else tunnel.wanted()
        for number, events in list(tunnel.registered.items()):
            if number not in wanted:
                del tunnel.registered[number]
                self._poll.unregister(number)
                self._tunnels.pop(number, None)
            elif wanted[number] != events:
                tunnel.registered[number] = wanted[number]
                self._poll.modify(number, wanted[number])
        if tunnel.delivered:
            tunnel.end()


class Tunnel:
    """Carries bytes until one end closes, or nothing is heard for ``limit`` seconds.

    Afterwards :attr:`inside` is at its end, and :attr:`reason` says why.
    """

    def __init__(self, sock: ssl.SSLSocket, limit: float, carrier: Carrier | None = None) -> None:
        self.inside, self._near = socket.socketpair()
        self._far = sock
        self._limit = limit
        self.reason = ""
        #: For the carrier: the events that it waits for, by descriptor.
        self.registered: dict[int, int] = {}
        self._outward = bytearray()
        self._inward = bytearray()
        self._record = bytearray()
        self._heard = self._beat = time.monotonic()
        #: When what is left need not be delivered any more.
        self._until = float("inf")
        self._ended = threading.Event()
        for end in (self._near, self._far):
            end.setblocking(False)
        mine = carrier or Carrier()
        mine.add(self)
        if carrier is None:
            mine.close()

    def join(self, limit: float) -> None:
        """Wait at most ``limit`` seconds for its end."""
        self._ended.wait(limit)

    # -- for the carrier -----------------------------------------------------------------------

    def wanted(self) -> dict[int, int]:
        """The events to wait for, by descriptor: none of an end that is gone."""
        far = select.EPOLLOUT if self._outward else 0
        near = select.EPOLLOUT if self._inward else 0
        if self.reason:
            ours = self.reason == _CLOSED_HERE
            return {self._far.fileno(): far} if ours else {self._near.fileno(): near}
        if len(self._inward) < _WAITING:
            far |= select.EPOLLIN
        if len(self._outward) < _WAITING:
            near |= select.EPOLLIN
        return {self._far.fileno(): far, self._near.fileno(): near}

    @property
    def delivered(self) -> bool:
        """Whether it has ended, and what was there before the end is handed over."""
        if not self.reason:
            return False
        left = self._outward if self.reason == _CLOSED_HERE else self._inward
        return not left or time.monotonic() > self._until

    def turn(self, number: int, events: int) -> None:
        """Carry what there is, after events at one end."""
        try:
            if not self.reason:
                if number == self._near.fileno() and events & ~select.EPOLLOUT:
                    self._read_near()
                if number == self._far.fileno() or self._far.pending():
                    self._read_far()
            self._write()
        except (OSError, ValueError) as error:
            self._stop(f"closed the connection ({error})")

    def look(self, now: float) -> None:
        """Send a heartbeat if it is time, and notice that none comes."""
        if now - self._beat >= BEAT and not self.reason:
            self._beat = now
            self._outward += _HEAD.pack(0)
        self.turn(-1, 0)
        if now - self._heard > self._limit:
            self._stop(f"has sent no heartbeat for {self._limit:g} s")

    def end(self) -> None:
        for end in (self._near, self._far):
            with contextlib.suppress(OSError):
                end.close()
        self._ended.set()

    def _stop(self, why: str) -> None:
        if self.reason:
            # It fails while the last words are delivered.
            self._until = 0.0
        else:
            self.reason = why
            self._until = time.monotonic() + _LAST_WORDS

    def _read_far(self) -> None:
        while len(self._inward) < _WAITING:
            try:
                data = self._far.recv(_RECORD)
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return
            if not data:
                self._stop("closed the connection")
                return
            self._heard = time.monotonic()
            self._record += data
            self._unpack()
            if not self._far.pending():
                return

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
                self._stop(_CLOSED_HERE)
                return
            self._outward += _HEAD.pack(len(data)) + data
            if len(data) < _RECORD:
                return

    def _write(self) -> None:
        # What comes from an end that is gone still goes to the other one.
        if self.reason in ("", _CLOSED_HERE):
            with contextlib.suppress(ssl.SSLWantReadError, ssl.SSLWantWriteError):
                while self._outward:
                    del self._outward[: self._far.send(self._outward[:_RECORD])]
        if self.reason != _CLOSED_HERE:
            with contextlib.suppress(BlockingIOError):
                while self._inward:
                    del self._inward[: self._near.send(self._inward[:_RECORD])]
