"""The largest ratio of correct runs over many seeds: the margin before a false alarm."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from distparity.core.case import Case
from distparity.core.outcome import Outcome, Status
from distparity.session.options import Options
from distparity.session.run import Run

__all__ = ["Bucket", "before", "buckets", "calibrate", "in_turn", "plot", "table"]

#: The ratios of correct runs must stay below this.
TARGET = 0.5


@dataclass
class Bucket:
    """All runs of one precision and world size: their ratios, and the runs that did not pass."""

    precision: str
    world_size: int
    ratios: list[float] = field(default_factory=list)
    seeds: set[int] = field(default_factory=set)
    largest_in: str = ""
    wrong: list[str] = field(default_factory=list)

    def add(self, seen: dict[str, Any]) -> None:
        """Add one run, as a line of the kept file has it."""
        self.seeds.add(seen["seed"])
        if seen["status"] != Status.PASSED.value:
            self.wrong.append(f"{seen['case']}, seed {seen['seed']}: {seen['message']}")
        if seen["ratio"] is not None:
            ratio = float(seen["ratio"])
            if ratio >= max(self.ratios, default=0.0):
                self.largest_in = f"{seen['case']}, seed {seen['seed']}"
            self.ratios.append(ratio)

    @property
    def passed(self) -> bool:
        """Whether all runs passed with ratios below the target."""
        return bool(self.ratios) and not self.wrong and max(self.ratios) < TARGET


def calibrate(options: Options, seeds: range, kept: Path | None = None) -> tuple[str, list[Bucket]]:
    """Run the strategies of the selection in every precision, the scenarios and world sizes in turn.

    Each run is appended to the file ``kept`` as one line of JSON, and runs that the file already has
    are counted too: many seeds can be run in several calls. Returns torch's version and one bucket
    per precision and world size. Raises :class:`distparity.core.bad_request.BadRequest`, and
    ``ValueError`` if the file has runs of another torch.
    """
    run = Run(options)
    run.start()
    try:
        run.ready()
        torch: str = run.torch.torch
        runs = before(kept, torch)
        with (kept or Path("/dev/null")).open("a", encoding="utf-8") as file:
            for case, seed, outcome in _outcomes(run, seeds):
                if outcome.status.skipped:
                    continue
                seen = _seen(run, case, seed, outcome)
                runs.append(seen)
                # Whole lines: a calibration that is interrupted keeps the runs so far.
                print(json.dumps(seen), file=file, flush=True)
        return torch, buckets(runs)
    finally:
        run.close(reported=True)


def before(kept: Path | None, torch: str) -> list[dict[str, Any]]:
    """The runs that a file already has; raises ``ValueError`` if they are of another torch."""
    if kept is None or not kept.exists():
        return []
    runs = [json.loads(line) for line in kept.read_text(encoding="utf-8").splitlines()]
    others = {run["torch"] for run in runs} - {torch}
    if others:
        raise ValueError(f"{kept} has runs of torch {min(others)}, not {torch}: give another file")
    return runs


def _seen(run: Run, case: Case, seed: int, outcome: Outcome) -> dict[str, Any]:
    return {
        "torch": run.torch.torch,
        "case": case.id,
        "precision": run.torch.precision(case.scenario, case.strategy, case.dtype),
        "world_size": case.world_size,
        "seed": seed,
        "status": outcome.status.value,
        "message": outcome.message,
        "ratio": outcome.facts.get("ratio"),
    }


def buckets(runs: list[dict[str, Any]]) -> list[Bucket]:
    """Group runs by precision and world size."""
    found: dict[tuple[str, int], Bucket] = {}
    for seen in runs:
        key = (seen["precision"], seen["world_size"])
        found.setdefault(key, Bucket(*key)).add(seen)
    return [found[key] for key in sorted(found)]


def _outcomes(run: Run, seeds: range) -> Iterator[tuple[Case, int, Outcome]]:
    todo = [(case, seed) for cell in run.cells for case, seed in _plan(run, cell.cases, seeds)]
    for (case, seed), outcome in run.side_by_side(
        todo, lambda one: run.course.job(one[0], seed=one[1], alive=False)
    ):
        yield case, seed, outcome


#: Cases by precision, scenario and world size.
Pools = dict[str, dict[str, dict[int, list[Case]]]]


def _plan(run: Run, cases: list[Case], seeds: range) -> Iterator[tuple[Case, int]]:
    pools: Pools = {}
    for case in cases:
        # Operations have their own bounds and use no seed.
        # A case that torch computes wrongly says nothing about rounding in correct cases.
        if case.scenario in run.torch.scenarios and run.expected.of(case) is None:
            what = run.torch.precision(case.scenario, case.strategy, case.dtype)
            pool = pools.setdefault(what, {}).setdefault(case.scenario, {})
            pool.setdefault(case.world_size, []).append(case)
    for seed in seeds:
        for case in in_turn(pools, seed):
            yield case, seed


def in_turn(pools: Pools, seed: int) -> list[Case]:
    """The cases of a seed: of every precision, one scenario in one world size with all strategies.

    These cases share one oracle and its reference runs. Scenarios take turns with every seed, and the
    world sizes of a scenario whenever it is its turn.
    """
    found = []
    for pool in pools.values():
        turn, number = divmod(seed, len(pool))
        worlds = pool[sorted(pool)[number]]
        found += worlds[sorted(worlds)[(number + turn) % len(worlds)]]
    return found


def table(torch: str, buckets: list[Bucket]) -> list[str]:
    """Make a Markdown table of the ratios: median, 99th percentile and largest."""
    lines = [
        "| torch | precision | world size | seeds | runs | median ratio | 99 % | largest ratio | seen in |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for bucket in buckets:
        ratios = sorted(bucket.ratios)
        shown = [
            f"{ratios[round(part * (len(ratios) - 1))]:.3f}" if ratios else "none"
            for part in (0.5, 0.99, 1.0)
        ]
        counts = [len(bucket.seeds), len(ratios)]
        row = [torch, bucket.precision, bucket.world_size, *counts, *shown, bucket.largest_in]
        lines.append("| " + " | ".join(map(str, row)) + " |")
    return lines + [f"\nNOT PASSED: {wrong}" for one in buckets for wrong in one.wrong]


#: The plot: pixels of one histogram, bins of the ratio, and colours that differ in greyscale too.
_WIDE, _HIGH, _LEFT = 480, 44, 190
_BINS = 40


def plot(torch: str, buckets: list[Bucket]) -> str:
    """Draw the ratios as SVG: one histogram per precision and world size, from 0 to 1."""
    bottom = 30 + len(buckets) * (_HIGH + 10)
    size = f'width="{_LEFT + _WIDE + 90}" height="{bottom + 40}"'
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="12">',
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="10" y="18">largest ratio of each correct run, torch {torch}; 1 is the limit</text>',
    ]
    for number, bucket in enumerate(buckets):
        base = 30 + number * (_HIGH + 10) + _HIGH
        lines += _row(bucket, base)
    for part in range(11):
        x = _LEFT + _WIDE * part / 10
        lines.append(f'<line x1="{x}" y1="30" x2="{x}" y2="{bottom}" stroke="#ccc"/>')
        lines.append(f'<text x="{x}" y="{bottom + 16}" text-anchor="middle">{part / 10}</text>')
    x = _LEFT + _WIDE * TARGET
    lines.append(
        f'<line x1="{x}" y1="30" x2="{x}" y2="{bottom}" stroke="#b00" stroke-dasharray="4"/>'
    )
    return "\n".join([*lines, "</svg>", ""])


def _row(bucket: Bucket, base: int) -> Iterator[str]:
    counts = [0] * _BINS
    for ratio in bucket.ratios:
        counts[min(_BINS - 1, int(ratio * _BINS))] += 1
    most, wide = max(*counts, 1), _WIDE / _BINS
    yield f'<text x="10" y="{base - 4}">{bucket.precision}, {bucket.world_size} ranks</text>'
    for place, count in enumerate(counts):
        if count:
            # A single run among thousands must be visible too.
            high = max(2.0, _HIGH * count / most)
            x, y = _LEFT + place * wide, base - high
            yield (
                f'<rect x="{x:.1f}" y="{y:.1f}" width="{wide - 1:.1f}" height="{high:.1f}" '
                f'fill="#246"><title>{count} runs</title></rect>'
            )
    yield f'<line x1="{_LEFT}" y1="{base}" x2="{_LEFT + _WIDE}" y2="{base}" stroke="#888"/>'
    yield f'<text x="{_LEFT + _WIDE + 10}" y="{base - 4}">{len(bucket.ratios)} runs</text>'
