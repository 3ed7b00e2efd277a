"""One cell of the matrix during a run: this torch on one device."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from distparity.core.case import Case
from distparity.core.naming import cell_name
from distparity.core.outcome import Outcome, Status
from distparity.core.torch_facts import DeviceFacts
from distparity.results.journal import Journal

__all__ = ["GONE", "Cell"]

#: The outcome of a case that has no result when the run ends.
GONE = Outcome(Status.MISSING)


@dataclass
class Cell:
    """This torch on one device: its facts, its cases, its side file."""

    torch: str
    device: str
    #: What the probe found out about the device.
    found: DeviceFacts
    #: How ranks share one device; empty if they do not. A shared device is a cell of its own.
    sharing: str = ""
    #: One of :data:`distparity.session.options.ARITHMETICS`: each is another cell.
    arithmetic: str = "exact"
    #: See :attr:`distparity.session.options.Options.marks` and ``axes``.
    marks: tuple[str, ...] = ()
    axes: Mapping[str, str] = field(default_factory=dict)
    cases: list[Case] = field(default_factory=list)
    journal: Journal | None = None
    outcomes: dict[str, Outcome] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The second half of the cell's name."""
        shared = bool(self.sharing)
        return cell_name(self.device, shared=shared, arithmetic=self.arithmetic, marks=self.marks)

    def red(self, *, allow_flaky: bool) -> list[str]:
        """The ids of the cases that make the run fail, including those without a result."""
        if self.journal is None:
            return []
        found = {case.id: self.outcomes.get(case.id, GONE).status for case in self.cases}
        fine = {Status.FLAKY} if allow_flaky else set()
        return [case for case, status in found.items() if status.bad and status not in fine]

    @property
    def counts(self) -> dict[str, int]:
        """How many cases have each status, as in the XML, including those without a result.

        Empty if no cases were declared.
        """
        if self.journal is None:
            return {}
        found = [self.outcomes.get(case.id, GONE).status.value for case in self.cases]
        return dict(Counter(found))
