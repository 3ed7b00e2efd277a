"""The table of outcomes: the meaning of each, and how every view spells, draws and counts it.

The set is closed. A status without a row here is an error for every reader, and never counts as a pass
or as anything else.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["BY_NAME", "PASSED", "STATUSES", "Drawing", "counted"]


@dataclass(frozen=True)
class Drawing:
    """One outcome. ``family`` is its meaning for parity, and decides the colour and the exit code.

    ``good``: parity holds. ``bad``: it does not hold, or is unknown; the run fails. ``known``: it does
    not hold, as expected. ``silent``: the case says nothing, and its message says why.
    """

    name: str
    #: For narrow cells of the matrix.
    short: str
    family: str
    meaning: str
    #: The symbol for plain text and ASCII terminals; all are different.
    mark: str
    plain: str
    #: The JUnit element of the case in the XML; None for a pass.
    element: str | None
    #: The plural, if the name is a noun.
    plural: str = ""
    #: The JUnit element if the run allows the outcome.
    allowed: str | None = None

    @property
    def key(self) -> str:
        """The name as an identifier, for classes and symbols of the page."""
        return self.name.replace(" ", "-")


#: The worst first: failures are listed in this order.
STATUSES = (
    Drawing(
        "failed", "failed", "bad", "The numbers are wrong, or a rank raised.", "✖", "F", "failure"
    ),
    Drawing(
        "crash", "crash", "bad", "A rank died: exit or signal.", "↯", "C", "failure", "crashes"
    ),
    Drawing(
        "timeout",
        "timeout",
        "bad",
        "The case's time limit passed.",
        "⧖",
        "T",
        "failure",
        "timeouts",
    ),
    Drawing(
        "error",
        "error",
        "bad",
        "The case could not be judged: not the device's fault.",
        "!",
        "E",
        "error",
        "errors",
    ),
    Drawing(
        "unexpectedly fixed",
        "fixed",
        "bad",
        "It was expected to fail, and passed: remove the expectation.",
        "★",
        "X",
        "failure",
    ),
    Drawing(
        "missing",
        "missing",
        "bad",
        "The run ended before the case had a result.",
        "?",
        "?",
        "error",
    ),
    Drawing(
        "flaky",
        "flaky",
        "bad",
        "It failed, and passed when it ran again.",
        "≈",
        "~",
        "failure",
        allowed="skipped",
    ),
    # For consumers of the XML, it is neither a pass nor a failure; its message says which it is.
    Drawing(
        "expected failure",
        "expected",
        "known",
        "It failed as an expectation says.",
        "⊗",
        "x",
        "skipped",
        "expected failures",
    ),
    Drawing(
        "not run",
        "not run",
        "silent",
        "An expectation says not to run it.",
        "∥",
        "-",
        "skipped",
    ),
    Drawing(
        "not available",
        "no device",
        "silent",
        "No such device here, or too few.",
        "○",
        "o",
        "skipped",
    ),
    Drawing(
        "not supported",
        "no support",
        "silent",
        "This torch, backend or device cannot do it.",
        "⊘",
        "s",
        "skipped",
    ),
    Drawing("passed", "passed", "good", "The same as in one process.", "✔", ".", None),
)

BY_NAME = {drawing.name: drawing for drawing in STATUSES}
PASSED = BY_NAME["passed"]


def counted(counts: dict[str, int]) -> str:
    """The counts of outcomes in words: "1 failed, 3 expected failures"."""
    return ", ".join(
        f"{count} {name if count == 1 else BY_NAME[name].plural or name}"
        for name, count in counts.items()
    )
