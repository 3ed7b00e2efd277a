"""Generated operations: their data, parts of tensors, names, and what ranks and the judge make of them."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from distparity import operations
from distparity.operations.base import Check, Exact, Operation, Request
from distparity.operations.collectives.base import Collective, Exchange
from distparity.operations.dtensor.base import TensorOperation
from distparity.operations.generated import collective_layout, factory, guard, program, samples
from distparity.operations.generated.guard import GuardedCheck, RaisedError, asked
from distparity.operations.generated.placing import part
from distparity.operations.judge import Findings, Made, Where, judge
from distparity.session import issue, selection

WHERE = Where((2, 13), "cpu", "float64")


def _request(way: str, ranks: int = 2) -> Request:
    return Request(way, torch.float64, ranks, 0)


@pytest.mark.parametrize("ranks", [1, 2, 3, 4, 8])
@pytest.mark.parametrize(
    "name", ["boundary", "collective_gradient", "collective_layout", "factory", "operator"]
)
def test_a_case_of_a_world_that_an_operation_has_cases_for_has_checks(
    name: str, ranks: int
) -> None:
    facts, operation = operations.facts()[name], operations.load()[name]
    torch_facts = cast(Any, SimpleNamespace(operations={name: facts}))
    cases = selection.operations(selection.EVERY, torch_facts, "cpu", [ranks], None)

    assert bool(cases) is (not facts.worlds or ranks in facts.worlds)
    assert all(any(operation.checks(_request(case.strategy, ranks))) for case in cases[:20])


@pytest.mark.parametrize(
    ("sizes", "found"), [((2, 4), {2}), ((2,), {2}), ((4,), set()), ((3, 8), set())], ids=str
)
@pytest.mark.parametrize("select", ["default", "full"])
def test_usual_selections_have_generated_cases_for_pairs(
    select: str, sizes: tuple[int, ...], found: set[int]
) -> None:
    facts = cast(Any, SimpleNamespace(operations={"boundary": operations.facts()["boundary"]}))

    cases = selection.operations(select, facts, "cpu", sizes, None)

    assert {case.world_size for case in cases} == found


_A, _B = torch.arange(6.0).reshape(3, 2), torch.arange(6.0).add(1).reshape(3, 2)


@pytest.mark.parametrize(
    ("mesh", "how", "parts", "right"),
    [
        pytest.param("2", "S0", [_A, _B], True, id="other numbers"),
        pytest.param("2", "S0", [_A, _A], False, id="copies"),
        pytest.param("2", "S1", [torch.cat([_A, _B]), _A], False, id="one begins like the other"),
        pytest.param("2", "S0", [_A[:2], _A[:2]], True, id="few may be alike by chance"),
        pytest.param("2x2", "R.S0", [_A, _B, _A, _B], True, id="replicas may be alike"),
        pytest.param("2x2", "S0.R", [_A, _B, _A, _B], False, id="replicas of another dim"),
        pytest.param("2x2", "S0.S1", [_A, _B, -_A, _A], False, id="two of four"),
    ],
)
def test_shards_of_random_numbers_are_not_copies(
    mesh: str, how: str, parts: list[torch.Tensor], right: bool
) -> None:
    assert factory.Apart(_request("rand", len(parts)), mesh, (6, 4), how).holds(parts) is right


@pytest.mark.parametrize("op", ["sum", "avg", "max", "min"])
@pytest.mark.parametrize("parts", [2, 4])
def test_terms_make_the_whole_exactly(op: str, parts: int) -> None:
    whole = (torch.randn(5, 3, dtype=torch.float64) * 1024).round() / 1024
    terms = torch.stack([part(whole, f"P{op}", (parts,), (n,), 0) for n in range(parts)])

    made = {"sum": terms.sum(0), "avg": terms.mean(0), "max": terms.amax(0), "min": terms.amin(0)}

    assert torch.equal(made[op], whole)
    assert not torch.equal(terms[0], whole)


@pytest.mark.parametrize(
    ("how", "sizes"),
    [
        pytest.param("S0", [2, 2, 1, 0], id="rows"),
        pytest.param("S0.S1", [3, 3, 2, 2], id="rows and columns"),
        pytest.param("S0.S0", [2, 1, 1, 1], id="rows twice"),
        pytest.param("X0.S0", [2, 1, 1, 1], id="rows twice, the later dim first"),
        pytest.param("R.S0", [3, 2, 3, 2], id="replicated"),
    ],
)
def test_which_rows_a_rank_has(how: str, sizes: list[int]) -> None:
    whole = torch.arange(5.0)[:, None].expand(5, 4)
    mesh = (4,) if "." not in how else (2, 2)
    at = [(n,) if len(mesh) == 1 else (n // 2, n % 2) for n in range(4)]

    found = [part(whole, how, mesh, one, 0) for one in at]

    assert [len(one) for one in found] == sizes
    # fully_shard shards what tensor parallelism left, so the first rank has no row of its neighbour.
    first = {"X0.S0": [0.0, 1.0], "S0.S0": [0.0, 1.0]}.get(how)
    assert first is None or found[0][:, 0].tolist() == first


@pytest.mark.parametrize("name", [*islice(samples.load(), 0, None, 25)])
def test_samples_run_plainly_and_are_the_same_every_time(name: str) -> None:
    what = samples.load()[name]
    call = samples.resolve(what["call"])
    for sample in what["samples"]:
        (args, kwargs), (again, _) = (samples.build(sample, "float64", 3) for _ in range(2))

        assert str(args) == str(again)
        call(*args, **kwargs)


@pytest.mark.parametrize("dtype", ["float64", "int64"])
def test_boundaries_increase_because_torch_defines_no_other_buckets(dtype: str) -> None:
    for sample in samples.load()["bucketize"]["samples"]:
        (_, boundaries), _ = samples.build(sample, dtype, 3)
        assert (boundaries.diff() > 0).all()


def test_absent_functions_are_named() -> None:
    with pytest.raises(samples.Absent, match=r"has no nn\.functional\.nothing"):
        samples.resolve("nn.functional.nothing")


@pytest.mark.parametrize("ranks", [2, 4])
@pytest.mark.parametrize(
    "name", ["operator", "boundary", "factory", "collective_gradient", "collective_layout"]
)
def test_names_of_checks_are_unique_and_repeat(name: str, ranks: int) -> None:
    operation = operations.load()[name]
    for way in islice(operation.ways, 0, None, 40 if name == "operator" else 3):
        first, second = (
            [check.name for check in operation.checks(_request(way, ranks))] for _ in range(2)
        )

        assert first == second
        assert len(first) == len(set(first))
        assert first


class Echo(GuardedCheck):
    """Returns what every rank is told to."""

    name = "echo"

    def __init__(self, *acts: Callable[[], Any]) -> None:
        self.request = _request("echo")
        self.acts = acts

    def expected(self, rank: int) -> dict[str, Exact]:
        return {"value": Exact(torch.tensor(1.0).double(), torch.float64)}


class Generated(Operation):
    name = "of_the_test"
    ways = ()
    generated = True


def _judged(check: Check, *raised: str) -> Findings:
    value = {"echo: value": torch.tensor(1.0).double()}
    records = [Made({} if text else value, {"echo": text} if text else {}) for text in raised]
    return judge(Generated(), [check], records, WHERE)


@pytest.mark.parametrize(
    ("raised", "refused", "diverged"),
    [
        pytest.param(["", ""], False, False, id="right"),
        pytest.param(
            ["RefusedError: IndexError: no"] * 2, True, False, id="torch raised everywhere"
        ),
        pytest.param(
            ["SplitError: only ranks [0] raised X"] * 2, False, True, id="only one raised"
        ),
        pytest.param(["HungError: timed out"] * 2, False, True, id="hung"),
        pytest.param(["KeyError: 'ours'"] * 2, False, True, id="an error of the check itself"),
    ],
)
def test_what_is_refused_and_what_is_wrong(
    raised: list[str], refused: bool, diverged: bool
) -> None:
    found = _judged(Echo(), *raised)

    assert bool(found.refused) is refused
    assert bool(found.divergences) is diverged


def test_a_gradient_that_was_refused_is_counted_and_the_result_is_still_judged() -> None:
    operation = operations.load()["operator"]
    check = next(iter(operation.checks(_request("exp"))))
    exact = {name: one.value.to(one.dtype) for name, one in check.expected(0).items()}
    words = torch.tensor(list(b"RuntimeError: no"), dtype=torch.uint8)
    own = {name: one for name, one in exact.items() if not name.startswith("gradient")}
    own["gradient, refused"] = words

    def judged(*ranks: dict[str, torch.Tensor]) -> Findings:
        made = [{f"{check.name}: {name}": one for name, one in own.items()} for own in ranks]
        return judge(operation, [check], [Made(one, {}) for one in made], WHERE)

    assert not judged(own, own).divergences
    assert list(judged(own, own).refused) == [f"{check.name}: gradient"]
    assert [one.quantity.name for one in judged(exact, own).divergences] == ["gradient"]
    own["result 0"] = own["result 0"] * 1.001
    assert [one.quantity.name for one in judged(own, own).divergences] == ["result 0"] * 2


class World:
    """The groups of two ranks, of which the other one answers ``other``."""

    def __init__(self, other: list[str]) -> None:
        self.other = iter(other)
        self.renewed = self.hangs = 0
        self.hung_in = None
        self.patience = 0.0

    def agree(self, text: str) -> list[str]:
        return [text, next(self.other)]

    def renew(self) -> None:
        self.renewed += 1


def _raising(text: str) -> Callable[[], Any]:
    def call() -> Any:
        raise RuntimeError(text)

    return call


@pytest.mark.parametrize(
    ("mine", "other", "ends", "renewed"),
    [
        pytest.param("", [""], None, 0, id="both have results"),
        pytest.param("no", ["RuntimeError: no"], "RefusedError", 0, id="both raised"),
        pytest.param("no", [""], "SplitError", 1, id="one raised"),
        pytest.param("Timed out", ["", ""], "HungError", 2, id="one waited, twice"),
        pytest.param(
            "Timed out", ["Timed out", "Connection reset"], "HungError", 2, id="both waited"
        ),
        pytest.param("Timed out", ["IndexError: no"], "SplitError", 1, id="one raised, one waited"),
    ],
)
def test_how_a_check_ends(
    mine: str, other: list[str], ends: str | None, renewed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(other)
    monkeypatch.setattr(guard._World, "of", staticmethod(lambda site: world))
    check = Echo()
    call = _raising(mine) if mine else dict
    check.act = lambda site: asked(call)  # type: ignore[method-assign]

    try:
        check.run(None)  # type: ignore[arg-type]
        found = None
    except Exception as error:
        found = type(error).__name__

    assert found == ends
    assert world.renewed == renewed


@pytest.mark.parametrize(
    ("way", "name"),
    [
        pytest.param("sum", "0 on 2: S0", id="results and gradients"),
        pytest.param("where", "0 on 2: S0,R,R", id="a call in another order"),
        pytest.param("cat", "0 on 2: S0,R", id="a list of tensors"),
        pytest.param("T", "0 on 2: S0", id="an attribute"),
        pytest.param("index_add", "0 on 2: S1,R,R in place", id="in place"),
        pytest.param("narrow", "0 on 2: S0 written through", id="through a view"),
        pytest.param("view_copy", "0 on 2: S0 out S0", id="to a given tensor"),
        pytest.param("mm", "0 on 2x2: X0.S0,R.R", id="two dims of a mesh"),
    ],
)
def test_a_check_as_a_program_is_short_and_is_python(way: str, name: str) -> None:
    request = _request(way, 4 if "2x2" in name else 2)
    (check,) = [one for one in operations.load()["operator"].checks(request) if one.name == name]

    text = program.write(check)

    assert text is not None
    compile(text, "program.py", "exec")
    assert len(text.splitlines()) < 80
    assert "distparity" not in text


#: Ways of which no check has a program.
NO_PROGRAM = {f"send_recv_{way}" for way in ("tensor", "async", "batch")}


@pytest.mark.parametrize("name", ["boundary", "collective_gradient", "collective_layout"])
def test_every_way_has_programs(name: str) -> None:
    operation, lacking = operations.load()[name], set()
    for way in operation.ways:
        for check in islice(operation.checks(_request(way)), 0, None, 7):
            text = program.write(check)
            if text is None:
                lacking.add(way)
                continue
            compile(text, "program.py", "exec")
            assert len(text.splitlines()) < 80

    assert lacking == (NO_PROGRAM if name == "collective_layout" else set())


@pytest.mark.parametrize("way", operations.load()["boundary"].ways)
def test_what_a_program_of_a_boundary_takes_for_right(way: str) -> None:
    operation = operations.load()["boundary"]
    for check in islice(operation.checks(_request(way)), 0, None, 9):
        space: dict[str, Any] = {"__name__": "program"}
        exec(program.write(check) or "", space)
        for rank in range(2):
            right = {name: found.value for name, found in check.expected(rank).items()}
            told = space["expected"](rank)
            assert told.keys() == right.keys()
            assert all(torch.equal(told[name], right[name]) for name in right)


@pytest.mark.parametrize("way", ["item", "norm.inf", "linalg.matrix_rank.hermitian", "squeeze"])
def test_what_a_program_of_an_operator_takes_for_right(way: str) -> None:
    compared = set()
    for check in islice(operations.load()["operator"].checks(_request(way)), 0, None, 3):
        space: dict[str, Any] = {"__name__": "program"}
        exec(program.write(check) or "", space)
        told, right = space["expected"](0), check.expected(0)
        for name in told.keys() & right.keys():
            if not told[name].is_complex():
                compared.add(name)
                assert torch.equal(told[name].double(), right[name].value.double())

    assert compared


@pytest.mark.filterwarnings("ignore:reduction")
@pytest.mark.parametrize("way", ["shard_uneven", "shard_last", "partial_avg"])
@pytest.mark.parametrize(
    "operation",
    [one for one, kind in operations.load().items() if isinstance(kind, TensorOperation)],
)
def test_what_a_program_of_a_function_takes_for_right(operation: str, way: str) -> None:
    for check in islice(operations.load()[operation].checks(_request(way)), 0, None, 4):
        space: dict[str, Any] = {"__name__": "program"}
        text = program.write(check) or ""
        exec(text, space)
        told, right = space["expected"](0), check.expected(0)

        assert len(text.splitlines()) < 80
        for name in right:
            if name.startswith("result"):
                torch.testing.assert_close(
                    told[name].to(right[name].dtype),
                    right[name].value.to(right[name].dtype),
                    equal_nan=True,
                )


#: In torch 2.13: the result of the first has the shape of a part, the gradient of the second is too large.
SHOWN = {
    "operator": (
        "index_add",
        "0 on 2: S1,R,R in place",
        ("changed input: torch.float64 [5, 2] [", ", not torch.float64 [5, 5] ["),
    ),
    "dtensor_losses": ("shard", "mse_loss, mean", ("gradient 0: torch.float64 [8, 8] [",)),
}


@pytest.mark.parametrize("ranks", [2, 4])
@pytest.mark.parametrize(
    "operation",
    [one for one, kind in operations.load().items() if isinstance(kind, Collective)],
)
def test_a_collective_has_a_program_for_dense_tensors_that_are_not_large(
    operation: str, ranks: int
) -> None:
    found = operations.load()[operation]
    way = found.ways[0]
    for check in found.checks(_request(way, ranks)):
        text = program.write(check)
        plain = cast("Exchange", check).setting
        if plain.size == "large" or plain.layout != "contiguous":
            assert text is None
            continue
        space: dict[str, Any] = {"__name__": "program"}
        exec(text or "", space)
        for rank in range(ranks):
            right = check.expected(rank)
            for name, value in space["expected"](rank).items():
                assert torch.equal(value, right[name].value.to(value.dtype))


def test_a_program_of_a_right_collective_says_so(tmp_path: Path) -> None:
    checks = operations.load()["all_gather"].checks(_request("functional", 2))
    (check,) = [one for one in checks if one.name == "dim 1"]
    file = tmp_path / "program.py"
    file.write_text(program.write(check) or "", "utf-8")

    assert issue.ran(sys.executable, file)[0] == "right"


@pytest.mark.parametrize("operation", SHOWN)
def test_a_program_shows_what_its_check_shows(operation: str, tmp_path: Path) -> None:
    way, name, shows = SHOWN[operation]
    checks = operations.load()[operation].checks(_request(way))
    (check,) = [one for one in checks if one.name == name]
    file = tmp_path / "program.py"
    file.write_text(program.write(check) or "", "utf-8")

    word, said = issue.ran(sys.executable, file)

    assert word == "defect", said
    assert all(words in said for words in shows), said


def test_what_is_not_torchs_is_not_marked_as_its_answer() -> None:
    with pytest.raises(RaisedError, match="RuntimeError: words"):
        asked(_raising("words\nmore"))


@pytest.mark.parametrize("value", [math.inf, math.nan, 1.0])
def test_equal_values_are_right_whatever_they_are(value: float) -> None:
    operation = operations.load()["operator"]
    check = next(iter(operation.checks(_request("exp"))))
    whole = torch.full((3,), value, dtype=torch.float64)
    check.expected = lambda rank: {"x": Exact(whole, torch.float64, torch.tensor(1e-9).double())}  # type: ignore[method-assign]

    found = judge(operation, [check], [Made({f"{check.name}: x": whole}, {})], WHERE)

    assert not found.divergences


def test_ways_of_layouts_are_those_of_the_collectives() -> None:
    assert collective_layout.CollectiveLayout.ways == tuple(collective_layout._COLLECTIVES)
