"""Trainings as programs that need torch alone: what is folded, what is written, and what it shows."""

from __future__ import annotations

import ast
import fcntl
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
import torch.distributed as dist
from conftest import Distparity
from torch import nn
from torch.testing._internal.distributed.fake_pg import FakeStore

from distparity import scenarios, strategies
from distparity.core.judgement import Quantity
from distparity.devices.context import RankContext
from distparity.scenarios.base import Scenario
from distparity.session import issue
from distparity.strategies import _meshes
from distparity.strategies.single import Single
from distparity.training.loop import Recipe, train
from distparity.training.program.folding import NotWritable
from distparity.training.program.sources import Sources
from distparity.training.program.tidying import tidy
from distparity.training.program.writing import write

# -- what is folded --------------------------------------------------------------------------------

_SIZES = {"small": 2, "large": 8}


def _twice(x: Any) -> Any:
    return 2 * x


class Inner(nn.Module):
    def __init__(self, width: int, kind: SimpleNamespace) -> None:
        super().__init__()
        self.kind = kind
        self.width = width

    def forward(self, x: Any) -> Any:
        return x if self.kind.plain else x + self.width


class Base:
    count = 3
    kind = SimpleNamespace(plain=True)

    def above(self, x: Any) -> Any:
        x.append(self.count)
        return x

    def later(self) -> Any:
        raise NotImplementedError


class Folded(Base):
    word = "small"
    factor = float("inf")

    def branch(self, x: Any) -> Any:
        """It has a docstring, which goes."""
        if self.word == "large":
            return x.large()
        return x.small() if self.count > 2 else x.none()

    def loop(self, x: Any) -> Any:
        for number, letter in enumerate("ab"):
            x.add(number, letter)
        return x

    def sizes(self, x: int) -> Any:
        size: int = _SIZES[self.word]
        return x * size + self.factor

    def condition(self, x: Any) -> Any:
        return x if (self.count == 3 and x.ready) or self.word == "large" else None

    def short(self, x: Any) -> Any:
        return _twice(x)

    def order(self, x: Any) -> Any:
        first = x.draw()
        return x.other(x.draw(), first)

    def in_order(self, x: Any) -> Any:
        first = x.draw()
        return first, x.draw()

    def unused(self, x: Any) -> Any:
        nothing = x.shape  # noqa: F841
        drawn = x.draw()  # noqa: F841
        return x

    def model(self) -> Any:
        return Inner(self.count, self.kind)

    def above(self, x: Any) -> Any:
        return super().above(x)

    def forwards(self, x: Any) -> Any:
        return x.call(*[], **{"lr": 0.1})  # noqa: PIE804

    def module(self, x: Any) -> Any:
        place = torch.nn.functional
        return place.relu(getattr(place, "tanh")(x))  # noqa: B009


FOLDED = {
    "branch": "return x.small()",
    "loop": "x.add(0, 'a')\nx.add(1, 'b')\nreturn x",
    "sizes": "return x * 2 + float('inf')",
    "condition": "return x if x.ready else None",
    "short": "return 2 * x",
    "order": "first = x.draw()\nreturn x.other(x.draw(), first)",
    "in_order": "return (x.draw(), x.draw())",
    "unused": "drawn = x.draw()\nreturn x",
    "forwards": "return x.call(lr=0.1)",
    "module": "return torch.nn.functional.relu(torch.nn.functional.tanh(x))",
}


def _written(method: str) -> tuple[list[str], str]:
    sources = Sources()
    sources.instance("Case", Folded(), [method], Base)
    imports, texts = sources.texts()
    return imports, "\n".join(texts)


@pytest.mark.parametrize(("method", "body"), FOLDED.items(), ids=FOLDED)
def test_a_method_has_what_is_known_in_it(method: str, body: str) -> None:
    _, text = _written(method)

    (line,) = (one for one in ast.parse(text).body if isinstance(one, ast.ClassDef))
    (tree,) = line.body
    assert isinstance(tree, ast.FunctionDef)
    assert "\n".join(map(ast.unparse, tree.body)) == body


def test_a_class_is_written_for_the_arguments_that_are_known() -> None:
    imports, text = _written("model")

    assert imports == ["from torch import nn"]
    assert text == textwrap.dedent("""\
        class Inner(nn.Module):
            def __init__(self):
                super().__init__()
                self.width = 3
            def forward(self, x):
                return x
        class Case:
            def model(self):
                return Inner()""")


