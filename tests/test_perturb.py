"""Seeded delays: which calls have one, what they are put around, and what they show."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from distparity.devices import Device, delays
from distparity.worker import wrapping


class Kind:
    """A device that notes for how long it was kept busy."""

    def __init__(self) -> None:
        self.busy: list[float] = []

    def keep_busy(self, device: str, seconds: float) -> None:
        assert device == "one"
        self.busy.append(seconds)


def made(
    monkeypatch: pytest.MonkeyPatch, words: str, calls: int
) -> tuple[list[float], list[float]]:
    """The seconds that a rank waited and that its device was busy, in order."""
    slept: list[float] = []
    monkeypatch.setattr(delays.time, "sleep", slept.append)
    kind: Any = Kind()
    mine = delays.Delays(kind, "one", words)
    for _ in range(calls):
        mine.pause()
    return slept, kind.busy


def test_the_same_words_have_the_same_delays(monkeypatch: pytest.MonkeyPatch) -> None:
    one, again, other = (made(monkeypatch, words, 50) for words in ("1 0 a", "1 0 a", "1 1 a"))

    assert one == again != other
    assert all(0 < seconds <= delays.LONGEST for part in one for seconds in part)
    assert all(0.15 < len(part) / 50 < 0.45 for part in one)


def test_delays_stay_within_their_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    for part in made(monkeypatch, "1 0 a", 5000):
        assert sum(part) == pytest.approx(delays.BUDGET)


def kept_busy(kind: str, **module: Any) -> None:
    """Keep a device of torch's for 3 ms; ``module`` is what torch has for it."""
    device = Device()
    device.module = lambda: SimpleNamespace(**module)  # type: ignore[method-assign]
    device.keep_busy(torch.device(kind), 0.003)


def test_a_device_is_kept_busy_by_its_sleep_kernel_or_by_products() -> None:
    cycles: list[int] = []
    shapes: list[tuple[int, ...]] = []

    class Products(TorchDispatchMode):
        def __torch_dispatch__(
            self, func: Any, kinds: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            if func is torch.ops.aten.mm.default:
                shapes.append(tuple(args[0].shape))
            return func(*args, **(kwargs or {}))

    with Products():  # type: ignore[no-untyped-call]
        kept_busy("meta", _sleep=cycles.append)
        kept_busy("cpu", _sleep=cycles.append)
        assert (cycles, shapes) == ([4_500_000], [])
        kept_busy("meta")
    assert shapes == [(512, 512)] * 3


def test_without_a_seed_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    kind: Any = Kind()
    monkeypatch.setattr(delays, "_seed", None)
    delays.begin(kind, "one", 0, "a")
    for _ in range(100):
        delays.pause()
        delays.pause_to_copy()

    assert kind.busy == []


@pytest.fixture
def late(monkeypatch: pytest.MonkeyPatch) -> Kind:
    """A device that is late in a task of this process."""
    kind = Kind()
    monkeypatch.setattr(delays.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(delays, "_seed", 1)
    monkeypatch.setattr(delays, "_now", {})
    delays.begin(cast(Any, kind), "one", 0, "a")
    return kind


def test_many_copies_leave_calls_their_delays(late: Kind) -> None:
    for _ in range(5000):
        delays.pause_to_copy()
    assert sum(late.busy) == pytest.approx(delays.BUDGET)
    for _ in range(5000):
        delays.pause()
    assert sum(late.busy) == pytest.approx(2 * delays.BUDGET)


def test_what_a_run_records_has_no_delays(late: Kind) -> None:
    with delays.none():
        for _ in range(100):
            delays.pause_to_copy()
    assert late.busy == []


def test_what_keeps_a_device_busy_has_no_delays_of_its_own(
    late: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(late, "keep_busy", lambda *_: delays.pause_to_copy())
    for _ in range(100):
        delays.pause()


@pytest.fixture
def delayed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One element for each delay before a copy."""
    for owner, name in wrapping.COPIES:
        monkeypatch.setattr(owner, name, getattr(owner, name))
    found: list[int] = []
    wrapping.before_each_copy(lambda: found.append(1))
    return found


FIRST, SECOND = torch.zeros(2), torch.ones(2)


@pytest.mark.parametrize(
    "copy",
    [
        pytest.param(lambda: FIRST.copy_(SECOND), id="copy"),
        pytest.param(lambda: FIRST.to(torch.float64), id="to"),
        pytest.param(lambda: SECOND.cpu() + FIRST, id="cpu"),
        pytest.param(lambda: torch._foreach_copy_([FIRST], [SECOND]), id="foreach"),
        pytest.param(lambda: torch.zeros(2).untyped_storage().resize_(0), id="reshard"),
        pytest.param(lambda: torch.nn.Linear(2, 2).to(torch.float64), id="module"),
    ],
)
def test_a_copy_begins_late(copy: Callable[[], Any], delayed: list[int]) -> None:
    copy()

    assert delayed


def test_where_nothing_moves_there_are_no_delays(delayed: list[int]) -> None:
    with FakeTensorMode():
        torch.zeros(2).copy_(torch.ones(2))

    assert delayed == []


class Torchs:
    def call(self, number: int) -> list[str]:
        return [f"torch's {number}"]


def noting(word: str) -> Callable[..., Any]:
    return lambda method: lambda one, number: [word, *method(one, number)]


def test_a_method_that_is_wrapped_twice_runs_both_and_a_subclass_neither() -> None:
    kind = type("Torchs", (), {"call": Torchs.call})
    sub = type("Vendors", (kind,), {})
    wrapping.replace(kind, "call", noting("logged"))
    wrapping.replace(kind, "call", noting("late"))

    assert kind().call(3) == ["late", "logged", "torch's 3"]
    assert sub().call(3) == ["torch's 3"]


def test_what_does_not_wait_is_wrong_if_ranks_are_late(suite: Any) -> None:
    only = "unwaited and multiple_forward and ws2-float32"
    ran = suite("--include", "unwaited", "--perturb", "1", "-k", only)

    (case,) = ran.statuses("here-cpu")
    assert ran.statuses("here-cpu")[case] == "failed", ran.output
    assert "--perturb 1" in ran.properties("here-cpu")[case]["rerun"]
    assert {p.name: p.value for p in ran.suite("here-cpu").properties()}[
        "distparity.perturb"
    ] == "1"
