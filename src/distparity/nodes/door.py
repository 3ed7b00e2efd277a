"""Where nodes join: the controller's listening socket."""

from __future__ import annotations

import contextlib
import queue
import socket
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

from distparity.nodes import greeting
from distparity.nodes.tunnel import NODE_LOST, Carrier, Tunnel

__all__ = ["Door", "Guest"]

#: The most connections that have not proved who they are.
_STRANGERS = 32


class Guest(NamedTuple):
    """A node that has joined, and what it says about itself."""

    tunnel: Tunnel
    about: dict[str, Any]


class Door:
    """Listens on ``address`` ("" for any) and ``port`` (0 for any). Nodes that know the token are in :attr:`guests`.

    ``check`` says why a node may not join, from what it says about itself; "" if it may. For every
    guest there is one byte in :attr:`bell`.
    """

    def __init__(
        self, token: str, address: str, port: int, check: Callable[[dict[str, Any]], str]
    ) -> None:
        self._token = token
        self._check = check
        self._context, self._digest = greeting.certificate()
        # Any address means those of IPv6 too.
        both = not address and socket.has_dualstack_ipv6()
        family = socket.AF_INET6 if both or ":" in address else socket.AF_INET
        self._listener = socket.create_server(
            (address, port), family=family, backlog=128, dualstack_ipv6=both
        )
        self.port: int = self._listener.getsockname()[1]
        self.guests: queue.SimpleQueue[Guest] = queue.SimpleQueue()
        self.bell, self._hammer = socket.socketpair()
        #: Why connections were turned away, and how often.
        self.turned_away: Counter[str] = Counter()
        #: Nodes that know the token and may not join, each with the reason.
        self.refused: list[str] = []
        self._carrier = Carrier()
        self._seats = threading.BoundedSemaphore(_STRANGERS)
        threading.Thread(target=self._listen, name="distparity-door", daemon=True).start()

    def close(self) -> None:
        # Closing alone does not wake the thread that waits in accept().
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        for one in (self._listener, self.bell, self._hammer):
            one.close()
        self._carrier.close()

    def _listen(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            if not self._seats.acquire(blocking=False):
                self.turned_away["too many at once"] += 1
                sock.close()
                continue
            threading.Thread(target=self._receive, args=(sock,), daemon=True).start()

    def _receive(self, plain: socket.socket) -> None:
        try:
            sock, about = greeting.accept(plain, self._context, self._digest, self._token)
            why = self._check(about)
            if why:
                self.refused.append(why)
                with sock:
                    greeting.send(sock, {"refused": why})
                self._ring()
                return
            greeting.send(sock, {})
            self.guests.put(Guest(Tunnel(sock, NODE_LOST, self._carrier), about))
            self._ring()
        except greeting.Refused as error:
            self.turned_away[str(error)] += 1
        except OSError:
            self.turned_away["no handshake"] += 1
        finally:
            self._seats.release()
            # After a handshake, the encrypted socket has its descriptor.
            plain.close()

    def _ring(self) -> None:
        with contextlib.suppress(OSError):
            self._hammer.send(b"!")
