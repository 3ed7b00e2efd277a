"""The suite as its users run it: how many ranks at once are best, and what is lost between cases.

"busy" is the part of the time in which the places of ranks were occupied, by the ranks' own clocks:
wall time is 1 / busy times what the cases take in their ranks, divided by what runs at once.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from _measure import Series, Table, arguments, environment, publish, wall

DEFAULT = "default (as many as cores)"


def main() -> None:
    parser = arguments(__doc__, repeat=1)
    parser.add_argument("--worlds", nargs="*", default=["", "3", "4", "6"], help="ranks at once")
    parser.add_argument("--select", default="default")
    parser.add_argument("--marker", default="", help="what pytest's -m takes")
    given = parser.parse_args()
    table = Table("suite", ["ranks at once", "cases", "start to end, s", "busy", "not right"])
    found: dict[str, list[tuple[float, float, int, int]]] = {}
    for _ in range(given.repeat):
        for ranks in given.worlds:
            found.setdefault(ranks, []).append(_run(ranks, given.select, given.marker))
            print(ranks or DEFAULT, found[ranks][-1], flush=True)
    for ranks, runs in found.items():
        walls, busy, cases, wrong = zip(*runs, strict=True)
        table.add(ranks or DEFAULT, cases[0], Series(list(walls)), Series(list(busy)), max(wrong))
    what = f"--select {given.select}" + (f" -m {given.marker!r}" if given.marker else "")
    table.notes = [f"`distparity run --device cpu {what}`, {given.repeat} alternated round(s)."]
    publish(table, given.markdown)


def _run(ranks: str, select: str, marker: str) -> tuple[float, float, int, int]:
    """Wall seconds, the busy part, the cases, and how many had a bad outcome."""
    with tempfile.TemporaryDirectory(prefix="suite-") as name:
        command = ["-m", "distparity", "run", "-q", "--device=cpu", f"--select={select}"]
        command += ["-c/dev/null", "--cell=bench", f"--report-dir={name}", "-p", "no:cacheprovider"]
        command += [f"--worlds={ranks}"] * bool(ranks) + ["-m", marker] * bool(marker)
        seconds = wall(command, environment(), Path(name), failing={1})
        side = Path(name, "junit-bench-cpu.jsonl").read_text().splitlines()
    lines = [json.loads(line) for line in side]
    outcomes = [line["outcome"]["status"] for line in lines if "outcome" in line]
    bad = sum(status in ("failed", "error", "crash", "timeout") for status in outcomes)
    return seconds, float(lines[-1]["facts"]["ranks_busy"]), len(outcomes), bad


if __name__ == "__main__":
    main()
