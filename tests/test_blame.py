"""Who did what first, out of what became of each rank."""

from __future__ import annotations

import pytest

from distparity.core.collective_call import BACKWARD, STOPPED, Call, Whereabouts, describe, locate
from distparity.worlds import native_stacks
from distparity.worlds.failure import (
    Failure,
    Fate,
    Report,
    blame,
    fatal_error,
    last_words,
    without_stack_reporter,
)

ALL_REDUCE = Call("all_reduce", 9, "[8] float32")
BROADCAST = Call("broadcast", 9, "[8] float32")
BARRIER = Call("barrier", 9)


def raised(rank: int, what: str, when: float, call: Call | None = None) -> Report:
    return Report(rank, Fate.RAISED, f"raised {what}", Whereabouts(call), when=when)


def died(rank: int, what: str, when: float) -> Report:
    return Report(rank, Fate.DIED, what, when=when)


def silent(rank: int, call: Call | None = None) -> Report:
    return Report(rank, Fate.SILENT, where=Whereabouts(call, "a.py:1 in f"))


def answered(rank: int) -> Report:
    return Report(rank, Fate.ANSWERED, "answered after 8 collectives")


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
        ("raised", "rank 0 raised ValueError: a; the same on ranks 1, 2"),
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
        [raised(0, PEER, 1.0, Call("barrier", 2)), raised(1, "ValueError: a", 1.1)],
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
        [silent(0, ALL_REDUCE), silent(1)],
        5.0,
        (
            "timeout",
            (
                "no answer within 5 s: hang: rank 1 in no collective, at a.py:1 in f; "
                "rank 0 in all_reduce #9 of [8] float32"
            ),
        ),
    ),
    "different collectives": (
        [silent(0, ALL_REDUCE), silent(1, BROADCAST)],
        5.0,
        (
            "timeout",
            (
                "no answer within 5 s: out of step: rank 0 in all_reduce #9 of [8] float32; "
                "rank 1 in broadcast #9 of [8] float32"
            ),
        ),
    ),
    "one is done": (
        [silent(0, BARRIER), answered(1)],
        5.0,
        (
            "timeout",
            (
                "no answer within 5 s: out of step: rank 0 in barrier #9; "
                "rank 1 answered after 8 collectives"
            ),
        ),
    ),
    "all in the same": (
        [silent(0, BARRIER), silent(1, BARRIER)],
        5.0,
        ("timeout", "no answer within 5 s: hang: ranks 0, 1 in barrier #9"),
    ),
    "backward's may be the same": (
        [silent(0, ALL_REDUCE), silent(1, Call(BACKWARD, 9))],
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


DIFFERENT = {
    "the same": (ALL_REDUCE, ALL_REDUCE, False),
    "by name": (ALL_REDUCE, BROADCAST, True),
    "by number": (ALL_REDUCE, Call("all_reduce", 8, "[8] float32"), True),
    "by shape": (ALL_REDUCE, Call("all_reduce", 9, "[4] float32"), True),
    "by group": (BARRIER, Call("barrier", 9, group="dp (1)"), True),
    "a shape that one does not tell": (ALL_REDUCE, Call("all_reduce", 9), False),
    "a number that is not sure": (ALL_REDUCE, Call("all_reduce", 8, sure=False), False),
    "a name that is not sure": (ALL_REDUCE, Call(BACKWARD, 8), False),
}


@pytest.mark.parametrize(("one", "other", "expected"), DIFFERENT.values(), ids=DIFFERENT)
def test_different_calls(one: Call, other: Call, expected: bool) -> None:
    assert one.differs(other) is expected
    assert other.differs(one) is expected


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
    assert str(describe(seen)) == expected


STACKS = """Thread 0x01 (most recent call first):
  File "/x/distparity/worker/stack_reporter.py", line 7 in _watch

Current thread 0x02 (most recent call first):
  File "/x/torch/distributed/distributed_c10d.py", line 9 in all_reduce
  File "/x/torch/distributed/c10d_logger.py", line 3 in wrapper
  File "/x/model.py", line 5 in step
  File "<string>", line 1 in <module>
"""


def test_locate() -> None:
    expected = Whereabouts(Call("all_reduce"), "distributed_c10d.py:9 in all_reduce")

    assert locate(STACKS) == expected
    assert locate(f"Fatal Python error: Aborted\n\n{STACKS}") == expected
    assert locate("") is None


def test_our_own_thread_is_left_out() -> None:
    assert "_watch" not in without_stack_reporter(STACKS)
    assert "all_reduce" in without_stack_reporter(STACKS)


def test_last_words() -> None:
    output = "terminate called after throwing an instance of 'x'\n  what():  it broke\n"

    assert (last_words(output), last_words("")) == ("it broke", "")
    assert (fatal_error(f"Fatal Python error: Aborted\n\n{STACKS}"), fatal_error(STACKS)) == (
        "Aborted",
        "",
    )


OUTPUT = """its own words
SIGABRT(6), PID: 7, Thread 7:{}
 frame #0: c10::FatalSignalHandler::stacktraceSignalHandler(bool) + 0x8f (0x7fd0 in /x/libc10.so)
frame #1: <unknown function> + 0x3c050 (0x7fd0 in /lib/libc.so.6)
frame #2: pthread_cond_wait + 0x1e8 (0x7fd0 in /lib/libc.so.6)
frame #3: c10d::Work::wait(std::chrono::milliseconds) + 0xb (0x7fd0 in /x/libtorch_cpu.so)
<omitting python frames>
frame #9: _start + 0x21 (0x5630 in /bin/python)

SIGABRT(6), PID: 7, Thread 8:{}
 frame #0: <unknown function> + 0x3c050 (0x7fd0 in /lib/libc.so.6)
frame #1: gloo::allreduce(gloo::AllreduceOptions const&) + 0x1 (0x7fd0 in /x/libtorch_cpu.so)
frame #2: <unknown function> + 0x1 (0x7fd0 in /x/libtorch_cpu.so)
""".replace("{}", " ")


def test_native_stacks() -> None:
    words, stacks = native_stacks.split(OUTPUT)
    found = native_stacks.read(stacks)

    assert words == "its own words\n"
    assert found == {
        7: ["pthread_cond_wait", "c10d::Work::wait", "Python"],
        8: ["gloo::allreduce", "a function of libtorch_cpu.so"],
    }
    assert native_stacks.collective(found) == "all_reduce"
    assert (
        native_stacks.collective({7: ["c10d::Reducer::finalize_backward", "Python"]})
        == "all_reduce"
    )
    order = ["c10d::Work::wait", "c10d::Reducer::sync_bucket_indices"]
    assert native_stacks.collective({7: [*order, "c10d::Reducer::rebuild_buckets"]}) == "broadcast"
    assert native_stacks.collective({7: ["gloo::allreduce"], 8: ["gloo::broadcast"]}) == ""
    assert native_stacks.brief({**found, 9: found[8]}).count("\n") == 6
    assert native_stacks.split("nothing") == ("nothing", "")


#: A main thread's frames, and the message that it waits for.
MESSAGES = {
    "send": (["pthread_cond_timedwait", "c10d::ProcessGroupGloo::SendWork::wait"], "send"),
    "receive": (["pthread_cond_wait", "c10d::ProcessGroupGloo::RecvWork::wait"], "recv"),
    # Some builds leave the frame of the work out.
    "gloo's own": (["pthread_cond_wait", "gloo::transport::tcp::UnboundBuffer::waitSend"], "send"),
    "within a collective": (
        ["gloo::transport::tcp::UnboundBuffer::waitRecv", "gloo::allreduce"],
        "",
    ),
    "none": (["c10d::Work::wait"], ""),
}


@pytest.mark.parametrize(("frames", "message"), MESSAGES.values(), ids=MESSAGES)
def test_message_is_told_from_a_collective(frames: list[str], message: str) -> None:
    assert native_stacks.message(frames) == message
    assert native_stacks.waits(frames) or not message


def test_a_collective_that_only_the_native_stacks_name() -> None:
    waiting = describe({"calls": 8, "call": {"name": BACKWARD}})
    elsewhere = describe(
        {"calls": 8, "call": None, "at": "a.py:1 in f", "open": {"name": "barrier"}}
    )

    assert str(waiting) == "in a collective of backward, #8"
    assert str(waiting.named("all_reduce", waits=False)) == "in all_reduce #8"
    assert waiting.named("", waits=True) == waiting
    assert elsewhere.named("all_reduce", waits=False) == elsewhere
    assert str(elsewhere.named("all_reduce", waits=True)) == "in barrier #8"
    mute = Whereabouts(at="a.py:1 in f", state="in native code that holds the GIL")
    assert mute.named("all_reduce", waits=False) == mute
    assert str(mute.named("all_reduce", waits=True)) == "in all_reduce"
    stopped = Whereabouts(at="a.py:1 in f", state=STOPPED)
    assert stopped.named("all_reduce", waits=True) == stopped
    assert str(elsewhere.named("", waits=True, message="recv")) == "in recv #8"
    assert native_stacks.waits(["pthread_cond_wait", "c10d::ProcessGroupGloo::RecvWork::wait"])
    assert not native_stacks.waits(["c10d::ProcessGroupGloo::runLoop"])


def test_what_ranks_have_in_common_is_told_once() -> None:
    ranks = [
        Report(
            rank,
            Fate.RAISED,
            "raised KeyError: 'x'",
            text="Traceback\n  File a.py\nKeyError: 'x'",
            stack=f"Thread 0x0000{rank}abc\n  File a.py",
            output=f"said by {rank}",
            pid=40 + rank,
        )
        for rank in range(3)
    ]

    detail = Failure("raised", "rank 0 raised", ranks).detail
    assert detail.count("Traceback") == detail.count("Thread 0x") == 1
    assert (
        "rank 2 (pid 42): raised KeyError: 'x'\n  the traceback of rank 0\n  the stacks of rank 0\n"
        in detail
    )
    assert "  -- output of rank 2\n  said by 2" in detail
