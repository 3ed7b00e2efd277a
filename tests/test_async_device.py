"""The asynchronous device: its queues, its allocator and its checker, in process; then the device."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
from conftest import Suite
from warm import PATIENCE

from distparity.core.outcome import Outcome, Status
from distparity.releases.cells import read as cells_of
from distparity.session.findings import with_findings
from distparity.worlds.world import Answer

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "packages/async_device/src"), str(ROOT / "ci")]

import distparity_async  # noqa: E402
import order_defects  # noqa: E402
from distparity_async.checker import HOST, Access, Checker, History, Site  # noqa: E402
from distparity_async.memory import Memory  # noqa: E402
from distparity_async.order.campaign import Campaign, Found, Job  # noqa: E402
from distparity_async.order.equivalents import EQUIVALENT, REFUSED  # noqa: E402
from distparity_async.order.statements import MODULES, Rewrite, Statement  # noqa: E402
from distparity_async.plugin import Asim  # noqa: E402
from distparity_async.runtime import Runtime  # noqa: E402
from distparity_async.scheduler import Mark, Mode, Scheduler  # noqa: E402
from distparity_async.sites import Here  # noqa: E402

# -- the queues ------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["eager", "late", "side", "mix:1", "mix:0", "random:3"])
def test_a_mode_says_itself(text: str) -> None:
    assert str(Mode.parse(text)) == text


@pytest.mark.parametrize("text", ["", "lazy", "late:1", "random:x", "mix:-1", "eager:"])
def test_what_is_no_mode_is_told(text: str) -> None:
    with pytest.raises(ValueError, match="is no mode of asim; there are eager, late, side"):
        Mode.parse(text)


def test_each_mode_has_a_cell_of_its_own() -> None:
    cells = cells_of(ROOT / "packages/async_device/modes.toml")

    modes = [Mode.parse(cell.environment["ASIM_MODE"]) for cell in cells]
    assert [str(mode).replace(":", "-") for mode in modes] == [cell.axes["mode"] for cell in cells]
    assert {cell.device for cell in cells} == {"asim"}


def two(mode: str) -> tuple[Scheduler, list[str]]:
    """The default stream has ``a``, ``b``; another ``x``, a wait for ``a``, ``y``; what was done."""
    done: list[str] = []
    scheduler = Scheduler(Mode.parse(mode))
    default, side = scheduler.stream(0, 0), scheduler.new_stream(0)
    after = scheduler.put(default, lambda: done.append("a"))
    scheduler.put(default, lambda: done.append("b"))
    scheduler.put(side, lambda: done.append("x"))
    scheduler.put(side, None, after)
    scheduler.put(side, lambda: done.append("y"))
    return scheduler, done


@pytest.mark.parametrize(
    ("mode", "order"), [("eager", "abxy"), ("late", ""), ("side", "xay")], ids=str
)
def test_a_mode_decides_what_is_done_unasked(mode: str, order: str) -> None:
    assert "".join(two(mode)[1]) == order


def test_late_does_what_is_needed_and_no_more() -> None:
    scheduler, done = two("late")
    side = scheduler.stream(0, 1)

    scheduler.reach(Mark(side, side.issued))

    assert done == ["x", "a", "y"]


@pytest.mark.parametrize("mode", ["mix:1", "mix:2", "random:1", "random:2"])
def test_chance_is_the_same_every_time(mode: str) -> None:
    assert two(mode)[1] == two(mode)[1]


def test_who_polls_hears_no_then_yes() -> None:
    scheduler, done = two("late")
    side = scheduler.stream(0, 1)

    assert [scheduler.ask(Mark(side, 1)) for _ in range(4)] == [False, False, False, True]
    assert done == ["x"]


def test_what_an_item_raises_comes_to_who_has_it_done() -> None:
    def fails() -> None:
        raise ZeroDivisionError

    scheduler = Scheduler(Mode("late"))
    stream = scheduler.stream(0, 0)
    mark = scheduler.put(stream, fails)

    with pytest.raises(ZeroDivisionError):
        scheduler.reach(mark)
    assert mark.is_done()


@pytest.mark.parametrize("whole", [False, True], ids=["a mark", "all streams"])
def test_what_comes_after_a_failure_is_done_before_it_is_raised(whole: bool) -> None:
    def fails() -> None:
        raise ZeroDivisionError

    done: list[str] = []
    scheduler = Scheduler(Mode("late"))
    stream = scheduler.stream(0, 0)
    scheduler.put(stream, fails)
    mark = scheduler.put(stream, lambda: done.append("after"))
    scheduler.put(scheduler.new_stream(0), lambda: done.append("beside"))

    with pytest.raises(ZeroDivisionError):
        scheduler.drain() if whole else scheduler.reach(mark)
    assert done == (["after", "beside"] if whole else ["after"])


def test_what_was_done_unasked_raises_where_something_is_asked_for() -> None:
    def fails() -> None:
        raise ZeroDivisionError

    scheduler = Scheduler(Mode("late"))
    stream = scheduler.stream(0, 0)
    mark = scheduler.put(stream, fails)

    scheduler.get_on()

    assert mark.is_done()
    with pytest.raises(ZeroDivisionError):
        scheduler.reach(mark)
    scheduler.reach(mark)


def test_a_rank_that_is_stuck_gets_on_with_another_stream() -> None:
    scheduler, done = two("late")
    stuck = scheduler.new_stream(0)
    mark = scheduler.put(stuck, lambda: [scheduler.nudge() for _ in range(2)])

    scheduler.reach(mark)

    assert done == ["a", "b"]


# -- the checker -----------------------------------------------------------------------------------


class Timeline:
    """Accesses and waits, one after the other: ``w1`` (stream 1 writes), ``r2``, ``1>2`` (2 waits
    for 1), ``1>h`` (the host waits for 1), ``wh``, ``rh`` (the host's own)."""

    def __init__(self, story: str) -> None:
        self.checker = Checker()
        self.history = History()
        for word in story.split():
            if ">" in word:
                self._wait(*word.split(">"))
            else:
                self._access(word[0] == "w", word[1], word[2:])

    def _wait(self, one: str, other: str) -> None:
        clock = self.checker.record(one)
        self.checker.learn(clock) if other == "h" else self.checker.wait(other, clock)

    def _access(self, writes: bool, who: str, span: str) -> None:
        low, high = map(int, (span or "[0-8]")[1:-1].split("-"))

        def site() -> Site:
            return Site(f"{'write' if writes else 'read'} by {who}")

        if who == "h":
            self.checker.host_access(self.history, low, high, writes, site)
        else:
            place = self.checker.issue(who)
            self.checker.access(self.history, Access(who, place, low, high, writes, site))


@pytest.mark.parametrize(
    ("story", "races"),
    [
        ("w1 r1 w1", 0),
        ("w1 r2", 1),
        ("r1 w2", 1),
        ("w1 w2", 1),
        ("r1 r2", 0),
        ("w1[0-4] w2[4-8]", 0),
        ("w1[0-5] w2[4-8]", 1),
        ("w1 1>2 r2", 0),
        ("w1 2>1 r2", 1),
        ("1>2 w1 r2", 1),
        ("w1 1>2 2>3 r3", 0),
        ("w1 1>2 r2 r3", 1),
        ("w1 1>h r2", 0),
        ("w1 rh", 1),
        ("w1 1>h rh", 0),
        ("r1 wh", 1),
        ("r1 rh", 0),
        ("wh r1", 0),
        ("w1 1>2 w2 r3", 1),
        ("w1 w1 1>2 r2 2>1 w1", 0),
        ("r1 r2 1>3 w3", 1),
        ("r1 r2 1>3 2>3 w3", 0),
    ],
)
def test_a_race_is_a_pair_without_an_order(story: str, races: int) -> None:
    assert len(Timeline(story).checker.races) == races


def test_a_race_is_told_once_with_both_places() -> None:
    (race,) = Timeline("w1 r2 r2").checker.races.items()

    assert str(race[0]) == (
        "no order between the write on the 1 (write by 1 at a thread without Python (backward)) "
        "and the read on the 2 (read by 2 at a thread without Python (backward))"
    )
    assert race[1] == 2


def test_a_place_is_not_that_of_what_wraps_the_call() -> None:
    def plain() -> Here:
        return Here("copy")

    def wrapping() -> Here:
        __tracebackhide__ = True
        return Here("copy")

    assert [frame.rpartition(" in ")[2] for frame in plain()().frames] == ["plain"]
    assert [frame.rpartition(" in ")[2] for frame in wrapping()().frames] == [
        "test_a_place_is_not_that_of_what_wraps_the_call"
    ]


def test_a_race_names_the_tensor_and_is_still_told_once() -> None:
    checker = Checker({0: "the gradient of 0.weight", 8: ""}.__getitem__)
    for pointer in (0, 8, 0):
        history = History(pointer)
        for stream, writes in (("1", True), ("2", False)):
            place = checker.issue(stream)
            checker.access(history, Access(stream, place, 0, 8, writes, lambda: Site("add")))

    ((race, times),) = checker.races.items()

    assert (str(race).partition("), in ")[2], times) == ("the gradient of 0.weight", 3)


# -- the allocator ---------------------------------------------------------------------------------


class FakeRaw:
    """Memory without bytes: which addresses were given, and what was poisoned."""

    def __init__(self) -> None:
        self.next = 4096
        self.freed: list[int] = []
        self.filled: list[int] = []
        self.watched: list[tuple[int, int]] = []

    def get_memory(self, size: int) -> int:
        self.next += size
        return self.next - size

    def take_freed(self) -> list[int]:
        taken, self.freed = self.freed, []
        return taken

    def take_gone_events(self) -> list[int]:
        return []

    def fill(self, pointer: int, byte: int, size: int) -> None:
        self.filled.append(pointer)

    def watch(self, spans: list[tuple[int, int]]) -> None:
        self.watched = spans

    def move(self, target: int, source: int, size: int) -> None: ...

    def give_memory(self, pointer: int) -> None: ...

    def note_pinned(self, pointer: int, size: int) -> None: ...

    def forget_pinned(self, pointer: int) -> None: ...


def allocator(mode: str) -> tuple[FakeRaw, Runtime, int]:
    """A block on the default stream, fresh."""
    raw = FakeRaw()
    runtime = Runtime(raw, Mode.parse(mode))
    return raw, runtime, runtime.allocate(100, 0, 0)


def test_a_freed_block_is_overwritten_by_the_next_allocation_on_its_stream() -> None:
    raw, runtime, pointer = allocator("eager")
    other = runtime.new_stream(0, 0)
    raw.freed.append(pointer)

    runtime.allocate(7, 0, other)
    before = raw.filled.count(pointer)
    runtime.allocate(7, 0, 0)

    assert (before, raw.filled.count(pointer)) == (1, 2)


@pytest.mark.parametrize("mode", ["eager", "late"])
@pytest.mark.parametrize(
    ("how", "races"),
    [("alone", 1), ("waited for", 0), ("recorded", 0), ("recorded on one that waits", 0)],
    ids=str,
)
def test_a_block_that_another_stream_reads_must_be_held(mode: str, how: str, races: int) -> None:
    raw, runtime, pointer = allocator(mode)
    other = runtime.new_stream(0, 0)
    runtime.block(1, 0, other)  # an event that was never recorded
    runtime.record(1, 0, 0)
    runtime.block(1, 0, other)
    stream = runtime.scheduler.stream(0, other)
    runtime.issue(stream, "read", [(pointer, 0, 100, False)], lambda: None)
    if how == "waited for":
        runtime.record(2, 0, other)
        runtime.block(2, 0, 0)
    if how == "recorded":
        runtime.record_stream(pointer, 0, other)
    if how == "recorded on one that waits":
        third = runtime.new_stream(0, 0)
        runtime.record(2, 0, other)
        runtime.block(2, 0, third)
        runtime.record_stream(pointer, 0, third)
    raw.freed.append(pointer)

    runtime.allocate(100, 0, 0)

    assert len(runtime.races()) == races


def test_what_went_before_a_case_is_ordered_before_it() -> None:
    raw, runtime, pointer = allocator("late")
    other = runtime.new_stream(0, 0)
    runtime.issue(
        runtime.scheduler.stream(0, other), "write", [(pointer, 0, 100, True)], lambda: None
    )
    runtime.begin(Mode("eager"))
    raw.freed.append(pointer)

    runtime.allocate(100, 0, 0)

    assert runtime.races() == []


def test_a_recorded_block_is_handed_out_when_its_stream_has_passed() -> None:
    raw, runtime, pointer = allocator("late")
    other = runtime.new_stream(0, 0)
    runtime.issue(runtime.scheduler.stream(0, other), "read", [], lambda: None)
    runtime.record_stream(pointer, 0, other)
    raw.freed.append(pointer)

    seen = []
    for passed in (False, True):
        if passed:
            runtime.synchronize_stream(0, other)
        runtime.allocate(100, 0, 0)
        runtime.synchronize_stream(0, 0)
        seen.append(raw.filled.count(pointer))

    assert seen == [1, 2]


def test_bytes_stay_until_no_queue_can_touch_them() -> None:
    raw, runtime, pointer = allocator("late")
    runtime.issue(runtime.scheduler.stream(0, 0), "read", [], lambda: None)
    raw.freed.append(pointer)
    runtime.allocate(100, 0, 0)

    while_queued = runtime.allocate(100, 0, 0)
    runtime.synchronize_device(0)
    afterwards = runtime.allocate(100, 0, 0)

    assert (while_queued == pointer, afterwards == pointer) == (False, True)


def test_memory_is_counted() -> None:
    raw, runtime, pointer = allocator("eager")
    raw.freed.append(pointer)
    runtime.allocate(40, 0, 0)

    # Now, at most, taken, given back.
    assert runtime.statistics(0) == ((40, 100, 140, 100), (1, 1, 2, 1))
    runtime.forget_peak(0)
    runtime.forget_accumulated(0)
    assert runtime.statistics(0) == ((40, 40, 0, 0), (1, 1, 0, 0))
    assert isinstance(runtime.memory, Memory)


def test_the_host_is_watched_while_a_stream_is_at_pinned_memory() -> None:
    raw, runtime, _ = allocator("late")
    pinned = runtime.allocate_pinned(64)
    stream = runtime.scheduler.stream(0, 0)
    runtime.issue(stream, "copy", [(pinned, 0, 64, True)], lambda: None)
    watched = list(raw.watched)

    runtime.host_access(pinned, pinned + 8, False, "aten::add")
    runtime.synchronize_device(0)

    assert (watched, raw.watched) == ([(pinned, 64)], [])
    assert len(runtime.races()) == 1
    assert str(HOST) in runtime.races()[0]


# -- mutants of order ------------------------------------------------------------------------------

SOURCE = """
class Group:
    def pre(self, work):
        self.stream.wait_event(self.event)
        work.wait()
        self.event.record()
        _no_dispatch_record_stream(self.tensor, self.stream)
        self.kept.append(HeldState(self.tensor, self.event))
        return wait_tensor(self.tensor), State(self.name)

    def post(self, work):
        return work.wait() if self.ready else work.wait()
"""


def test_what_makes_order_is_found_in_a_source() -> None:
    noted: list[Statement] = []

    tree = Rewrite("torch.some.module", noted).visit(ast.parse(SOURCE))

    assert [(one.kind, one.name.removeprefix("module.Group.")) for one in noted] == [
        ("wait", "pre: self.stream.wait_event(self.event)"),
        ("wait", "pre: work.wait()"),
        ("record", "pre: _no_dispatch_record_stream(self.tensor, self.stream)"),
        ("keep", "pre: HeldState(self.tensor, self.event)"),
        ("wait", "pre: wait_tensor(self.tensor)"),
        ("wait", "post: work.wait()"),
        ("wait", "post: work.wait() (2)"),
    ]
    assert ast.unparse(tree).count("if _is_left_out(") == len(noted)


RIGHT = Found(["right"], [], {"m.f: x.wait()": 2})


class FakeWorlds:
    """Ranks that find what a table says: by the mode, and by whether a statement is left out."""

    def __init__(self, **found: Found) -> None:
        self.found = found

        self.jobs: list[Job] = []

    def run(self, job: Job) -> Found:
        self.jobs.append(job)
        return self.found.get(f"{job.mode}_{job.left_out and 'without'}", RIGHT)


REPORTED = Found(["right"], ["no order"], {})
WRONG = Found(["wrong"], [], {})
BOTH = Found(["wrong"], ["no order"], {})
FAILED = Found(failure="Traceback\nValueError: no")


def left_out(
    monkeypatch: pytest.MonkeyPatch,
    found: dict[str, Found],
    equivalent: bool,
    trainings: Sequence[str] = ("training",),
) -> Campaign:
    """A campaign over one statement, in which the ranks found that."""
    statement = Statement("torch.m", "f", 1, "wait", "x.wait()")
    monkeypatch.setitem(MODULES, "torch.m", "FSDP2")
    if equivalent:
        monkeypatch.setitem(EQUIVALENT, statement.name, "another one waits")
    campaign = Campaign(FakeWorlds(**found), ["eager", "late"], statements=["x.wait"])
    campaign.tell = lambda line: None
    campaign.run(trainings, [statement])
    return campaign


@pytest.mark.parametrize(
    ("found", "equivalent", "state", "passed"),
    [
        ({"eager_without": REPORTED}, False, "caught", True),
        ({"eager_without": WRONG}, False, "caught", False),
        ({"late_without": WRONG}, False, "caught", False),
        ({"eager_without": REPORTED, "late_without": WRONG}, False, "caught", True),
        ({}, False, "MISSED", False),
        ({"eager_without": FAILED, "late_without": FAILED}, False, "FAILS", False),
        ({}, True, "equivalent", True),
        ({"late_without": WRONG}, True, "NOT EQUIVALENT", False),
        ({"eager_None": REPORTED}, False, None, False),
        ({"late_None": WRONG}, False, None, False),
        ({"late_None": FAILED}, False, None, False),
    ],
)
def test_a_mutant_that_nobody_notices_needs_a_reason(
    monkeypatch: pytest.MonkeyPatch,
    found: dict[str, Found],
    equivalent: bool,
    state: str | None,
    passed: bool,
) -> None:
    campaign = left_out(monkeypatch, found, equivalent)

    assert [one.state for one in campaign.mutants] == ([] if state is None else [state])
    assert campaign.passed is passed


@pytest.mark.parametrize(
    ("words", "late", "state"),
    [("ValueError: no", FAILED, "refused"), ("ValueError: no", RIGHT, "FAILS"), ("yes", FAILED, "FAILS"),
     ("ValueError: no", WRONG, "caught")],
    ids=["torch raises", "in one mode", "something else", "and is wrong"],
)  # fmt: skip
def test_a_mutant_that_torch_refuses_needs_its_words(
    monkeypatch: pytest.MonkeyPatch, words: str, late: Found, state: str
) -> None:
    monkeypatch.setitem(REFUSED, Statement("torch.m", "f", 1, "wait", "x.wait()").name, words)

    campaign = left_out(monkeypatch, {"eager_without": FAILED, "late_without": late}, False)

    assert ([one.state for one in campaign.mutants], campaign.mutants[0].told()) == (
        [state],
        {"refused": f"torch raises: {words}", "FAILS": "FAILS", "caught": "training"}[state],
    )


def test_other_modes_confirm_what_was_noticed_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    campaign = left_out(monkeypatch, {"eager_without": REPORTED}, False, ["a", "b", "c"])

    assert isinstance(campaign.worlds, FakeWorlds)
    ran = [(one.mode, one.training) for one in campaign.worlds.jobs if one.left_out]
    assert ran == [("eager", "a"), ("late", "a"), ("late", "b")]


@pytest.mark.parametrize(
    ("found", "equivalent", "row"),
    [
        ({"eager_without": REPORTED, "late_without": WRONG}, False, "1 | wrong | training"),
        ({"late_without": BOTH}, False, "none | 1, wrong | training"),
        ({}, True, "none | none | another one waits"),
        ({}, False, "none | none | MISSED"),
    ],
)
def test_the_table_has_the_checker_and_the_numbers_of_each_mode(
    monkeypatch: pytest.MonkeyPatch, found: dict[str, Found], equivalent: bool, row: str
) -> None:
    campaign = left_out(monkeypatch, found, equivalent)

    assert list(campaign.markdown("2.13.0"))[-1] == f"| `m:1` `x.wait()` | {row} |"


# -- defects of torch ------------------------------------------------------------------------------

RIGHT_LINE = "right: torch 2.13.0, mode late: right numbers, 0 pairs of accesses without an order"
RACY_LINE = "defect: torch 2.13.0, mode late: right numbers, 2 pairs of accesses without an order"
WRONG_LINE = "defect: torch 2.13.0, mode late: wrong loss, 2 pairs of accesses without an order"


@pytest.mark.parametrize(
    ("eager", "late", "found"),
    [
        (RIGHT_LINE, RIGHT_LINE, "right"),
        (f"no order between\n{RACY_LINE}", WRONG_LINE, "2 pairs; wrong in late"),
        (RACY_LINE, RACY_LINE, "2 pairs"),
        (RIGHT_LINE, "Traceback", "fails in late"),
    ],
)
def test_what_a_program_finds_is_a_cell(eager: str, late: str, found: str) -> None:
    assert order_defects.cell({"eager": eager, "late": late}) == found


def test_a_release_is_a_column_of_the_page() -> None:
    marks = f"before\n{order_defects.BEGIN}\n{order_defects.END}\nafter\n"
    table = {"a": {"2.10": "right"}, "b": {"2.9": "2 pairs", "2.10": "right"}}

    page = order_defects.written(marks, table)

    assert order_defects.read(marks) == {}
    assert order_defects.read(page) == {**table, "a": {"2.9": "not run", "2.10": "right"}}
    assert (page.startswith("before\n"), page.endswith("\nafter\n")) == (True, True)


# -- what the suite makes of it --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "findings", "then", "message"),
    [
        (Status.PASSED, (), Status.PASSED, "as it was"),
        (Status.PASSED, ("no order",), Status.FAILED, "the numbers are right, but the device reported: no order"),
        (Status.FAILED, ("no order",), Status.FAILED, "as it was"),
        (Status.ERROR, ("no order",), Status.ERROR, "as it was"),
    ],
)  # fmt: skip
def test_findings_fail_a_case_whose_numbers_are_right(
    status: Status, findings: tuple[str, ...], then: Status, message: str
) -> None:
    runs = [Answer([], [], 0.0, findings=findings), Answer([], [], 0.0, findings=findings)]

    found = with_findings(Outcome(status, "as it was", "", {"ratio": 0.1}), runs)

    assert (found.status, found.message) == (then, message)
    assert (found.failure == "findings") == (then is Status.FAILED and status is Status.PASSED)
    assert ("no order" in found.detail) == (then is Status.FAILED)


