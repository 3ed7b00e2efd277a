"""Find entries that can never apply, whatever torch and device a run has: they are mistakes.

An entry for another torch or device is not assigned to any case, so that no other check would notice
that it names something that does not exist.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations
from pathlib import Path

from packaging.specifiers import SpecifierSet
from packaging.version import InvalidVersion, Version

from distparity.core import device_kinds
from distparity.core.naming import UPSTREAM
from distparity.core.torch_facts import TorchFacts
from distparity.expectations.entry import Entry
from distparity.expectations.file import Wrong
from distparity.expectations.patterns import among, any_of

__all__ = ["Names", "check"]

_ID = re.compile(
    r"(?P<scenario>[^/]+)/(?P<strategy>.+)-ws(?P<world_size>[1-9]\d*)-(?P<dtype>[^-]+)"
)
_UPSTREAM_ID = re.compile(rf"(?P<scenario>{re.escape(UPSTREAM)}[^/]+)/(?P<strategy>.+)")
#: torch's device types that the device ``accelerator`` may have.
_TYPES = ("mps", "mtia", "maia", "privateuseone")
#: The simulated device of packages/async_device, which the shipped entries name; it need not be installed.
_OWN = ("asim",)
#: The folders with the suite's names: a scenario has the name of its file, and the names of strategies
#: and ways are string literals in the files.
_SCENARIOS = ("scenarios/*/[!_]*.py", "operations/*/[!_]*.py")
_STRATEGIES = ("strategies/*.py", "operations/*.py", "operations/*/*.py")
_TEXT = re.compile(r"\"([a-z]\w*)\"")
#: The ways of generated operations are the keys of a file of data, one a line.
_DATA = "operations/generated/samples.json"
_KEY = re.compile(r"^\"([^\"]+)\": \{", re.MULTILINE)


@dataclass(frozen=True)
class Names:
    """All names that entries can use."""

    devices: Collection[str]
    scenarios: Collection[str]
    #: The names of strategies, and of the ways to call operations.
    strategies: Collection[str]

    @classmethod
    def of(cls, torch: TorchFacts, types: Iterable[str]) -> Names:
        """The names that the installed torch knows, and the types of the available devices."""
        ways = {way for what in torch.operations.values() for way in what.ways}
        return cls(
            {*torch.devices, *types, *_TYPES, *_OWN},
            {*torch.scenarios, *torch.operations},
            {*torch.strategies, *ways},
        )

    @classmethod
    def of_files(cls, own: Iterable[str] = ()) -> Names:
        """The names in the suite's files, which may be too many, and the user's ``own`` names.

        This needs no torch.
        """
        scenarios, strategies = _in_files()
        return cls(
            {*device_kinds.kinds(), *_TYPES, *_OWN, *own},
            {*scenarios, *own},
            {*strategies, *own},
        )


@cache
def _in_files() -> tuple[frozenset[str], frozenset[str]]:
    """The names of scenarios, and those of strategies and of ways, in the suite's files."""
    package = Path(__file__).parents[1]
    data = _KEY.findall((package / _DATA).read_text("utf-8"))
    texts = (path.read_text("utf-8") for glob in _STRATEGIES for path in package.glob(glob))
    return (
        frozenset(path.stem for glob in _SCENARIOS for path in package.glob(glob)),
        frozenset([*data, *(name for text in texts for name in _TEXT.findall(text))]),
    )


def check(entries: Sequence[Entry], names: Names) -> None:
    """Raise :class:`Wrong` for names that do not exist, and for two entries that name one case."""
    for entry in entries:
        for what in _unknown(entry, names):
            raise Wrong(f"{entry.where}: {what}")
    for one, other in combinations(entries, 2):
        both = _in_common(one, other)
        if both is not None and _meet(one, other, names) and one.joined(other) is None:
            raise Wrong(f"{one.where} and {other.where}: two entries for one case: {both}")


def _unknown(entry: Entry, names: Names) -> Iterator[str]:
    """The names in an entry that do not exist, each in words."""
    for pattern in entry.device:
        if not _is_one_of(pattern, names.devices):
            known = ", ".join(sorted(names.devices))
            yield f"unknown device {pattern!r}; known here: {known}"
    if entry.upstream:
        return  # Only a collection of torch's files knows the names of its tests.
    for part in ("scenario", "strategy"):
        known_names = names.scenarios if part == "scenario" else names.strategies
        for pattern in entry.patterns.get(part, ()):
            if not _is_one_of(pattern, known_names):
                yield f"unknown {part} {pattern!r}, with any torch"
    for case in entry.cases:
        found = _ID.fullmatch(case)
        if found is None:
            yield f"{case!r} is not a case id like resume/fsdp2-ws2-float32"
        elif found["scenario"] not in names.scenarios or found["strategy"] not in names.strategies:
            yield f"unknown case {case!r}, with any torch"


def _is_one_of(pattern: str, names: Collection[str]) -> bool:
    return any_of(names, pattern.removeprefix("!"))


def _in_common(one: Entry, other: Entry) -> str | None:
    """A case that both entries name, as far as that is known without the list of cases."""
    if one.upstream != other.upstream:
        return None
    if one.patterns and one.patterns == other.patterns:
        return ", ".join(f"{part} {' '.join(own)}" for part, own in one.patterns.items())
    for first, second in ((one, other), (other, one)):
        for case in first.cases:
            if case in second.cases or (second.patterns and _means(second, case)):
                return case
    return None


def _means(entry: Entry, case: str) -> bool:
    found = _UPSTREAM_ID.fullmatch(case) or _ID.fullmatch(case)
    return found is not None and all(
        among(found[part], own) for part, own in entry.patterns.items()
    )


def _meet(one: Entry, other: Entry, names: Names) -> bool:
    """Whether both entries can apply to one cell."""
    return (
        any(among(device, one.device) and among(device, other.device) for device in names.devices)
        and _some(one.torch & other.torch)
        # We cannot know whether two facts exclude each other.
        and (one.facts.items() <= other.facts.items() or other.facts.items() <= one.facts.items())
    )


def _some(versions: SpecifierSet) -> bool:
    """Whether any version is in a range: it tries the ends, the next after each, and the first."""
    candidates = {Version("0")}
    for specifier in versions:
        try:
            end = Version(specifier.version.removesuffix(".*"))
        except InvalidVersion:
            continue
        candidates |= {end, Version(f"{end.base_version}.0.0.1")}
    return any(versions.contains(version, prereleases=True) for version in candidates)
