"""The cases of a run's cells, and the file that defines each."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import Path

from distparity.core.bad_request import BadRequest
from distparity.core.case import Case
from distparity.core.near import unknown
from distparity.core.torch_facts import TorchFacts
from distparity.session import names, selection
from distparity.session.cell import Cell
from distparity.session.options import Options

__all__ = ["DEFAULT_WORLD_SIZES", "MOST_CPU_RANKS", "CaseList", "asked_for", "named_sizes"]

DEFAULT_WORLD_SIZES = (2, 4)
#: The most ranks on one machine's CPU; a larger number is probably a typing error.
MOST_CPU_RANKS = 64


class CaseList:
    """The cases of every cell; raises :class:`BadRequest` for requests this machine cannot serve."""

    def __init__(self, torch: TorchFacts, cells: Iterable[Cell], options: Options) -> None:
        self._by_file: dict[Path, list[Case]] = {}
        sizes = options.world_sizes or ([2] if options.each_pair else list(DEFAULT_WORLD_SIZES))
        cells = list(cells)
        for cell in cells:
            _check_sizes(cell, options.world_sizes)
        found = asked_for(torch, [cell.device for cell in cells], sizes, options)
        for cell in cells:
            cell.cases = [case for case in found if case.device == cell.device]
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


def named_sizes(options: Options) -> set[int]:
    """The world sizes in the ids of cases that a person asked for, unless world sizes were asked for.

    A case with more ranks than the device has is told as such; one with more than
    :data:`MOST_CPU_RANKS` does not exist.
    """
    if options.world_sizes:
        return set()
    found = {int(size) for one in options.cases for size in re.findall(r"-ws([1-9]\d*)-", one)}
    return {size for size in found if size <= MOST_CPU_RANKS}


def _check_sizes(cell: Cell, sizes: Iterable[int]) -> None:
    most = cell.found.most_ranks
    bound = MOST_CPU_RANKS if most is None else most
    for size in sizes:
        if size > bound:
            raise BadRequest(
                f"world size {size}: {cell.device} supports at most {bound} ranks here"
            )


def _nothing(torch: TorchFacts, device: str, sizes: list[int], options: Options) -> str:
    """Why a request has no case."""
    only = f" --scenario {','.join(options.scenarios)}" if options.scenarios else ""
    what = f"--select {options.select}{only}"
    known = selection.cases(options.select, torch, device, range(1, 9), options.scenarios)
    others = sorted({case.world_size for case in known} - {*sizes})
    if not others:
        return f"{what}: it has no case"
    return f"{what}: it has no case with {_or(sizes)} ranks, but with {_or(others)}"


def _or(sizes: list[int]) -> str:
    return " or ".join(map(str, sizes))


def asked_for(
    torch: TorchFacts, devices: list[str], sizes: list[int], options: Options
) -> list[Case]:
    """The selected cases on these devices, or the named ones; raises :class:`BadRequest`."""

    def cases(select: str, sizes: list[int], scenarios: list[str] | None) -> list[Case]:
        found = (selection.cases(select, torch, one, sizes, scenarios) for one in devices)
        return list(itertools.chain.from_iterable(found))

    known = options.scenarios
    every = sorted({*sizes, *named_sizes(options)})
    ids = {*options.cases}
    # Most requests name ids, and of twenty thousand cases those of a few scenarios can have them.
    few = {one.partition("/")[0] for one in ids}.intersection(
        torch.files if known is None else known
    )
    named = (
        [case for case in cases(selection.EVERY, every, [*few]) if case.id in ids] if few else []
    )
    if ids and ids == {case.id for case in named}:
        return named
    found = cases(options.select, sizes, known)
    if options.cases:
        return _chosen_by(options.cases, found, cases(selection.EVERY, every, known), torch)
    if devices and not found:
        raise BadRequest(_nothing(torch, devices[0], sizes, options))
    return found


def _chosen_by(
    wanted: Iterable[str], selected: list[Case], full: list[Case], torch: TorchFacts
) -> list[Case]:
    """The cases with these ids, or that match these patterns; raises :class:`BadRequest`.

    A case that is named by its id may be in any selection. A name of a group, and a pattern, stand for
    the ``selected`` cases, or for any if none of those match.
    """
    exact: dict[str, list[Case]] = {}
    groups: dict[str, list[Case]] = {}
    places = {
        name: "/".join(filter(None, [family, name])) for name, family in torch.families.items()
    }
    chosen = set(selected)
    for case in full:
        own, above = names.names_of(places[case.scenario], case.scenario, case.name, case.device)
        for name in own:
            exact.setdefault(name, []).append(case)
        for name in above:
            groups.setdefault(name, []).append(case)
    found: dict[Case, None] = {}
    for one in wanted:
        every = exact.get(one)
        if every is None:
            alike = [name for name in (*exact, *groups) if fnmatchcase(name, one)]
            every = [case for name in alike for case in (exact.get(name) or groups[name])]
            every = [case for case in every if case in chosen] or every
        if not every:
            known = [*groups, *(case.id for case in full)]
            raise unknown("case", one, known, "`distparity list` has the ids")
        found.update(dict.fromkeys(every))
    # In the order of a run, whatever the order of the words.
    return [case for case in full if case in found]
