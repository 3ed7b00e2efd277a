"""What a stranger, a liar or a secret can do to a run: nothing."""

from __future__ import annotations

import ast
import contextlib
import json
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from conftest import Suite
from hypothesis import example, given
from hypothesis import strategies as st

import distparity
from distparity.core import wire
from distparity.core.redact import Redactor, omitted
from distparity.core.wire import Channel, Frame, ProtocolError, TooLarge, check
from distparity.results import journal, junit_writer
from distparity.worlds.failure import Failure
from distparity.worlds.launcher import Launcher
from distparity.worlds.scheduler import STRANGERS, Job, Scheduler
from distparity.worlds.world import SCHEMAS, Answer, Spec, Task

MAGIC = b"dparity1"
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def head(length: int) -> bytes:
    return struct.pack(">8sI", MAGIC, length)


def framed(text: bytes) -> bytes:
    return head(len(text)) + text


def read(data: bytes) -> list[Frame]:
    """What the message reader makes of bytes; raises nothing but :class:`ProtocolError`."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(data)
        theirs.close()
        channel = Channel(ours, most=1 << 20)
        found: list[Frame] = []
        open_ = True
        while open_:
            frames, open_ = channel.poll()
            found += frames
        return found


@given(st.binary(max_size=400))
def test_rubbish_is_no_frame(data: bytes) -> None:
    with contextlib.suppress(ProtocolError):
        assert read(data) == []


@given(JSON, st.binary(max_size=40))
def test_any_json_is_a_frame_or_refused(value: Any, more: bytes) -> None:
    with contextlib.suppress(ProtocolError):
        for frame in read(framed(json.dumps(value).encode()) + more):
            assert "blobs" in value and sum(value["blobs"]) <= len(more), frame


@given(st.dictionaries(st.text(), JSON, max_size=4), st.lists(st.binary(max_size=50), max_size=4))
def test_what_is_sent_is_received(message: dict[str, Any], blobs: list[bytes]) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        message.pop("blobs", None)
        Channel(theirs).send(message, blobs)
        frame = Channel(ours).receive()

    assert frame is not None
    assert (json.dumps(message), blobs) == (json.dumps(frame), frame.blobs)


@given(st.binary(min_size=1, max_size=60), st.data())
def test_a_frame_that_was_damaged_is_another_frame_or_refused(text: bytes, data: Any) -> None:
    sound = framed(json.dumps({"op": "ready", "blobs": [len(text)]}).encode()) + text
    place = data.draw(st.integers(0, len(sound) - 1))
    damaged = sound[:place] + data.draw(st.binary(min_size=1, max_size=1)) + sound[place + 1 :]
    with contextlib.suppress(ProtocolError):
        assert len(read(damaged)) <= 1


REFUSED = {
    "another magic": b"GET / HTTP/1.1\r\n\r\n",
    "a huge length": head(0xFFFFFFFF),
    "longer than this channel takes": head((1 << 20) + 1),
    "no JSON": framed(b"\xff\xfe{"),
    "no object": framed(b"[1, 2]"),
    "a string": framed(b'"blobs"'),
    "no blobs": framed(b'{"op": "ready"}'),
    "deep JSON": framed(b'{"blobs": [], "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    "a long number": framed(b'{"blobs": [], "x": ' + b"9" * 100_000 + b"}"),
    "a negative blob": framed(b'{"blobs": [-1]}'),
    "blobs that are true": framed(b'{"blobs": [true]}'),
    "blobs of a fraction": framed(b'{"blobs": [1.5]}'),
    "huge blobs": framed(b'{"blobs": [99999999999999999999]}'),
    "many blobs": framed(json.dumps({"blobs": [1 << 19] * 3}).encode()),
}


@pytest.mark.parametrize("data", REFUSED.values(), ids=REFUSED)
def test_what_is_no_frame_is_refused(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        read(data)


@given(st.dictionaries(st.sampled_from(["op", "id", "port", "result", "left", "when"]), JSON))
def test_a_frame_without_sense_is_refused(data: dict[str, Any]) -> None:
    try:
        op = check(Frame(data), SCHEMAS)
    except ProtocolError:
        return
    assert all(name in data for name in SCHEMAS[op])


def test_nothing_is_pickled() -> None:
    """Neither by us nor by what would do it for us."""
    package = Path(distparity.__file__).parent
    imported = {
        name.partition(".")[0]
        for path in package.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for name in (
            [n.name for n in node.names] if isinstance(node, ast.Import) else [node.module]
        )
        if name
    }

    assert "json" in imported
    assert imported.isdisjoint({"pickle", "marshal", "shelve", "multiprocessing"})


def test_more_than_a_frame_may_have_is_refused_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "_MAX_BLOBS", 100)
    ours, theirs = socket.socketpair()
    with ours, theirs, pytest.raises(TooLarge, match="more than the 0 GiB"):
        Channel(theirs).send({}, [bytes(60), bytes(60)])


class Flood:
    """A socket whose other end writes faster than anybody can read."""

    def recv(self, size: int, flags: int) -> bytes:
        return b"x" * 100


def test_a_flood_leaves_others_their_turn() -> None:
    channel = Channel(cast("socket.socket", Flood()))
    channel._in += head(1 << 20)

    assert channel.poll() == ([], True)


# -- strangers -----------------------------------------------------------------------------------


class Quiet(Launcher):
    """A launcher without a process behind it; the test is that process, and the ranks."""

    def _connect(self) -> None:
        self.process.kill()
        os.close(self.process.channel)
        ours, theirs = socket.socketpair()
        self.channel, self.other_end = Channel(ours), Channel(theirs)

    def token(self) -> str:
        """The token of the one rank that was asked for."""
        frame = self.other_end.receive()
        assert frame is not None
        return str(frame["ranks"][0]["token"])

    def connect(self, *data: bytes) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(20)
        sock.connect(self.socket_path)
        for part in data:
            with contextlib.suppress(BrokenPipeError):
                sock.sendall(part)
        return sock


@pytest.fixture
def launcher() -> Iterator[Quiet]:
    quiet = Quiet()
    yield quiet
    quiet.other_end.close()
    quiet.close(reported=True)


def job() -> Job[Any]:
    return (yield Task(Spec("cpu", 1), "anything", {}, limit=20))


def hello(token: str) -> bytes:
    return framed(json.dumps({"op": "hello", "token": token, "blobs": []}).encode())


def turn(scheduler: Scheduler, times: int = 10) -> None:
    for _ in range(times):
        scheduler.turn(0.01)


def test_strangers_are_refused_and_the_run_goes_on(launcher: Quiet) -> None:
    scheduler = Scheduler(launcher)
    handle = scheduler.start(job())
    turn(scheduler, 1)
    token = launcher.token()
    silent = []
    for _ in range(3 * STRANGERS):
        silent.append(launcher.connect())
        turn(scheduler, 1)
    rude = []
    for data in [*REFUSED.values(), hello("0" * 32), hello(token)[:-5]]:
        rude.append(launcher.connect(data[:4000]))
        turn(scheduler, 2)

    rank = Channel(launcher.connect(hello(token)))
    turn(scheduler)
    replay = launcher.connect(hello(token))
    turn(scheduler)
    assert replay.recv(1) == b""
    rank.send({"op": "ready"})
    turn(scheduler)
    task = rank.receive()
    assert task is not None and task["task"] == "anything"
    rank.send(
        {"op": "answer", "id": 1, "result": {}, "seconds": 0.0, "calls": 0, "left": []}
        | {"findings": []}
    )

    assert isinstance(scheduler.result(handle), Answer)
    for sock in [replay, rank.sock, *rude, *silent]:
        sock.close()
    scheduler.close()


def test_a_stranger_on_every_socket_of_a_world(suite: Suite) -> None:
    """Those of torch's store and of gloo, which are on loopback only; the case passes, and more."""
    cases = [f"multiple_forward/{name}-ws2-float32" for name in ("ddp", "fault-harassed", "fsdp1")]
    words = [word for case in cases for word in ("--case", case)]
    ran = suite("--device", "cpu", "--world-size", "2", "--include", "injected", *words)

    assert dict.fromkeys(cases, "passed") == ran.statuses("here-cpu")


