"""Judge whether a distributed run computed the same as one process.

The result is a ratio of error to allowed error, used as LAPACK uses its test ratios (LAPACK Working
Note 41). :mod:`distparity.verification.tolerance` computes the allowed error.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import torch

from distparity.core.participation import Participation
from distparity.training.trajectory import KINDS, Tensors, Trajectory
from distparity.verification.findings import Divergence, Quantity, Verdict, at
from distparity.verification.tolerance import Allowed, Tolerance, group_of, quantities

__all__ = ["judge", "same_bits"]

_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def judge(
    tolerance: Tolerance,
    ranks: list[Trajectory],
    exempt: Mapping[str, str] | None = None,
    participation: Sequence[Participation] | None = None,
    *,
    sums_apart: bool = False,
    splits_rows: bool = False,
    shows_state: bool = True,
) -> Verdict:
    """Compare every rank's trajectory with the oracle's.

    Quantities are compared in the order of training, so that the first divergence is the earliest.
    ``exempt`` names the kinds to leave out, each with its reason. ``participation`` says which steps
    each rank takes part in; None for all. ``sums_apart`` says that a sum over ranks need not have the
    same last bits on all ranks. ``splits_rows`` says that a rank has a part of each of its rows, so
    that only several ranks together know a row's loss. ``shows_state`` says that the ranks together
    have recorded the whole optimizer state of every step.
    Raises ``ValueError`` if there is nothing to compare.
    """
    if not ranks or not tolerance.reference_runs or not tolerance.oracle.trajectory.steps:
        raise ValueError("a verdict needs an oracle with steps, reference runs and ranks")
    total = len(tolerance.oracle.trajectory.steps)
    everywhere = [Participation(rank, range(total), total) for rank in range(len(ranks))]
    who = participation or everywhere
    return _Bench(
        tolerance,
        ranks,
        exempt or {},
        who,
        sums_apart=sums_apart,
        splits_rows=splits_rows,
        shows_state=shows_state,
    ).sit()


def same_bits(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Where two tensors of one shape are equal bit for bit; different float dtypes as float64.

    Returns a bool tensor of that shape.
    """
    if one.dtype != other.dtype:
        one, other = one.double(), other.double()
    dtype = _BITS[one.element_size()]
    return one.contiguous().view(dtype) == other.contiguous().view(dtype)


