"""Compare the existing cases with the declared ones, so that no case vanishes unnoticed.

    nox -s declared                 # fails, and prints the differences
    nox -s declared -- --write      # declares the existing cases: in ci/, docs/ and src/

Any torch release will do: a case that a release refuses still counts as declared.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from distparity.core.torch_facts import StrategyFacts, TorchFacts
from distparity.session import declared, selection
from distparity.session.case_list import DEFAULT_WORLD_SIZES
from distparity.worlds.launcher import Launcher

ROOT = Path(__file__).parents[1]


def ask() -> TorchFacts:
    """Every scenario, strategy and operation, from a process that imports torch."""
    launcher = Launcher([], [])
    try:
        return launcher.ready()
    finally:
        launcher.close(reported=True)


# -- the counts ------------------------------------------------------------------------------------


def counts(facts: TorchFacts) -> str:
    """How many cases each selection has, by scenario and strategy, as TOML."""
    lines = [
        "# Written by ci/declared.py: cases by selection, scenario and strategy.",
        "",
        "[total]",
    ]
    tables: list[str] = []
    for select in selection.SELECTIONS:
        rows: dict[str, dict[str, int]] = {}
        left_out = 0
        cases = selection.cases(select, facts, "cpu", DEFAULT_WORLD_SIZES)
        for case in cases:
            row = rows.setdefault(case.scenario, {})
            what = facts.operations.get(case.scenario)
            # Of torch's operators the number is enough.
            many = what is not None and what.selection == "generated"
            column = "operators" if many else case.strategy
            row[column] = row.get(column, 0) + 1
            left_out += _why_not(facts, case.scenario, case.strategy) is not None
        lines += [f"{select} = {len(cases)}", f"{select}_that_do_not_apply = {left_out}"]
        tables += ["", f"[{select}]"]
        tables += [f"{name} = {{ {_inline(row)} }}" for name, row in rows.items()]
    return "\n".join([*lines, *tables, ""])


def _inline(row: Mapping[str, int]) -> str:
    return ", ".join(f"{strategy} = {count}" for strategy, count in row.items())


def _why_not(facts: TorchFacts, scenario: str, strategy: str) -> str | None:
    if scenario in facts.operations:
        # What applies to an operation is listed with it.
        return None
    what, how = facts.scenarios[scenario], facts.strategies[strategy]
    found = [how.refuses((*what.features, dtype)) for dtype in what.dtypes]
    return found[0] if all(found) else None


# -- the page --------------------------------------------------------------------------------------

HEAD = """\
# Scenarios and strategies

`nox -s declared -- --write` writes this page; a test compares it with the code.

`--select` decides how many of the cases a run has:

| selection | cases | of these, declared not to apply | what it contains |
|---|---|---|---|
{totals}

`-m` selects by marker: `core`, `variant`, `anchor`, `slow`, `large`, `ordered`, `family(name="layers")`.

In the tables, **x** means that the case runs. A number is the number of the reason below why the
strategy does not run the scenario. A number in brackets is a question that distparity asks torch
first: if torch refuses, the case is *not supported*, and the message quotes the refusal.
"""
CONTENT = {
    "quick": "every strategy and every family, once or a few times",
    "default": "core strategies run every scenario in float32, and the anchors (**bold** here) in "
    "every dtype; variants run the anchors, in one world size",
    "full": "every strategy runs every scenario, in every dtype, including the slow ones",
    "large": "core strategies train models of millions of parameters, in float32 and one world size",
    "order": "strategies in which the order of streams matters more ([order.md](order.md)), which are in "
    "no other selection, run the anchors in float32",
    "sizes": "collectives with messages from one element to `--largest` bytes ([sizes.md](sizes.md)), "
    "which are in no other selection",
    "generated": "torch's operators and collectives with generated inputs "
    "([operations.md](operations.md#generated-cases)); those of operators are in no other selection",
}


NEEDY = """\
These strategies run only the scenarios that have what they need. The numbers are the reasons why a
strategy does not run the others."""


class Page:
    """The tables, and the sentences that their numbers stand for."""

    def __init__(self, facts: TorchFacts) -> None:
        self.facts = facts
        self.notes: dict[str, int] = {}

    def text(self) -> str:
        core = [
            name for name, how in self._strategies.items() if how.tier == "core" and not how.needs
        ]
        needy = [name for name, how in self._strategies.items() if how.needs]
        others = [name for name in self._strategies if name not in (*core, *needy)]
        tables = [*self._core(core), "", "## Variants and the anchors", "", *self._variants(others)]
        tables += ["", "## Strategies that need something of a scenario", "", NEEDY, ""]
        tables += self._needy(needy)
        notes = [f"{number}. {sentence}" for sentence, number in self.notes.items()]
        head = HEAD.format(totals="\n".join(self._totals()))
        return "\n".join([head, *tables, "", "## Why not", "", *notes, ""])

    @property
    def _strategies(self) -> Mapping[str, StrategyFacts]:
        # The others run drawn scenarios only.
        return {n: how for n, how in self.facts.strategies.items() if how.tier != "drawn"}

    def _totals(self) -> Iterator[str]:
        for select in selection.SELECTIONS:
            cases = selection.cases(select, self.facts, "cpu", DEFAULT_WORLD_SIZES)
            out = sum(_why_not(self.facts, c.scenario, c.strategy) is not None for c in cases)
            yield f"| `{select}` | {len(cases)} | {out} | {CONTENT[select]} |"

    def _core(self, strategies: list[str]) -> Iterator[str]:
        families: dict[str, list[str]] = {}
        for name, what in self.facts.scenarios.items():
            families.setdefault(what.family, []).append(name)
        for family, names in sorted(families.items()):
            yield from ["", f"## {family}", ""]
            yield from _header("scenario", ["what it is", *strategies])
            for name in names:
                what = self.facts.scenarios[name]
                title = f"**{name}**" if what.anchor else name
                about = _about(what.file) + (" (slow)" if what.slow else "")
                about += " (large)" if what.large else ""
                yield _row([title, about, *(self._cell(name, s) for s in strategies)])

    def _variants(self, strategies: list[str]) -> Iterator[str]:
        anchors = [name for name, what in self.facts.scenarios.items() if what.anchor]
        yield from _header("strategy", ["what it is", *anchors])
        for strategy in strategies:
            title = self._strategies[strategy].title
            yield _row([strategy, title, *(self._cell(name, strategy) for name in anchors)])

    def _needy(self, strategies: list[str]) -> Iterator[str]:
        yield from _header("strategy", ["what it is", "runs", "does not run the others because"])
        for strategy in strategies:
            reasons = {name: _why_not(self.facts, name, strategy) for name in self.facts.scenarios}
            runs = ", ".join(name for name, why in reasons.items() if why is None)
            notes = sorted({self._note(why) for why in reasons.values() if why is not None})
            title = self._strategies[strategy].title
            yield _row([strategy, title, runs, ", ".join(map(str, notes))])

    def _cell(self, scenario: str, strategy: str) -> str:
        why = _why_not(self.facts, scenario, strategy)
        if why is not None:
            return str(self._note(why))
        features = self.facts.scenarios[scenario].features
        asked = [
            limit.fact for limit in self._strategies[strategy].limits if limit.feature in features
        ]
        return "".join(f"[{self._note(f'distparity asks torch: {fact}')}]" for fact in asked) or "x"

    def _note(self, sentence: str) -> int:
        return self.notes.setdefault(sentence, len(self.notes) + 1)


STRATEGIES_HEAD = """\
# Strategies

