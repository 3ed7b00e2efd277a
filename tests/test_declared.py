"""What is declared in files is what there is: the cases, the page of them, the inventory."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from distparity.core.torch_facts import TorchFacts
from distparity.session import selection
from distparity.session.arguments import OF_PAIRS
from distparity.session.case_list import asked_for
from distparity.session.declared import read
from distparity.session.options import Options

ROOT = Path(__file__).parents[1]
#: A name of a scenario, a strategy or both, as the inventory writes it.
NAMED = re.compile(r"`([a-z0-9_*]+)(?:/([a-z0-9_*]+))?`")


def _load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("declared", ROOT / "ci" / "declared.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def declared() -> ModuleType:
    return _load()


@pytest.fixture(scope="module")
def facts(declared: ModuleType) -> TorchFacts:
    found: TorchFacts = declared.ask()
    return found


def test_cases_and_the_page_of_them_are_those_declared(
    declared: ModuleType, facts: TorchFacts
) -> None:
    assert declared.differences(declared.files(facts)) == [], "nox -s declared -- --write"


def test_a_scenario_that_vanishes_is_seen(declared: ModuleType, facts: TorchFacts) -> None:
    fewer = {name: what for name, what in facts.scenarios.items() if name != "basic"}

    found = declared.differences(declared.files(replace(facts, scenarios=fewer)))

    assert any(line.startswith("-basic = ") for line in found)


@pytest.mark.parametrize(
    ("select", "sizes"), [("quick", (2, 4)), ("default", (2, 4)), (selection.EVERY, (2, 3, 8))]
)
def test_cases_are_the_same_without_torch(
    facts: TorchFacts, select: str, sizes: tuple[int, ...]
) -> None:
    shipped = {case.id for case in selection.cases(select, read(), "cpu", sizes)}

    assert shipped == _cases(select, facts, sizes)


@pytest.mark.parametrize(
    ("scenario", "strategy", "ranks", "why"),
    [
        ("transformer_block", "tp_loss", 4, None),
        ("transformer_block", "tp_loss", 8, "the layers can be split among at most 4 ranks"),
        ("transformer_block", "fsdp2_tp", 8, None),
        ("uneven_perceptron", "tp", 8, None),
        ("stacked", "pp_gpipe", 8, None),
        ("stacked", "pp_zbv", 4, None),
        ("stacked", "pp_zbv", 8, "the model has 8 stages, and 8 ranks need 16"),
        ("stacked", "pp_interleaved_ddp", 16, None),
        ("basic", "ddp", 64, None),
    ],
)
def test_a_model_is_cut_among_so_many_ranks(
    facts: TorchFacts, scenario: str, strategy: str, ranks: int, why: str | None
) -> None:
    assert facts.strategies[strategy].too_many(ranks, facts.scenarios[scenario]) == why


def _cases(select: str, facts: TorchFacts, sizes: Sequence[int] = (2, 4)) -> set[str]:
    return {case.id for case in selection.cases(select, facts, "cpu", sizes)}


def test_a_selection_has_all_that_the_smaller_one_has(facts: TorchFacts) -> None:
    quick, default, full, large, order, sizes, generated = (
        _cases(select, facts) for select in selection.SELECTIONS
    )

    assert quick < default < full
    assert full | large | order | sizes | generated <= _cases(selection.EVERY, facts)
    assert full.isdisjoint(large | order | sizes)
    # Of generated cases, those of torch's operators and of larger worlds are in no other selection.
    usual = {case for case in generated if "-ws2-" in case and not case.startswith("operator/")}
    assert full & generated == default & generated == usual
    assert sizes.isdisjoint(generated)


@pytest.mark.parametrize("sizes", [(2,), (4,), (4, 8)], ids=str)
def test_a_case_can_be_named_whatever_world_sizes_it_is_selected_with(
    facts: TorchFacts, sizes: Sequence[int]
) -> None:
    selected = set().union(*(_cases(one, facts, sizes) for one in selection.SELECTIONS))

    assert selected <= _cases(selection.EVERY, facts, (2, 4, 8))


IDS = {
    "one": ["basic/ddp-ws2-float32"],
    "not in their order": ["basic/fsdp2-ws2-float64", "containers/ddp-ws2-float32"],
    "of more ranks than are selected": ["basic/ddp-ws8-float32", "basic/ddp-ws2-float32"],
    "of the largest selections": ["resume/zero1-ws4-float64", "all_reduce/tensor-ws2-int64"],
}


@pytest.mark.parametrize("ids", IDS.values(), ids=IDS)
def test_patterns_that_match_ids_alone_find_the_same_cases(
    facts: TorchFacts, ids: list[str]
) -> None:
    """Ids have a shorter way than patterns through all the cases there are."""
    patterns = [f"{one[:-1]}[{one[-1]}]" for one in ids]
    found, same, mixed = (
        asked_for(facts, ["cpu", "sim"], [2, 4], Options(cases=words))
        for words in (ids, patterns, [*ids, *patterns])
    )

    assert found == same == mixed
    assert sorted(case.id for case in found) == sorted([*ids, *ids])


def test_what_each_pair_of_nodes_runs_is_there(facts: TorchFacts) -> None:
    assert set(OF_PAIRS) <= _cases("default", facts, (2,))


@pytest.mark.parametrize(
    ("need", "have", "why"),
    [
        (0, 1 << 30, None),
        (160 << 30, 160 << 30, None),
        (160 << 30, 0, None),
        (160 << 30, 3 << 29, "it needs 160 GiB of memory, and this machine has 1.5 GiB"),
    ],
    ids=["needs none", "has it", "unknown", "has less"],
)
def test_a_machine_without_the_memory_is_told(
    facts: TorchFacts, need: int, have: int, why: str | None
) -> None:
    assert replace(facts.scenarios["basic"], memory=need).too_large(have) == why


def test_quick_touches_every_strategy_and_every_family(facts: TorchFacts) -> None:
    every = selection.cases("quick", facts, "cpu", (2, 4))
    cases = [case for case in every if case.scenario in facts.scenarios]

    written = {name for name, what in facts.operations.items() if not what.selection}
    assert {case.scenario for case in every} >= written
    own = ("drawn", "ordered")
    of_the_suite = {name for name, how in facts.strategies.items() if how.tier not in own}
    assert {case.strategy for case in cases} == of_the_suite
    families = {what.family for what in facts.scenarios.values() if not what.large}
    assert {facts.scenarios[case.scenario].family for case in cases} == families


def test_inventory_names_only_what_there_is(facts: TorchFacts) -> None:
    rows = [line for line in (ROOT / "docs/inventory.md").read_text().splitlines() if "`" in line]
    known = {*facts.scenarios, *facts.strategies}

    unknown = {
        part
        for row in rows
        for found in NAMED.finditer(row.split("|", 2)[-1])
        for part in found.groups()
        if part not in (None, "*") and part not in known
    }

    assert unknown == set()
