"""What a check can see: the same deliberate faults under PyTorch's ways of checking and under ours.

PyTorch compares a sharded run with ``DistributedDataParallel`` on the same ranks, in
``test_fsdp_multiple_forward.py``, in ``FSDPTest._test_fsdp_parity`` and in
``test_fully_shard_training.py``. Their protocols are written anew here: their data, their optimizer,
their number of steps, their tolerance (``assert_close``'s defaults), what they compare at the end.
``distparity`` runs the same mutants in its own scenarios.
"""

from __future__ import annotations

import multiprocessing
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import _measure
import torch
import torch.distributed as dist
from torch import nn

from distparity import mutants, strategies
from distparity.session import selfcheck
from distparity.session.options import Options
from distparity.strategies import Strategy

RANKS = 2
#: Faults of how rows are dealt out: each protocol deals out its own.
NOT_THEIRS = ("same_data", "overlapping_rows")


class Seed(nn.Module):
    """One layer called twice, as in the seed test."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 4)
        self.outer = nn.Linear(4, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.outer(self.inner(self.inner(x)))
        return found


def linear_net() -> nn.Module:
    return nn.Sequential(nn.Linear(8, 4), nn.Linear(4, 16), nn.Linear(16, 4), nn.Linear(4, 8))


def rectified_net() -> nn.Module:
    return nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 8), nn.ReLU())


@dataclass(frozen=True)
class Protocol:
    """One way of checking: what is trained, on what, and what is compared in the end."""

    title: str
    strategy: str
    model: Callable[[], nn.Module]
    units: Callable[[Any], list[nn.Module]]
    optimizer: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]
    steps: int
    width: int
    #: Whether every rank draws the same rows.
    same_data: bool
    #: Whether every step has the rows of the first.
    same_steps: bool
    losses: bool
    parameters: bool

    def train(self, strategy: Strategy, place: Any) -> list[torch.Tensor]:
        """Train, and return what the protocol compares."""
        torch.manual_seed(0)
        model = self.model()
        model = strategy.wrap(model, self.units(model), place)
        scenario: Any = _Only(self.optimizer)
        optimizer = strategy.optimizer(scenario, model)
        losses = []
        for step in range(self.steps):
            place.step = step
            seed = (
                1 + (0 if self.same_data else place.rank) + (0 if self.same_steps else 100 * step)
            )
            rows = torch.rand(4, self.width, generator=torch.Generator().manual_seed(seed))
            optimizer.zero_grad()
            loss = model(rows).sum()
            strategy.backward(loss, 0, 1)
            optimizer.step()
            losses.append(loss.detach())
        found = losses if self.losses else []
        if self.parameters:
            full = strategy.parameters(model)
            found += [value.clone() for value in full.values() if value is not None]
        return found


class _Only:
    """As much of a scenario as making an optimizer takes."""

    def __init__(self, make: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]) -> None:
        self.optimizer = make


def sgd(rate: float) -> Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]:
    return lambda parameters: torch.optim.SGD(parameters, lr=rate, momentum=0.9)


def adam(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=1e-2)


PROTOCOLS = {
    "seed": Protocol(
        "seed test: same rows on every rank, SGD, 3 steps, parameters",
        *("fsdp1", Seed, lambda m: [m.inner], sgd(0.1), 3, 4),
        same_data=True, same_steps=False, losses=False, parameters=True,
    ),
    "parity": Protocol(
        "parity check: rows by rank, the same each step, SGD, 2 steps, loss and parameters",
        *("fsdp1", linear_net, lambda m: [m[1], m[2]], sgd(0.01), 2, 8),
        same_data=False, same_steps=True, losses=True, parameters=True,
    ),
    "training": Protocol(
        "FSDP2 training test: rows by rank, ReLU, Adam, 10 steps, losses",
        *("fsdp2", rectified_net, lambda m: [m[0], m[2]], adam, 10, 8),
        same_data=False, same_steps=False, losses=True, parameters=False,
    ),
}  # fmt: skip


def agrees(protocol: Protocol, mutant: str | None, rank: int) -> bool:
    """Whether this rank would pass the test; an exception is a failure of it."""
    place: Any = SimpleNamespace(
        rank=rank, world_size=RANKS, step=0, device=torch.device("cpu"),
        kind=SimpleNamespace(no_reductions=()),
    )  # fmt: skip
    known = strategies.load()
    expected = protocol.train(known["ddp"], place)
    tested = known[protocol.strategy]
    if mutant is None:
        found = protocol.train(tested, place)
    else:
        with mutants.mutate(tested, mutants.load()[mutant], place) as mutated:
            found = protocol.train(mutated, place)
    try:
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other)
    except AssertionError:
        return False
    return True


def rank_main(rank: int, folder: str, names: list[str], answers: Any) -> None:
    torch.set_num_threads(1)
    store = dist.FileStore(f"{folder}/store", RANKS)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=RANKS)
    for name, protocol in PROTOCOLS.items():
        assert agrees(protocol, None, rank), f"{name} does not pass without a fault"
        for mutant in names:
            answers.put((name, mutant, agrees(protocol, mutant, rank)))
    dist.destroy_process_group()


def theirs(names: list[str]) -> dict[tuple[str, str], bool]:
    """For each protocol and mutant, whether some rank's comparison fails."""
    fork = multiprocessing.get_context("fork")
    answers: Any = fork.SimpleQueue()
    with tempfile.TemporaryDirectory() as folder:
        ranks = [
            fork.Process(target=rank_main, args=(rank, folder, names, answers))
            for rank in range(RANKS)
        ]
        for rank in ranks:
            rank.start()
        seen: dict[tuple[str, str], bool] = {}
        for _ in range(RANKS * len(PROTOCOLS) * len(names)):
            protocol, mutant, passed = answers.get()
            seen[protocol, mutant] = seen.get((protocol, mutant), False) or not passed
        for rank in ranks:
            rank.join()
    return seen


