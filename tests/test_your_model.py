"""Cases of a project's own scenarios: the tutorial as it stands, and what a scenario promises."""

from __future__ import annotations

import random
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TESTS, environment
from test_guide import missing
from torch import nn
from torch.nn import functional as F
from warm import PATIENCE

import distparity
from distparity import scenarios
from distparity.training import promises
from distparity.training.loop import Recipe

PAGE = (TESTS.parent / "docs" / "your-model.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--rootdir=.", *words],
        cwd=folder,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def test_the_tutorial_prints_what_it_says(tmp_path: Path) -> None:
    files: dict[str, str] = {}
    for block in blocks("python"):
        (name,) = re.findall(r"^# (tests/\w+\.py)", block)
        files[name] = files.get(name, "") + block
    (tmp_path / "tests").mkdir()
    for name, text in files.items():
        (tmp_path / name).write_text(text, encoding="utf-8")

    (tmp_path / "pytest.ini").write_text(
        "[pytest]\ndistparity_reports = out\ndistparity_device = cpu\n"
    )
    (tmp_path / "test_wrong.py").write_text(WRONG, encoding="utf-8")
    shutil.copy(TESTS.parent / "examples" / "test_titan.py", tmp_path / "tests")

    # All commands in one run, because each would import torch twice.
    ran = run(tmp_path, "-v", "-rf", "--junitxml=junit.xml")

    for block in blocks("console"):
        printed = [line for line in block.splitlines() if not line.startswith("$ ")]
        assert missing(printed, ran.stdout) == [], ran.stdout
    xml = (tmp_path / "junit.xml").read_text()
    assert 'classname="tests.test_ours" name="test_ours[ours-ws2-float32]"' in xml
    assert '<property name="ratio" value="0.' in xml
    # What cannot run fails by itself.
    assert "unknown strategy 'no_such'; known: " in ran.stdout
    assert "fsdp2_reshard_to_2 is not defined for 3 ranks" in ran.stdout
    assert "4 failed, 7 passed" in ran.stdout, ran.stdout
    assert list((tmp_path / "out").glob("junit-*-cpu.xml"))


WRONG = """
import torch
from torch import nn

import distparity


class Line(distparity.Scenario):
    def model(self):
        return nn.Linear(3, 2)

    def batch(self, rows):
        return (torch.randn(rows, 3),)

    def loss(self, model, batch):
        return model(batch[0]).square().mean()


class Started(Line):
    dtypes = ("float64",)


torch.save({"model": {"weight": torch.ones(2, 3), "bias": torch.ones(2)}}, "start.pt")
test_line = distparity.cases(Line, strategies=["no_such", "fsdp2_reshard_to_2", "ddp"], world_sizes=[3], device="cpu")
test_start = distparity.cases(Started, strategies=["ddp"], checkpoint="start.pt", device="cpu")


def test_other():
    pass
"""


def test_cases_that_are_not_selected_cost_nothing(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(WRONG)

    ran = pytester.runpytest_inprocess("-k", "other", "-p", "no:cacheprovider")

    ran.assert_outcomes(passed=1, deselected=4)


# -- what a scenario promises ----------------------------------------------------------------------


class Line(distparity.Scenario):
    def model(self) -> nn.Module:
        return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))

    def batch(self, rows: int) -> distparity.Batch:
        return torch.randn(rows, 6), torch.randn(rows, 3)

    def loss(self, model: nn.Module, batch: distparity.Batch) -> torch.Tensor:
        return F.mse_loss(model(batch[0]), batch[1])


def changed(**methods: Any) -> distparity.Scenario:
    """A scenario with other methods; it stays out of the list of scenarios."""
    made = Line()
    for name, method in methods.items():
        setattr(made, name, method)
    return made


def dropping() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.25), nn.Linear(8, 3))


def normed() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Linear(8, 3))


def by_row(model: nn.Module, batch: distparity.Batch) -> torch.Tensor:
    x, target, seeds = batch
    with distparity.dropout_by_row(seeds):
        return F.mse_loss(model(x), target)


def seeded(rows: int) -> distparity.Batch:
    return torch.randn(rows, 6), torch.randn(rows, 3), distparity.row_seeds(rows)


def off_generator(rows: int) -> distparity.Batch:
    return torch.randn(rows, 6) * random.random(), torch.randn(rows, 3)


def summed(model: nn.Module, batch: distparity.Batch) -> torch.Tensor:
    return F.mse_loss(model(batch[0]), batch[1], reduction="sum")


def by_place(model: nn.Module, batch: distparity.Batch) -> torch.Tensor:
    weight = torch.arange(len(batch[0]))[:, None]
    return F.mse_loss(weight * model(batch[0]), batch[1])