LIES: dict[str, dict[str, Any]] = {
    "an unknown operation": {"op": "fork"},
    "none": {},
    "an operation that is no word": {"op": ["ready"]},
    "a field that is missing": {"op": "answer", "id": 1},
    "a field of another type": {"op": "store", "port": "22"},
    "a number that is true": {"op": "store", "port": True},
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
def test_a_rank_that_talks_rubbish_fails_its_own_case(launcher: Quiet, lie: dict[str, Any]) -> None:
    scheduler = Scheduler(launcher)
    handle = scheduler.start(job())
    turn(scheduler, 1)
    rank = Channel(launcher.connect(hello(launcher.token())))
    rank.send({"op": "ready"})
    turn(scheduler)
    rank.send(lie)

    failure = scheduler.result(handle)
    assert isinstance(failure, Failure)
    assert "rank 0 raised ProtocolError" in failure.message
    rank.close()
    scheduler.close()


# -- secrets -------------------------------------------------------------------------------------

SECRET = "hunter2-hunter2"
KEY = "-----BEGIN KEY-----\nabcdefghijklmnop\n-----END KEY-----"

UMLAUTS = "p\u00e4ss-w\u00f6rd"

CENSORED = {
    "a token": ({"HF_TOKEN": SECRET}, f"it is {SECRET}", "it is [$HF_TOKEN]"),
    "a key": ({"AWS_SECRET_ACCESS_KEY": SECRET}, SECRET, "[$AWS_SECRET_ACCESS_KEY]"),
    "one inside another": (
        {"A_TOKEN": SECRET, "B_TOKEN": SECRET + "x"},
        SECRET + "x",
        "[$B_TOKEN]",
    ),
    "as Python shows it": ({"DB_PASSWORD": 'it\'s\n"so"'}, repr('it\'s\n"so"'), "'[$DB_PASSWORD]'"),
    "a line of it": ({"SSH_KEY": KEY}, "  abcdefghijklmnop", "  [$SSH_KEY]"),
    "as ASCII and as bytes": (
        {"DB_PASSWORD": UMLAUTS},
        f"{UMLAUTS!a} {UMLAUTS.encode()!r}",
        "'[$DB_PASSWORD]' b'[$DB_PASSWORD]'",
    ),
    "as a part of a URL": ({"A_TOKEN": "a/b c+d=="}, "?t=a%2Fb%20c%2Bd%3D%3D", "?t=[$A_TOKEN]"),
    "cut off behind": ({"A_TOKEN": SECRET}, f"it is {SECRET[:9]}...", "it is [$A_TOKEN]..."),
    "cut off before": (
        {"A_TOKEN": SECRET},
        f"[...]\n  {SECRET[5:]} it is",
        "[...]\n  [$A_TOKEN] it is",
    ),
    "cut off before, with a count": (
        {"A_TOKEN": SECRET},
        f"x\n{omitted(70)}{SECRET[-4:]}",
        f"x\n{omitted(70)}[$A_TOKEN]",
    ),
    "dots behind something else": ({"A_TOKEN": SECRET}, "hunt, and so on...", "hunt, and so on..."),
    "in a URL": ({}, "https://me:word@host/x", "https://me:***@host/x"),
    "no secret": ({"PWD": "/home/me", "KEYBOARD": "qwerty"}, "/home/me qwerty", "/home/me qwerty"),
    "too short to tell": ({"A_TOKEN": "on"}, "on and on", "on and on"),
}


@pytest.mark.parametrize(("variables", "text", "expected"), CENSORED.values(), ids=CENSORED.keys())
def test_censored(variables: dict[str, str], text: str, expected: str) -> None:
    assert Redactor(variables).text(text) == expected


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("pytest --api-key=abc -x", "pytest --api-key=*** -x"),
        ("pytest --rp-token abc -x", "pytest --rp-token *** -x"),
        ("pytest --db-password 'a b' -x", "pytest --db-password *** -x"),
        ("pytest --keyboard us --passes 3", "pytest --keyboard us --passes 3"),
    ],
)
def test_a_command_line_is_censored(line: str, expected: str) -> None:
    assert Redactor({}).command(line) == expected


