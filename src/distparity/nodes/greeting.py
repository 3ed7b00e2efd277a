"""How a node and the controller recognise each other, over TLS with a certificate made for the run.

Both know a token. Each proves it with a digest over both nonces and the certificate that the
connection has, so that nobody in between can present another certificate, and nothing can be
replayed. The token itself is never sent.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import secrets
import socket
import ssl
import struct
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from distparity.core.bad_request import BadRequest

__all__ = ["LIMIT", "Refused", "accept", "certificate", "greet", "receive", "send"]

#: Seconds for a handshake, and for each message of a greeting to arrive whole.
LIMIT = 10.0
_HEAD = struct.Struct(">I")
#: The most bytes of a message before the two know each other.
_MOST = 4096


class Refused(Exception):
    """The other end is not who it should be, or does not want us; says why."""


def certificate() -> tuple[ssl.SSLContext, bytes]:
    """A new certificate for the controller: the context that presents it, and its digest.

    Raises :class:`BadRequest` if there is no ``openssl`` program.
    """
    with tempfile.TemporaryDirectory(prefix="distparity-") as folder:
        key, cert = Path(folder, "key"), Path(folder, "cert")
        curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
        words = [
            "openssl",
            "req",
            "-x509",
            *curve,
            "-nodes",
            "-days",
            "30",
            "-subj",
            "/CN=distparity",
        ]
        try:
            subprocess.run(
                [*words, "-keyout", str(key), "-out", str(cert)],
                check=True,
                capture_output=True,
                stdin=subprocess.DEVNULL,
            )
        except (OSError, subprocess.CalledProcessError) as error:
            raise BadRequest(
                f"a run over several nodes needs the program openssl on the controller: {error}"
            ) from None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.load_cert_chain(cert, key)
        return context, _digest(ssl.PEM_cert_to_DER_cert(cert.read_text()))


def greet(
    address: str,
    port: int,
    token: str,
    about: Callable[[socket.socket], dict[str, Any]],
    limit: float = LIMIT,
) -> ssl.SSLSocket:
    """Join as a node that says ``about`` itself; returns the connection.

    Raises :class:`Refused`, or ``OSError`` if nobody answers.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    # The token vouches for the certificate, not an authority.
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with contextlib.ExitStack() as held:
        plain = held.enter_context(socket.create_connection((address, port), timeout=limit))
        sock = held.enter_context(context.wrap_socket(plain))
        mine = secrets.token_hex(16)
        send(sock, {"nonce": mine})
        found = receive(sock)
        digest = _digest(sock.getpeercert(binary_form=True) or b"")
        nonces = [mine, str(found.get("nonce"))]
        if not _proves(found, token, "controller", nonces, digest):
            raise Refused(f"{address}:{port} does not know this run's token")
        send(sock, {"proof": _proof(token, "node", nonces, digest), "about": about(sock)})
        welcome = receive(sock)
        if "refused" in welcome:
            raise Refused(str(welcome["refused"]))
        held.pop_all()
    return sock


def accept(
    plain: socket.socket, context: ssl.SSLContext, digest: bytes, token: str
) -> tuple[ssl.SSLSocket, dict[str, Any]]:
    """Recognise a node as the controller; returns the connection and what it says about itself.

    The caller answers with ``{}`` or ``{"refused": why}``. Raises :class:`Refused` or ``OSError``.
    """
    plain.settimeout(LIMIT)
    with contextlib.ExitStack() as held:
        sock = held.enter_context(context.wrap_socket(plain, server_side=True))
        mine = secrets.token_hex(16)
        nonces = [str(receive(sock).get("nonce")), mine]
        send(sock, {"nonce": mine, "proof": _proof(token, "controller", nonces, digest)})
        found = receive(sock)
        if not _proves(found, token, "node", nonces, digest):
            raise Refused("a wrong token")
        about = found.get("about")
        if not isinstance(about, dict):
            raise Refused("not a node")
        held.pop_all()
    return sock, about


def send(sock: socket.socket, message: dict[str, Any]) -> None:
    text = json.dumps(message).encode()
    sock.sendall(_HEAD.pack(len(text)) + text)


def receive(sock: socket.socket) -> dict[str, Any]:
    """The next message, and not a byte more. Raises :class:`Refused` for anything else, or ``OSError``.

    Who sends a byte from time to time does not keep it waiting.
    """
    until = time.monotonic() + LIMIT
    (size,) = _HEAD.unpack(_exactly(sock, _HEAD.size, until))
    if size > _MOST:
        raise Refused("rubbish")
    try:
        found = json.loads(_exactly(sock, size, until))
    except (ValueError, RecursionError):
        raise Refused("rubbish") from None
    if not isinstance(found, dict):
        raise Refused("rubbish")
    return found


def _exactly(sock: socket.socket, size: int, until: float) -> bytes:
    data = b""
    while len(data) < size:
        left = until - time.monotonic()
        if left <= 0:
            raise Refused("too slow")
        more = sock.recv(size - len(data))
        if not more:
            raise Refused("it hung up")
        data += more
    return data


def _digest(certificate: bytes) -> bytes:
    return hashlib.sha256(certificate).digest()


def _proves(found: dict[str, Any], token: str, who: str, nonces: list[str], digest: bytes) -> bool:
    # As bytes: what a stranger sends need not be ASCII.
    proof = _proof(token, who, nonces, digest)
    return hmac.compare_digest(proof.encode(), str(found.get("proof")).encode())


def _proof(token: str, who: str, nonces: list[str], digest: bytes) -> str:
    said = json.dumps([who, *nonces, digest.hex()]).encode()
    return hmac.new(token.encode(), said, hashlib.sha256).hexdigest()
