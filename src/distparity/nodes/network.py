"""This machine's interfaces and addresses."""

from __future__ import annotations

import contextlib
import fcntl
import ipaddress
import os
import socket
import struct
from pathlib import Path

from distparity.core.bad_request import BadRequest

__all__ = ["address_of", "chosen", "interface_of", "towards"]

_SIOCGIFADDR = 0x8915


def chosen(interface: str | None) -> str | None:
    """The interface for traffic between ranks, as it is asked for; None if nothing is said.

    ``interface`` is the option's. Raises :class:`BadRequest` if there is no such interface.
    """
    known = [name for _, name in socket.if_nameindex()]
    if interface is not None and interface not in known:
        raise BadRequest(
            f"--interface {interface}: {socket.gethostname()} has no such interface; it has "
            f"{', '.join(known)}"
        )
    # The libraries' own forms, such as a prefix or an exclusion, are left to them.
    said = [os.environ.get(f"{library}_SOCKET_IFNAME", "") for library in ("GLOO", "NCCL")]
    return interface or next((name for name in said if name in known), None)


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
