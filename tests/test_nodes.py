"""Worlds whose ranks are on several nodes: real frames between them, fork servers that are objects."""

from __future__ import annotations

import contextlib
import socket
import ssl
import subprocess
import sys
import threading
import time
import types
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast
from unittest import mock

import pytest
from fake_ranks import FakeLauncher, Fakes, fakes, job, outcome_of

from distparity.core.bad_request import BadRequest
from distparity.core.outcome import Outcome, Status
from distparity.core.wire import Frame
from distparity.nodes import greeting, join, launched, network, relay
from distparity.nodes.door import Door, Guest
from distparity.nodes.relay import Relay
from distparity.nodes.remote import RemoteNode
from distparity.nodes.tunnel import BEAT, Tunnel
from distparity.results import pairs
from distparity.session.placement import Way, merged, placed
from distparity.worlds.device_pool import Pool
from distparity.worlds.fleet import NotPlaced, arrange
from distparity.worlds.world import Answer, Failure, Spec, Task

TOKEN = "t" * 32
SETUP: dict[str, Any] = {
    "include": [],
    "own_scenarios": [],
    "own_modules": [],
    "plugins": [],
    "arithmetic": "exact",
    "log": True,
    "backend": None,
    "perturb": None,
}


class Pipe:
    """In place of the encrypted connection."""

    def __init__(self, inside: socket.socket) -> None:
        self.inside = inside
        self.reason = ""

    def join(self, limit: float) -> None:
        pass


class Nodes(Fakes):
    """A scheduler with another node, whose relay and fork server take turns with it."""

    def __init__(self) -> None:
        super().__init__()
        self.launcher.name = "node1"
        self.launcher.address, self.launcher.interface = "10.0.0.1", "eth0"
        self.scheduler.fleet.cpu_ranks = 2
        self.cut = True
        self.join(1)

    def join(self, number: int) -> None:
        """node2 joins, for the first time or again."""
        ours, theirs = socket.socketpair()
        about = {"name": "node2", "address": "10.0.0.2", "interface": "eth0"}
        self.pipe = Pipe(ours)
        guest = Guest(cast("Tunnel", self.pipe), about)
        self.node = RemoteNode(number, "node2", guest, SETUP)
        self.scheduler.add_node(self.node, cores=2)
        self.relay = Relay(cast("Tunnel", Pipe(theirs)))
        self.there: FakeLauncher | None = None
        self.cut = False
        self.turn()
        self.turn()
        assert isinstance(self.relay.launcher, FakeLauncher)
        self.there = self.relay.launcher
        self.there.other_end.send({"op": "ready", "facts": {}})
        while self.scheduler.fleet.takers != [0, number]:
            self.turn()

    def turn(self, seconds: float = 0.0) -> None:
        for _ in range(2):
            super().turn(seconds)
            seconds = 0.0
            if not self.cut:
                if self.there is not None:
                    self.there.step()
                self.relay.turn(0.0)

    def start(
        self, name: str, size: int = 2, limit: float = 10.0, placement: str = "spread", **args: Any
    ) -> None:
        spec = Spec("cpu", size, placement=placement)
        task = Task(spec, name, {"number": len(self.handles), **args}, limit=limit)
        self.handles.append((name, self.scheduler.start(job(task))))

    def vanish(self, why: str) -> None:
        """Nothing comes from the node any more, as its tunnel says."""
        self.cut = True
        self.pipe.reason = why
        self.leave()

    def leave(self) -> None:
        """The node's process ends."""
        self.relay.close()
        if self.there is not None:
            self.there.finish()
            self.there = None


@pytest.fixture
def nodes() -> Iterator[Nodes]:
    looks = {"LOOK_AT_FILES": 0.0, "Launcher": lambda *_, **__: FakeLauncher()}
    with contextlib.ExitStack() as stack:
        for name, value in looks.items():
            stack.enter_context(mock.patch.object(relay, name, value))
        stack.enter_context(mock.patch("fake_ranks.Fakes", Nodes))
        found = cast("Nodes", stack.enter_context(fakes()))
        yield found
        found.leave()
        found.node.channel.close()


