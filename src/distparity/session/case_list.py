"""The cases of a run's cells, and the file that defines each."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from distparity.core.bad_request import BadRequest
from distparity.core.case import Case
from distparity.core.torch_facts import TorchFacts
from distparity.session import selection
from distparity.session.cell import Cell
from distparity.session.options import Options

__all__ = ["DEFAULT_WORLD_SIZES", "MOST_CPU_RANKS", "CaseList"]

DEFAULT_WORLD_SIZES = (2, 4)
#: The most ranks on one machine's CPU; a larger number is probably a typing error.
MOST_CPU_RANKS = 64


class CaseList:
    """The cases of every cell; raises :class:`BadRequest` for requests this machine cannot serve."""

    def __init__(self, torch: TorchFacts, cells: Iterable[Cell], options: Options) -> None:
        self._by_file: dict[Path, list[Case]] = {}
        sizes = options.world_sizes or list(DEFAULT_WORLD_SIZES)
        # A case that is requested by its id may be in any selection.
        select = "full" if options.cases else options.select
        cells = list(cells)
        for cell in cells:
            _check_sizes(cell, options.world_sizes)
            cell.cases = selection.cases(select, torch, cell.device, sizes, options.scenarios)
        if options.cases:
            _only(cells, options.cases)
        self.files = {name: Path(file) for name, file in torch.files.items()}
        for cell in cells:
            for case in cell.cases:
                self._by_file.setdefault(self.files[case.scenario], []).append(case)
        self._folders = {folder for file in self._by_file for folder in file.parents}

    def of(self, file: Path) -> list[Case]:
        """The cases of the scenario that ``file`` defines, in all cells; empty for any other file."""
        return self._by_file.get(file, [])

    def __contains__(self, case: Case) -> bool:
        return case in self._by_file.get(self.files.get(case.scenario, Path()), [])

    def leads_to_cases(self, path: Path) -> bool:
        """Whether ``path`` defines a scenario that has cases here, or is a folder above one."""
        return path in self._by_file or path in self._folders


def _check_sizes(cell: Cell, sizes: Iterable[int]) -> None:
    most = cell.found.most_ranks
    bound = MOST_CPU_RANKS if most is None else most
    for size in sizes:
        if size > bound:
            raise BadRequest(
                f"world size {size}: {cell.device} supports at most {bound} ranks here"
            )


def _only(cells: list[Cell], wanted: list[str]) -> None:
    """Keep only the cases with these ids."""
    known = {case.id for cell in cells for case in cell.cases}
    for one in wanted:
        if one not in known:
            raise BadRequest(f"unknown case {one!r}; --collect-only lists the known ones")
    for cell in cells:
        cell.cases = [case for case in cell.cases if case.id in wanted]
