"""The outcome of a case: one record, which the terminal, the side file and the XML all read."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from distparity.core.judgement import Divergence
from distparity.core.record import Record
from distparity.core.statuses import BY_NAME

__all__ = ["FAILURES", "Outcome", "Status"]


class Status(str, Enum):
    """The closed set of outcomes. What is not a pass is never drawn or counted like one."""

    PASSED = "passed"
    FAILED = "failed"
    #: A rank died: exit, signal.
    CRASH = "crash"
    #: The case's time limit passed.
    TIMEOUT = "timeout"
    #: It failed, and passed when it was run again in a fresh world.
    FLAKY = "flaky"
    #: The case could not be judged: a fault of the scenario or of the harness, not of the device.
    ERROR = "error"
    #: It failed as an expectation says: a known defect, or a waiver.
    EXPECTED = "expected failure"
    #: An expectation says that it fails, and it passed.
    FIXED = "unexpectedly fixed"
    #: An expectation says not to run it: it would hang, or end the run.
    NOT_RUN = "not run"
    #: Declared, with the fact: this torch, backend or device cannot do it.
    NOT_SUPPORTED = "not supported"
    #: There is no such device here, or too few of them.
    NOT_AVAILABLE = "not available"
    #: Declared, and no result came: the run ended first.
    MISSING = "missing"

    @property
    def skipped(self) -> bool:
        """True for an outcome that says nothing about parity, and says why."""
        return BY_NAME[self.value].family == "silent"

    @property
    def bad(self) -> bool:
        """True for an outcome that makes the run fail."""
        return BY_NAME[self.value].family == "bad"


#: How a case can fail. What is no failure has none.
FAILURES = ("wrong numbers", "findings", "raised", "crash", "timeout", "failed in one process")


@dataclass(frozen=True)
class Outcome(Record):
    """What became of one case.

    ``message`` is one line; ``detail`` is the whole account, for a reader; ``facts`` are named
    values for the report (ratio, largest error, seconds in the ranks, ...).
    """

    status: Status
    message: str = ""
    detail: str = ""
    facts: dict[str, Any] = field(default_factory=dict)
    #: One of :data:`FAILURES`, or "".
    failure: str = ""
    #: Where the numbers were wrong first.
    first: Divergence | None = None
    #: The checks of an operation that diverged, in order.
    diverged: tuple[str, ...] = ()
