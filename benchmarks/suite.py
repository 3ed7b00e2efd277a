"""The suite as its users run it: how many ranks at once are best, and what is lost between cases.

"busy" is the part of the time in which the places of ranks were occupied, by the ranks' own clocks:
wall time is 1 / busy times what the cases take in their ranks, divided by what runs at once. "cores"
is the part of the time in which cores were busy with the suite, its start and its end included.
"""

from __future__ import annotations

import json
import os
import resource
import tempfile
from pathlib import Path

from _measure import Series, Table, arguments, environment, publish, wall

DEFAULT = "default (four per core)"


def main() -> None:
    parser = arguments(__doc__, repeat=1)
    parser.add_argument("--worlds", nargs="*", default=["", "2", "4", "16"], help="ranks at once")
    parser.add_argument("--select", default="default")
    parser.add_argument("--marker", default="", help="what pytest's -m takes")
    given = parser.parse_args()
    table = Table("suite", ["ranks at once", "cases", "start to end, s", "busy", "cores", "failed"])
    found: dict[str, list[tuple[float, float, float, int, int]]] = {}
    for _ in range(given.repeat):
        for ranks in given.worlds:
            found.setdefault(ranks, []).append(_run(ranks, given.select, given.marker))
            print(ranks or DEFAULT, found[ranks][-1], flush=True)
    for ranks, runs in found.items():
        *measured, cases, wrong = zip(*runs, strict=True)
        series = (Series(list(values)) for values in measured)
        table.add(ranks or DEFAULT, cases[0], *series, max(wrong))
    what = f"--select {given.select}" + (f" -m {given.marker!r}" if given.marker else "")
    table.notes = [f"`distparity run --device cpu {what}`, {given.repeat} alternated round(s)."]
    publish(table, given.markdown)


def _run(ranks: str, select: str, marker: str) -> tuple[float, float, float, int, int]:
    """Wall seconds, the busy parts, the cases, and how many had a bad outcome."""
    with tempfile.TemporaryDirectory(prefix="suite-") as name:
        command = ["-m", "distparity", "run", "-q", "--device=cpu", f"--select={select}"]
        command += ["-c/dev/null", "--cell=bench", f"--report-dir={name}", "-p", "no:cacheprovider"]
        command += [f"--worlds={ranks}"] * bool(ranks) + ["-m", marker] * bool(marker)
        before = _cpu_seconds()
        seconds = wall(command, environment(), Path(name), failing={1})
        cores = (_cpu_seconds() - before) / seconds / len(os.sched_getaffinity(0))
        side = Path(name, "junit-bench-cpu.jsonl").read_text().splitlines()
    lines = [json.loads(line) for line in side]
    outcomes = [line["outcome"]["status"] for line in lines if "outcome" in line]
    bad = sum(status in ("failed", "error", "crash", "timeout") for status in outcomes)
    return seconds, float(lines[-1]["facts"]["ranks_busy"]), cores, len(outcomes), bad


def _cpu_seconds() -> float:
    """What all programs that were waited for have taken, and those that they have waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