_ZERO = 0


class Plain(nn.Module):
    deep = False

    def __init__(self, more: int = _ZERO, *, most: int = _ZERO + 1) -> None:
        super().__init__()
        self.more = more, most
        self.skips = False

    def forward(self, x: Any) -> Any:
        return x if self.skips or self.deep else x + 1


class Deep(Plain):
    deep = True


class Changed(Base):
    def model(self) -> Any:
        return Deep()

    def before(self, model: Any) -> Any:
        model.skips = True


def test_what_somebody_may_change_is_not_known() -> None:
    sources = Sources()
    sources.instance("Case", Changed(), ["model", "before"], Base)
    imports, texts = sources.texts()
    space: dict[str, Any] = {}
    exec("\n".join([*imports, *texts]), space)

    case = space["Case"]()
    plain, deep = space["Plain"](), case.model()
    assert (plain(1), deep(1), plain.more) == (2, 1, (0, 1))
    case.before(plain)
    assert plain(1) == 1


def test_a_parents_method_is_written_in_a_parent() -> None:
    _, text = _written("above")

    space: dict[str, Any] = {}
    exec(text, space)
    assert space["Case"]().above([]) == [3]


def _counts(self: Any) -> None:
    self.count += 1


def _closure() -> Callable[..., Any]:
    known = [1]

    def odd(self: Any) -> Any:
        return known

    return odd


#: What has no source of its own, and what is said of it.
NOT_WRITTEN: dict[str, tuple[Callable[..., Any], str]] = {
    "a closure": (_closure(), "is a closure"),
    "a property": (cast("Any", property(lambda self: 1)), "is not a plain method"),
    "state": (_counts, "count of Base is not a plain method"),
}


@pytest.mark.parametrize(("method", "why"), NOT_WRITTEN.values(), ids=NOT_WRITTEN)
def test_what_cannot_be_written_is_said(method: Callable[..., Any], why: str) -> None:
    kind = type("Odd", (Base,), {"odd": method})

    with pytest.raises(NotWritable, match=why):
        Sources().instance("Case", kind(), ["odd"], Base)


#: Names are put in the place where they are used only if nothing changes.
TIDIED = {
    "used twice": ("a = f()\nreturn a + a", "a = f()\nreturn a + a"),
    "in a loop": ("a = f()\nreturn [a for _ in x]", "a = f()\nreturn [a for _ in x]"),
    "in a condition": ("a = f()\nreturn x and a", "a = f()\nreturn x and a"),
    "not at once": ("a = f()\ng()\nreturn a", "a = f()\ng()\nreturn a"),
    "iterated": ("a = f()\nfor b in a:\n    g(b)", "for b in f():\n    g(b)"),
    "one of one": ("(a,) = [f()]\nreturn g(a)", "return g(f())"),
    "a function": ("return g(lambda: f())", "return g(f)"),
    "a method": ("return g(lambda: x.f())", "return g(lambda: x.f())"),
}


@pytest.mark.parametrize(("given", "tidied"), TIDIED.values(), ids=TIDIED)
def test_a_function_is_shorter_and_means_the_same(given: str, tidied: str) -> None:
    (tree,) = ast.parse("def function(x):\n" + textwrap.indent(given, "    ")).body
    assert isinstance(tree, ast.FunctionDef)

    tidy(tree)

    assert "\n".join(map(ast.unparse, tree.body)) == tidied


# -- what is written -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def two() -> Iterator[RankContext]:
    """The context of a rank of two, whose group communicates nothing."""
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=2)
    kind = SimpleNamespace(no_reductions=("AVG",))
    found = SimpleNamespace(world_size=2, rank=0, device=torch.device("cpu"), kind=kind)
    yield cast("RankContext", found)
    dist.destroy_process_group()
    _meshes._mesh.cache_clear()


def _recipe(name: str, dtype: torch.dtype = torch.float64) -> Recipe:
    scenario = scenarios.get(name)
    return Recipe(scenario, dtype, dtype, 2 * scenario.rows_per_rank, seed=1)


def _program(name: str, strategy: str, context: RankContext, kind: str = "parameter") -> str:
    recipe = _recipe(name)
    parameter, _ = next(recipe.model().named_parameters())
    last = Quantity(recipe.scenario.steps - 1, kind, parameter)
    return write(recipe, strategies.load()[strategy], context, last)


