"""Faults injected for real into ranks, in the middle of a suite of other cases."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from faulty_runs import LIMIT, OTHERS, SIZES, Suite, assert_alike, cases, listed

from distparity.core.outcome import Status

#: Where a rank waits that is right: without a flight recorder (torch before 2.8) less is known.
WAITS = r"in (all_reduce #\d+( of \[\d+\] float32)?|a collective of backward, #\d+)"
#: fault -> the outcome, and what its message says; CULPRIT is the rank that did it.
FAULTS = {
    "raise-one": (
        Status.FAILED,
        r"^CULPRIT raised ValueError: injected, .*at injected\.py:\d+.*; ranks? 0.* WAITS",
    ),
    "raise-all": (Status.FAILED, r"^rank \d raised ValueError: injected.*; the same on rank"),
    "raise-all-but-one": (
        Status.FAILED,
        r"^rank [1-3] raised ValueError: injected.*rank 0 .*WAITS",
    ),
    "raise-unspeakable": (
        Status.FAILED,
        r"^CULPRIT raised Mute: \(its text is not available: RuntimeError\)",
    ),
    "exit-3": (Status.CRASH, r"^CULPRIT exited with code 3; "),
    "sys-exit-0": (Status.FAILED, r"^CULPRIT raised SystemExit: 0, "),
    "sigkill": (Status.CRASH, r"^CULPRIT killed by SIGKILL; "),
    "sigsegv": (
        Status.CRASH,
        r"^CULPRIT killed by SIGSEGV, .* in string_at; ",
    ),
    "sigsegv-and-stays": (
        Status.CRASH,
        r"^CULPRIT killed by SIGSEGV, .* in string_at; ",
    ),
    "sigstop": (
        Status.TIMEOUT,
        r"hang: CULPRIT stopped, at injected\.py:\d+ in misbehave; ranks? 0.* WAITS",
    ),
    "endless-loop": (
        Status.TIMEOUT,
        r"hang: CULPRIT in no collective, .*injected\.py:\d+ in misbehave; ranks? 0",
    ),
    "native-with-gil": (
        Status.TIMEOUT,
        r"hang: CULPRIT in native code that holds the GIL, process \w+, at injected\.py",
    ),
    "skip-collective": (
        Status.TIMEOUT,
        r"out of step: ranks? 0.* in all_reduce #9 of \[8\] float32; CULPRIT answered after 8 collectives",
    ),
    "other-collective": (
        Status.TIMEOUT,
        r"out of step: ranks? 0.* in all_reduce #9 of \[8\] float32; CULPRIT in broadcast #9 of \[8\] float32",
    ),
    "other-shape": (Status.CRASH, r"op\.preamble\.length.*out of step: "),
    "memory-limit": (
        Status.FAILED,
        r"^CULPRIT raised RuntimeError: .*can't allocate memory.*injected\.py",
    ),
    "memory-killer": (Status.CRASH, r"^CULPRIT killed by SIGKILL"),
    "sigkill-shared-memory": (Status.CRASH, r"^CULPRIT killed by SIGKILL"),
    "sigusr1": (Status.PASSED, "^ratio"),
    "sigusr1-endless-loop": (
        Status.TIMEOUT,
        r"hang: CULPRIT in no collective, .*injected\.py:\d+ in spin; ranks? 0",
    ),
    "deep-stack": (
        Status.TIMEOUT,
        r"hang: CULPRIT .*, at injected\.py:\d+ in misbehave; ranks? 0",
    ),
    "output-is-a-pipe": (
        Status.TIMEOUT,
        r"hang: CULPRIT .*injected\.py:\d+ in misbehave; ranks? 0",
    ),
    "output-is-a-link": (
        Status.TIMEOUT,
        r"hang: CULPRIT .*injected\.py:\d+ in misbehave; ranks? 0",
    ),
    "port-taken": (Status.FAILED, r"^CULPRIT raised (DistNetwork|Runtime)Error: .*EADDRINUSE"),
    "loud": (Status.PASSED, "^ratio"),
    "loud-raise": (Status.FAILED, r"raised ValueError: injected"),
}
#: Functions that native stacks name -> the faults, and which rank is there: it did it, or it waits.
#: Where it crashed, where a library holds the interpreter, where C++ waits for the other ranks.
NATIVE = {
    "ffi_call": (["sigsegv"], "culprit"),
    "nanosleep": (["native-with-gil"], "culprit"),
    "c10d::Reducer::finalize_backward": (["native-with-gil", "endless-loop"], "waits"),
    "c10d::Work::wait": (["skip-collective"], "waits"),
}
#: What is left behind -> how the case that left it is marked.
LEFT = {
    "stdout-closed": "standard streams",
    "children": "child processes",
    "environment": r"environment \(INJECTED_LEFT_BEHIND\)$",
    "directory": "working directory",
    "dtype": "default dtype",
    "device": "default device",
    "generators": "^$",
    "threads": r"thread count, threads \(left\)",
    "modes": "gradient mode, deterministic algorithms",
    "autograd": "autograd settings",
    "hooks": "hooks of all modules or optimizers",
    "denormals": "flushing of denormals",
    "limits": "umask, signal handlers, resource limits",
}


def remove_groups() -> None:
    """Remove the memory cgroups that a fault made."""
    for group in Path("/sys/fs/cgroup/memory").glob("injected-*"):
        group.rmdir()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Suite:
    return Suite(tmp_path_factory.mktemp("undisturbed"), listed(cases(*OTHERS))).run()


@pytest.fixture(scope="module")
def disturbed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Suite]:
    arguments = listed(cases(*OTHERS, *(f"fault-{name}" for name in FAULTS)))
    arguments += ["--case-timeout", str(LIMIT), "--worlds", "16"]
    folder = tmp_path_factory.mktemp("disturbed")
    yield Suite(folder, arguments, {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}).run()
    remove_groups()


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Suite:
    """A few faults with little beside them: native stacks are left out where they take too long."""
    names = sorted({f"fault-{name}" for faults, _ in NATIVE.values() for name in faults})
    arguments = listed(cases(*names))
    arguments += ["--case-timeout", str(LIMIT), "--worlds", "4"]
    return Suite(tmp_path_factory.mktemp("calm"), arguments).run()


@pytest.fixture(scope="module")
def untidy(tmp_path_factory: pytest.TempPathFactory) -> Suite:
    """Cases that leave something behind, each with one after it that looks for that.

    One world at a time, so that the second would come into the first one's.
    """
    leaves = [f"fault-leaves-{name}" for name in LEFT]
    arguments = listed(cases(*leaves, *(f"{name}-check" for name in leaves)))
    return Suite(tmp_path_factory.mktemp("untidy"), [*arguments, "--worlds", "2"]).run()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_told_for_what_it_is(disturbed: Suite, fault: str, size: int) -> None:
    status, message = FAULTS[fault]
    message = message.replace("CULPRIT", f"rank {size - 1}").replace("WAITS", WAITS)
    outcome = disturbed.journal()[f"multiple_forward/fault-{fault}-ws{size}-float32"]

    assert status is outcome.status
    assert re.search(message, outcome.message)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("fault", [name for name, (status, _) in FAULTS.items() if status.bad])
def test_the_detail_has_every_rank(disturbed: Suite, fault: str, size: int) -> None:
    """Each rank is there, with a stack where its process could still give one."""
    detail = disturbed.journal()[f"multiple_forward/fault-{fault}-ws{size}-float32"].detail
    parts = re.split(r"^rank (\d+) \(pid \d+\): ", detail, flags=re.MULTILINE)[1:]
    accounts = dict(zip(parts[::2], parts[1::2], strict=True))

    assert size == len(accounts)
    for part in accounts.values():
        account = part.partition("\n")[0]
        silent = re.search("^answered|^exited|^killed by SIGKILL", account)
        # Stacks that are alike are shown once.
        same = re.search(r"^ +the (?:stacks|traceback) of rank (\d+)$", part, re.MULTILINE)
        stacks = accounts[same[1]] if same else part
        assert silent or "in gradients" in stacks or "train" in stacks, account


@pytest.mark.parametrize("function", NATIVE)
def test_the_detail_has_native_stacks(calm: Suite, function: str) -> None:
    """Of some such case at least: on a machine that is busy they may take too long, and are left out."""
    faults, who = NATIVE[function]
    told = []
    for case, size in ((fault, size) for fault in faults for size in SIZES):
        detail = calm.journal()[f"multiple_forward/fault-{case}-ws{size}-float32"].detail
        rank = size - 1 if who == "culprit" else 0
        told += re.findall(rf"-- native stacks of rank {rank}\n((?:  .*\n)+)", f"{detail}\n")

    assert any(function in stacks for stacks in told), told


def test_the_detail_has_the_last_words_of_a_rank(disturbed: Suite) -> None:
    detail = disturbed.journal()["multiple_forward/fault-raise-one-ws2-float32"].detail

    assert "-- output of rank 1\n  the last words of a rank" in detail


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("left", LEFT)
def test_what_a_case_leaves_behind_does_not_reach_the_next(
    untidy: Suite, left: str, size: int
) -> None:
    found = untidy.journal()
    leaver = found[f"multiple_forward/fault-leaves-{left}-ws{size}-float32"]
    check = found[f"multiple_forward/fault-leaves-{left}-check-ws{size}-float32"]

    assert (leaver.status, check.status) == (Status.PASSED, Status.PASSED), check.message
    assert re.search(LEFT[left], leaver.facts.get("left_behind", ""))


def test_every_other_case_has_the_same_result(undisturbed: Suite, disturbed: Suite) -> None:
    assert_alike(undisturbed, disturbed)


def test_the_xml_is_complete(disturbed: Suite) -> None:
    assert {case: o.status.value for case, o in disturbed.journal().items()} == disturbed.xml()
    assert disturbed.code == 1


@pytest.mark.parametrize("suite", ["undisturbed", "disturbed", "untidy"])
def test_nothing_is_left(request: pytest.FixtureRequest, suite: str) -> None:
    assert request.getfixturevalue(suite).leftovers() == []
