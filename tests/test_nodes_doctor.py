"""What ``distparity doctor`` says of several nodes: here, two of them in this process."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from distparity.core.bad_request import BadRequest
from distparity.nodes import launched, links, network
from distparity.session import nodes_doctor
from distparity.session.doctor import Report, Step
from distparity.session.nodes_doctor import Consultation, Patient
from distparity.session.options import Options

KEY = b"k" * 16


@pytest.fixture(autouse=True)
def two_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    """As srun starts them; loopback is a network here."""
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    monkeypatch.setenv("SLURM_LAUNCH_NODE_IPADDR", "127.0.0.1")
    monkeypatch.setattr(network, "towards", lambda _: "127.0.0.1")
    monkeypatch.setattr(links, "unresolved", lambda _: {})


def consult(folder: Path, interface: str | None = None, join: bool = True) -> dict[str, Step]:
    """The steps of the controller, by name, with a node that may be on another interface."""
    options = Options(report_dir=folder)
    found = Consultation(launched.Launch("slurm", 0, 2), options, None)
    sick = Report([Step("memory", error="0.1 GiB is too little")], [], [], ["cpu"])
    other = threading.Thread(
        target=nodes_doctor.serve,
        args=(launched.Launch("slurm", 1, 2), options, interface, lambda: sick),
    )
    if join:
        other.start()
    try:
        steps = list(found.network())
        found.begin()
        steps += found.examined()
    finally:
        found.close()
        if join:
            other.join(10)
    return {step.name.partition(": ")[2] or step.name: step for step in steps}


def test_two_nodes_that_reach_each_other(tmp_path: Path) -> None:
    name = socket.gethostname()
    steps = consult(tmp_path)
    assert list(steps) == ["node", "clock", "names", f"{name} to {name}", "doctor"]
    assert [step.name for step in steps.values() if step.error] == [f"{name}: doctor"]
    assert steps["doctor"].error == "memory: 0.1 GiB is too little"
    crossed = steps[f"{name} to {name}"].answer
    assert [part.split()[0] for part in crossed.split(", ")] == ["1", "65536", str(links.LARGE)]
    assert not list(tmp_path.iterdir())


def changed(how: Callable[[dict[str, Any]], None]) -> Any:
    """A node whose answers are changed."""
    real = Patient.answer

    def answer(self: Patient, asked: dict[str, Any]) -> dict[str, Any]:
        found = real(self, asked)
        if threading.current_thread() is not threading.main_thread():
            how({**asked, "found": found})
        return found

    return mock.patch.object(Patient, "answer", answer)


def _late(asked: dict[str, Any]) -> None:
    if asked["op"] == "clock":
        asked["found"]["now"] -= 7.5


def _older(asked: dict[str, Any]) -> None:
    if asked["op"] == "about":
        asked["found"].update(name="node2", torch="2.8.0")


def _unnamed(asked: dict[str, Any]) -> None:
    if asked["op"] == "names":
        asked["found"]["unresolved"] = {"node1": "Name or service not known"}


def _dropped(asked: dict[str, Any]) -> None:
    if asked["op"] == "reach":
        asked["found"].clear()
        asked["found"].update(error="no answer from 10.0.0.1:4242 within 5 s", size=0)


def _small_packets(asked: dict[str, Any]) -> None:
    _dropped(asked)
    if asked["op"] == "reach":
        asked["found"]["size"] = 1500


def _gone(asked: dict[str, Any]) -> None:
    if asked["op"] == "about":
        raise OSError("the node ends")


@pytest.mark.parametrize(
    ("how", "error", "advice"),
    [
        pytest.param(_late, "it is 7.5 s behind ", "NTP", id="clock"),
        pytest.param(_older, "node2 has torch 2.8.0", "the same on all nodes", id="version"),
        pytest.param(_unnamed, "node1 does not resolve: Name or ", "/etc/hosts", id="name"),
        pytest.param(_dropped, "no answer from 10.0.0.1:4242 within", "firewall", id="port"),
        pytest.param(_small_packets, "a message of 1500 bytes: ", "MTU", id="MTU"),
        pytest.param(_gone, "it closed the connection", "", id="gone"),
    ],
)
def test_what_is_wrong_between_nodes_is_named(
    tmp_path: Path, how: Callable[[dict[str, Any]], None], error: str, advice: str
) -> None:
    with changed(how):
        steps = [one for name, one in consult(tmp_path).items() if name != "doctor"]
    (wrong,) = (step for step in steps if step.error)
    assert error in str(wrong.error)
    assert advice in (wrong.advice or "")


def test_an_interface_that_is_not_there_is_named_by_its_node(tmp_path: Path) -> None:
    steps = consult(tmp_path, "ib7")
    assert "--interface ib7: " in str(steps["node"].error)


def test_a_node_that_does_not_come_is_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nodes_doctor, "JOIN_LIMIT", 0.2)
    steps = consult(tmp_path, join=False)
    assert "missing: slurm's rank 1" in str(steps["nodes"].error)


@pytest.mark.parametrize("what", ["name", "port"])
def test_a_node_that_cannot_join_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    said = {"name": "127.0.0.1 does not resolve: none", "port": "cannot join the controller at "}
    monkeypatch.setattr(
        links, "unresolved", lambda _: {"127.0.0.1": "none"} if what == "name" else {}
    )
    launched.Meeting("slurm", tmp_path).publish({"address": "127.0.0.1", "port": 9, "token": "t"})
    with pytest.raises(BadRequest, match=said[what]):
        nodes_doctor.serve(
            launched.Launch("slurm", 1, 2), Options(report_dir=tmp_path), None, mock.Mock()
        )


@pytest.fixture
def deaf() -> Iterator[int]:
    """A port on which every connection waits for ever, as behind a firewall that drops packets."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        port = listener.getsockname()[1]
        full = []
        for _ in range(3):
            sock = socket.socket()
            sock.setblocking(False)
            sock.connect_ex(("127.0.0.1", port))
            full.append(sock)
        yield port
        for sock in full:
            sock.close()