DRAWN = [
    "drawn.linear.steps_1",
    "drawn.attention.units.adamw.groups.reload_checkpoint.recompute",
    "drawn.buffer.tied.again.units_nested.frozen_between.micro_exchanged.entropy.backward_twice.clip_1",
    "drawn.mlp.experts.tokens_tied.gated.units.micro.ce_ignore.fused.clip_inf.steps_2",
    "drawn.convolution.norm.scale.twice.width_12.no_bias.units_all.thawed.ce_tokens.lr_onecycle.steps_5",
]


@pytest.mark.parametrize("strategy", ["ddp", "fsdp1", "fsdp2"])
@pytest.mark.parametrize("name", ["basic", "multiple_forward", "clipping_frozen", "resume", *DRAWN])
def test_a_program_needs_torch_alone(name: str, strategy: str, two: RankContext) -> None:
    text = _program(name, strategy, two)

    space: dict[str, Any] = {"__name__": "program"}
    exec(compile(text, name, "exec"), space)
    # In one process it trains, whatever it is.
    assert torch.isfinite(space["train"]("cpu")).all()
    assert "distparity" not in text


def test_a_program_of_an_accelerator_takes_a_device_for_each_rank(two: RankContext) -> None:
    kind = SimpleNamespace(no_reductions=(), backend=lambda: "nccl")
    there = SimpleNamespace(world_size=2, rank=1, device=torch.device("cuda", 1), kind=kind)

    text = _program("basic", "ddp", cast("RankContext", there))

    assert "torch.cuda.set_device(rank % torch.cuda.device_count())\n" in text
    assert 'device = torch.device("cuda", torch.cuda.current_device())\n' in text
    assert 'dist.init_process_group("nccl", ' in text
    assert 'start_method="spawn"' in text


def test_most_of_the_shipped_scenarios_have_a_program(two: RankContext) -> None:
    left = {}
    for name, scenario in scenarios.load().items():
        # Other tests have scenarios of their own.
        shipped = not scenarios.is_foreign(type(scenario))
        if shipped and not type(scenario).large and "float64" in scenario.dtypes:
            try:
                compile(_program(name, "ddp", two), name, "exec")
            except NotWritable as error:
                left[name] = str(error)

    # What the loop of a program does not have, in the words of the features.
    assert all(why.startswith("a training with ") for why in left.values()), left
    assert len(left) < 25


#: Some of those that have a program, and the draws.
SHIPPED = [
    "attention",
    "checkpoint_reentrant",
    "clipping_frozen",
    "embedding_sparse",
    "lstm",
    "mixture_of_experts",
    "multiple_forward",
    "resume",
    "second_order",
    "skipped_unit",
    "tied_at_root",
    "unused_parameters",
]


@pytest.mark.parametrize("name", [*SHIPPED, *DRAWN])
def test_a_program_trains_in_one_process_as_the_case_does(name: str, two: RankContext) -> None:
    kind = SimpleNamespace(seed=torch.manual_seed)
    alone = cast("RankContext", SimpleNamespace(**{**vars(two), "world_size": 1, "kind": kind}))
    space: dict[str, Any] = {"__name__": "program"}
    recipe = _recipe(name)
    parameter, _ = next(recipe.model().named_parameters())

    exec(_program(name, "ddp", two), space)

    steps = train(recipe, Single(), alone).steps
    assert torch.equal(space["train"]("cpu"), cast("torch.Tensor", steps[-1].parameter[parameter]))


@pytest.mark.parametrize(
    ("name", "strategy", "why"),
    [
        ("basic", "pp_gpipe", "the strategy pp_gpipe"),
        ("basic", "zero1", "the strategy zero1"),
        ("low_precision", "ddp", "a training with bfloat16"),
        ("mixed_bfloat16", "fsdp2", "a training with precision"),
        ("loss_scale", "ddp", "a training with loss_scale"),
    ],
)
def test_what_has_no_program_is_said(name: str, strategy: str, why: str, two: RankContext) -> None:
    scenario: Scenario = scenarios.get(name)
    recipe = _recipe(name, getattr(torch, scenario.dtypes[0]))

    with pytest.raises(NotWritable, match=why):
        write(recipe, strategies.load()[strategy], two, None)


