"""Trajectories in files: what is read tensor by tensor gives the same verdict as what is in memory."""

from __future__ import annotations

import json
import math
import os
import shutil
from pathlib import Path

import pytest
import torch
from making import oracle, right, shaken

from distparity.core.spool import Spool, Spools
from distparity.scenarios import Batch, Scenario
from distparity.training import reference, room, trajectory
from distparity.training.loop import Recipe
from distparity.training.trajectory import Step, Trajectory
from distparity.verification import tolerance
from distparity.verification.diagnosis import diagnose
from distparity.verification.evidence import one_rank_shows_below, wrong_in_one_process
from distparity.verification.findings import Verdict
from distparity.verification.tolerance import Tolerance
from distparity.verification.verdict import judge

KINDS_OF_NUMBER = {
    "whole": torch.tensor([0.0, -0.0, math.nan, math.inf, 1.5]),
    "bfloat16": torch.ones(3, 2).bfloat16(),
    "integers": torch.tensor([2**53 + 1]),
    "bools": torch.tensor([[True], [False]]),
    "scalar": torch.tensor(2.0, dtype=torch.float64),
    "empty": torch.empty(0, 4),
    "transposed": torch.arange(6.0).reshape(2, 3).T,
    "none": None,
}


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(str(tmp_path))