def test_ranks_that_see_the_same_say_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    places = (
        "the write on the stream 1 of device 3 (a) and the read on the stream 2 of device 3 (b)"
    )
    seen = [f"no order between {places}"]
    monkeypatch.setattr(distparity_async, "races", lambda: seen)
    monkeypatch.setattr(distparity_async, "begin", lambda: None)

    (found,) = Asim().findings()

    assert (
        found == "no order between the write on the stream 1 (a) and the read on the stream 2 (b)"
    )


# -- the device ------------------------------------------------------------------------------------


def _no_device() -> str:
    """Why the device cannot be used here, as the fact that was asked; empty where it can."""
    try:
        version("distparity-async")
    except PackageNotFoundError:
        return "distparity-async is not installed: pip install packages/async_device"
    if tuple(map(int, version("torch").split(".")[:2])) < (2, 10):
        return f"torch {version('torch')} is older than 2.10"
    from distparity_async import build

    return build.absent() or ""


asim = pytest.mark.skipif(bool(_no_device()), reason=_no_device())


@asim
@pytest.mark.parametrize(
    ("compiler", "headers", "fact"),
    [
        ("no-such-compiler -O1", "", "there is no C++ compiler (no-such-compiler"),
        ("true", "/nowhere", "there is no /nowhere/Python.h, Python's headers"),
    ],
)
def test_what_the_build_lacks_is_told_as_a_fact(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, compiler: str, headers: str, fact: str
) -> None:
    from distparity_async import build

    monkeypatch.setenv("DISTPARITY_ASYNC_CACHE", str(tmp_path))
    monkeypatch.setenv("CXX", compiler)
    monkeypatch.setattr(build.sysconfig, "get_path", lambda _: headers)

    assert str(build.absent()).startswith(fact)