TASKS = (
    "ok",
    "raise",
    "ok",
    "die",
    "ok",
    "silent",
    "leave",
    "rubbish",
    "garbage",
    "one-dies",
    "ok",
)
EXPECTED = [
    *("ok 0", "raised", "ok 2", "crash", "ok 4", "timeout", "ok 6", "raised", "raised"),
    *("crash", "ok 10"),
]


@pytest.mark.parametrize("placement", ["packed", "spread"])
def test_tasks_end_as_on_one_node(nodes: Nodes, placement: str) -> None:
    for name in TASKS:
        nodes.start(name, placement=placement)
    nodes.run()
    assert nodes.outcomes() == EXPECTED
    assert nodes.scheduler.faults == []


@pytest.mark.parametrize(
    ("size", "placement", "where"),
    [
        (2, "spread", ("node1", "node2")),
        (4, "spread", ("node1", "node2", "node1", "node2")),
        (4, "packed", ("node1", "node1", "node2", "node2")),
        (3, "packed", ("node1", "node1", "node2")),
        (2, "packed", ("node1", "node1")),
    ],
)
def test_an_answer_says_where_its_ranks_were(
    nodes: Nodes, size: int, placement: str, where: tuple[str, ...]
) -> None:
    nodes.start("ok", size, placement=placement)
    nodes.run()
    assert tuple(name for name, _ in nodes.handles[0][1].value.places) == where


def test_a_case_is_one_frame_to_a_node_and_one_back(nodes: Nodes) -> None:
    nodes.start("ok", 6)
    nodes.run()
    crossed: list[str] = []
    ours, theirs = nodes.node.hear, nodes.relay._on_to

    def hear(frame: Frame) -> Frame | None:
        if frame["op"] == "from":
            crossed.append(f"from {[rank for rank, _ in frame['said']]}")
        return ours(frame)

    def to(frame: Frame) -> None:
        crossed.append(frame["message"]["op"])
        theirs(frame)

    with (
        mock.patch.object(nodes.node, "hear", hear),
        mock.patch.object(nodes.relay, "_on_to", to, create=True),
    ):
        nodes.start("ok", 6)
        nodes.run()
    assert crossed == ["task", "from [1, 3, 5]"]


def test_ranks_here_find_the_controller_whatever_its_address_is(nodes: Nodes) -> None:
    for address in ("10.0.0.1", ""):
        nodes.launcher.address = address
        assert nodes.launcher.repair() is None


def test_an_answer_waits_for_no_rank_that_gives_none(nodes: Nodes) -> None:
    nodes.start("last-silent", 4)
    nodes.run()
    fates = [report.fate.value for report in nodes.handles[0][1].value.ranks]
    assert fates == ["answered", "answered", "answered", "silent"]


def test_what_ranks_store_there_is_here(nodes: Nodes, tmp_path: Path) -> None:
    """Trajectories are in the case's own file, and each node has the checkpoint's files."""
    spool, folder = tmp_path / "spool", tmp_path / "checkpoint"
    spool.write_bytes(b"something before")
    folder.mkdir()
    for _ in range(2):
        nodes.start("store", 4, spool=str(spool), folder=str(folder))
        nodes.run()
    for _, handle in nodes.handles:
        for rank, result in enumerate(handle.value.results):
            (place,) = result["places"]
            assert spool.read_bytes()[place : place + 6] == f"rank {rank}".encode()
    first = [f"of-{rank}-in-1" for rank in range(4)]
    assert handle.value.results[1]["seen"] == first
    assert set(first) < {path.name for path in folder.iterdir()}


def test_a_trajectory_that_cannot_be_stored_here_is_an_error_of_the_rank(
    nodes: Nodes, tmp_path: Path
) -> None:
    nodes.start("store", 2, spool="/proc/nowhere", folder=str(tmp_path), placement="packed")
    nodes.scheduler.fleet.takers = [1]
    nodes.run()
    assert "cannot store the trajectories" in nodes.handles[0][1].value.message


