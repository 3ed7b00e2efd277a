"""How the benchmarks measure and print: whole processes, alternated, with their spread.

Nothing here imports torch: the process that measures takes no core from those it measures.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import re
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

__all__ = [
    "HERE",
    "Series",
    "Table",
    "arguments",
    "bare_import",
    "environment",
    "publish",
    "rounds",
    "wall",
]

HERE = Path(__file__).resolve().parent


@dataclass
class Series:
    """Repetitions of one measurement, in the order in which they were taken."""

    values: list[float] = field(default_factory=list)

    def __str__(self) -> str:
        """Median, and the smallest and largest value when there are several."""
        if not self.values:
            return "-"
        middle = _digits(statistics.median(self.values))
        if len(self.values) == 1:
            return middle
        return f"{middle} ({_digits(min(self.values))} - {_digits(max(self.values))})"

    def __truediv__(self, other: Series) -> Series:
        """The ratio in each repetition: neighbours in time met the same load of the machine."""
        return Series([a / b for a, b in zip(self.values, other.values, strict=True)])

    def scaled(self, factor: float) -> Series:
        return Series([value * factor for value in self.values])


def _digits(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


@dataclass
class Table:
    """Rows of text under headings; ``notes`` say what a reader must know to trust it."""

    name: str
    headings: Sequence[str]
    rows: list[list[str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    #: Whether this process has measured it, so that its machine and its load are part of it.
    measured: bool = True

    def add(self, *cells: object) -> None:
        self.rows.append([str(cell) for cell in cells])

    def text(self) -> str:
        lines = [list(self.headings), *self.rows]
        widths = [max(len(line[i]) for line in lines) for i in range(len(self.headings))]
        body = ["  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) for line in lines]
        head = [machine(), ""] if self.measured else []
        return "\n".join([*head, *(line.rstrip() for line in body), "", *self.notes])

    def markdown(self) -> str:
        lines = [list(self.headings), ["---"] * len(self.headings), *self.rows]
        body = ["| " + " | ".join(line) + " |" for line in lines]
        notes = [*self.notes, *([machine()] if self.measured else [])]
        return "\n".join([*body, "", *(f"- {note}" for note in notes)])


def machine() -> str:
    """Date, machine and versions, in one line."""
    model = platform.machine()
    try:
        found = re.search(
            r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE
        )
        model = found.group(1) if found else model
    except OSError:
        pass
    now = datetime.datetime.now(datetime.timezone.utc).date()
    versions = ", ".join(f"{name} {_version(name)}" for name in ("torch", "distparity", "pytest"))
    return (
        f"{now}: {model}, {os.cpu_count()} cores, {platform.system()} {platform.release()}, "
        f"Python {platform.python_version()}, {versions}; "
        f"other programs took {_others():.0%} of the cores' time meanwhile"
    )


def _busy() -> tuple[float, float]:
    """Seconds of CPU time: of this machine's cores so far, and of this process and its children."""
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
    user, nice, system, _idle, _wait, irq, softirq, steal = map(int, fields)
    ticks = user + nice + system + irq + softirq + steal
    own = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return ticks / os.sysconf("SC_CLK_TCK"), sum(u.ru_utime + u.ru_stime for u in own)


_BEGAN = time.monotonic(), *_busy()


def _others() -> float:
    """The part of the cores' time, since this module was imported, that was somebody else's."""
    then, total, own = _BEGAN
    now_total, now_own = _busy()
    spent = (now_total - total) - (now_own - own)
    return max(0.0, spent) / ((time.monotonic() - then) * (os.cpu_count() or 1))


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def arguments(description: str | None, *, repeat: int = 3) -> argparse.ArgumentParser:
    """What every benchmark takes."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--repeat", type=int, default=repeat, help="alternated repetitions (default %(default)s)"
    )
    parser.add_argument(
        "--markdown",
        type=Path,
        metavar="FILE",
        help="put the table in FILE as well, between this benchmark's two marks",
    )
    return parser


def publish(table: Table, file: Path | None) -> None:
    """Print the table; with ``file``, replace what stands between its marks there."""
    print(f"\n{table.text()}")
    if file is None:
        return
    begin, end = f"<!-- {table.name} -->", f"<!-- /{table.name} -->"
    text = file.read_text()
    if begin not in text or end not in text:
        raise SystemExit(f"{file} has no marks {begin} and {end}")
    before, after = text.split(begin)[0], text.split(end)[1]
    file.write_text(f"{before}{begin}\n{table.markdown()}\n{end}{after}")


def environment(*folders: Path, **more: str) -> dict[str, str]:
    """The same for every program measured: one thread a rank, no accelerator, our modules."""
    path = [str(HERE), *map(str, folders), os.environ.get("PYTHONPATH", "")]
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(part for part in path if part),
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "GLOO_SOCKET_IFNAME": "lo",
        **more,
    }


def wall(
    command: Sequence[str],
    env: dict[str, str],
    cwd: Path | None = None,
    failing: Container[int] = (),
) -> float:
    """Seconds from a program's start to its end; what fails is no measurement.

    ``failing`` are exit codes besides 0 that are no failure of the measurement.
    """
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, *command],
        env=env,
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    seconds = time.perf_counter() - started
    if done.returncode != 0 and done.returncode not in failing:
        sys.stderr.write(done.stdout.decode("utf-8", "replace")[-8000:])
        raise SystemExit(f"{' '.join(command)} failed with exit code {done.returncode}")
    return seconds


def bare_import(env: dict[str, str]) -> float:
    """Seconds that a process takes that imports torch with its FSDP, and ends."""
    return wall(["-c", "import torch, torch.distributed.fsdp"], env)


def rounds(measurements: Mapping[str, Callable[[], float]], repeat: int) -> dict[str, Series]:
    """Take each measurement once a round, each round beginning with another one."""
    found = {name: Series() for name in measurements}
    names = list(measurements)
    for number in range(repeat):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            value = measurements[name]()
            found[name].values.append(value)
            print(f"round {number + 1}/{repeat}  {name}: {value:.3f} s", flush=True)
    return found
