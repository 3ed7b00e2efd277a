"""Our log of collectives: what it wraps, and what it must leave alone."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable

import pytest
from conftest import TESTS
from warm import PATIENCE

from distparity.worker import stack_reporter, wrapping


class Torchs:
    """Stands for a class of torch's, whose methods are in C++."""

    def wait(self) -> str:
        return "torch"


class Inherits(Torchs):
    pass


class Overrides(Torchs):
    def wait(self) -> str:
        return "vendor, " + super().wait()


def logged(plain: Callable[[Torchs], str]) -> Callable[[Torchs], str]:
    return lambda one: "log, " + plain(one)


@pytest.mark.parametrize(
    ("kind", "answer"),
    [(Torchs, "log, torch"), (Inherits, "torch"), (Overrides, "vendor, torch")],
)
def test_a_class_in_python_inherits_what_torch_has(
    monkeypatch: pytest.MonkeyPatch, kind: type[Torchs], answer: str
) -> None:
    plain = Torchs.wait
    monkeypatch.setattr(Torchs, "wait", plain)
    wrapping.replace(Torchs, "wait", logged)

    assert kind().wait() == answer
    # This is what torch looks for an override in.
    assert Torchs.wait is plain


def test_a_group_of_any_class_works_under_the_log() -> None:
    """In a process of its own, because the log stays until its process ends."""
    program = [sys.executable, str(TESTS / "included" / "python_groups.py")]

    done = subprocess.run(program, stdout=subprocess.PIPE, check=True, timeout=PATIENCE)

    # What a class inherits is torch's, and torch's own methods are not seen in it.
    assert json.loads(done.stdout) == {
        "inherits": [{}, 0],
        "overrides": [{}, 4],
        "derived": [{}, 4],
        "native": [{}, 4],
    }


def test_without_the_log_nothing_is_recorded_and_torch_is_not_asked_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert stack_reporter.environment(older=False) == {"TORCH_FR_BUFFER_SIZE": "64"}
    monkeypatch.setattr(stack_reporter, "_recording", True)

    stack_reporter.choose(recording=False)

    assert stack_reporter.environment(older=False) == {}
