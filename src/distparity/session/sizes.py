"""``distparity sizes``: every collective over sizes, as a table."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from distparity.core.bad_request import BadRequest
from distparity.core.sweep import Measured, Sweep
from distparity.session.cell import Cell
from distparity.session.options import Options
from distparity.session.run import Run
from distparity.worlds.scheduler import Job
from distparity.worlds.world import Answer, Failure, Spec, Task

__all__ = ["DTYPES", "OPERATIONS", "WAYS", "Row", "bytes_of", "measure", "table"]

OPERATIONS = (
    *("all_reduce SUM", "all_reduce MAX", "reduce_scatter SUM", "reduce_scatter MIN"),
    *("all_gather", "all_to_all", "broadcast"),
)
DTYPES = ("float32", "bfloat16", "int64", "uint8")
WAYS = ("wait", "async", "groups")
_UNITS = {"": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}


def bytes_of(words: str) -> int:
    """Bytes of a size such as ``64MiB`` or ``4GiB``; raises :class:`BadRequest`."""
    found = re.fullmatch(r"(\d+)(KiB|MiB|GiB|)", words)
    if found is None or not int(found[1]):
        raise BadRequest(f"--largest {words!r}: it must be a size, for example 64MiB or 4GiB")
    return int(found[1]) * _UNITS[found[2]]


@dataclass(frozen=True)
class Row:
    """One sweep in one world, and what its ranks saw together."""

    device: str
    ranks: int
    sweep: Sweep
    found: Measured

    @property
    def bad(self) -> bool:
        """Whether a result was wrong, or a call raised at another size than the first."""
        return bool(self.found.wrong or (self.found.raised and self.found.sizes))


def measure(
    options: Options, largest: int | None, dtypes: tuple[str, ...] = DTYPES
) -> Iterator[Row]:
    """Run every sweep on every device, one after the other, because they measure bandwidth.

    ``largest`` is bytes a rank; None is 64 MiB on the CPU and 1 GiB on an accelerator. Raises
    :class:`BadRequest` if a device cannot be had.
    """
    run = Run(options)
    run.start()
    try:
        run.ready()
        for cell in run.cells:
            most = largest or ((64 << 20) if cell.device == "cpu" else (1 << 30))
            for ranks in options.world_sizes:
                for sweep in _sweeps(cell, ranks, most, dtypes):
                    yield _row(run, cell, ranks, sweep)
    finally:
        run.close(reported=True)


def _sweeps(cell: Cell, ranks: int, most: int, dtypes: tuple[str, ...]) -> Iterator[Sweep]:
    for operation in OPERATIONS:
        for dtype in dtypes:
            if dtype not in cell.found.lacks:
                yield Sweep(operation, "wait", dtype, most)
        for way in WAYS[1:] if ranks % 2 == 0 else WAYS[1:2]:
            yield Sweep(operation, way, dtypes[0], most)


def _row(run: Run, cell: Cell, ranks: int, sweep: Sweep) -> Row:
    assert run.scheduler is not None

    def job() -> Job[Answer | Failure]:
        world = Spec(cell.device, ranks)
        done: Answer | Failure = yield Task(
            world, "sizes", sweep.to_json(), limit=run.options.limit
        )
        return done

    done = run.scheduler.run(job())
    if isinstance(done, Failure):
        return Row(cell.name, ranks, sweep, Measured(sizes=1, raised=done.message))
    each = [Measured.from_json(result) for result in done.results]
    return Row(cell.name, ranks, sweep, merged(each))


def merged(each: list[Measured]) -> Measured:
    """What ranks saw together: a size is right if it is right on all of them."""
    first = min(each, key=lambda one: one.wrong or one.right + (1 << 62))
    return replace(
        first,
        right=min(one.right for one in each),
        raised=next(filter(None, (one.raised for one in each)), ""),
        bandwidth=min(one.bandwidth for one in each),
    )


def table(rows: Iterable[Row]) -> Iterator[str]:
    """The lines of a table, each as soon as its row is known; what was wrong is below the rows."""
    heads = ("device", "ranks", "operation", "way", "dtype", "sizes", "right to", "wrong from")
    yield _line((*heads, "GB/s"))
    below = []
    for row in rows:
        yield _line(_cells(row))
        said = row.found.message or row.found.raised
        if said:
            where = f"{row.sweep.operation} {row.sweep.way} {row.sweep.dtype} at {row.ranks} ranks"
            below.append(f"{where}: {said}")
    yield from below


#: Room for the longest word of each column but the last.
_WIDTHS = (12, 5, 18, 6, 8, 5, 9, 10)


def _line(cells: Sequence[str]) -> str:
    first = (word.ljust(width) for word, width in zip(cells, _WIDTHS, strict=False))
    return "  ".join([*first, cells[-1]])


def _cells(row: Row) -> tuple[str, ...]:
    found, sweep = row.found, row.sweep
    wrong = _size(found.wrong) if found.wrong else "raised" if found.raised else "-"
    numbers = (str(found.sizes), _size(found.right), wrong, f"{found.bandwidth / 1e9:.2f}")
    return (row.device, str(row.ranks), sweep.operation, sweep.way, sweep.dtype, *numbers)


def _size(count: int) -> str:
    for unit, size in reversed(_UNITS.items()):
        if unit and count >= size:
            return f"{count / size:.4g} {unit}"
    return f"{count} B"
