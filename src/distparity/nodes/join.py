"""Join a run as a node, and serve it until it is over."""

from __future__ import annotations

import contextlib
import os
import platform
import socket
import sys
import time
from collections.abc import Callable, Mapping
from importlib import metadata
from typing import Any

from distparity.core.bad_request import BadRequest
from distparity.core.version import __version__
from distparity.nodes import greeting, network
from distparity.nodes.relay import Relay
from distparity.nodes.tunnel import CONTROLLER_LOST, Tunnel
from distparity.worlds import start

__all__ = ["about_me", "serve", "what_differs"]

#: What must be the same on all nodes: the key of :func:`about_me`, and its name.
_SAME = {"distparity": "distparity", "python": "Python", "torch": "torch"}


def about_me() -> dict[str, Any]:
    """What a node says about itself, without importing torch."""
    torch = "none"
    with contextlib.suppress(metadata.PackageNotFoundError):
        torch = metadata.version("torch")
    return {
        "name": socket.gethostname(),
        "distparity": __version__,
        "python": ".".join(platform.python_version_tuple()[:2]),
        "torch": torch,
        "cores": len(os.sched_getaffinity(0)),
    }


def what_differs(name: str, theirs: dict[str, Any], mine: dict[str, Any]) -> str:
    """What a node has otherwise than the controller; "" if nothing."""
    return "; ".join(
        f"{name} has {word} {theirs.get(key)}, and the controller on {mine['name']} has {mine[key]}"
        for key, word in _SAME.items()
        if theirs.get(key) != mine[key]
    )


def serve(where: Callable[[], Mapping[str, Any]], interface: str | None, limit: float) -> int:
    """Join the controller, trying for ``limit`` seconds; returns the exit code: 1 if the run failed.

    ``where`` says where it is, before every attempt: its ``address``, ``port`` and ``token``. Raises
    :class:`BadRequest` if it cannot be reached, or does not want this node.
    """
    asked = network.chosen(interface)
    start.ahead()
    try:
        sock = _connect(where, asked, limit)
    except BaseException:
        start.take().discard()
        raise
    at = "{}:{}".format(*sock.getpeername()[:2])
    print(f"distparity: {socket.gethostname()} has joined {at}", file=sys.stderr)
    relay = Relay(Tunnel(sock, CONTROLLER_LOST))
    gone = relay.run()
    if gone:
        print(f"distparity: {socket.gethostname()} ends: {gone}", file=sys.stderr)
    return 1 if gone or relay.failed else 0


def _connect(where: Callable[[], Mapping[str, Any]], asked: str | None, limit: float) -> Any:
    until = time.monotonic() + limit
    while True:
        said = where()
        address, port = said["address"], said["port"]
        try:
            return greeting.greet(address, port, said["token"], lambda sock: _about(sock, asked))
        except greeting.Refused as error:
            raise BadRequest(f"{address}:{port}: {error}") from None
        except OSError as error:
            if time.monotonic() > until:
                raise BadRequest(f"no controller at {address}:{port}: {error}") from None
        time.sleep(0.5)


def _about(sock: socket.socket, asked: str | None) -> dict[str, Any]:
    own: str = sock.getsockname()[0]
    interface = asked or network.interface_of(own)
    return {
        **about_me(),
        "interface": interface,
        "address": network.address_of(asked) if asked else own,
    }