def noisy(model: nn.Module, batch: distparity.Batch) -> torch.Tensor:
    return F.mse_loss(model(batch[0]), batch[1]) * (1 + random.random())


def faintly_noisy(model: nn.Module, batch: distparity.Batch) -> torch.Tensor:
    return F.mse_loss(model(batch[0]), batch[1]) * (1 + random.random() * promises.FAR / 10)


PROMISES = {
    "plain": (changed(), None),
    "dropout by row": (changed(model=dropping, batch=seeded, loss=by_row), None),
    "dropout": (changed(model=dropping), "the forward draws random numbers in the order"),
    "batch normalisation": (changed(model=normed), "the loss of all rows is not the mean"),
    "sum": (changed(loss=summed), "the loss is a sum over the rows: return the mean"),
    "by place": (changed(loss=by_place), "the loss depends on the order of the rows"),
    "random batch": (changed(batch=off_generator), r"batch\(\) .* Python's random"),
    "few rows": (changed(rows_per_rank=1), "a batch of 2 ranks has 2 rows, .* raise rows_per_rank"),
    "random loss": (changed(loss=noisy), "the loss is different in every call .*Python's random"),
    "faintly random loss": (changed(loss=faintly_noisy), "the loss is different .*Python's random"),
}


def asked(scenario: distparity.Scenario) -> list[str]:
    kind = getattr(torch, scenario.dtypes[0])
    return promises.broken(Recipe(scenario, kind, kind, scenario.rows_per_rank * 2, 7), 2)


@pytest.mark.parametrize(("scenario", "said"), PROMISES.values(), ids=PROMISES)
def test_promise_that_does_not_hold_is_told(
    scenario: distparity.Scenario, said: str | None
) -> None:
    found = asked(scenario)

    assert (found == []) if said is None else re.match(said, found[0])


def test_scenarios_of_the_package_keep_their_promises() -> None:
    every = scenarios.load().items()
    # The large ones differ from others in their sizes only, and take half a minute.
    ours = {n: s for n, s in every if not (scenarios.is_foreign(type(s)) or s.large)}

    assert {name: found for name, one in ours.items() if (found := asked(one))} == {}


# -- dropout by row --------------------------------------------------------------------------------


def test_dropout_by_row_drops_the_same_of_a_row_wherever_it_is() -> None:
    seeds, x = torch.tensor([3, 1, 4, 1]), torch.ones(4, 1000)
    with distparity.dropout_by_row(seeds):
        first, second = F.dropout(x, 0.25), F.dropout(x, 0.25)
    with distparity.dropout_by_row(seeds[[2, 0]]):
        part = F.dropout(x[:2], 0.25)

    assert part.equal(first[[2, 0]])
    assert not first.equal(second)
    assert first[1].equal(first[3])
    assert set(first.unique().tolist()) == {0.0, x[0, 0].div(0.75).item()}
    assert 0.7 < float((first > 0).float().mean()) < 0.8


def test_dropout_by_row_refuses_what_it_cannot_do() -> None:
    q = torch.ones(2, 1, 3, 4)
    with distparity.dropout_by_row(torch.tensor([1, 2])):
        F.scaled_dot_product_attention(q, q, q)
        with pytest.raises(NotImplementedError, match="eager"):
            F.scaled_dot_product_attention(q, q, q, dropout_p=0.1)
        with pytest.raises(ValueError, match="2 rows"):
            F.dropout(torch.ones(3, 2))


# -- declarations ----------------------------------------------------------------------------------


def test_class_in_a_function_cannot_be_imported() -> None:
    class Local(Line):
        pass

    with pytest.raises(TypeError, match="top level of a module"):
        distparity.cases(Local, strategies=["ddp"])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (((int,), ["ddp"]), "is not a subclass"),
        (((Line,), []), "needs a scenario, a strategy"),
        (((Line,), [Line]), "has no name"),
    ],
    ids=["no scenario", "no strategy", "no name"],
)
def test_wrong_declaration_is_refused(words: Any, said: str) -> None:
    with pytest.raises(TypeError, match=said):
        distparity.cases(*words[0], strategies=words[1])


def test_a_project_without_such_cases_pays_nothing_for_them() -> None:
    ask = "import sys, distparity.pytest_plugin.activate; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", ask], stdout=subprocess.PIPE, text=True, check=True
    )

    loaded = {name for name in done.stdout.split() if name.startswith("distparity.")}
    assert not {
        name for name in loaded if name.rpartition(".")[2] in ("own", "own_cases", "record")
    }
    assert "distparity.pytest_plugin.activate" in loaded
