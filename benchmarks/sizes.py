"""The table of collectives over sizes, from the XML of runs of ``--select sizes``, side by side.

``python benchmarks/sizes.py reports/junit-2.8-cpu.xml reports/junit-2.13-cpu.xml --markdown docs/sizes.md``
has a row for each case in float32, with what it says of its first reduction. The notes count all cases.
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

from _measure import Table, publish
from junitparser import xunit2 as junitparser


def read(path: Path) -> tuple[str, dict[str, dict[str, str]], str]:
    """The cell of a file, the properties of each of its cases by id, and where and when it ran."""
    (suite,) = junitparser.JUnitXml.fromfile(str(path))
    about = {one.name.removeprefix("distparity."): one.value for one in suite.properties()}
    cases = {
        f"{case.classname.rpartition('.')[2]}/{case.name}": {
            one.name: one.value for one in case.properties()
        }
        for case in suite
    }
    told = ", ".join([f"torch {about['torch']}", about["platform"], suite.timestamp[:10]])
    return path.stem.removeprefix("junit-"), cases, told


def cell(facts: dict[str, str] | None) -> str:
    if facts is None:
        return "not there"
    first = facts.get("sizes", "").partition("; ")[0].partition(": ")[2]
    return f"{facts['status']}: {first}" if first else facts["status"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", type=Path, nargs="+", metavar="XML")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="put the table in FILE")
    given = parser.parse_args()
    found = list(map(read, given.files))
    cells = {name: cases for name, cases, _ in found}
    table = Table("sizes", ["case", *cells], measured=False)
    names = dict.fromkeys(name for cases in cells.values() for name in cases)
    for name in names:
        if name.endswith("-float32"):
            table.add(f"`{name}`", *(cell(cases.get(name)) for cases in cells.values()))
    for name, cases, about in found:
        counts = Counter(facts["status"] for facts in cases.values())
        told = ", ".join(f"{count} {status}" for status, count in counts.items())
        table.notes.append(f"{name}, all dtypes: {told} ({about})")
    publish(table, given.markdown)


if __name__ == "__main__":
    main()