def ours(names: list[str], scenario: str | None) -> dict[tuple[str, str], bool]:
    """For each strategy and mutant, whether some scenario saw it (or the one that is named)."""
    with tempfile.TemporaryDirectory() as folder:
        options = Options(
            devices=["cpu"],
            world_sizes=[RANKS],
            scenarios=None if scenario is None else [scenario],
            report_dir=Path(folder),
        )
        findings = selfcheck.selfcheck(options, ["float32"], names).findings
    seen: dict[tuple[str, str], bool] = {}
    for finding in findings:
        key = (finding.case.strategy, finding.mutant)
        seen[key] = seen.get(key, False) or finding.caught
    return seen


def main() -> None:
    given = _measure.arguments(__doc__).parse_args()
    names = [
        name
        for name, kind in mutants.load().items()
        if kind.needs in (None, "twice")
        and kind.sharded is not False
        and kind.equivalent is None
        and name not in NOT_THEIRS
    ]
    saw = theirs(names)
    seed, whole = ours(names, "multiple_forward"), ours(names, None)
    columns: list[Callable[[str], bool | None]] = [
        *(lambda mutant, name=name: _theirs(saw, name, mutant) for name in PROTOCOLS),
        lambda mutant: seed.get(("fsdp1", mutant)),
        lambda mutant: whole.get(("fsdp1", mutant)),
        lambda mutant: whole.get(("fsdp2", mutant)),
    ]
    headings = [*PROTOCOLS, "`multiple_forward/fsdp1`", "all on `fsdp1`", "all on `fsdp2`"]
    table = _measure.Table("evidence", ["fault", *headings])
    for name in names:
        table.add(mutants.load()[name].title, *(_WORDS[column(name)] for column in columns))
    totals = [[column(name) for name in names] for column in columns]
    table.add("*caught*", *(f"{t.count(True)} of {len(t) - t.count(None)}" for t in totals))
    table.notes = [f"{name}: {protocol.title}." for name, protocol in PROTOCOLS.items()]
    table.notes.append(
        "Each protocol passes without a fault. A dash: the fault has no place in it."
    )
    _measure.publish(table, given.markdown)


_WORDS = {True: "caught", False: "**missed**", None: "-"}


def _theirs(saw: dict[tuple[str, str], bool], protocol: str, mutant: str) -> bool | None:
    """What a protocol said of a mutant; None where the fault has no place in it."""
    kind, one = mutants.load()[mutant], PROTOCOLS[protocol]
    if kind.at_step >= one.steps or (kind.needs == "twice" and one.model is not Seed):
        return None
    return saw[protocol, mutant]


if __name__ == "__main__":
    main()
