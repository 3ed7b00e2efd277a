"""The names that a person can type, checked before torch is imported.

They come from the suite's files. A name that ``--include`` or a plug-in may define is not refused here.
"""

from __future__ import annotations

import hashlib
import importlib.util
import pkgutil
import re
from collections.abc import Collection, Iterable
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

from distparity.core.bad_request import BadRequest
from distparity.core.near import near, unknown
from distparity.drawing.grammar import Draw, NoSentence, is_drawn
from distparity.expectations import Names

__all__ = [
    "check_cases",
    "check_module",
    "check_mutants",
    "check_scenarios",
    "digest",
    "names_of",
]

_PACKAGE = Path(__file__).parents[1]
_ID = re.compile(r"(?P<scenario>[^/]+)/(?P<strategy>[^/]+)-ws\d+-[^/]+")
_MUTANT = re.compile(r"^    name = \"(\w+)\"", re.MULTILINE)


def names_of(place: str, scenario: str, name: str, device: str) -> tuple[set[str], set[str]]:
    """The names of one case, and those of the groups that it is in.

    ``place`` is ``family/scenario``. pytest's node id is ``place::name-device``.
    """
    family = place.partition("/")[0]
    own = {
        f"{start}{name}{end}"
        for start in (f"{scenario}/", f"{place}::")
        for end in ("", f"-{device}")
    }
    return own, {scenario, place, family}


def check_cases(patterns: Iterable[str]) -> None:
    """Refuse a case that no torch can have; raises :class:`BadRequest`."""
    files = [*_PACKAGE.glob("scenarios/*/[!_]*.py"), *_PACKAGE.glob("operations/*/[!_]*.py")]
    places = {path.stem: f"{path.parent.name}/{path.stem}" for path in files}
    groups = [*places, *places.values(), *dict.fromkeys(path.parent.name for path in files)]
    strategies = Names.of_files().strategies
    for pattern in patterns:
        if re.search(r"[*?\[]", pattern):
            continue
        if is_drawn(pattern):
            _check_drawn(pattern, strategies)
            continue
        place, _, name = pattern.partition("::")
        found = _ID.fullmatch(f"{place.rpartition('/')[2]}/{name}" if name else pattern)
        if found is None and pattern not in groups:
            scenario, _, strategy = pattern.partition("/")
            if scenario in places and strategy in strategies:
                raise BadRequest(
                    f"unknown case {pattern!r}: an id is SCENARIO/STRATEGY-wsN-DTYPE; all of these "
                    f"are '{pattern}-ws*'"
                )
            raise unknown("case", pattern, groups, "`distparity list` has the ids")
        for part, known in (("scenario", places), ("strategy", strategies)):
            if found is not None and found[part] not in known:
                meant = [pattern.replace(found[part], one, 1) for one in near(found[part], known)]
                raise unknown("case", pattern, meant or groups, "`distparity list` has the ids")


def _check_drawn(pattern: str, strategies: Collection[str]) -> None:
    scenario, _, name = pattern.partition("/")
    try:
        Draw.of(scenario)
    except NoSentence as error:
        raise BadRequest(str(error)) from None
    strategy = name.partition("-")[0]
    if name and strategy not in strategies:
        raise unknown("strategy", strategy, strategies, "docs/strategies.md has the names")


def check_scenarios(scenarios: Iterable[str]) -> None:
    """Refuse a scenario or operation that does not exist; raises :class:`BadRequest`."""
    known = Names.of_files().scenarios
    for one in scenarios:
        if one not in known:
            raise unknown("scenario", one, sorted(known), "docs/scenarios.md has the names")


def check_mutants(mutants: Iterable[str]) -> None:
    """Refuse a deliberate fault that does not exist; raises :class:`BadRequest`."""
    texts = [path.read_text("utf-8") for path in sorted((_PACKAGE / "mutants").glob("*.py"))]
    known = [name for text in texts for name in _MUTANT.findall(text)]
    for one in mutants:
        if one not in known:
            raise unknown("mutant", one, known, f"known: {', '.join(known)}")


def check_module(option: str, name: str) -> None:
    """Refuse a module that cannot be found, without importing any; raises :class:`BadRequest`."""
    top, here = name.partition(".")[0], str(Path.cwd())
    try:
        there = _top(top)
    except ValueError:
        # It is loaded, and does not say from where.
        return
    if there is None:
        known = [one.name for one in (*pkgutil.iter_modules([here]), *pkgutil.iter_modules())]
        raise unknown(f"module of {option}", name, known, "it must be installed or in this folder")


def _top(name: str) -> ModuleSpec | None:
    return importlib.util.find_spec(name) or PathFinder.find_spec(name, [str(Path.cwd())])


def digest(name: str) -> str:
    """A digest of a module's own file, or of the files in its folder if it is a package.

    It is found without importing anything; empty if it has no such file. Other modules that it imports
    have no part in the digest.
    """
    top, *rest = name.split(".")
    try:
        there = _top(top)
    except ValueError:
        there = None
    if there is None:
        return ""
    origin = Path(there.origin or "")
    places = [Path(place, *rest) for place in there.submodule_search_locations or ()]
    files = [path for place in places for path in sorted(place.glob("*.py"))]
    files += [place.with_suffix(".py") for place in places] if rest else [origin]
    read = [path.read_bytes() for path in dict.fromkeys(files) if path.is_file()]
    return hashlib.sha256(b"\0".join(read)).hexdigest()[:12] if read else ""