class _Bench:
    def __init__(
        self,
        tolerance: Tolerance,
        ranks: list[Trajectory],
        exempt: Mapping[str, str],
        participation: Sequence[Participation],
        *,
        sums_apart: bool,
        splits_rows: bool,
        shows_state: bool,
    ) -> None:
        self.tolerance = tolerance
        #: Each rank's run, and the steps that it takes part in.
        self.ranks = list(zip(ranks, participation, strict=True))
        self.exempt = exempt
        self.sums_apart = sums_apart
        self.splits_rows = splits_rows
        self.shows_state = shows_state
        self.verdict = Verdict()

    def sit(self) -> Verdict:
        exact = self.tolerance.oracle.trajectory
        for run, participation in self.ranks:
            if len(run.steps) != len(exact.steps):
                what = f"{len(run.steps)} steps recorded, {len(exact.steps)} expected"
                steps = Quantity(None, "run", "steps")
                self.verdict.note(Divergence(steps, participation.rank, what))
        if self.verdict.passed:
            # Few scenarios compare a norm.
            norms = any(step.norm for step in exact.steps)
            kinds = [kind for kind in KINDS if kind != "norm" or norms]
            self.verdict.growth = [dict.fromkeys(kinds, 0.0) for _ in exact.steps]
            for step, kind, tensors in quantities(exact):
                if kind not in self.exempt:
                    self._group(step, kind, tensors)
            for step in range(len(exact.steps)):
                self._covered(step)
        return self.verdict

    def _group(self, step: int | None, kind: str, tensors: Tensors) -> None:
        runs = list(self._present(step, kind))
        for name, value in tensors.items():
            quantity = Quantity(step, kind, name)
            if kind == "loss" and step is not None and value is not None:
                self._losses(quantity, step, value, runs)
            else:
                allowed = self.tolerance.of(quantity)
                for rank, own in self._holders(quantity, runs):
                    self._weigh(quantity, value, own, rank, allowed)
        first: dict[str, tuple[int, torch.Tensor]] = {}
        for rank, own in runs:
            for name in sorted(own.keys() - tensors.keys()):
                self.verdict.note(Divergence(Quantity(step, kind, name), rank, "not in the oracle"))
            if kind not in ("loss", "buffer"):
                self._agree(step, kind, first, own, rank)

    def _holders(
        self, quantity: Quantity, runs: list[tuple[int, Tensors]]
    ) -> list[tuple[int, Tensors]]:
        """The ranks that must have a quantity: all, but one is enough for the state between steps."""
        if quantity.kind != "optimizer" or quantity.step is None:
            return runs
        found = [(rank, own) for rank, own in runs if quantity.name in own]
        return found or (runs if self.shows_state else [])

    def _losses(
        self,
        quantity: Quantity,
        step: int,
        value: torch.Tensor,
        runs: list[tuple[int, Tensors]],
    ) -> None:
        """Compare each rank's loss, which is over its own rows, with the same rows of the oracle."""
        parts, losses = self._parts(step), self.tolerance.oracle.losses(step)
        if losses is not None and all(parts) and not self.splits_rows:
            for (rank, own), mine in zip(runs, parts, strict=True):
                expected = losses[list(mine)].mean()
                allowed = self.tolerance.of_loss(step, mine)
                self._weigh(quantity, expected, own, rank, allowed)
            return
        # The mean of the ranks' losses is the loss of the global batch in any case.
        known = [(rank, run.get(quantity.name)) for rank, run in runs]
        there = [loss.double() for _, loss in known if loss is not None]
        mean: Tensors = {quantity.name: torch.stack(there).mean()} if there else {}
        for rank, loss in known:
            own = {} if loss is None else mean
            self._weigh(quantity, value, own, rank, self.tolerance.of(quantity))

    def _parts(self, step: int) -> list[tuple[int, ...]]:
        """The oracle's parts that each rank had at a step; empty unless all ranks had whole parts."""
        there = self._rows(step)
        batch = sorted({row for rows in there for row in rows or ()})
        size, rest = divmod(len(batch), len(self.tolerance.oracle.parts))
        if rest:
            return [() for _ in there]
        place = {row: number for number, row in enumerate(batch)}
        found = []
        for rows in there:
            had = Counter(place[row] // size for row in rows or ())
            whole = set(had.values()) == {size} and len(set(rows or ())) == len(rows or ())
            found.append(tuple(sorted(had)) if whole else ())
        return found

    def _rows(self, step: int) -> list[list[int] | None]:
        return [run.rows for run, participation in self.ranks if participation.has(step, "loss")]

    def _covered(self, step: int) -> None:
        """Check that the ranks together trained on every row, and on each row equally often."""
        there = self._rows(step)
        whole = self.tolerance.oracle.trajectory.rows
        if whole is None or not all(there):
            return
        had = Counter(row for rows in there for row in rows or ())
        out = any(one.in_the_end for _, one in self.ranks)
        missing = set() if out else set(whole) - set(had)
        if missing or len(set(had.values())) > 1:
            what = (
                f"rows {sorted(missing)} on no rank"
                if missing
                else "some rows on more ranks than others"
            )
            self.verdict.note(Divergence(Quantity(step, "run", "rows"), 0, what))

    def _present(self, step: int | None, kind: str) -> Iterator[tuple[int, Tensors]]:
        """The tensors of the ranks that take part in a step; the other ranks must have none."""
        for run, participation in self.ranks:
            tensors = group_of(run, step, kind)
            if participation.has(step, kind):
                yield participation.rank, tensors
            elif tensors:
                what = "recorded although this rank takes no part in the step"
                quantity = Quantity(step, kind, min(tensors))
                self.verdict.note(Divergence(quantity, participation.rank, what))

    def _weigh(
        self,
        quantity: Quantity,
        expected: torch.Tensor | None,
        run: Tensors,
        rank: int,
        allowed: Allowed,
    ) -> None:
        """Compare one tensor of one rank, and keep the largest ratios."""
        ratio = self._compare(quantity, expected, run, rank, allowed)
        self.verdict.ratio = max(self.verdict.ratio, ratio)
        if quantity.step is not None:
            row = self.verdict.growth[quantity.step]
            row[quantity.kind] = max(row[quantity.kind], ratio)

    def _compare(
        self,
        quantity: Quantity,
        expected: torch.Tensor | None,
        run: Tensors,
        rank: int,
        allowed: Allowed,
    ) -> float:
        """Compare one tensor of one rank, note what is wrong, and keep the largest error.

        Returns the ratio.
        """
        found = run.get(quantity.name)
        wrong = self._unlike(quantity, expected, run)
        if wrong is not None:
            self.verdict.note(Divergence(quantity, rank, wrong))
            return math.inf
        if found is None:
            return 0.0
        assert expected is not None
        if allowed.error is None:
            same = same_bits(found, expected)
            if same.all():
                return 0.0
            worst = int((~same).flatten().nonzero()[0])
            values = found.flatten()[worst].item(), expected.flatten()[worst].item()
            what = "not equal bit for bit: {!r}, expected {!r}".format(*values)
            self.verdict.note(at(quantity, rank, what, math.inf, worst, expected, found))
            return math.inf
        found, expected = found.double(), expected.double()
        error = torch.where(found == expected, 0.0, (found - expected).abs())
        ratios = torch.where(error == 0, 0.0, error / allowed.error).nan_to_num(
            nan=math.inf, posinf=math.inf
        )
        # Infinity is right only where the oracle has it too; NaN never is.
        odd = (~found.isfinite() | ~expected.isfinite()) & (found != expected)
        ratios = torch.where(odd, math.inf, ratios)
        worst = int(ratios.argmax())
        ratio, off = float(ratios.flatten()[worst]), float(error.flatten()[worst])
        if not ratio <= 1:
            what = f"off by {off:.3g}, allowed {float(allowed.error.flatten()[worst]):.3g}"
            if odd.any():
                what = "not finite" if not found.isfinite().all() else "finite, expected infinity"
            self.verdict.note(at(quantity, rank, what, ratio, worst, expected, found))
        finite = error[error.isfinite()]
        if allowed.scale and finite.numel():
            self.verdict.error = max(self.verdict.error, float(finite.max()) / allowed.scale)
        return ratio

    def _unlike(
        self, quantity: Quantity, expected: torch.Tensor | None, run: Tensors
    ) -> str | None:
        """Why two tensors cannot be compared; None if they can."""
        if quantity.name not in run:
            return "missing"
        found = run[quantity.name]
        if found is None:
            return None if expected is None else "is None, expected a tensor"
        if expected is None:
            return "expected None"
        if found.shape != expected.shape:
            return f"shape {list(found.shape)}, expected {list(expected.shape)}"
        native = group_of(self.tolerance.reference_runs[0], quantity.step, quantity.kind).get(
            quantity.name
        )
        if native is not None and quantity.kind != "loss" and found.dtype != native.dtype:
            return f"dtype {found.dtype}, expected {native.dtype}"
        return None

    def _agree(
        self,
        step: int | None,
        kind: str,
        first: dict[str, tuple[int, torch.Tensor]],
        own: Tensors,
        rank: int,
    ) -> None:
        """Check that a rank has the same replica as the ``first`` that has one.

        It must be equal bit for bit, or up to the order of a sum.
        """
        for name, other in own.items():
            if other is None:
                continue
            holder, value = first.setdefault(name, (rank, other))
            if value is other or value.shape != other.shape:
                continue
            if value.dtype != other.dtype or value.isnan().any() or other.isnan().any():
                # Another check has noted that already.
                continue
            if same_bits(value, other).all():
                continue
            quantity = Quantity(step, kind, name)
            what = f"not bit-identical to rank {holder}'s replica"
            if self.sums_apart and quantity.name in self._names(step, kind):
                bound = self.tolerance.of_replica(quantity)
                apart = (value.double() - other.double()).abs()
                if bound is not None and bool((apart <= bound).all()):
                    continue
                what = (
                    f"differs from rank {holder}'s replica by more than the order of a sum explains"
                )
            self.verdict.note(Divergence(quantity, rank, what))

    def _names(self, step: int | None, kind: str) -> Tensors:
        return group_of(self.tolerance.oracle.trajectory, step, kind)
