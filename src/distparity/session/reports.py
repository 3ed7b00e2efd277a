"""What a run writes: the side file of each cell while it runs, and its XML in the end."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from distparity.core.bad_request import BadRequest
from distparity.core.case import Case
from distparity.core.outcome import Outcome
from distparity.core.redact import Redactor
from distparity.core.torch_facts import TorchFacts
from distparity.results import fallback, junit_writer, pairs
from distparity.results.journal import Journal, Taken, place
from distparity.session import resume, wording
from distparity.session.cell import GONE, Cell
from distparity.session.options import Options

__all__ = ["Reports"]


class Reports:
    """The files of a run's cells. Everything that is written to them is redacted."""

    def __init__(self, options: Options, redactor: Redactor) -> None:
        self._options = options
        self._redactor = redactor
        #: What went wrong with the files; if there is anything, the run fails.
        self.complaints: list[str] = []
        #: What else the terminal shows at the end.
        self.notes: list[str] = []

    def leave_red(self, cell: str, torch: str, devices: Iterable[str], error: BadRequest) -> None:
        """Write an error into the XML of these devices of a cell that cannot run."""
        options = self._options
        facts = {"torch": torch, **wording.surroundings(options.command, self._redactor)}
        for device in devices:
            try:
                junit_writer.write_broken_cell(
                    *(options.report_dir, cell, device, str(error), error.detail, facts),
                    part=options.part,
                )
            except Taken as taken:
                error.detail = f"{error.detail}\n{taken}".strip()

    def begin(
        self,
        cell: Cell,
        torch: TorchFacts,
        facts: Mapping[str, Any],
        every: Sequence[str],
        *,
        part: bool,
    ) -> Path:
        """Open a cell's side file, and return its path; the cell gets the results of a resumed run.

        ``facts`` are those of the run. ``every`` has the ids of the cases of all shares; ``part`` says
        that the cell has more. Raises :class:`BadRequest` if another run is writing the file.
        """
        options = self._options
        shard = options.shard
        header: dict[str, Any] = {
            "part": part,
            "cell": {"torch": cell.torch, "device": cell.name},
            "facts": {
                **wording.cell_facts(torch, cell),
                "world_sizes": sorted({case.world_size for case in cell.cases}),
                "selection": options.select,
                "declared": len(cell.cases),
                **facts,
                **wording.surroundings(options.command, self._redactor),
            },
            "cases": [case.id for case in cell.cases],
            "allow_flaky": options.allow_flaky,
            "options": options.deciding,
            "about": self._about(cell, torch),
        }
        if shard is not None:
            header["shard"] = {"index": shard.index, "count": shard.count, "of": every}
            header["facts"]["shard"] = str(shard)
        share = "" if shard is None else str(shard)
        path, xml = place(options.report_dir, cell.torch, cell.name, part=part, share=share)
        path.parent.mkdir(parents=True, exist_ok=True)
        header = self._redactor.all(header)
        resumed = self._resume(cell, path, header)
        try:
            cell.journal = Journal(path, xml, header, resumed)
        except Taken as taken:
            raise BadRequest(f"{taken}; give this run another --report-dir or --cell") from None
        if path.parent != options.report_dir:
            whole = options.report_dir / xml.name
            self.notes.append(f"{whole} is unchanged: it has more cases than this run")
        return path

    def _about(self, cell: Cell, torch: TorchFacts) -> dict[str, dict[str, Any]]:
        """What is known about each case before it runs."""
        return {
            case.id: {
                **case.facts,
                "family": torch.families[case.scenario],
                "rerun": wording.rerun([case], self._options, cell.found.replay),
                **wording.sources(torch, case),
            }
            for case in cell.cases
        }

    def _resume(self, cell: Cell, path: Path, header: dict[str, Any]) -> dict[str, Any] | None:
        """Give a cell the results that its side file has, if they are asked for."""
        if not self._options.resume:
            return None
        if self._options.nodes is not None and not path.exists():
            # A launcher starts a run again with the same words.
            self.notes.append(f"{path}: there is nothing to resume; the run begins")
            return None
        cell.outcomes = resume.results(path, header)
        self.notes.append(f"{path}: resumed after {len(cell.outcomes)} results")
        return {"results": len(cell.outcomes), "command": header["facts"]["command"]}

    def keep(self, cell: Cell, case: Case, outcome: Outcome, *, written: bool = True) -> Outcome:
        """Note the outcome of a case, as its files have it; ``written`` is False if they have one."""
        outcome = Outcome.from_json(self._redactor.all(outcome.to_json()))
        cell.outcomes[case.id] = outcome
        if cell.journal is not None and written:
            cell.journal.add(case.id, outcome)
        return outcome

    def end(
        self, cells: Iterable[Cell], reason: str, facts: Mapping[str, Any]
    ) -> tuple[list[Path], bool]:
        """Write the XML of every cell; returns the files, and whether each cell has one.

        If the report folder cannot be written, the files are in another, which :attr:`complaints` names.
        """
        written: list[Path] = []
        saved = True
        for cell in cells:
            if self._options.each_pair:
                ran = ((one.facts, one.status.bad) for one in cell.outcomes.values())
                self.notes += pairs.Matrix.of(ran).lines()
            if cell.journal is not None:
                cell.journal.end(reason, dict(facts))
                path, complaint = fallback.write(cell.journal)
                saved = saved and path is not None
                if path is not None:
                    written.append(path)
                    self.complaints += _disagreement(cell, path)
                self.complaints += [complaint] if complaint else []
        return written, saved


def _disagreement(cell: Cell, xml: Path) -> list[str]:
    """The differences between the XML and the terminal, in words."""
    there = junit_writer.statuses(xml)
    here = {case.id: cell.outcomes.get(case.id, GONE).status.value for case in cell.cases}
    differ = sorted(case for case in {*there, *here} if there.get(case) != here.get(case))
    said = [
        f"{case} is {there.get(case)} in the XML and {here.get(case)} here" for case in differ[:5]
    ]
    return [f"{xml} and this terminal disagree: {'; '.join(said)}"] if said else []
