"""Cases that run while an earlier one is asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from distparity.core.case import Case
from distparity.core.outcome import Outcome
from distparity.session.training_case import JUDGE
from distparity.worlds.scheduler import Job, Scheduler
from distparity.worlds.world import Spec

__all__ = ["Ahead"]


class Ahead:
    """The queue of the cases that have not begun, and the outcomes of those that have.

    ``job`` makes the job of a case. A case that is asked for begins at once; the others begin in their
    order, as soon as the scheduler has room.
    """

    def __init__(
        self, scheduler: Scheduler, cases: Iterable[Case], job: Callable[[Case], Job[Outcome]]
    ) -> None:
        self._scheduler = scheduler
        self._job = job
        self.cases = list(cases)
        self._handles: dict[Case, Any] = {}

    def prepare(self) -> None:
        """Start the ranks of the first case while its oracle, which comes first, is trained."""
        if self.cases:
            first = self.cases[0]
            self._scheduler.prepare(JUDGE)
            self._scheduler.prepare(Spec(first.device, first.world_size))

    def outcome(self, case: Case) -> Outcome:
        """Wait for the outcome of a case; raises what its job raised, or what the scheduler did."""
        if case not in self._handles:
            if case in self.cases:
                self.cases.remove(case)
            self._begin(case)
        handle = self._handles[case]
        while not handle.finished:
            while self.cases and self._scheduler.idle:
                self._begin(self.cases.pop(0))
            self._scheduler.turn()
        found: Outcome = self._scheduler.result(handle)
        return found

    def _begin(self, case: Case) -> None:
        self._handles[case] = self._scheduler.start(self._job(case))