def test_secrets_of_the_environment_are_not_written_down(suite: Suite) -> None:
    """Neither by us nor when a rank prints all of its variables and raises them."""
    case = "multiple_forward/fault-blab-ws2-float32"
    ran = suite("--device", "cpu", "--include", "injected", "--case", case, BLAB_TOKEN=SECRET)

    written = ran.output + "".join(path.read_text() for path in ran.folder.iterdir())
    assert "[$BLAB_TOKEN]" in ran.text("here-cpu", case)
    assert SECRET not in written


def test_no_part_of_a_secret_is_left_where_a_text_is_cut(suite: Suite) -> None:
    """A message is cut after 240 characters, what a rank printed before its last 8 KB."""
    case = "multiple_forward/fault-blab-cut-ws2-float32"
    ran = suite("--device", "cpu", "--include", "injected", "--case", case, BLAB_TOKEN=SECRET * 9)

    written = ran.output + "".join(path.read_text() for path in ran.folder.iterdir())
    assert "[$BLAB_TOKEN]..." in ran.text("here-cpu", case)
    assert SECRET not in written


def test_what_cannot_be_imported_tells_no_secrets(suite: Suite) -> None:
    ran = suite("--device", "cpu", "--include", "blabbing", BLAB_TOKEN=SECRET)

    written = ran.output + "".join(path.read_text() for path in ran.folder.iterdir())
    assert "[$BLAB_TOKEN]" in ran.text("here-cpu", "cell/start")
    assert SECRET not in written


# -- names of files ------------------------------------------------------------------------------


@given(st.text(), st.text())
@example("../../x", "cpu")
@example("/etc/passwd", "..")
@example("", "")
@example("a\0b", "~")
@example("\N{GREEK SMALL LETTER PI}" * 300, "C:\\x")
def test_a_report_is_in_its_folder(torch: str, device: str) -> None:
    folder = Path("reports")
    for path in journal.paths(folder, torch, device):
        assert path.parent == folder
        assert path.name.startswith("junit-")
        assert len(os.fsencode(path.name)) < 255


def test_long_names_stay_different() -> None:
    assert journal.paths(Path(), "x" * 300 + "1", "cpu") != journal.paths(Path(), "x" * 300, "cpu")


def test_a_cell_named_like_a_path_is_written_in_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b" / "reports"
    junit_writer.write_broken_cell(folder, "../../x", "cpu", "no", "", {})

    assert {path for path in tmp_path.rglob("*") if path.is_file()} == set(folder.iterdir())
