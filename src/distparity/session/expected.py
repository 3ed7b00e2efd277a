"""What is expected to fail in a run: the entries, and the cases that each is about."""

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
    """The entries of a run's files, beside the cases of its cells once those are known."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._found = expectations.Expectations()
        self._entries: dict[Case, expectations.Entry] = {}

    @property
    def files(self) -> tuple[str, ...]:
        """The files that were read, for the XML."""
        return self._found.files

    def read(self) -> BadRequest | None:
        """Read the files; returns what is wrong with them."""
        shipped = [expectations.SHIPPED] if self._options.known_defects else []
        try:
            self._found = expectations.load([*shipped, *self._options.expectations])
        except expectations.Wrong as error:
            return BadRequest(str(error))
        return None

    def assign(self, torch: TorchFacts, cells: list[Cell]) -> None:
        """Find the cases that are expected to fail; raises :class:`BadRequest`."""
        types = [cell.found.type for cell in cells]
        try:
            expectations.check(self._found.entries, expectations.Names.of(torch, types))
            for cell in cells:
                self._entries |= self._of_cell(torch, cell)
        except expectations.Wrong as error:
            raise BadRequest(str(error)) from None

    def of(self, case: Case) -> expectations.Entry | None:
        """The entry that is about a case; None where it is expected to pass."""
        return self._entries.get(case)

    def _of_cell(self, torch: TorchFacts, cell: Cell) -> dict[Case, expectations.Entry]:
        # A world of any size can be asked for: an entry that names one does not miss its cases.
        named = [entry.world_sizes for entry in self._found.entries]
        sizes = sorted({*DEFAULT_WORLD_SIZES, *self._options.world_sizes}.union(*named))
        if cell.found.most_ranks is None:
            sizes = [size for size in sizes if size <= MOST_CPU_RANKS]
        every = selection.cases("full", torch, cell.device, sizes)
        names = (cell.device, cell.found.type)
        here = expectations.Surroundings(torch.torch, names, cell_facts(torch, cell))
        entries = expectations.assign(self._found.entries, here, every)
        return {case: entries[case.id] for case in every if case.id in entries}
