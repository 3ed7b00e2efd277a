"""A case as an item of pytest."""

from __future__ import annotations

import os
from typing import Any

import pytest

from distparity.core.case import Case
from distparity.core.outcome import Outcome, Status
from distparity.session.run import Run

__all__ = ["CaseItem", "ParityFailure"]


class ParityFailure(Exception):
    """A case whose outcome is bad; the text is that of the outcome."""


class CaseItem(pytest.Item):
    """One case; a subclass says in which run."""

    case: Case
    #: The time of the case in its ranks in seconds, once it is known.
    seconds: float | None = None

    def run(self) -> Run:
        raise NotImplementedError

    def runtest(self) -> None:
        run = self.run()
        outcome = run.outcome(self.case)
        if run.ended:
            self.ended(run.ended)
        self.seconds = outcome.facts.get("seconds_in_ranks", outcome.facts.get("known_after"))
        facts = {"status": outcome.status.value, **outcome.facts}
        # The growth of the ratio over the steps is a table, and no property.
        self.user_properties += [(name, facts[name]) for name in facts if name != "growth"]
        if outcome.status.skipped or (outcome.status is Status.FLAKY and run.options.allow_flaky):
            pytest.skip(f"{outcome.status.value}: {outcome.message}")
        expected = outcome.status is Status.EXPECTED
        if expected and not self.config.option.runxfail:
            pytest.xfail(outcome.message)
        if expected or outcome.status.bad:
            raise ParityFailure(self._account(run, outcome))

    def ended(self, why: str) -> None:
        """Called if no further case can run."""

    def _account(self, run: Run, outcome: Outcome) -> str:
        looks, message = outcome.facts.get("diagnosis"), outcome.message
        parts = [f"{outcome.status.value}: {looks or message}", *[message] * bool(looks)]
        detail = outcome.detail.removeprefix(f"looks like: {looks}\n").removeprefix(message)
        parts += [detail.strip("\n")] if detail else []
        return "\n".join([*parts, f"to rerun:\n{run.rerun([self.case])}"])

    def repr_failure(self, excinfo: Any, style: Any = None) -> Any:
        if isinstance(excinfo.value, ParityFailure):
            return str(excinfo.value)
        return super().repr_failure(excinfo)

    def reportinfo(self) -> tuple[os.PathLike[str] | str, int | None, str]:
        return self.path, None, f"{self.case.id} on {self.case.device}"


def timed(item: pytest.Item, report: pytest.TestReport, when: str) -> pytest.TestReport:
    """The report of a case with the place of its scenario, and the time of the case itself."""
    if isinstance(item, CaseItem) and isinstance(report.longrepr, tuple):
        # A skip is the scenario's, and not that of the line here that calls pytest.skip.
        report.longrepr = (str(item.path), 1, report.longrepr[2])
    if isinstance(item, CaseItem) and when == "call" and item.seconds is not None:
        # How long pytest waited depends on what else was running.
        report.duration = item.seconds
    return report