@pytest.fixture(params=["as a whole", "tensor by tensor"])
def how(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How stored trajectories are read, and whether what was computed is kept."""
    if request.param == "tensor by tensor":
        monkeypatch.setattr(trajectory, "WHOLE", 0)
        monkeypatch.setattr(tolerance, "KEPT", 0)
        monkeypatch.setattr(tolerance, "AT_A_TIME", 3)
        monkeypatch.setattr(reference.Oracle, "_room", 0)
    found: str = request.param
    return found


def test_what_is_stored_is_read(spool: Spool, how: str) -> None:
    run = Trajectory(KINDS_OF_NUMBER, [Step(gradient=KINDS_OF_NUMBER)], {}, [3, 1], 0.5)
    places = [run.save(spool.path), run.save(spool.path)]

    found = [Trajectory.load(spool.path, place) for place in places]

    assert places[0] < places[1]
    assert [one.to_bytes() for one in found] == [run.to_bytes()] * 2
    assert found[0].same(run)
    assert list(found[0].initial) == list(KINDS_OF_NUMBER)
    assert ("bools" in found[0].initial, "nothing" in found[0].initial) == (True, False)


DIFFERENT = {
    "a zero's sign": Trajectory({"x": torch.tensor([-0.0])}),
    "a value": Trajectory({"x": torch.tensor([1.0])}),
    "a dtype": Trajectory({"x": torch.tensor([0], dtype=torch.int32)}),
    "a shape": Trajectory({"x": torch.tensor([[0.0]])}),
    "a name": Trajectory({"y": torch.tensor([0.0])}),
    "none": Trajectory({"x": None}),
    "nothing": Trajectory(),
    "one more": Trajectory({"x": torch.tensor([0.0]), "y": torch.tensor([0.0])}),
    "a step": Trajectory({"x": torch.tensor([0.0])}, [Step()]),
    "rows": Trajectory({"x": torch.tensor([0.0])}, rows=[0]),
}


@pytest.mark.parametrize("other", DIFFERENT.values(), ids=DIFFERENT)
def test_what_differs_in_anything_is_not_the_same(other: Trajectory) -> None:
    one = Trajectory({"x": torch.tensor([0.0])})

    assert not one.same(other)
    assert not other.same(one)


def test_nan_is_the_same_as_itself() -> None:
    one = Trajectory({"x": torch.tensor([math.nan])})

    assert one.same(Trajectory({"x": torch.tensor([math.nan])}))


def spoil(ranks: list[Trajectory]) -> None:
    for run in ranks:
        gradient = run.steps[1].gradient["weight"]
        assert gradient is not None
        run.steps[1].gradient["weight"] = 2 * gradient


@pytest.mark.parametrize("wrong", [False, True], ids=["right", "wrong"])
def test_the_verdict_is_that_of_trajectories_in_memory(
    spool: Spool, how: str, *, wrong: bool
) -> None:
    exact = oracle(ranks=3)
    runs = [shaken(exact.trajectory, seed, 1.0, torch.float32) for seed in range(4)]
    ranks = right(exact)
    if wrong:
        spoil(ranks)
    with pytest.MonkeyPatch.context() as undone:
        for module, name in ((tolerance, "KEPT"), (reference, "KEPT")):
            undone.setattr(module, name, 64 << 20)
        undone.setattr(reference.Oracle, "_room", 64 << 20)
        undone.setattr(tolerance, "AT_A_TIME", 1 << 18)
        expected = judged(exact, runs, ranks)

    def stored(run: Trajectory) -> Trajectory:
        return Trajectory.load(spool.path, run.save(spool.path))

    copies = reference.Oracle(
        stored(exact.trajectory), list(map(stored, exact.parts)), stored(exact.rows)
    )
    assert judged(copies, list(map(stored, runs)), list(map(stored, ranks))) == expected


def judged(
    exact: reference.Oracle, runs: list[Trajectory], ranks: list[Trajectory]
) -> tuple[object, ...]:
    """All that the judge says of these runs."""
    bounds = Tolerance(exact, runs, len(exact.parts), torch.float32, torch.bfloat16)
    found: Verdict = judge(bounds, ranks)
    said = None if found.passed else diagnose(exact, ranks, found, torch.float32, 2.0**-24)
    return (
        json.dumps(found.conclude().to_json()),
        said,
        one_rank_shows_below(bounds),
        wrong_in_one_process(bounds),
        bounds.one_process,
    )


def test_a_spool_has_no_name_and_outlives_its_folder(tmp_path: Path) -> None:
    spools = Spools(str(tmp_path / "run"))
    (tmp_path / "run").mkdir()
    spool = spools.case()
    place = Trajectory({"x": torch.ones(2)}).save(spool.path)
    left = list((tmp_path / "run").iterdir())
    shutil.rmtree(tmp_path / "run")

    assert left == []
    assert Trajectory.load(spool.path, place).initial.keys() == {"x"}
    assert spools.case().path != spool.path
    spool.close()
    spool.close()
    assert not Path(spool.path).exists()


def test_a_folder_that_is_removed_meanwhile_fails_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rank removes it while the controller makes its files; the others are made elsewhere."""
    run = tmp_path / "run"
    spools = Spools(str(run))

    def late(name: str) -> None:
        monkeypatch.undo()
        shutil.rmtree(run)
        Path(name).unlink()

    run.mkdir()
    monkeypatch.setattr(os, "unlink", late)
    spools.case().close()
    assert not run.exists()
    spools.case().close()
    with spools.directory() as folder:
        assert Path(folder).is_dir()


class Wide(Scenario):
    def model(self) -> torch.nn.Module:
        return torch.nn.Linear(100, 100)

    def batch(self, rows: int) -> Batch:
        raise AssertionError("trained before it was known whether there is room")


#: What a case of 4 ranks needs: 10,100 parameters, 3 steps, an oracle in float64 with 4 parts, 9
#: reference runs and 4 ranks in float32.
RUN = 10_100 * (1 + 2 * 3 + 2 * 4)
ORACLE = 8 * (RUN + 5 * 3 * 10_100)
DISK = ORACLE + (9 + 4) * 4 * RUN


@pytest.mark.parametrize(
    ("disk", "memory", "what"),
    [
        (DISK, ORACLE, ""),
        (DISK - 1, ORACLE, "disk space for temporary files"),
        (DISK, ORACLE - 1, "memory"),
    ],
    ids=["enough", "too little disk", "too little memory"],
)
def test_what_has_no_room_is_not_trained(
    spool: Spool, monkeypatch: pytest.MonkeyPatch, disk: int, memory: int, what: str
) -> None:
    class Found:
        f_bavail, f_frsize = disk, 1

    monkeypatch.setattr(os, "statvfs", lambda _: Found)
    monkeypatch.setattr(room, "_available_memory", lambda: memory)
    recipe = Recipe(Wide(), torch.float32, torch.float32, 16, 0)

    said = ""
    try:
        room.check(recipe, 4, 4, spool.path)
    except room.NoRoomError as error:
        said = str(error)

    assert what in said
    assert bool(said) is bool(what)
    assert not said or "use a smaller model or fewer steps" in said