#: One process asks the device everything; each line begins with what was asked.
PROGRAM = """
import copy, io, torch, distparity_async as asim
asim.register()
torch.ones(1, device="asim")
side = torch.asim.Stream()
for mode in ("eager", "late"):
    asim.begin(mode)
    for right in (True, False):
        given = torch.ones(4, device="asim")
        if right:
            side.wait_stream(torch.asim.current_stream())
        with torch.asim.stream(side):
            taken = given * 2
        if right:
            torch.asim.current_stream().wait_stream(side)
        print("wait:", mode, right, taken.cpu().tolist(), len(asim.races()))
        torch.asim.synchronize()
model = torch.nn.Sequential(torch.nn.Linear(4, 4)).to("asim")
asim.begin("eager")
model(torch.ones(2, 4, device="asim")).sum().backward()
asim.begin("eager")
with torch.no_grad(), torch.asim.stream(side):
    model[0].weight.mul_(2)
    model[0].bias.grad.mul_(2)
model[0].weight + 1
-model[0].bias.grad
for race in asim.races():
    print("name:", race.partition("), in ")[2].partition(" (")[0])
torch.asim.synchronize()
asim.begin("late")
rows = torch.arange(6.0, device="asim").reshape(2, 3)
rows.t_()
print("view:", list(rows.shape), rows[0].cpu().tolist())
torch.accelerator.reset_peak_memory_stats()
torch.accelerator.reset_accumulated_memory_stats()
before = torch.accelerator.memory_allocated()
held = torch.ones(1000, device="asim")
kept = held + 1
del held
now, peak = torch.accelerator.memory_allocated(), torch.asim.max_memory_allocated()
stats = torch.accelerator.memory_stats()
taken, given = (stats[f"allocated_bytes.all.{which}"] for which in ("allocated", "freed"))
print("memory:", now - before, peak - before, taken, given)
torch.accelerator.empty_cache()
# What has no kernel on the CPU, and what a conjugated view is read as.
for name in ("LSTM", "GRU"):
    on_host = getattr(torch.nn, name)(4, 6)
    on_device = copy.deepcopy(on_host).to("asim")
    rows = torch.randn(3, 5, 4)
    for layer, given in ((on_host, rows), (on_device, rows.to("asim"))):
        layer(given)[0].square().sum().backward()
    pairs = zip(on_host.parameters(), on_device.parameters())
    print("kernel:", name, all(torch.allclose(a.grad, b.grad.cpu(), atol=1e-5) for a, b in pairs))
host = torch.nn.BatchNorm1d(3)
host.weight.data.uniform_()
rows, by = torch.randn(4, 3, 2, requires_grad=True), torch.randn(4, 3, 2)
out = host(rows)
out.backward(by)
aten, given, weight = torch.ops.aten, rows.detach().to("asim"), host.weight.detach().to("asim")
running = [torch.zeros(3, device="asim"), torch.ones(3, device="asim")]
total = torch.tensor([8.0], device="asim")
stats = [one[None] for one in aten.batch_norm_stats(given, 1e-5)]
stats = aten.batch_norm_gather_stats_with_counts(given, *stats, *running, 0.1, 1e-5, total)
found = [aten.batch_norm_elemt(given, weight, None, *stats, 1e-5), *running]
sums = aten.batch_norm_backward_reduce(by.to("asim"), given, *stats, weight, True, True, True)
found += sums[2:]
sums = (weight, *sums[:2], total.int())
found.append(aten.batch_norm_backward_elemt(by.to("asim"), given, *stats, *sums))
wanted = [out, host.running_mean, host.running_var, host.weight.grad, host.bias.grad, rows.grad]
pairs = zip(found, wanted)
print("kernel: batch_norm", all(torch.allclose(a.cpu(), b, atol=1e-5) for a, b in pairs))
z = torch.randn(2, 2, dtype=torch.complex64)
seen, zeros = z.to("asim"), torch.zeros(2, 2, dtype=torch.complex64, device="asim")
views = [seen.conj(), seen.conj().clone(), zeros.copy_(seen.conj()), zeros.clone().copy_(z.conj())]
print("conjugated:", [torch.equal(view.cpu(), z.conj()) for view in views])
products = [torch.allclose((seen @ seen.mH).cpu(), z @ z.mH), torch.equal(seen.conj().imag.cpu(), -z.imag)]
print("conjugated:", products)
READS = {
    "add": lambda host: host + 1,
    "numpy": lambda host: host.numpy(),
    "tolist": lambda host: host.tolist(),
    "save": lambda host: torch.save(host, io.BytesIO()),
    "clone": lambda host: host.clone(),
    "to": lambda host: host.to(torch.float64),
    "copy_": lambda host: torch.zeros(4).copy_(host),
    "write": lambda host: host.copy_(torch.zeros(4)),
    "cat": lambda host: torch.cat([host, host]),
    "view": lambda host: host.view(2, 2)[0].detach(),
}
given = torch.ones(4, device="asim")
for name, read in READS.items():
    for waits in (True, False):
        asim.begin("eager")
        host = given.to("cpu", non_blocking=True)
        if waits:
            torch.asim.synchronize()
        read(host)
        print("pinned:", name, waits, len(asim.races()))
"""