def test_a_node_that_vanishes_fails_what_ran_there_and_nothing_else(nodes: Nodes) -> None:
    nodes.start("silent")
    nodes.turn()
    nodes.turn()
    nodes.start("ok", placement="packed")
    nodes.vanish("has sent no heartbeat for 4 s")
    while not nodes.handles[0][1].finished:
        nodes.turn(0.05)
    found: Failure = nodes.handles[0][1].value
    assert found.message.startswith("rank 1 on node2 is gone: node2 has sent no heartbeat for 4 s")
    nodes.run()
    assert outcome_of(nodes.handles[1][1]) == "ok 1"
    # What needs two nodes is not tried, and says why.
    nodes.start("ok")
    nodes.run()
    assert str(nodes.handles[2][1].error) == (
        "2 ranks, spread, need 2 nodes, and 1 is left: node2 has sent no heartbeat for 4 s"
    )


def test_a_node_that_comes_back_has_ranks_again(nodes: Nodes) -> None:
    nodes.start("ok")
    nodes.run()
    nodes.vanish("closed the connection")
    while "node2" not in nodes.scheduler.fleet.lost:
        nodes.turn()
    nodes.join(2)
    nodes.start("ok")
    nodes.run()
    assert nodes.outcomes() == ["ok 0", "ok 1"]
    assert [name for name, _ in nodes.handles[1][1].value.places] == ["node1", "node2"]


@pytest.mark.parametrize("failed", [False, True])
def test_a_node_ends_as_the_run_does(nodes: Nodes, failed: bool) -> None:
    """torchrun would otherwise start a controller again that failed, and no node."""
    nodes.node.dismiss(failed=failed)
    nodes.node.channel.flush()
    assert nodes.relay.run() == ""
    assert nodes.relay.failed is failed


def test_rubbish_from_a_node_costs_the_node(nodes: Nodes) -> None:
    nodes.relay.controller.queue({"op": "file", "world": "one"})
    for _ in range(5):
        nodes.turn()
    assert "not a message" in nodes.scheduler.fleet.lost["node2"]


@pytest.mark.parametrize(
    "frame", [{"op": "connection"}, {"op": "kill", "pids": 1}, {"op": "fork", "world": "one"}]
)
def test_rubbish_from_the_controller_ends_the_node(nodes: Nodes, frame: dict[str, Any]) -> None:
    nodes.node.channel.queue(frame)
    nodes.node.channel.flush()
    assert (nodes.relay.run() or "").startswith("the controller said ")


@pytest.mark.parametrize("name", ["../escape", "/etc/escape", "a/../../escape", ""])
def test_a_file_outside_the_checkpoint_is_not_written(
    nodes: Nodes, tmp_path: Path, name: str
) -> None:
    nodes.start("silent", spool="", folder=str(tmp_path / "folder"))
    nodes.turn()
    nodes.turn()
    tree = {"op": "tree", "world": 1, "rank": 1, "name": name}
    nodes.relay.controller.queue(tree, [b"x"])
    for _ in range(5):
        nodes.turn()
    assert "not a file of a checkpoint" in nodes.scheduler.fleet.lost["node2"]
    assert not list(tmp_path.rglob("*escape*"))


@pytest.mark.parametrize(
    ("free", "size", "placement", "where"),
    [
        ({0: [0, 1], 1: [0, 1]}, 4, "packed", [(0, 0), (0, 1), (1, 0), (1, 1)]),
        ({0: [0, 1], 1: [0, 1]}, 4, "spread", [(0, 0), (1, 0), (0, 1), (1, 1)]),
        ({0: [1], 1: [0, 2]}, 2, "packed", [(1, 0), (1, 2)]),
        ({0: [1], 1: [0, 2]}, 3, "spread", [(0, 1), (1, 0), (1, 2)]),
        ({0: [], 1: [0, 2]}, 2, "spread", [(1, 0), (1, 2)]),
        ({0: [0], 1: [0]}, 3, "packed", [(0, 0), (1, 0)]),
    ],
)
def test_arrange(
    free: dict[int, list[int]], size: int, placement: str, where: list[tuple[int, int]]
) -> None:
    assert arrange(size, free, placement) == where


TORCHRUN = {"TORCHELASTIC_RUN_ID": "none", "LOCAL_WORLD_SIZE": "1", "GROUP_RANK": "1"}
STEP = {"SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_NUM_NODES": "2"}