# -- what it shows ---------------------------------------------------------------------------------


def test_a_program_of_a_right_training_says_so(two: RankContext, tmp_path: Path) -> None:
    file = tmp_path / "program.py"
    file.write_text(_program("multiple_forward", "fsdp2", two), "utf-8")

    word, said = issue.ran(sys.executable, file)

    assert word == "right", said


def test_a_program_that_hangs_leaves_no_rank_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Both processes hold the lock until they end.
    (tmp_path / "lock").touch()
    file = tmp_path / "program.py"
    file.write_text(
        "import fcntl, os, time\n"
        f"held = open({str(tmp_path / 'lock')!r})\n"
        "fcntl.flock(held, fcntl.LOCK_EX)\n"
        f"open({str(tmp_path / 'began')!r}, 'w').close()\n"
        "os.fork()\n"
        "time.sleep(600)\n",
        "utf-8",
    )
    monkeypatch.setattr(issue, "_MOST_SECONDS", 8)

    assert issue.ran(sys.executable, file) == ("", "no answer in 8 s")

    assert (tmp_path / "began").exists()
    with (tmp_path / "lock").open() as free:
        fcntl.flock(free, fcntl.LOCK_EX)


@pytest.mark.parametrize("strategy", ["fsdp2_activations_on_cpu", "fsdp2_zero1", "tp_sequence"])
def test_a_strategy_that_trains_otherwise_is_not_written_as_its_parent(
    strategy: str, two: RankContext
) -> None:
    with pytest.raises(NotWritable, match=f"the strategy {strategy}"):
        _program("basic", strategy, two)


#: In torch 2.13 each rank keeps its own gradient, or has that of all ranks' sum.
WRONG = [("cpu", "fsdp1_hybrid_nx1"), ("sim", "tp_loss_implicit")]


@pytest.mark.parametrize(("device", "strategy"), WRONG)
def test_a_wrong_training_becomes_a_program_and_an_issue(
    device: str,
    strategy: str,
    tmp_path: Path,
    distparity: Distparity,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    case = f"drawn.linear.steps_1/{strategy}-ws2-float32"
    words = ["--device", device, "--program", "out.py", "--issue", "out.md"]
    # As ``import torch`` does with a vendor's device.
    monkeypatch.setenv("SIM_AUTOLOAD", str(int(device == "sim")))
    monkeypatch.delenv("TORCH_DEVICE_BACKEND_AUTOLOAD", raising=False)

    done = distparity("explain", case, *words, cwd=tmp_path)

    assert done.returncode == 1, done.stdout + done.stderr
    text = (tmp_path / "out.py").read_text("utf-8")
    said = next(line for line in done.stdout.splitlines() if line.startswith("wrote out.py"))
    assert "it says: defect: torch 2." in said
    assert "step 0, gradient of enter.weight at [0, 0]: " in said
    assert len(text.splitlines()) < 80
    report = (tmp_path / "out.md").read_text("utf-8")
    assert "### 🐛 Describe the bug" in report
    assert f"```python\n{text.rstrip()}\n```" in report
    assert f"Found by distparity as `{case}`" in report
    assert "PyTorch version: 2." in report.partition("### Versions")[2]


def test_the_release_since_which_a_program_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # In the place of twelve environments: a program's words by the release that would run it.
    class Made:
        suite = tmp_path

        def of(self, candidate: Any) -> Any:
            return nullcontext(Path(candidate.name))

        def close(self) -> None:
            pass

    def ran(python: Path, _program: Path) -> tuple[str, str]:
        known = {"2.8.0": "right", "2.9.0": "neither", "2.9.1": "neither"}
        word = known.get(python.name, "defect")
        return ("" if word == "neither" else word), f"{word}: torch {python}: words"

    monkeypatch.setattr(issue, "Environments", Made)
    monkeypatch.setattr(issue, "ran", ran)

    lines = issue.since(tmp_path / "program.py", "2.8", "2.11", say=lambda _: None)

    assert lines[0] == (
        "It changed in one of 2.9.0, 2.9.1, 2.10.0: 2.9.0, 2.9.1 could not be judged."
    )
    assert lines[2] == "- right with 2.8.0: `right: torch 2.8.0: words`"
    assert "- not known with 2.9.1: `neither: torch 2.9.1: words`" in lines