@pytest.fixture(scope="module")
def answers() -> dict[str, list[str]]:
    """What the program prints, by its first words."""
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    told = [line.partition(": ") for line in ran.stdout.splitlines()]
    return {about: [line for one, _, line in told if one == about] for about, _, _ in told}


@asim
def test_a_wait_that_is_left_out_is_seen_in_every_mode(answers: dict[str, list[str]]) -> None:
    assert answers["wait"] == [
        "eager True [2.0, 2.0, 2.0, 2.0] 0",
        "eager False [2.0, 2.0, 2.0, 2.0] 2",
        "late True [2.0, 2.0, 2.0, 2.0] 0",
        "late False [nan, nan, nan, nan] 2",
    ]


@asim
def test_a_report_has_the_name_of_the_parameter(answers: dict[str, list[str]]) -> None:
    assert answers["name"] == ["the parameter 0.weight", "the gradient of 0.bias"]


@asim
def test_a_view_in_place_changes_the_tensor_at_once(answers: dict[str, list[str]]) -> None:
    assert answers["view"] == ["[3, 2] [0.0, 3.0]"]


@asim
def test_torch_counts_the_memory_of_the_device(answers: dict[str, list[str]]) -> None:
    assert answers["memory"] == ["4000 8000 8000 4000"]


