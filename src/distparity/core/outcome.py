"""The outcome of a case: one record for the terminal, the side file and the XML."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from distparity.core.judgement import Divergence
from distparity.core.marks import Mark
from distparity.core.record import Record
from distparity.core.statuses import BY_NAME

__all__ = ["FAILURES", "Outcome", "Status"]


class Status(str, Enum):
    """All possible outcomes. Only a pass is ever shown or counted as a pass."""

    PASSED = "passed"
    FAILED = "failed"
    #: A rank's process died: it exited or a signal killed it.
    CRASH = "crash"
    #: The case's time limit passed.
    TIMEOUT = "timeout"
    #: It failed, and passed when it ran again in a new world.
    FLAKY = "flaky"
    #: The case could not be judged: a fault of the scenario or of the harness, not of the device.
    ERROR = "error"
    #: It failed as an expectation says.
    EXPECTED = "expected failure"
    #: An expectation says that it fails, and it passed.
    FIXED = "unexpectedly fixed"
    #: An expectation says not to run it.
    NOT_RUN = "not run"
    #: This torch, backend or device refuses what the case needs; the message quotes the refusal.
    NOT_SUPPORTED = "not supported"
    #: This machine has no such device, or too few of them.
    NOT_AVAILABLE = "not available"
    #: It was declared, and the run ended before it had a result.
    MISSING = "missing"

    @property
    def skipped(self) -> bool:
        """True for an outcome that says nothing about parity; its message says why."""
        return BY_NAME[self.value].family == "silent"

    @property
    def bad(self) -> bool:
        """True for an outcome that makes the run fail."""
        return BY_NAME[self.value].family == "bad"


#: The kinds of failure. An outcome that is not a failure has none.
FAILURES = ("wrong numbers", "findings", "raised", "crash", "timeout", "failed in one process")


@dataclass(frozen=True)
class Outcome(Record):
    """The outcome of one case.

    ``message`` is one line; ``detail`` has everything known, for a reader; ``facts`` are named
    values for the report (ratio, largest error, seconds in the ranks, ...).
    """

    status: Status
    message: str = ""
    detail: str = ""
    facts: dict[str, Any] = field(default_factory=dict)
    #: One of :data:`FAILURES`, or "".
    failure: str = ""
    #: The first divergence, if numbers are wrong.
    first: Divergence | None = None
    #: The checks of an operation that diverged, in order.
    diverged: tuple[str, ...] = ()
    #: What the same failure is known by when it comes again.
    marks: tuple[Mark, ...] = ()
    #: What the device reported, one line each, also where the numbers are wrong.
    findings: tuple[str, ...] = ()
