"""How every outcome is spoken of and drawn: one row each, for all views.

The set is closed. A status without a row here is refused where it is read; it is never taken for a
pass, or for anything else.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["BY_NAME", "PASSED", "STATUSES", "TAGS", "Drawing"]


@dataclass(frozen=True)
class Drawing:
    """One outcome. ``family`` is what it says about parity.

    ``good``: it holds. ``bad``: it does not, or nobody can say. ``known``: it does not, as declared.
    ``silent``: nothing was asked, and the reason is declared.
    """

    name: str
    #: For narrow cells of the matrix.
    short: str
    family: str
    meaning: str
    #: For text without pictures; no two are alike.
    mark: str

    @property
    def key(self) -> str:
        """The name as an identifier, for classes and symbols of the page."""
        return self.name.replace(" ", "-")


#: The worst first: lists of failures are in this order.
STATUSES = (
    Drawing("failed", "failed", "bad", "The numbers are wrong, or a rank raised.", "✖"),
    Drawing("crash", "crash", "bad", "A rank died: exit or signal.", "↯"),
    Drawing("timeout", "timeout", "bad", "The case's time limit passed.", "⧖"),
    Drawing("error", "error", "bad", "The case could not be judged: not the device's fault.", "!"),
    Drawing(
        "unexpectedly fixed", "fixed", "bad", "Expected to fail, but passed: remove the entry.", "★"
    ),
    Drawing(
        "missing", "missing", "bad", "Declared, but the run ended before it had a result.", "?"
    ),
    Drawing("flaky", "flaky", "bad", "It failed, and passed when it ran again.", "≈"),
    Drawing(
        "expected failure",
        "expected",
        "known",
        "Failed as an expectation says: a known defect.",
        "⊗",
    ),
    Drawing(
        "not run", "not run", "silent", "An expectation says not to run it, with the reason.", "∥"
    ),
    Drawing(
        "not available", "no device", "silent", "This machine has no such device, or too few.", "○"
    ),
    Drawing(
        "not supported", "no support", "silent", "This torch, backend or device cannot do it.", "⊘"
    ),
    Drawing("passed", "passed", "good", "The same as in one process.", "✔"),
)

BY_NAME = {drawing.name: drawing for drawing in STATUSES}
PASSED = BY_NAME["passed"]

#: What a case holds in the XML: one of these, and a pass nothing. A flaky one that the run allowed
#: is a skip.
TAGS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("failed", "crash", "timeout", "unexpectedly fixed"), ("failure",)),
    **dict.fromkeys(("error", "missing"), ("error",)),
    **dict.fromkeys(
        ("expected failure", "not run", "not available", "not supported"), ("skipped",)
    ),
    "flaky": ("failure", "skipped"),
    PASSED.name: (),
}