@asim
def test_what_only_devices_are_asked_for_is_as_on_the_cpu(answers: dict[str, list[str]]) -> None:
    assert answers["kernel"] == ["LSTM True", "GRU True", "batch_norm True"]
    assert answers["conjugated"] == ["[True, True, True, True]", "[True, True]"]


@asim
def test_the_host_reads_pinned_memory_in_any_way(answers: dict[str, list[str]]) -> None:
    ways = ("add", "numpy", "tolist", "save", "clone", "to", "copy_", "write", "cat")

    wanted = [f"{way} {waits} {races}" for way in ways for waits, races in ((True, 0), (False, 1))]
    assert answers["pinned"] == [*wanted, "view True 0", "view False 0"]


#: What two ranks say of batches, of a peer that does not come, and of a group that is given up.
RANKS = """
import datetime, os, sys, time, torch, torch.distributed as dist, distparity_async as asim
asim.register()
rank = int(sys.argv[1])
store = dist.FileStore(sys.argv[2], 2)
dist.init_process_group("asimccl", store=store, rank=rank, world_size=2)
# Long enough for a busy machine to connect the two.
impatient = dist.new_group(timeout=datetime.timedelta(seconds=10))
device = torch.device("asim", 0)
group = dist.group.WORLD
for mode in ("eager", "late"):
    for waits in (True, False):
        asim.begin(mode)
        sums, taken = torch.ones(2, device=device), torch.zeros(2, device=device)
        given = torch.full((2,), float(rank), device=device)
        with dist.distributed_c10d._coalescing_manager(group, device, async_ops=True) as batch:
            dist.distributed_c10d._get_default_group().allreduce([sums])
            dist.isend(given, 1 - rank) if rank == 0 else dist.irecv(taken, 1 - rank)
            dist.irecv(taken, 1 - rank) if rank == 0 else dist.isend(given, 1 - rank)
        if waits:
            batch.wait()
        total = sums + taken
        seen = total.cpu().tolist() if waits else ""
        print("batch:", mode, waits, seen, len(asim.races()) > 0)
        batch.wait()
        torch.asim.synchronize()
    asim.begin(mode)
    dist.barrier()

def told(act):
    try:
        act()
    except Exception as error:
        return type(error).__name__ + " " + str("aborted" in str(error))

asim.begin("late")
# The first waits for the other one, which waits for what is on a queue of the first.
given = torch.full((2,), float(rank), device=device)
dist.broadcast(given, 0)
if rank == 0:
    store.wait(["received"], datetime.timedelta(seconds=100))
else:
    print("unasked:", given.cpu().tolist())
    store.set("received", "")
dist.barrier()
if rank == 0:
    dist.all_reduce(sums, group=impatient, async_op=True).wait()
    begun = time.monotonic()
    said = told(torch.asim.synchronize)
    print("late peer:", said, 9 < time.monotonic() - begun)
    dist.all_reduce(sums, async_op=True).wait()
    group.abort()
    print("aborted:", told(torch.asim.synchronize))
else:
    store.wait(["over"], datetime.timedelta(seconds=100))
store.set("over", "")
sys.stdout.flush()
os._exit(0)
"""