def test_a_dropped_port_has_a_limit_of_its_own(deaf: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(links, "LIMIT", 0.3)
    with pytest.raises(links.Trouble, match=r"no answer from 127.0.0.1:\d+ within 0.3 s") as raised:
        links.exchange("127.0.0.1", "127.0.0.1", deaf, KEY, [1])
    assert raised.value.size == 0


def test_a_store_of_torchrun_that_is_not_reached_is_named_at_once(
    deaf: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(links, "LIMIT", 0.3)
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", str(deaf))
    with pytest.raises(BadRequest, match=rf"torchrun's store at 127.0.0.1:{deaf} within 0.3 s"):
        nodes_doctor.serve(
            launched.Launch("torchrun", 1, 2), Options(report_dir=tmp_path), None, mock.Mock()
        )


def test_a_message_that_does_not_arrive_is_named_by_its_size(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(links, "LIMIT", 0.3)
    echo = links.Echo("127.0.0.1", KEY)
    real = links._receive

    def black_hole(sock: socket.socket, size: int) -> bytes:
        return real(sock, size if size < 1000 else size + 1)

    with (
        mock.patch.object(links, "_receive", black_hole),
        pytest.raises(links.Trouble) as raised,
    ):
        links.exchange("127.0.0.1", "127.0.0.1", echo.port, KEY, [1, 1500])
    echo.close()
    assert raised.value.size == 1500


def test_who_does_not_know_the_key_gets_no_answer() -> None:
    echo = links.Echo("127.0.0.1", KEY)
    with pytest.raises(links.Trouble):
        links.exchange("127.0.0.1", "127.0.0.1", echo.port, b"x" * 16, [1])
    echo.close()
