"""Who did what first, out of what became of each rank."""

from __future__ import annotations

import pytest

from distparity.worlds.report import (
    BACKWARD,
    Fate,
    Report,
    blame,
    describe,
    last_words,
    locate,
    without_witness,
)


def raised(rank: int, what: str, when: float, call: str = "") -> Report:
    return Report(rank, Fate.RAISED, f"raised {what}", call and f"in {call}", call, when=when)


def died(rank: int, what: str, when: float) -> Report:
    return Report(rank, Fate.DIED, what, when=when)


def silent(rank: int, where: str, call: str = "") -> Report:
    return Report(rank, Fate.SILENT, where=where or f"in {call}", call=call)


def answered(rank: int) -> Report:
    return Report(rank, Fate.ANSWERED, "answered, after 8 collectives")


PEER = "RuntimeError: Connection closed by peer"
BLAMED = {
    "the first to raise": (
        [raised(0, "KeyError: b", 2.0), raised(1, "ValueError: a", 1.0)],
        None,
        ("raised", "rank 1 raised ValueError: a"),
    ),
    "all alike": (
        [raised(rank, "ValueError: a", 1.0 + rank) for rank in range(3)],
        None,
        ("raised", "rank 0 raised ValueError: a; ranks 1, 2 likewise"),
    ),
    "an error that carries another": (
        [
            raised(
                0,
                "CheckpointException: ranks [0]\nTraceback (most recent call last): (RANK 0)\n  File ...\nOSError: disk full\n",
                1.0,
            ),
            answered(1),
        ],
        None,
        ("raised", "rank 0 raised CheckpointException: ranks [0]: OSError: disk full"),
    ),
    "an echo came first": (
        [raised(0, PEER, 1.0, "barrier #2"), raised(1, "ValueError: a", 1.1)],
        None,
        ("raised", "rank 1 raised ValueError: a; rank 0 lost a peer, in barrier #2"),
    ),
    "a death that was known later": (
        [raised(0, "OSError: odd", 1.0), died(1, "killed by SIGKILL", 1.2)],
        None,
        ("crash", "rank 1 killed by SIGKILL"),
    ),
    "a death long after": (
        [raised(0, "OSError: odd", 1.0), died(1, "killed by SIGKILL", 3.0)],
        None,
        ("raised", "rank 0 raised OSError: odd"),
    ),
    "one that never came to the collective": (
        [silent(0, "", "all_reduce #3 of [8] float32"), silent(1, "in no collective, at a.py:1")],
        5.0,
        (
            "timeout",
            (
                "no answer within 5 s: hang: rank 1 in no collective, at a.py:1; "
                "rank 0 in all_reduce #3 of [8] float32"
            ),
        ),
    ),
    "different collectives": (
        [
            silent(0, "", "all_reduce #3 of [8] float32"),
            silent(1, "", "broadcast #3 of [8] float32"),
        ],
        5.0,
        (
            "timeout",
            (
                "no answer within 5 s: out of step: rank 0 in all_reduce #3 of [8] float32; "
                "rank 1 in broadcast #3 of [8] float32"
            ),
        ),
    ),
    "one is done": (
        [silent(0, "", "barrier #9"), answered(1)],
        5.0,
        (
            "timeout",
            (
                "no answer within 5 s: out of step: rank 0 in barrier #9; "
                "rank 1 answered, after 8 collectives"
            ),
        ),
    ),
    "all in the same": (
        [silent(0, "", "barrier #9"), silent(1, "", "barrier #9")],
        5.0,
        ("timeout", "no answer within 5 s: hang: ranks 0, 1 in barrier #9"),
    ),
    "backward's may be the same": (
        [silent(0, "", "all_reduce #9 of [8] float32"), silent(1, "", f"{BACKWARD} #9")],
        5.0,
        (
            "timeout",
            (
                "no answer within 5 s: hang: rank 0 in all_reduce #9 of [8] float32; "
                "rank 1 in a collective of backward, #9"
            ),
        ),
    ),
}


@pytest.mark.parametrize(("reports", "limit", "expected"), BLAMED.values(), ids=BLAMED)
def test_blame(reports: list[Report], limit: float | None, expected: tuple[str, str]) -> None:
    kind, message = blame(reports, limit=limit)

    assert kind == expected[0]
    assert message.startswith(expected[1])


SEEN: dict[str, tuple[dict[str, object], str]] = {
    "a recorded call": (
        {"calls": 3, "call": {"name": "broadcast", "number": 2, "shapes": [[4]], "dtype": "int64"}},
        "in broadcast #2 of [4] int64",
    ),
    "a group of its own": (
        {"call": {"name": "barrier", "number": 1, "group": "mesh_dp (1)"}},
        "in barrier #1 in the group mesh_dp (1)",
    ),
    "no call": (
        {"calls": 7, "at": "a.py:1 in f"},
        "in no collective, after 7 of them, at a.py:1 in f",
    ),
    "nothing": ({}, ""),
    "nonsense": ({"call": 3, "at": ["x"]}, "in no collective, at ['x']"),
}


@pytest.mark.parametrize(("seen", "expected"), SEEN.values(), ids=SEEN)
def test_describe(seen: dict[str, object], expected: str) -> None:
    assert describe(seen)[0] == expected


STACKS = """Thread 0x01 (most recent call first):
  File "/x/distparity/worlds/witness.py", line 7 in _watch

Current thread 0x02 (most recent call first):
  File "/x/torch/distributed/distributed_c10d.py", line 9 in all_reduce
  File "/x/torch/distributed/c10d_logger.py", line 3 in wrapper
  File "/x/model.py", line 5 in step
  File "<string>", line 1 in <module>
"""


def test_locate() -> None:
    expected = {"at": "distributed_c10d.py:9 in all_reduce", "call": {"name": "all_reduce"}}

    assert locate(STACKS) == expected
    assert locate(f"Fatal Python error: Aborted\n\n{STACKS}") == expected
    assert locate("") == {}


def test_our_own_thread_is_left_out() -> None:
    assert "_watch" not in without_witness(STACKS)
    assert "all_reduce" in without_witness(STACKS)


def test_last_words() -> None:
    output = "terminate called after throwing an instance of 'x'\n  what():  it broke\n"

    assert (last_words(output), last_words("")) == ("it broke", "")
