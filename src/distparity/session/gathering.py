"""Gather the nodes of a run: wait for those that were started with it, admit those that come later."""

from __future__ import annotations

import secrets
import socket
import time
from pathlib import Path
from typing import Any

from distparity.core.bad_request import BadRequest
from distparity.core.torch_facts import TorchFacts
from distparity.nodes import launched, network
from distparity.nodes.door import Door
from distparity.nodes.join import about_me, what_differs
from distparity.nodes.remote import RemoteNode
from distparity.session.nodes import Nodes
from distparity.worlds.launcher import Launcher
from distparity.worlds.scheduler import Scheduler

__all__ = ["PORT", "Gathering"]

#: The port on which a controller waits for ``distparity join``.
PORT = 29577
#: Seconds for the nodes to end their ranks when the run is over.
_LEAVING = 10.0
#: What has to be the same in the facts about torch, once it is imported.
_SAME = {"torch": "torch", "git": "torch's git revision"}


class Gathering:
    """Opens the controller's door; :meth:`wait` returns when all nodes are ready.

    Raises :class:`BadRequest` for what is wrong on this machine.
    """

    def __init__(self, nodes: Nodes, folder: Path) -> None:
        self._nodes = nodes
        self._mine = about_me()
        self._meeting: launched.Meeting | None = None
        #: What the terminal shows at the end.
        self.notes: list[str] = []
        host, port, token = "", 0, secrets.token_hex(32)
        asked = network.chosen(nodes.interface)
        if nodes.by == "join":
            if nodes.token_file is None:
                raise BadRequest(
                    "--wait-for-nodes needs --token-file FILE, which the nodes have too"
                )
            token = launched.token_in(nodes.token_file, make=True)
            host, port = _place(nodes.listen)
        else:
            self._meeting = launched.Meeting(nodes.by, folder)
            host = network.address_of(asked) if asked else network.towards(self._meeting.host) or ""
            host = host or network.towards(socket.gethostname()) or ""
            if not host:
                raise BadRequest(
                    f"{self._mine['name']} has only loopback towards {self._meeting.host or 'others'}: "
                    "say --interface NAME"
                )
        try:
            self._door = Door(token, host, port, self._differs)
        except OSError as error:
            raise BadRequest(f"cannot listen on {host or 'any address'}:{port}: {error}") from None
        self.address, self.interface = host, asked or network.interface_of(host)
        if self._meeting is not None:
            self._meeting.publish({"address": host, "port": self._door.port, "token": token})
        self._scheduler: Scheduler | None = None
        self._setup: dict[str, Any] = {}
        self._torch: TorchFacts | None = None
        self._refused: list[str] = []
        self._count = 0

    def _differs(self, about: dict[str, Any]) -> str:
        return what_differs(str(about.get("name"))[:60], about, self._mine)

    def wait(self, scheduler: Scheduler, launcher: Launcher, torch: TorchFacts) -> None:
        """Admit nodes until as many as are expected are ready; raises :class:`BadRequest`."""
        self._scheduler, self._setup, self._torch = scheduler, launcher.setup, torch
        launcher.address, launcher.interface = self.address, self.interface
        if not self._nodes.controller_too:
            scheduler.fleet.takers.clear()
        scheduler.admit = self._admit
        scheduler.watch(self._door.bell, self._on_bell)
        until = time.monotonic() + launched.JOIN_LIMIT
        expected = self._nodes.count
        while len(scheduler.fleet.takers) < expected + self._nodes.controller_too:
            scheduler.turn(0.2)
            lost = [f"{name} {why}" for name, why in scheduler.fleet.lost.items()]
            trouble = [*self._door.refused, *self._refused, *lost]
            if self._meeting is not None and self._meeting.trouble():
                trouble.append(self._meeting.trouble())
            if trouble:
                raise BadRequest(trouble[0])
            if time.monotonic() > until:
                ready = len(scheduler.fleet.takers) - self._nodes.controller_too
                raise BadRequest(
                    f"{ready} of {expected} nodes have joined within {launched.JOIN_LIMIT:g} s"
                )

    def _on_bell(self, bell: Any) -> None:
        bell.recv(64)
        while not self._door.guests.empty():
            guest = self._door.guests.get()
            assert self._scheduler is not None
            self._count += 1
            name = str(guest.about.get("name"))[:60]
            known = [node.name for node in self._scheduler.fleet.nodes.values()]
            node = RemoteNode(
                self._count,
                name if name not in known else f"{name}#{self._count}",
                guest,
                self._setup,
            )
            self._scheduler.add_node(node, int(guest.about["cores"]))

    def _admit(self, node: Any) -> str:
        """Why a node whose torch is imported may not take part; "" if it may."""
        assert self._torch is not None
        if node.failed:
            why = f"cannot import torch: {node.failed.splitlines()[0]}"
        else:
            facts = node.facts or {}
            mine = {key: getattr(self._torch, key) for key in _SAME}
            differ = [
                f"has {word} {facts.get(key)}, and the controller on {self._mine['name']} has {mine[key]}"
                for key, word in _SAME.items()
                if facts.get(key) != mine[key]
            ]
            why = "; ".join(differ)
        if why:
            self._refused.append(f"{node.name} {why}")
        return why

    def close(self, *, failed: bool) -> None:
        """Shut the door, and let the nodes end, with the controller's success or failure.

        Otherwise torchrun would start the controller again after a failure, without the nodes.
        """
        if self._scheduler is not None:
            left: list[Any] = self._scheduler.fleet.remote
            for node in left:
                node.dismiss(failed=failed)
            until = time.monotonic() + _LEAVING
            while left and time.monotonic() < until:
                left = [node for node in left if not node.has_left()]
                time.sleep(0.02)
            for node in self._scheduler.fleet.remote:
                node.hang_up()
        self._door.close()
        if self._meeting is not None:
            self._meeting.close()
        away = dict(self._door.turned_away)
        if away:
            told = ", ".join(f"{count} x {why}" for why, count in away.items())
            self.notes.append(f"connections that were turned away: {told}")
        self.notes += [f"refused: {why}" for why in [*self._door.refused, *self._refused]]


def _place(listen: str) -> tuple[str, int]:
    host, _, port = listen.rpartition(":")
    if not listen:
        return "", PORT
    if not port.isdecimal():
        raise BadRequest(f"--listen {listen}: it is HOST:PORT, or :PORT")
    return host.strip("[]"), int(port)