@pytest.mark.parametrize(
    ("environ", "found"),
    [
        pytest.param({}, None, id="alone"),
        pytest.param({**TORCHRUN, "GROUP_WORLD_SIZE": "1"}, None, id="torchrun-on-one-node"),
        pytest.param(
            {**TORCHRUN, "GROUP_WORLD_SIZE": "2"}, launched.Launch("torchrun", 1, 2), id="torchrun"
        ),
        pytest.param(
            {**STEP, **TORCHRUN, "GROUP_WORLD_SIZE": "2"},
            launched.Launch("torchrun", 1, 2),
            id="torchrun-under-srun",
        ),
        pytest.param(
            {**TORCHRUN, "GROUP_WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "8"},
            "--nproc-per-node=1",
            id="torchrun-with-many",
        ),
        pytest.param(STEP, launched.Launch("slurm", 1, 2), id="srun"),
        pytest.param({"SLURM_PROCID": "0", "SLURM_NTASKS": "2"}, None, id="a-batch-script"),
        pytest.param(
            {**STEP, "SLURM_STEP_NUM_TASKS": "8"}, "--ntasks-per-node=1", id="srun-with-many"
        ),
    ],
)
def test_what_a_launcher_says(environ: dict[str, str], found: Any) -> None:
    if isinstance(found, str):
        with pytest.raises(BadRequest, match=found):
            launched.found(environ)
    else:
        assert launched.found(environ) == found


@pytest.mark.parametrize(
    ("mode", "text", "said"),
    [
        (0o600, TOKEN, TOKEN),
        (0o644, TOKEN, "chmod 600"),
        (0o640, TOKEN, "chmod 600"),
        (0o600, "short", "32 characters"),
        (None, "", "No such file"),
    ],
)
def test_token_file(tmp_path: Path, mode: int | None, text: str, said: str) -> None:
    path = tmp_path / "token"
    if mode is not None:
        path.write_text(f"{text}\n")
        path.chmod(mode)
    if said == TOKEN:
        assert launched.token_in(path, make=False) == TOKEN
    else:
        with pytest.raises(BadRequest, match=said):
            launched.token_in(path, make=False)


def test_token_file_is_made_for_its_owner_only(tmp_path: Path) -> None:
    made = launched.token_in(tmp_path / "token", make=True)
    assert len(made) == 64
    assert (tmp_path / "token").stat().st_mode & 0o777 == 0o600
    assert launched.token_in(tmp_path / "token", make=True) == made


@pytest.mark.parametrize(
    ("theirs", "said"),
    [
        ({}, ""),
        ({"torch": "2.8.0"}, "node2 has torch 2.8.0, and the controller on node1 has 2.13.0"),
        ({"python": "3.12"}, "node2 has Python 3.12, and the controller on node1 has 3.11"),
        ({"distparity": "9"}, "node2 has distparity 9, and the controller on node1 has 1"),
        ({"name": "x"}, ""),
    ],
)
def test_what_may_not_mix(theirs: dict[str, str], said: str) -> None:
    mine = {"name": "node1", "torch": "2.13.0", "python": "3.11", "distparity": "1"}
    assert join.what_differs("node2", {**mine, **theirs}, mine) == said


def test_a_store_that_does_not_answer_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launched, "_CLOSING", 0.1)
    meeting = launched.Meeting("torchrun", tmp_path)
    words = [sys.executable, "-c", "import time; time.sleep(60)"]
    helper = meeting._helper = subprocess.Popen(
        words, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    meeting.close()
    assert helper.returncode is not None


@pytest.mark.parametrize(
    ("option", "environ", "found"),
    [
        (None, {}, None),
        ("ib0", {"GLOO": "eth0"}, "ib0"),
        (None, {"GLOO": "eth1,eth0", "NCCL": "ib"}, "eth0"),
        (None, {"NCCL": "ib"}, "ib0"),
        (None, {"NCCL": "=ib0"}, "ib0"),
        (None, {"NCCL": "^lo,docker"}, None),
    ],
)
def test_the_interface_is_the_one_that_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, option: str | None, environ: dict[str, str], found: str | None
) -> None:
    _interfaces(monkeypatch, environ)
    assert network.chosen(option) == found


