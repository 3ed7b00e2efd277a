"""``distparity doctor`` on several nodes: what lies between them, before anything could hang there."""

from __future__ import annotations

import contextlib
import secrets
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from distparity.core.bad_request import BadRequest
from distparity.core.wire import Channel, Frame, ProtocolError
from distparity.nodes import greeting, launched, links, network
from distparity.nodes.door import Door, Guest
from distparity.nodes.join import about_me, what_differs
from distparity.nodes.tunnel import CONTROLLER_LOST, Tunnel
from distparity.session.doctor import Report, Step, complaint
from distparity.session.options import Options

__all__ = ["Consultation", "serve"]

#: Seconds for all nodes to join: under torchrun each imports torch first, to read the store.
JOIN_LIMIT = 60.0
#: Seconds for an answer of a node, and for its own examination.
ANSWER_LIMIT = 60.0
EXAMINATION_LIMIT = 900.0
#: Seconds that clocks may differ: results and logs of several nodes are read side by side.
APART = 1.0
_FIREWALL = "a firewall between them drops it: ranks use any port; or choose another --interface"
_MTU = (
    "packets of this size get lost on the way: make the MTU of the interfaces that of the network"
)


class Patient:
    """What a node does when it is asked, on this machine."""

    def __init__(self, interface: str | None, own: str, examine: Callable[[], Report]) -> None:
        """``own`` is this machine's address towards the other nodes."""
        self.about = about_me()
        self.trouble = ""
        self.address, self.interface = own, network.interface_of(own)
        try:
            asked = network.chosen(interface)
            if asked:
                self.address, self.interface = network.address_of(asked), asked
        except BadRequest as error:
            self.trouble = str(error)
        self._examine = examine
        self._echo: links.Echo | None = None

    def answer(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Do what is asked; an ``OSError`` is the answer's ``error``."""
        try:
            found: dict[str, Any] = getattr(self, f"_on_{asked['op']}")(asked)
        except OSError as error:
            return {"error": str(error)}
        return found

    def _on_about(self, asked: dict[str, Any]) -> dict[str, Any]:
        key = bytes.fromhex(asked["key"])
        self._echo = links.Echo(self.address, key)
        return {
            **self.about,
            "trouble": self.trouble,
            "address": self.address,
            "interface": self.interface,
            "port": self._echo.port,
        }

    def _on_clock(self, _: dict[str, Any]) -> dict[str, Any]:
        return {"now": time.time()}

    def _on_names(self, asked: dict[str, Any]) -> dict[str, Any]:
        return {"unresolved": links.unresolved(asked["names"])}

    def _on_reach(self, asked: dict[str, Any]) -> dict[str, Any]:
        sizes = [1, links.mtu(self.interface), links.LARGE]
        key = bytes.fromhex(asked["key"])
        try:
            crossed = links.exchange(self.address, asked["address"], asked["port"], key, sizes)
        except links.Trouble as trouble:
            return {"error": str(trouble), "size": trouble.size}
        return {"crossed": crossed}

    def _on_examine(self, _: dict[str, Any]) -> dict[str, Any]:
        report = self._examine()
        return {"works": report.works, "wanted": report.wanted, "complaint": complaint(report)}

    def close(self) -> None:
        if self._echo is not None:
            self._echo.close()


class Node(Protocol):
    """A node that is asked; questions to several are under way at once."""

    def ask(self, asked: dict[str, Any]) -> None: ...

    def heard(self, limit: float) -> dict[str, Any]:
        """The answer; one with an ``error`` if none comes within ``limit`` seconds."""


class Here:
    """The controller's own machine, as a node."""

    def __init__(self, patient: Patient) -> None:
        self.patient = patient
        self._asked: dict[str, Any] = {}

    def ask(self, asked: dict[str, Any]) -> None:
        self._asked = asked

    def heard(self, limit: float) -> dict[str, Any]:
        return self.patient.answer(self._asked)


class There:
    """A node that has joined."""

    def __init__(self, guest: Guest) -> None:
        self.tunnel = guest.tunnel
        self.rank = guest.about.get("rank")
        self.channel = Channel(guest.tunnel.inside)
        #: Why it is asked no more: a late answer would be taken for that to another question.
        self._lost = ""

    def ask(self, asked: dict[str, Any]) -> None:
        self.channel.queue(asked)
        # If it is gone, reading from it will show that.
        with contextlib.suppress(OSError):
            self.channel.flush()

    def heard(self, limit: float) -> dict[str, Any]:
        found: Frame | None = None
        try:
            self.channel.sock.settimeout(limit)
            found = None if self._lost else self.channel.receive()
        except TimeoutError:
            self._lost = f"it gave no answer within {limit:g} s"
        except (OSError, ProtocolError) as error:
            self._lost = str(error)
        if found is None:
            self._lost = self._lost or f"it {self.tunnel.reason or 'closed the connection'}"
            return {"error": self._lost}
        return found

    def close(self) -> None:
        self.channel.close()
        self.tunnel.join(3)


class Consultation:
    """The controller's part: :meth:`network`, then :meth:`begin`, and :meth:`examined` in the end.

    Raises :class:`BadRequest` if this machine cannot listen for the others.
    """

    def __init__(self, launch: launched.Launch, options: Options, interface: str | None) -> None:
        self._launch = launch
        options.report_dir.mkdir(parents=True, exist_ok=True)
        self._meeting = launched.Meeting(launch.by, options.report_dir)
        own = network.towards(self._meeting.host) or network.towards(socket.gethostname())
        if own is None:
            raise BadRequest(
                f"{socket.gethostname()} has only loopback towards {self._meeting.host or 'others'}: "
                "give it an address that the other nodes reach"
            )
        self._own = Patient(interface, own, lambda: Report([], [], [], []))
        token = secrets.token_hex(32)
        # Other versions are not refused here but told; of distparity itself, it would not be understood.
        mine = {"name": self._own.about["name"], "distparity": self._own.about["distparity"]}
        try:
            self._door = Door(token, self._own.address, 0, lambda about: _other(about, mine))
        except OSError as error:
            raise BadRequest(f"cannot listen on {self._own.address}: {error}") from None
        self._meeting.publish(
            {"address": self._own.address, "port": self._door.port, "token": token}
        )
        #: The nodes that have joined, and those of them that answer.
        self._joined: list[There] = []
        self._others: list[There] = []
        self._names: list[str] = []

    def network(self) -> Iterator[Step]:
        """What lies between the nodes, one step after the other, as soon as it is known."""
        yield from self._gather()
        nodes: list[Node] = [Here(self._own), *self._joined]
        key = secrets.token_hex(16)
        said = _all(nodes, {"op": "about", "key": key})
        self._names = [
            str(one.get("name", f"node {number}"))[:60] for number, one in enumerate(said)
        ]
        mine = said[0]
        for name, one in zip(self._names, said, strict=True):
            yield _about(name, one, mine)
        # Nothing more is asked of one that has no answer.
        fit = [number for number, one in enumerate(said) if "error" not in one]
        nodes, said = [nodes[number] for number in fit], [said[number] for number in fit]
        self._names = [self._names[number] for number in fit]
        self._others = [node for node in nodes if isinstance(node, There)]
        yield from self._clocks(nodes)
        every = [*dict.fromkeys([*self._names, *filter(None, [self._meeting.host])])]
        for name, one in zip(
            self._names, _all(nodes, {"op": "names", "names": every}), strict=True
        ):
            yield _resolves(name, one, every)
        for step in range(1, len(nodes)):
            # Each to the next but so many: all pairs in both directions, as many at once as there are nodes.
            to = [(number + step) % len(nodes) for number in range(len(nodes))]
            for node, other in zip(nodes, to, strict=True):
                where = {name: said[other][name] for name in ("address", "port")}
                node.ask({"op": "reach", "key": key, **where})
            for number, other in enumerate(to):
                pair = f"{self._names[number]} to {self._names[other]}"
                yield _crossed(pair, nodes[number].heard(ANSWER_LIMIT))

    def _gather(self) -> Iterator[Step]:
        until = time.monotonic() + JOIN_LIMIT
        expected = self._launch.nodes - 1
        while len(self._joined) + len(self._door.refused) < expected:
            if self._meeting.trouble():
                yield Step("nodes", error=self._meeting.trouble())
                return
            if time.monotonic() > until:
                break
            while not self._door.guests.empty():
                self._joined.append(There(self._door.guests.get()))
            time.sleep(0.05)
        for why in self._door.refused:
            yield Step("nodes", error=why, advice="install the same on all nodes")
        known = {one.rank for one in self._joined}
        missing = [str(rank) for rank in range(1, self._launch.nodes) if rank not in known]
        if missing and not self._door.refused:
            yield Step(
                "nodes",
                error=f"{len(self._joined)} of {expected} have joined within {JOIN_LIMIT:g} s; "
                f"missing: {self._launch.by}'s rank {', '.join(missing)}",
                advice="read what they print: they say what they cannot reach",
            )

    def _clocks(self, nodes: list[Node]) -> Iterator[Step]:
        for name, node in list(zip(self._names, nodes, strict=True))[1:]:
            sent = time.time()
            node.ask({"op": "clock"})
            answer = node.heard(ANSWER_LIMIT)
            middle = (sent + time.time()) / 2
            yield _clock(name, answer, middle, self._names[0])

    def begin(self) -> None:
        """Have the other nodes examine themselves."""
        for node in self._others:
            node.ask({"op": "examine"})

    def examined(self) -> Iterator[Step]:
        """What they found."""
        for name, node in zip(self._names[1:], self._others, strict=True):
            answer = node.heard(EXAMINATION_LIMIT)
            if "error" in answer:
                yield Step(f"{name}: doctor", error=str(answer["error"]))
            elif answer["works"]:
                yield Step(f"{name}: doctor", f"a run would work: {', '.join(answer['wanted'])}")
            else:
                yield Step(f"{name}: doctor", error=answer["complaint"])

    def close(self) -> None:
        for node in self._joined:
            node.close()
        self._own.close()
        self._door.close()
        self._meeting.close()


def _all(nodes: list[Node], asked: dict[str, Any]) -> list[dict[str, Any]]:
    for node in nodes:
        node.ask(asked)
    return [node.heard(ANSWER_LIMIT) for node in nodes]


def _other(about: dict[str, Any], mine: dict[str, str]) -> str:
    same = {**about_me(), **about, "distparity": about.get("distparity")}
    return what_differs(str(about.get("name"))[:60], same, {**same, **mine})


def _about(name: str, said: dict[str, Any], mine: dict[str, Any]) -> Step:
    step = f"{name}: node"
    if said.get("error"):
        return Step(step, error=str(said["error"]))
    if said["trouble"]:
        return Step(step, error=said["trouble"], advice="say --interface with one that it has")
    differs = what_differs(name, said, mine)
    if differs:
        return Step(step, error=differs, advice="install the same on all nodes")
    where = f"{said['address']} on {said['interface'] or 'an unknown interface'}"
    return Step(step, f"{where}; torch {said['torch']}, Python {said['python']}")


def _clock(name: str, said: dict[str, Any], middle: float, other: str) -> Step:
    if "error" in said:
        return Step(f"{name}: clock", error=str(said["error"]))
    apart = said["now"] - middle
    if abs(apart) <= APART:
        return Step(f"{name}: clock", f"{abs(apart):.3f} s from {other}'s")
    word = "ahead of" if apart > 0 else "behind"
    error = f"it is {abs(apart):.1f} s {word} {other}'s"
    return Step(f"{name}: clock", error=error, advice="set the clocks of all nodes by NTP")


def _resolves(name: str, said: dict[str, Any], every: list[str]) -> Step:
    step = f"{name}: names"
    wrong = {"names": said["error"]} if "error" in said else said["unresolved"]
    if not wrong:
        return Step(step, f"{', '.join(every)} resolve")
    told = "; ".join(f"{one} does not resolve: {why}" for one, why in wrong.items())
    return Step(step, error=told, advice="name all nodes in DNS or in /etc/hosts of each")


def _crossed(name: str, said: dict[str, Any]) -> Step:
    if "error" in said:
        size = said.get("size", 0)
        what = f"a message of {size} bytes: " if size else ""
        advice = _MTU if size > 1 else _FIREWALL
        return Step(name, error=f"{what}{said['error']}", advice=advice)
    told = [f"{size} B in {1000 * took:.1f} ms" for size, took in said["crossed"]]
    return Step(name, ", ".join(told))


def serve(
    launch: launched.Launch,
    options: Options,
    interface: str | None,
    examine: Callable[[], Report],
) -> int:
    """Another node's part: answer the controller until it hangs up; returns the exit code.

    Raises :class:`BadRequest` if it cannot be reached, within seconds.
    """
    meeting = launched.Meeting(launch.by, options.report_dir)
    host = meeting.host
    wrong = links.unresolved([host]) if host else {}
    if wrong:
        raise BadRequest(f"{socket.gethostname()}: {host} does not resolve: {wrong[host]}")
    dropped = meeting.dropped(links.LIMIT)
    if dropped:
        raise BadRequest(
            f"{socket.gethostname()}: no answer from {dropped} within {links.LIMIT:g} s: {_FIREWALL}"
        )
    options.report_dir.mkdir(parents=True, exist_ok=True)
    said = meeting.read(JOIN_LIMIT)
    where = f"{said['address']}:{said['port']}"
    about = {**about_me(), "rank": launch.rank}
    try:
        sock = greeting.greet(
            said["address"], said["port"], said["token"], lambda _: about, links.LIMIT
        )
    except (OSError, greeting.Refused) as error:
        raise BadRequest(
            f"{socket.gethostname()} cannot join the controller at {where} within {links.LIMIT:g} s: "
            f"{error}"
        ) from None
    patient = Patient(interface, str(sock.getsockname()[0]), examine)
    tunnel = Tunnel(sock, CONTROLLER_LOST)
    channel = Channel(tunnel.inside)
    try:
        while (frame := channel.receive()) is not None:
            channel.send(patient.answer(frame))
    except OSError:
        # It has hung up.
        pass
    finally:
        patient.close()
        channel.close()
        tunnel.join(3)
    return 0