`nox -s declared -- --write` writes this page; a test compares it with the code. A strategy is a way to
distribute training. [scenarios.md](scenarios.md) says which scenarios each strategy runs.

A number is the number of the reason below why the strategy cannot do something that a scenario needs.
A number in brackets is a question that distparity asks torch first: if torch refuses, the case is *not
supported*, and the message quotes the refusal.
"""


class StrategiesPage:
    """What each strategy is, and what it cannot do."""

    def __init__(self, facts: TorchFacts) -> None:
        self.strategies: Mapping[str, StrategyFacts] = facts.strategies
        self.notes: dict[str, int] = {}

    def text(self) -> str:
        tables: list[str] = []
        for tier in ("core", "variant", "ordered", "drawn"):
            tables += ["", f"## {tier.capitalize()}", ""]
            tables += _header(
                "strategy", ["what it is", "ranks", "gradient dtype on the wire", "lacks"]
            )
            tables += [_row(self._cells(*one)) for one in self._of(tier)]
        notes = [f"{number}. {sentence}" for sentence, number in self.notes.items()]
        return "\n".join([STRATEGIES_HEAD, *tables[1:], "", "## What they lack", "", *notes, ""])

    def _of(self, tier: str) -> list[tuple[str, StrategyFacts]]:
        return [(name, how) for name, how in self.strategies.items() if how.tier == tier]

    def _cells(self, name: str, how: StrategyFacts) -> list[str]:
        lacks = [self._note(f"`{feature}`: {why}") for feature, why in how.lacks.items()]
        lacks += [self._note(f"without `{what}`: {why}") for what, why in how.needs.items()]
        asked = [f"[{self._note(limit.fact)}]" for limit in how.limits]
        reduced_in = how.reduce_dtype or "the case's"
        return [name, how.title, _ranks(how), reduced_in, ", ".join([*lacks, *asked])]

    def _note(self, sentence: str) -> str:
        return str(self.notes.setdefault(sentence, len(self.notes) + 1))


def _ranks(how: StrategyFacts) -> str:
    least, multiple = how.least_ranks, how.ranks_multiple_of
    if (least, multiple) == (1, 1):
        return "any"
    return ", ".join(str(least + turn * multiple) for turn in range(3)) + ", …"


def _header(first: str, rest: list[str]) -> list[str]:
    return [_row([first, *rest]), "|---" * (len(rest) + 1) + "|"]


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _about(file: str) -> str:
    """The first sentence of a scenario's docstring."""
    doc = ast.get_docstring(ast.parse(Path(file).read_text())) or ""
    return " ".join(doc.split("\n\n")[0].split())


# -- the files -------------------------------------------------------------------------------------


def files(facts: TorchFacts) -> dict[Path, str]:
    """The text that each file must have."""
    return {
        ROOT / "ci" / "declared.toml": counts(facts),
        declared.FILE: declared.written(facts),
        ROOT / "docs" / "scenarios.md": Page(facts).text(),
        ROOT / "docs" / "strategies.md": StrategiesPage(facts).text(),
    }


def differences(wanted: Mapping[Path, str]) -> list[str]:
    """The lines in which a file differs from the text that it must have."""
    found: list[str] = []
    for path, text in wanted.items():
        known = path.read_text() if path.is_file() else ""
        lines = known.splitlines(), text.splitlines()
        found += difflib.unified_diff(
            *lines, f"{path.name}, declared", "there is", n=0, lineterm=""
        )
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--write", action="store_true", help="declare the existing cases")
    write = parser.parse_args().write
    wanted = files(ask())
    if write:
        for path, text in wanted.items():
            path.write_text(text)
    found = differences(wanted)
    print("\n".join(found) or "the existing cases are the declared ones")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