@pytest.mark.parametrize(
    ("option", "environ", "said"),
    [
        ("ib7", {}, "--interface ib7: .* has no such interface; it has lo, eth0, ib0"),
        (None, {"GLOO": "eth"}, "GLOO_SOCKET_IFNAME=eth: .* has no such interface"),
        (None, {"NCCL": "=ib"}, "NCCL_SOCKET_IFNAME==ib: .* has no such interface"),
        (None, {"GLOO": "lo"}, "GLOO_SOCKET_IFNAME=lo: other nodes cannot reach .* by loopback"),
    ],
)
def test_an_interface_that_cannot_be_used_is_named(
    monkeypatch: pytest.MonkeyPatch, option: str | None, environ: dict[str, str], said: str
) -> None:
    _interfaces(monkeypatch, environ)
    with pytest.raises(BadRequest, match=said):
        network.chosen(option)


def _interfaces(monkeypatch: pytest.MonkeyPatch, environ: dict[str, str]) -> None:
    for library in ("GLOO", "NCCL"):
        monkeypatch.setenv(f"{library}_SOCKET_IFNAME", environ.get(library, ""))
    names = list(enumerate(["lo", "eth0", "ib0"], 1))
    monkeypatch.setattr(network.socket, "if_nameindex", lambda: names)


