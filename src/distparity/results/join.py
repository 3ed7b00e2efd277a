"""Join the side files of the shares of a cell to the side file of the cell."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from distparity.results import journal

__all__ = ["join"]

#: Facts in which shares of one cell may differ; the joined cell has those of the first share.
_OWN = {
    *("declared", "deselected", "command", "world_sizes", "ranks_busy", "platform", "resumed"),
    *("shard",),
}


def join(paths: Sequence[Path]) -> list[Path]:
    """Join the shares in these side files; returns one new side file per cell, beside its first share.

    Raises ``ValueError`` if they are not all the shares of their cells, or not of one run: another torch,
    device, or list of cases.
    """
    cells: dict[tuple[str, str], dict[Path, journal.Record]] = {}
    for path in paths:
        record = journal.read(path)
        if "shard" not in record.header:
            raise ValueError(f"{path} is not a share of a cell: its run had no --shard")
        cell = record.header["cell"]
        cells.setdefault((cell["torch"], cell["device"]), {})[path] = record
    return [_cell(shares) for shares in cells.values()]


def _cell(shares: Mapping[Path, journal.Record]) -> Path:
    (first, head), *others = shares.items()
    header = head.header
    count, every = header["shard"]["count"], header["shard"]["of"]
    for path, record in others:
        if record.header["shard"]["count"] != count or record.header["shard"]["of"] != every:
            raise ValueError(f"{path} and {first} are shares of different lists of cases")
        for fact in header["facts"].keys() | record.header["facts"].keys():
            mine, theirs = header["facts"].get(fact), record.header["facts"].get(fact)
            if fact not in _OWN and mine != theirs:
                raise ValueError(f"{path} and {first} differ in {fact}: {theirs!r} and {mine!r}")
    indices = sorted(record.header["shard"]["index"] for record in shares.values())
    if indices != list(range(1, count + 1)):
        raise ValueError(f"{first}: of {count} shares, there are {', '.join(map(str, indices))}")
    given = [case for record in shares.values() for case in record.header["cases"]]
    if sorted(given) != sorted(every):
        raise ValueError(f"{first}: the shares do not have every case once")
    return _write(first, shares, every)


def _write(first: Path, shares: Mapping[Path, journal.Record], every: list[str]) -> Path:
    records = list(shares.values())
    header: dict[str, Any] = {**records[0].header, "cases": every}
    header.pop("shard")
    header["about"] = {k: v for record in records for k, v in record.header["about"].items()}
    sizes = {size for record in records for size in record.header["facts"]["world_sizes"]}
    header["facts"] = {
        **{fact: value for fact, value in header["facts"].items() if fact != "shard"},
        "declared": len(every),
        "world_sizes": sorted(sizes),
        "shards": len(records),
    }
    outcomes = {case: one for record in records for case, one in record.outcomes.items()}
    ends = {record.ended or "died" for record in records}
    # The shares may have run at the same time, or one after the other.
    end = header["started"] + max(record.seconds for record in records)
    lines: list[dict[str, Any]] = [{"header": header}]
    lines += [{"case": case, "outcome": outcomes[case].to_json(), "at": end} for case in every]
    ended = "finished" if ends == {"finished"} else "; ".join(sorted(ends - {"finished"}))
    lines.append({"end": ended, "at": end, "facts": {}})
    cell = header["cell"]
    path, _ = journal.paths(first.parent, cell["torch"], cell["device"])
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path
