"""Trainings that are drawn: the grammar, the shrinker, and a campaign that finds a deliberate fault."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from conftest import Distparity, Suite

from distparity import strategies
from distparity.core.case import Case
from distparity.core.judgement import Divergence, Quantity
from distparity.core.outcome import Outcome, Status
from distparity.drawing import known
from distparity.drawing.grammar import FIELDS, LAYERS, Draw, NoSentence, draw
from distparity.drawing.shrink import contains, shrink
from distparity.scenarios import get
from distparity.session import fuzz
from distparity.training import promises
from distparity.training.loop import Recipe

torch.set_num_threads(1)
ROOT = Path(__file__).parents[1]


def drawn(count: int, seed: int = 0) -> list[Draw]:
    luck = random.Random(seed)
    return [draw(luck) for _ in range(count)]


def case(name: str, strategy: str = "fsdp2", size: int = 2, dtype: str = "float32") -> Case:
    return Case(f"drawn.{name}", strategy, size, dtype, "cpu")


# -- the grammar -----------------------------------------------------------------------------------


def test_a_seed_says_what_is_drawn() -> None:
    assert drawn(20) == drawn(20) != drawn(20, seed=1)


def test_a_draw_is_read_again_from_its_name_and_from_json() -> None:
    every = drawn(300)

    assert [Draw.of(one.name) for one in every] == every
    assert [Draw.from_json(json.loads(json.dumps(one.to_json()))) for one in every] == every


def test_every_word_is_drawn() -> None:
    seen = frozenset().union(*(one.features for one in drawn(3000)))

    words = {word for known in FIELDS.values() for word in known}
    assert seen == words | {f"{layer}_layer" for layer in LAYERS}


def test_words_are_of_one_field() -> None:
    every = Counter([*LAYERS, *(word for known in FIELDS.values() for word in known)])

    assert set(every.values()) == {1}
    assert not any(set("./-*") & set(word) for word in every)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("basic", "does not begin"),
        ("drawn.", "1 to 4 layers"),
        ("drawn.frozen", "1 to 4 layers"),
        ("drawn.linear.sparkling", "no word 'sparkling'"),
        ("drawn.linear.ce.micro", "in the order"),
        ("drawn.linear.ce.kl", "at most one of each field"),
        ("drawn.linear.calls", "no word"),
        ("drawn.linear.gated", "needs micro-batches"),
        ("drawn.linear.no_bias.frozen_bias", "there are none"),
        ("drawn.linear.reload.steps_1", "needs a second"),
        ("drawn.tied.deferred", "meta device"),
        ("drawn.attention.width_5", "even width"),
    ],
)
def test_what_means_nothing_is_refused_in_words(name: str, says: str) -> None:
    with pytest.raises(NoSentence, match=says):
        Draw.of(name)


def broken(name: str, parts: int) -> list[str]:
    scenario = get(name)
    rows = scenario.rows_per_rank * parts
    return promises.broken(Recipe(scenario, torch.float32, torch.float32, rows, 7), parts)


def test_every_sentence_means_the_same_in_one_process() -> None:
    # One of each word at least, and some together.
    each = [
        Draw.made(("linear",), {"bias": "no_bias", "micro": "micro", field: word})
        for field, words in FIELDS.items()
        for word in words
    ]
    every = [
        *(one for one in each if one.problem() is None),
        *(Draw((layer,)) for layer in LAYERS),
        *drawn(20),
    ]

    assert {one.name: found for one in every if (found := broken(one.name, 2))} == {}


# -- shrinking -------------------------------------------------------------------------------------


def red_if(*words: str, layers: Sequence[str] = (), at_least: int = 2) -> Callable[[Case], bool]:
    def red(one: Case) -> bool:
        found = Draw.of(one.scenario)
        return (
            set(words) <= set(found.words)
            and set(layers) <= set(found.layers)
            and one.world_size >= at_least
        )

    return red


@pytest.mark.parametrize(
    ("large", "red", "smallest"),
    [
        pytest.param(
            case("mlp.tied.norm.units.frozen.ce.adamw.clip_2.steps_5", "fsdp2_hsdp", 4),
            red_if("frozen"),
            case("linear.frozen.steps_1"),
            id="one word",
        ),
        pytest.param(
            case("mlp.tied.units.micro.ce.adamw", "pp_zero_bubble"),
            red_if(layers=["tied"]),
            case("tied.steps_1", "pp_gpipe"),
            id="a layer",
        ),
        pytest.param(
            case("linear.gated.micro_exchanged.clip_1", "fsdp2", 4),
            red_if("gated", at_least=4),
            case("linear.gated.micro.steps_1", "fsdp2", 4),
            id="what it needs, and the world",
        ),
        pytest.param(
            case("linear.gated.units.micro.adamw"),
            red_if(),
            case("linear.steps_1"),
            id="two words that go together",
        ),
    ],
)
def test_it_shrinks_to_what_is_needed(
    large: Case, red: Callable[[Case], bool], smallest: Case
) -> None:
    def first(todo: Sequence[Case]) -> Case | None:
        return next(filter(red, todo), None)

    found = shrink(large, first)

    assert found.case == smallest
    assert contains(large, smallest)
    # What is smallest already stays what it is.
    assert shrink(smallest, first).case == smallest


def test_it_gives_up_after_so_many_tries() -> None:
    found = shrink(case("mlp.tied.norm.units.frozen.ce.adamw"), lambda _: None, most=7)

    assert found.tried == 7


# -- what is red, and why --------------------------------------------------------------------------


def wrong(kind: str, diagnosis: str = "") -> Outcome:
    first = Divergence(Quantity(1, kind, "x"), 0, "off by 1")
    return Outcome(
        Status.FAILED, facts={"diagnosis": diagnosis}, failure="wrong numbers", first=first
    )


RAISED = Outcome(Status.FAILED, "rank 0 raised KeyError: 3, in no collective", failure="raised")


@pytest.mark.parametrize(
    ("outcome", "why"),
    [
        (Outcome(Status.PASSED), None),
        (Outcome(Status.NOT_RUN), None),
        (RAISED, ("raised", "KeyError: #")),
        (
            wrong("gradient", "gradients times 2: of x"),
            ("wrong numbers", "gradient"),
        ),
        (wrong("norm"), ("wrong numbers", "norm")),
        (Outcome(Status.TIMEOUT, failure="timeout"), ("timeout",)),
    ],
)
def test_the_reason_is_what_two_cases_have_in_common(
    outcome: Outcome, why: tuple[str, ...] | None
) -> None:
    assert fuzz.reason(outcome) == why


def test_known_defects_have_their_programs_and_are_told_by_name() -> None:
    for one in known.every():
        scenario, _, name = one.case.partition("/")
        strategy, _, size = name.rpartition("-ws")
        small = Case(scenario, strategy, int(size), "float32", "cpu")
        assert Draw.of(scenario)
        assert (ROOT / one.program).is_file()
        assert known.name_of(small, tuple(one.reasons[0].split(": "))) == one.name
        assert known.name_of(small, ("raised", "another")) is None


# Some strategies' modules of torch use torch.jit.
@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
def test_strategies_of_draws_alone_train(suite: Suite) -> None:
    """No scenario of the suite has them. Each runs here once, but for known defects of torch."""
    broken = {one.case.partition("/")[2].rpartition("-ws")[0] for one in known.every()}
    cases = [
        f"drawn.mlp.ce/{name}-ws{max(2, how.least_ranks, how.ranks_multiple_of)}-float32"
        for name, how in strategies.load().items()
        if how.tier == "drawn" and name not in broken
    ]
    assert len(cases) >= 5
    assert suite(*cases).statuses("here-cpu") == dict.fromkeys(cases, "passed")


def test_a_deliberate_fault_is_found_and_shrunk(distparity: Distparity, tmp_path: Path) -> None:
    """One run: the corpus first, which is green but for the fault, then a draw."""
    corpus = tmp_path / "fuzz.jsonl"
    corpus.write_text(json.dumps({"case": "drawn.linear.steps_1/pp_gpipe-ws2-float32"}) + "\n")
    ran = distparity(
        "fuzz", "--device", "cpu", "--draws", "1", "--seed", "14", "--corpus", "fuzz.jsonl",
        "--mutant", "sum_not_mean", cwd=tmp_path,
    )  # fmt: skip

    _, *found = [json.loads(line) for line in corpus.read_text().splitlines()]
    assert ran.returncode == 1, ran.stdout
    # The smallest case is a matter of the shrinking alone, which has tests without ranks.
    (one,) = found
    assert one["case"] != one["seen_in"], ran.stdout
    assert "summed" in one["diagnosis"]
    assert f"finding: {one['case']}" in ran.stdout
    assert list(tmp_path.glob("reports/junit-*-cpu-fuzz.xml"))


@pytest.mark.parametrize(("known", "mutant"), [(False, None), (True, None), (False, "no_exchange")])
def test_a_new_finding_of_torch_is_told_with_the_command_that_writes_its_program(
    known: bool, mutant: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fuzz.Campaign, "facts", lambda _: {"drawn": 1})
    case = Case("drawn.linear.steps_1", "ddp", 2, "float32", "cpu")
    found = fuzz.Finding(
        case, Outcome(Status.FAILED, "off"), ("wrong numbers",), case.id, known=known
    )
    campaign = fuzz.Campaign(cast("Any", None), 1, Path(), mutant=mutant, findings=[found])

    command = f"distparity explain {case.id} --device cpu --program out.py --issue out.md"
    assert any(command in line for line in fuzz.told(campaign)) == (not known and mutant is None)


def test_a_finding_does_not_shrink_into_a_known_defect(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Case] = []
    monkeypatch.setattr(fuzz.Campaign, "_confirmed", lambda *_: True)
    monkeypatch.setattr(fuzz.Campaign, "_first", lambda _, todo, __: asked.extend(todo))
    # The loss of the known one is another: without the word, this is that.
    case = Case("drawn.linear.kl.steps_1", "tp_loss_implicit", 2, "float32", "cpu")
    first = Divergence(Quantity(0, "gradient", "enter.weight"), 0, "off")
    red = Outcome(Status.FAILED, "off", failure="wrong numbers", first=first)
    run = cast("Any", SimpleNamespace(torch=SimpleNamespace(torch="2.13.0")))
    campaign = fuzz.Campaign(run, 1, tmp_path / "corpus", tell=lambda _: None)

    campaign._look_into(case, red)

    names = [one.scenario for one in asked]
    assert names
    assert "drawn.linear.steps_1" not in [
        one.scenario for one in asked if one.strategy == case.strategy
    ]
    assert [one.case for one in campaign.findings] == [case]