def test_a_node_asks_again_where_the_controller_is(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a restart, what it finds first may be of a controller that is gone."""
    with socket.create_server(("127.0.0.1", 0)) as gone:
        closed = gone.getsockname()[1]
    said = iter([closed, closed, door.port])
    monkeypatch.setattr(join.time, "sleep", lambda _: None)
    where = lambda: {"address": "127.0.0.1", "port": next(said), "token": TOKEN}  # noqa: E731
    join._connect(where, None, 10.0).close()
    assert next(said, None) is None
    end(door.guests.get(timeout=5).tunnel)


# -- the connection ------------------------------------------------------------------------------


@pytest.fixture
def door() -> Iterator[Door]:
    found = Door(TOKEN, "127.0.0.1", 0, lambda about: about.get("wrong", ""))
    yield found
    found.close()
    while not found.guests.empty():
        end(found.guests.get().tunnel)


def end(*tunnels: Tunnel) -> None:
    for tunnel in tunnels:
        tunnel.inside.close()
        tunnel.join(5)


def _greet(door: Door, token: str = TOKEN, port: int | None = None, **about: str) -> ssl.SSLSocket:
    return greeting.greet("127.0.0.1", port or door.port, token, lambda _: dict(about))


def test_bytes_cross_in_order_and_the_end_is_known(door: Door) -> None:
    theirs = Tunnel(_greet(door, name="node2"), 5.0)
    assert door.bell.recv(8) == b"!"
    ours = door.guests.get()
    assert ours.about == {"name": "node2"}
    data = bytes(range(256)) * 40_000
    threading.Thread(target=theirs.inside.sendall, args=(data,)).start()
    got = b""
    while len(got) < len(data):
        got += ours.tunnel.inside.recv(1 << 20)
    assert got == data
    end(theirs)
    assert ours.tunnel.inside.recv(8) == b""
    assert ours.tunnel.reason == "closed the connection"
    end(ours.tunnel)


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_any_address_is_one_of_ipv6_too(address: str) -> None:
    every = Door(TOKEN, "", 0, lambda _: "")
    greeting.greet(address, every.port, TOKEN, lambda _: {}).close()
    end(every.guests.get(timeout=5).tunnel)
    every.close()


def test_silence_is_noticed_and_a_busy_node_is_not_silent(door: Door) -> None:
    silent = _greet(door)
    ours = door.guests.get().tunnel
    ours._limit = 2 * BEAT
    began = time.monotonic()
    assert ours.inside.recv(8) == b""
    assert ours.reason == f"has sent no heartbeat for {2 * BEAT:g} s"
    assert time.monotonic() - began < 4 * BEAT
    silent.close()
    end(ours)
    theirs = Tunnel(_greet(door), 5.0)
    ours = door.guests.get().tunnel
    ours._limit = 2 * BEAT
    time.sleep(3 * BEAT)
    assert ours.reason == ""
    end(theirs, ours)


def test_a_node_that_is_not_listened_to_stops_no_other(door: Door) -> None:
    """All are carried by one thread. What the first sends fills every buffer, and comes in the end."""
    flood, first = Tunnel(_greet(door), 5.0), door.guests.get().tunnel
    other, second = Tunnel(_greet(door), 5.0), door.guests.get().tunnel
    data = bytes(12 << 20)
    thread = threading.Thread(target=flood.inside.sendall, args=(data,))
    thread.start()
    time.sleep(0.2)
    other.inside.sendall(b"hello")
    second.inside.settimeout(2)
    assert second.inside.recv(8) == b"hello"
    end(other)
    assert second.inside.recv(8) == b""
    left = len(data)
    while left:
        left -= len(first.inside.recv(1 << 20))
    thread.join()
    end(flood, first, second)


def test_who_does_not_know_the_token_is_turned_away(door: Door) -> None:
    with pytest.raises(greeting.Refused, match="does not know this run's token"):
        _greet(door, "x" * 32)
    plain = socket.create_connection(("127.0.0.1", door.port))
    plain.sendall(b"GET / HTTP/1.1\r\n\r\n")
    with contextlib.suppress(ConnectionResetError):
        plain.recv(100)
    plain.close()
    proves = greeting._proves

    def credulous(found: Any, token: str, who: str, *rest: Any) -> bool:
        return who == "controller" or proves(found, token, who, *rest)

    # A node that believes anybody is not believed.
    with (
        mock.patch.object(greeting, "_proves", credulous),
        pytest.raises((greeting.Refused, OSError)),
    ):
        _greet(door, "x" * 32)
    with pytest.raises(greeting.Refused, match="another torch"):
        _greet(door, wrong="another torch")
    assert door.refused == ["another torch"]
    _greet(door).close()
    end(door.guests.get(timeout=5).tunnel)
    assert sum(door.turned_away.values()) == 3
    assert door.turned_away["a wrong token"] == 1
    assert door.guests.empty()


def test_who_sends_a_byte_from_time_to_time_is_turned_away(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(greeting, "LIMIT", 0.5)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    with client.wrap_socket(socket.create_connection(("127.0.0.1", door.port))) as slow:
        until = time.monotonic() + 5
        slow.send(b"\0\0\1\0")
        with contextlib.suppress(OSError):
            while not door.turned_away and time.monotonic() < until:
                slow.send(b"\0")
                time.sleep(0.2)
    assert dict(door.turned_away) == {"too slow": 1}


def test_somebody_in_between_is_noticed(door: Door) -> None:
    """With a certificate of its own it can pass on what both say, but the proofs do not fit."""
    context, _ = greeting.certificate()
    listener = socket.create_server(("127.0.0.1", 0))

    def pass_on() -> None:
        node = context.wrap_socket(listener.accept()[0], server_side=True)
        client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
        to = client.wrap_socket(socket.create_connection(("127.0.0.1", door.port)))
        with contextlib.suppress(greeting.Refused, OSError):
            greeting.send(to, greeting.receive(node))
            greeting.send(node, greeting.receive(to))
            greeting.send(to, greeting.receive(node))
        node.close()
        to.close()

    thread = threading.Thread(target=pass_on)
    thread.start()
    with pytest.raises(greeting.Refused, match="does not know this run's token"):
        _greet(door, port=listener.getsockname()[1])
    thread.join()
    listener.close()
    assert door.guests.empty()


def test_a_replay_is_turned_away(door: Door) -> None:
    said: list[dict[str, Any]] = []
    send = greeting.send

    def record(sock: socket.socket, message: dict[str, Any]) -> None:
        said.append(message)
        send(sock, message)

    with mock.patch.object(greeting, "send", record):
        _greet(door).close()
    end(door.guests.get().tunnel)
    node = [message for message in said if "about" in message or message.keys() == {"nonce"}]
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    with client.wrap_socket(socket.create_connection(("127.0.0.1", door.port))) as again:
        greeting.send(again, node[0])
        greeting.receive(again)
        greeting.send(again, node[1])
        with pytest.raises((greeting.Refused, OSError)):
            greeting.receive(again)
    assert door.guests.empty()


# -- a case in worlds of several placements --------------------------------------------------------


def _passing(ratio: float, placement: str) -> Outcome:
    facts = {"ratio": ratio, "placement": placement, "nodes": placement, "devices": "cpu"}
    return Outcome(Status.PASSED, f"ratio {ratio}", facts=facts)


def test_the_worse_of_two_placements_is_told() -> None:
    both = merged([_passing(0.3, "packed"), _passing(0.2, "spread")])
    assert (both.facts["ratio"], both.message) == (0.3, "ratio 0.3")
    assert both.facts["placement"] == both.facts["nodes"] == "packed; spread"
    bad = replace(_passing(7.0, "spread"), status=Status.FAILED, message="wrong")
    both = merged([_passing(0.3, "packed"), bad])
    assert (both.status, both.message) == (Status.FAILED, "spread: wrong")


def _drive(job: Any, *answers: Any) -> tuple[list[Task], Outcome]:
    asked = [next(job)]
    for answer in answers:
        try:
            raised = isinstance(answer, Exception)
            asked.append(job.throw(answer) if raised else job.send(answer))
        except StopIteration as stop:
            return asked, stop.value
    raise AssertionError("it goes on")


def _case() -> Any:
    yield Task(Spec("cpu", 1, group=False), "alone", {})
    yield Task(Spec("cuda", 2), "parity", {})
    return Outcome(Status.PASSED, facts={"ratio": 0.1})


def test_a_case_is_placed_and_says_where() -> None:
    answer = Answer([], [], 0.0, places=(("node1", 3), ("node2", 0)))
    asked, outcome = _drive(placed(_case(), Way("spread"), "cuda"), types.SimpleNamespace(), answer)
    assert [task.spec.placement for task in asked] == ["", "spread"]
    assert outcome.facts == {
        "ratio": 0.1,
        "placement": "spread",
        "nodes": "node1 node2",
        "devices": "cuda:3 cuda:0",
    }


@pytest.mark.parametrize("lost", [(), ("node2",)], ids=["never", "no more"])
def test_a_case_that_cannot_be_placed_is_not_available(lost: tuple[str, ...]) -> None:
    refused = NotPlaced("1 node is left", lost)
    _, outcome = _drive(placed(_case(), Way("spread"), "cpu"), None, refused)
    assert (outcome.status, outcome.message) == (Status.NOT_AVAILABLE, "1 node is left")
    assert outcome.facts.get("lost_nodes", "") == " ".join(lost)


def test_the_text_of_a_failure_says_where_its_ranks_were() -> None:
    def wrong() -> Any:
        yield Task(Spec("cpu", 2), "parity", {})
        return Outcome(Status.FAILED, "wrong", "step 0: 1 is not 2")

    answer = Answer([], [], 0.0, places=(("node1", 0), ("node2", 0)))
    _, outcome = _drive(placed(wrong(), Way("spread"), "cpu"), answer)
    assert outcome.detail.splitlines() == [
        "step 0: 1 is not 2",
        "",
        "ranks, spread: nodes node1 node2; devices cpu cpu",
    ]


def test_a_pair_has_its_nodes(nodes: Nodes) -> None:
    for pair, _ in pairs.every([0, 1], lambda _: 2):
        task = Task(Way("", pair).of(Spec("cpu", 2)), "ok", {"number": 0})
        nodes.handles.append(("ok", nodes.scheduler.start(job(task))))
    nodes.run()
    where = [[name for name, _ in handle.value.places] for _, handle in nodes.handles]
    assert where == [["node1", "node1"], ["node1", "node2"], ["node2", "node2"]]


def test_a_pair_of_devices_has_these(nodes: Nodes) -> None:
    nodes.scheduler.pools["cuda"] = Pool(4)
    taken = []
    for devices in ((0, 3), (1, 2), (0, 3)):
        spec = Way("", (1, 1), devices).of(Spec("cuda", 2))
        nodes.handles.append(("ok", nodes.scheduler.start(job(Task(spec, "ok", {"number": 0})))))
        taken.append(devices)
    nodes.run()
    where = [handle.value.places for _, handle in nodes.handles]
    assert [tuple(index for _, index in places) for places in where] == taken
    assert {name for places in where for name, _ in places} == {"node2"}
