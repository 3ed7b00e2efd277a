"""The largest ratio of correct runs, over many seeds: what false alarms would be made of."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from distparity.core.case import Case
from distparity.core.outcome import Outcome, Status
from distparity.session.options import Options
from distparity.session.run import Run

__all__ = ["Bucket", "calibrate", "table"]

#: A correct run shall stay below this part of what it is allowed.
TARGET = 0.5


@dataclass
class Bucket:
    """All runs of one dtype and world size: the ratios that were seen, and what was not a pass."""

    dtype: str
    world_size: int
    ratios: list[float] = field(default_factory=list)
    largest_in: str = ""
    wrong: list[str] = field(default_factory=list)

    def add(self, case: Case, seed: int, outcome: Outcome) -> None:
        if outcome.status.skipped:
            return
        if outcome.status is not Status.PASSED:
            self.wrong.append(f"{case.id}, seed {seed}: {outcome.message}")
        if "ratio" in outcome.facts:
            ratio = float(outcome.facts["ratio"])
            if ratio >= max(self.ratios, default=0.0):
                self.largest_in = f"{case.id}, seed {seed}"
            self.ratios.append(ratio)

    @property
    def passed(self) -> bool:
        return bool(self.ratios) and not self.wrong and max(self.ratios) < TARGET


def calibrate(options: Options, seeds: int) -> tuple[str, list[Bucket]]:
    """Run ``seeds`` seeds of every strategy, dtype and world size, the scenarios in turn.

    Returns torch's version and a bucket for each dtype and world size; raises :class:`distparity.core.bad_request.BadRequest`.
    """
    run = Run(options)
    run.start()
    try:
        run.ready()
        buckets: dict[tuple[str, int], Bucket] = {}
        for case, seed, outcome in _outcomes(run, seeds):
            key = (case.dtype, case.world_size)
            buckets.setdefault(key, Bucket(*key)).add(case, seed, outcome)
        return run.torch.torch, [buckets[key] for key in sorted(buckets)]
    finally:
        run.close(reported=True)


def _outcomes(run: Run, seeds: int) -> Iterator[tuple[Case, int, Outcome]]:
    todo = [(case, seed) for cell in run.cells for case, seed in _plan(run, cell.cases, seeds)]
    for (case, seed), outcome in run.side_by_side(
        todo, lambda one: run.course.errand(one[0], seed=one[1], alive=False)
    ):
        yield case, seed, outcome


def _plan(run: Run, cases: list[Case], seeds: int) -> Iterator[tuple[Case, int]]:
    """Every seed has one scenario of each dtype, in turn, under all core strategies.

    They share its oracle, and its reference runs.
    """
    pools: dict[str, dict[str, list[Case]]] = {}
    for case in cases:
        how = run.torch.strategies.get(case.strategy)
        # Operations have bounds of their own, and draw no seed.
        # A case that torch gets wrong says nothing of how right ones are rounded.
        if how is not None and how.tier == "core" and run.expected.of(case) is None:
            pools.setdefault(case.dtype, {}).setdefault(case.scenario, []).append(case)
    for seed in range(seeds):
        for pool in pools.values():
            for case in pool[sorted(pool)[seed % len(pool)]]:
                yield case, seed


def table(torch: str, buckets: list[Bucket]) -> list[str]:
    """A Markdown table of what was seen."""
    lines = [
        "| torch | dtype | world size | runs | median ratio | largest ratio | seen in |",
        "|---|---|---|---|---|---|---|",
    ]
    for bucket in buckets:
        ratios = sorted(bucket.ratios)
        middle = f"{ratios[len(ratios) // 2]:.3f}" if ratios else "none"
        largest = f"{ratios[-1]:.3f}" if ratios else "none"
        row: list[Any] = [torch, bucket.dtype, bucket.world_size, len(ratios), middle, largest]
        lines.append("| " + " | ".join(map(str, [*row, bucket.largest_in])) + " |")
        lines += [f"\nNOT PASSED: {wrong}" for wrong in bucket.wrong]
    return lines