@asim
def test_batches_idle_hosts_time_outs_and_aborts(tmp_path: Path) -> None:
    words = [sys.executable, "-c", RANKS]
    ranks = [
        subprocess.Popen(
            [*words, str(rank), str(tmp_path / "store")], stdout=subprocess.PIPE, text=True
        )
        for rank in range(2)
    ]

    said, other = (one.communicate(timeout=PATIENCE)[0].splitlines() for one in ranks)

    wanted = ["True [3.0, 3.0] False", "False  True"]
    assert said == [
        *(f"batch: {mode} {line}" for mode in ("eager", "late") for line in wanted),
        "late peer: RuntimeError False True",
        "aborted: DistBackendError True",
    ]
    assert other == [
        *(
            f"batch: {mode} {line}"
            for mode in ("eager", "late")
            for line in ("True [2.0, 2.0] False", "False  True")
        ),
        "unasked: [0.0, 0.0]",
    ]


@asim
@pytest.mark.parametrize("mode", ["late", "random:3"])
def test_the_suite_is_green_on_it(suite: Suite, mode: str) -> None:
    cases = [f"multiple_forward/{how}-ws2-float32" for how in ("ddp", "fsdp1", "fsdp2")]

    ran = suite("--device", "asim", *(w for c in cases for w in ("--case", c)), ASIM_MODE=mode)

    assert ran.code == 0, ran.output
    assert ran.statuses("here-asim") == dict.fromkeys(cases, "passed")
    rerun = ran.properties("here-asim")[cases[0]]["rerun"]
    assert rerun == f"ASIM_MODE={mode} distparity run --device asim --case {cases[0]}"


