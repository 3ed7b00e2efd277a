"""This machine's interfaces and addresses."""

from __future__ import annotations

import contextlib
import fcntl
import ipaddress
import os
import socket
import struct
from collections.abc import Sequence
from pathlib import Path

from distparity.core.bad_request import BadRequest

__all__ = ["address_of", "chosen", "interface_of", "towards"]

_SIOCGIFADDR = 0x8915


def chosen(interface: str | None) -> str | None:
    """The interface for traffic between ranks, as it is asked for; None if nothing is said.

    ``interface`` is the option's. Raises :class:`BadRequest` if there is no such interface, or if other
    nodes cannot reach it.
    """
    known = [name for _, name in socket.if_nameindex()]
    said = {
        f"{name}=": os.environ.get(name, "")
        for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")
    }
    for where, words in {"--interface ": interface or "", **said}.items():
        # NCCL may be told which to leave out: that chooses none.
        if not words or words.startswith("^"):
            continue
        found = _first(words, known, prefix=where.startswith("NCCL"))
        host = socket.gethostname()
        if found is None:
            raise BadRequest(
                f"{where}{words}: {host} has no such interface; it has {', '.join(known)}"
            )
        if found == "lo":
            raise BadRequest(f"{where}{words}: other nodes cannot reach {host} by loopback")
        return found
    return None


def _first(words: str, known: Sequence[str], *, prefix: bool) -> str | None:
    """The first interface that a list of names, or of their beginnings, names; None if there is none."""
    exact = words.startswith("=") or not prefix
    for word in words.removeprefix("=").split(","):
        for name in known:
            if name == word or (not exact and name.startswith(word)):
                return name
    return None


def address_of(interface: str) -> str:
    """The address of an interface, IPv4 if it has one. Raises :class:`BadRequest` if it has none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock, contextlib.suppress(OSError):
        asked = struct.pack("256s", interface.encode()[:15])
        return socket.inet_ntoa(fcntl.ioctl(sock, _SIOCGIFADDR, asked)[20:24])
    for name, address in _inet6():
        if name == interface and not ipaddress.ip_address(address).is_link_local:
            return address
    raise BadRequest(f"the interface {interface} of {socket.gethostname()} has no address")


def interface_of(address: str) -> str:
    """The name of the interface that has an address; "" if none has."""
    for _, name in socket.if_nameindex():
        with contextlib.suppress(BadRequest):
            if address_of(name) == address:
                return name
    return next((name for name, found in _inet6() if found == address), "")


def towards(host: str) -> str | None:
    """This machine's address towards a host; None if that is only loopback, or unknown."""
    try:
        found = socket.getaddrinfo(host, 9, type=socket.SOCK_DGRAM)
    except OSError:
        return None
    for family, kind, *_, where in found:
        with socket.socket(family, kind) as sock, contextlib.suppress(OSError):
            sock.connect(where)
            address: str = sock.getsockname()[0]
            if not ipaddress.ip_address(address).is_loopback:
                return address
    return None


def _inet6() -> list[tuple[str, str]]:
    """The IPv6 addresses of this machine, each with the name of its interface first."""
    with contextlib.suppress(OSError):
        lines = [line.split() for line in Path("/proc/net/if_inet6").read_text().splitlines()]
        return [(line[5], str(ipaddress.IPv6Address(bytes.fromhex(line[0])))) for line in lines]
    return []
