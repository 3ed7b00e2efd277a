"""What lies between two nodes: names, interfaces, and messages of several sizes.

Nothing here waits for ever: every step has a limit of its own, and says what did not happen within it.
"""

from __future__ import annotations

import contextlib
import hmac
import socket
import struct
import threading
import time
import zlib
from collections.abc import Sequence
from pathlib import Path

__all__ = ["LARGE", "LIMIT", "Echo", "Trouble", "exchange", "mtu", "unresolved"]

#: Seconds for a connection, and without a byte in a message.
LIMIT = 5.0
#: Bytes of a large message, and seconds for all of it.
LARGE = 16 << 20
LARGE_LIMIT = 30.0
_CHUNK = 1 << 16
#: A message's size, and its receiver's answer: how many bytes came, and their checksum.
_SIZE = struct.Struct(">Q")
_ANSWER = struct.Struct(">QI")


class Trouble(Exception):
    """A message did not cross; ``size`` is its number of bytes, 0 if there was no connection."""

    def __init__(self, why: str, size: int) -> None:
        super().__init__(why)
        self.size = size


class Echo:
    """Listens on an address, and says of each message how it arrived, to those that know ``key``."""

    def __init__(self, address: str, key: bytes) -> None:
        self._key = key
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self._listener = socket.create_server((address, 0), family=family)
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._listen, name="distparity-echo", daemon=True).start()

    def close(self) -> None:
        # Closing alone does not wake the thread that waits in accept().
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _listen(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self._listener.accept()
                threading.Thread(target=self._answer, args=(sock,), daemon=True).start()

    def _answer(self, sock: socket.socket) -> None:
        with sock, contextlib.suppress(OSError):
            sock.settimeout(LIMIT)
            if not hmac.compare_digest(_receive(sock, len(self._key)), self._key):
                return
            while head := _receive(sock, _SIZE.size):
                (size,) = _SIZE.unpack(head)
                if size > LARGE:
                    return
                data = _receive(sock, size)
                sock.sendall(_ANSWER.pack(len(data), zlib.crc32(data)))


def exchange(
    source: str, address: str, port: int, key: bytes, sizes: Sequence[int]
) -> list[tuple[int, float]]:
    """Send a message of each size from ``source`` to an :class:`Echo`; returns sizes and seconds.

    Raises :class:`Trouble` for the first that does not arrive whole.
    """
    found = []
    size = 0
    try:
        with socket.create_connection((address, port), LIMIT, (source, 0)) as sock:
            sock.settimeout(LIMIT)
            sock.sendall(key)
            for size in sizes:
                began = time.monotonic()
                _send(sock, bytes(range(256)) * (size // 256 + 1), size, began + LARGE_LIMIT)
                found.append((size, time.monotonic() - began))
    except TimeoutError:
        raise Trouble(f"no answer from {address}:{port} within {LIMIT:g} s", size) from None
    except OSError as error:
        raise Trouble(f"{address}:{port}: {error}", size) from None
    return found


def _send(sock: socket.socket, pattern: bytes, size: int, until: float) -> None:
    data = memoryview(pattern)[:size]
    # Otherwise the kernel waits for what comes after the size.
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.sendall(_SIZE.pack(size))
    for at in range(0, size, _CHUNK):
        if time.monotonic() > until:
            raise OSError(f"{at} of {size} bytes were sent within {LARGE_LIMIT:g} s")
        sock.sendall(data[at : at + _CHUNK])
    answer = _receive(sock, _ANSWER.size)
    if answer != _ANSWER.pack(size, zlib.crc32(data)):
        raise OSError(f"{size} bytes arrived otherwise than they were sent")


def _receive(sock: socket.socket, size: int) -> bytes:
    """So many bytes, or fewer if the other end closes."""
    data = bytearray()
    while len(data) < size and (more := sock.recv(min(size - len(data), 1 << 20))):
        data += more
    return bytes(data)


def unresolved(names: Sequence[str]) -> dict[str, str]:
    """The names that do not resolve here, each with the reason."""
    found = dict.fromkeys(names, f"no answer within {LIMIT:g} s")

    def ask(name: str) -> None:
        try:
            socket.getaddrinfo(name, None)
            found[name] = ""
        except (OSError, UnicodeError) as error:
            found[name] = str(error)

    # The C library may ask a server that does not answer, with limits of its own.
    threads = [threading.Thread(target=ask, args=(name,), daemon=True) for name in found]
    for thread in threads:
        thread.start()
    until = time.monotonic() + LIMIT
    for thread in threads:
        thread.join(max(0.0, until - time.monotonic()))
    return {name: why for name, why in dict(found).items() if why}


def mtu(interface: str) -> int:
    """The largest packet of an interface, in bytes; 1500 if it cannot be asked."""
    try:
        return int(Path(f"/sys/class/net/{interface}/mtu").read_text())
    except (OSError, ValueError):
        return 1500
