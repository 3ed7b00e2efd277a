"""Run the programs that show torch's defects of order, and hold them against the table in the docs.

    nox -s defects-2.13
    python ci/order_defects.py --write

Each program under defects/order/ runs in each of the modes ``eager``, ``late`` and
``side`` with the torch that is here. What they find is a column of the table in docs/order.md. The exit
code is 1 where the table says something else; ``--write`` puts the column there instead. Where the
device cannot be built, the fact is told and nothing is run.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

from distparity_async import build
from packaging.version import Version

ROOT = Path(__file__).parents[1]
PROGRAMS = ROOT / "defects/order"
PAGE = ROOT / "docs/order.md"
BEGIN, END = "<!-- defects: begin -->", "<!-- defects: end -->"
MODES = ("eager", "late", "side")
#: Seconds that a program may take in a mode: most of it is the import of torch.
LIMIT = 300.0
SAYS = re.compile(r"^(?:defect|right): .*: (wrong|right) .*, (\d+) pairs of accesses", re.MULTILINE)

#: By program and release: what was found.
Table = dict[str, dict[str, str]]


def read(page: str) -> Table:
    """The table of a page: what each program has found with each release."""
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in page.partition(BEGIN)[2].partition(END)[0].strip().splitlines()
        if not line.startswith("|---")
    ]
    if not rows:
        return {}
    (_, *releases), *found = rows
    return {
        name.partition("]")[0].strip("["): dict(zip(releases, cells, strict=True))
        for name, *cells in found
    }


def written(page: str, table: Table) -> str:
    """The page with that table between its marks; raises ``ValueError`` where it has none."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page has no {BEGIN} and {END}")
    releases = sorted({one for found in table.values() for one in found}, key=Version)
    lines = [f"| program | {' | '.join(releases)} |", f"|---|{'---|' * len(releases)}"]
    for name, found in sorted(table.items()):
        cells = [found.get(release, "not run") for release in releases]
        link = f"[{name}](../{PROGRAMS.relative_to(ROOT)}/{name}.py)"
        lines.append(f"| {link} | {' | '.join(cells)} |")
    return "\n".join([before + begin, *lines, end + after])


def cell(outputs: Mapping[str, str]) -> str:
    """What a program has found, from what it printed in each mode."""
    said = {mode: SAYS.search(output) for mode, output in outputs.items()}
    broken = [mode for mode, one in said.items() if one is None]
    if broken:
        return f"fails in {', '.join(broken)}"
    pairs = max(int(one[2]) for one in said.values() if one is not None)
    wrong = [mode for mode, one in said.items() if one is not None and one[1] == "wrong"]
    found = [f"{pairs} pairs"] * bool(pairs) + [f"wrong in {', '.join(wrong)}"] * bool(wrong)
    return "; ".join(found) or "right"


def run(program: Path, mode: str) -> str:
    environment = {**os.environ, "ASIM_MODE": mode, "TORCH_DEVICE_BACKEND_AUTOLOAD": "0"}
    words = [sys.executable, str(program)]
    try:
        done = subprocess.run(
            words, capture_output=True, text=True, check=False, timeout=LIMIT, env=environment
        )
    except subprocess.TimeoutExpired:
        return f"no answer in {LIMIT:g} s"
    return done.stdout or done.stderr


def main() -> int:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--write", action="store_true", help="write the column of this torch")
    parser.add_argument("--page", type=Path, default=PAGE)
    parser.add_argument("programs", nargs="*", help="parts of their names; all by default")
    given = parser.parse_args()
    reason = build.absent()
    if reason is not None:
        print(f"not run: {reason}")
        return 0
    page = given.page.read_text()
    table, release = read(page), ".".join(version("torch").split(".")[:2])
    differs = []
    for program in sorted(PROGRAMS.glob("*.py")):
        if given.programs and not any(part in program.stem for part in given.programs):
            continue
        outputs = {mode: run(program, mode) for mode in MODES}
        found = cell(outputs)
        before = table.setdefault(program.stem, {}).get(release, "not run")
        print(f"{program.stem}: {found}", flush=True)
        if found.startswith("fails"):
            print(*(output.strip()[-2000:] for output in outputs.values()), sep="\n")
        if found != before:
            differs.append(f"{program.stem}: {given.page.name} says: {before}")
        table[program.stem][release] = found
    if given.write:
        given.page.write_text(written(page, table))
        return 0
    print(*differs, sep="\n")
    return int(bool(differs))


if __name__ == "__main__":
    raise SystemExit(main())
