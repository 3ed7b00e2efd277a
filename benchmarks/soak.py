"""Memory and descriptors of a run's processes over thousands of cases: do they stay flat?

One run with rounds (``--repeat``), whose processes are looked at every few seconds. The table has, for
each kind of process, its anonymous memory and its open descriptors after a fifth of the time, and at the
end: the largest of its processes.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from _measure import Table, environment, publish

#: Seconds between two looks.
EVERY = 2.0
KINDS = ("controller", "fork server", "ranks")
#: By kind of process: MiB of anonymous memory, and descriptors, of the largest.
Look = dict[str, tuple[float, int]]


def look(controller: int) -> Look:
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(folder.name)] = int(
                (folder / "stat").read_text().rpartition(")")[2].split()[1]
            )
        except OSError:
            continue
    servers = [pid for pid, parent in parents.items() if parent == controller]
    ranks = [pid for pid, parent in parents.items() if parent in servers]
    found: Look = {}
    for kind, pids in zip(KINDS, ([controller], servers, ranks), strict=True):
        each = [size for size in map(_size, pids) if size is not None]
        if each:
            found[kind] = max(size[0] for size in each), max(size[1] for size in each)
    return found


def _size(pid: int) -> tuple[float, int] | None:
    """MiB of anonymous memory and open descriptors; None if the process is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
        descriptors = len(list(Path(f"/proc/{pid}/fd").iterdir()))
    except OSError:
        return None
    memory = re.search(r"^RssAnon:\s+(\d+) kB", status, re.MULTILINE)
    return (int(memory[1]) / 1024, descriptors) if memory else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=10_000, help="how many to run at least")
    parser.add_argument("--scenario", default="basic")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="put the table in FILE")
    given = parser.parse_args()
    words = [*("--device", "cpu", "--world-size", "2", "--scenario", given.scenario)]
    command = [sys.executable, "-m", "distparity"]
    listed = subprocess.run(
        [*command, "list", *words[4:]], capture_output=True, text=True, check=True
    )
    each = sum("-ws2-" in line for line in listed.stdout.splitlines())
    count = -(-given.cases // each)
    with tempfile.TemporaryDirectory() as folder:
        started = time.monotonic()
        run = subprocess.Popen(
            [*command, "run", "-q", *words, "--repeat", str(count), "--shuffle=1"],
            cwd=folder,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        seen = []
        while run.poll() is None:
            seen.append((time.monotonic() - started, look(run.pid)))
            time.sleep(EVERY)
        seconds = time.monotonic() - started
        assert run.stdout is not None
        said = run.stdout.read()
    print(said[-1500:])
    whole = [(at, found) for at, found in seen if len(found) == len(KINDS)]
    early = next(found for at, found in whole if at > seconds / 5)
    late = whole[-1][1]
    table = Table(
        "soak", ["process", "memory at 1/5", "at the end", "descriptors at 1/5", "at the end"]
    )
    for kind in KINDS:
        memory, descriptors = ([found[kind][part] for found in (early, late)] for part in (0, 1))
        table.add(kind, *(f"{one:.1f} MiB" for one in memory), *descriptors)
    made = f"{count} rounds of {each} cases ({given.scenario}, 2 ranks) in {seconds:.0f} s"
    table.notes = [
        f"{made}, exit code {run.returncode}",
        "anonymous memory, and descriptors, of the largest process of its kind",
    ]
    publish(table, given.markdown)


if __name__ == "__main__":
    main()