@asim
def test_the_defect_of_all_reduce_hooks_shows_where_torch_has_it() -> None:
    program = ROOT / "defects/order/fsdp2_all_reduce_hook.py"

    ran = subprocess.run(
        [sys.executable, str(program)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "ASIM_MODE": "late", "TORCH_DEVICE_BACKEND_AUTOLOAD": "0"},
    )

    has_it = tuple(map(int, version("torch").split(".")[:2])) < (2, 15)
    said = "wrong gradients of layers [2, 3, 4, 5], 2 pairs" if has_it else "of layers [], 0 pairs"
    assert ran.returncode == has_it, ran.stderr
    assert said in ran.stdout.splitlines()[-1]


@asim
def test_statements_of_torch_that_are_left_out_are_seen() -> None:
    parts = ["_reduce_scatter", "post_backward: ReduceScatterState", "_wait_batch_p2p"]
    parts += ["foreach_reduce: reduce_scatter_stream.wait_stream", "_root_pre_forward"]
    trainings = [f"--training={name}" for name in ("FSDP2, reduced", "pipelines, GPipe")]

    ran = subprocess.run(
        [sys.executable, "-m", "distparity", "selfcheck", "--family", "order", *trainings, *parts],
        capture_output=True,
        text=True,
        check=False,
    )

    lines = ran.stdout.splitlines()
    assert lines[:2] == ["FSDP2, reduced precision: silent", "pipelines, GPipe: silent"], ran.stderr
    states = Counter(line.partition(":")[0] for line in lines[2:-2])
    assert (ran.returncode, states) == (0, {"caught": 4, "equivalent": 1}), ran.stdout
