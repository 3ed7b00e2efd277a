"""The expectations of a run: its entries, and the cases that each entry names."""

from __future__ import annotations

from distparity import expectations
from distparity.core.bad_request import BadRequest
from distparity.core.case import Case
from distparity.core.torch_facts import TorchFacts
from distparity.session import selection
from distparity.session.case_list import DEFAULT_WORLD_SIZES, MOST_CPU_RANKS
from distparity.session.cell import Cell
from distparity.session.options import Options
from distparity.session.wording import cell_facts

__all__ = ["Expected"]


class Expected:
    """The entries of a run's files; once the cells are known, also the entry of each case."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._found = expectations.Expectations()
        self._entries: dict[Case, expectations.Entry] = {}

    @property
    def files(self) -> tuple[str, ...]:
        """The files that were read, as the XML names them."""
        return self._found.files

    def read(self) -> BadRequest | None:
        """Read the files; returns the error if one of them is invalid."""
        shipped = [expectations.SHIPPED] if self._options.known_defects else []
        try:
            self._found = expectations.load([*shipped, *self._options.expectations])
        except expectations.Wrong as error:
            return BadRequest(str(error))
        return None

    def assign(self, torch: TorchFacts, cells: list[Cell]) -> None:
        """Find the entry of each case; raises :class:`BadRequest` for an entry that is wrong here."""
        types = [cell.found.type for cell in cells]
        try:
            expectations.check(self._found.entries, expectations.Names.of(torch, types))
            for cell in cells:
                self._entries |= self._of_cell(torch, cell)
        except expectations.Wrong as error:
            raise BadRequest(str(error)) from None

    def of(self, case: Case) -> expectations.Entry | None:
        """The entry that names a case; None if the case is expected to pass."""
        return self._entries.get(case)

    def _of_cell(self, torch: TorchFacts, cell: Cell) -> dict[Case, expectations.Entry]:
        # Include the world sizes that entries name: a user can request any size, and an entry
        # for such a size must not count as one that matches nothing.
        own = [entry for entry in self._found.entries if not entry.upstream]
        named = [entry.world_sizes for entry in own]
        sizes = sorted({*DEFAULT_WORLD_SIZES, *self._options.world_sizes}.union(*named))
        if cell.found.most_ranks is None:
            sizes = [size for size in sizes if size <= MOST_CPU_RANKS]
        every = selection.cases(selection.EVERY, torch, cell.device, sizes)
        names = (cell.device, cell.found.type)
        here = expectations.Surroundings(torch.torch, names, cell_facts(torch, cell))
        entries = expectations.assign(own, here, every, self._found.pins)
        scenarios = {case.partition("/")[0] for case in entries}
        of_them = (case for case in every if case.scenario in scenarios)
        return {case: entries[case.id] for case in of_them if case.id in entries}
