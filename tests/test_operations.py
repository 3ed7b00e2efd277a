"""Collectives and DTensor's operations: right ones pass, and every fault put into one is seen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from conftest import TESTS, Ran, Suite
from operated import all_refused, concerned, reduced

from distparity import operations
from distparity.core.case import Case
from distparity.core.outcome import Outcome, Status
from distparity.operations import faults
from distparity.session.options import Options
from distparity.session.run import Run

#: One case of every way that some collective is called in, and some of DTensor's.
CASES = [
    Case(operation, way, ranks, dtype, "cpu")
    for operation, way, ranks, dtype in [
        ("all_reduce", "tensor", 2, "float32"),
        ("all_reduce", "tensor", 4, "int64"),
        ("all_reduce", "functional", 2, "bfloat16"),
        ("all_reduce", "coalesced", 4, "float64"),
        ("all_reduce", "tensor", 2, "bool"),
        ("reduce", "tensor", 4, "float32"),
        ("reduce_scatter", "list", 2, "float32"),
        ("reduce_scatter", "functional", 4, "float32"),
        ("reduce_scatter", "coalesced", 2, "int8"),
        ("broadcast", "tensor", 4, "float32"),
        ("broadcast", "functional", 2, "uint8"),
        ("all_gather", "list", 4, "float32"),
        ("all_gather", "tensor", 2, "bool"),
        ("all_gather", "functional", 2, "float32"),
        ("all_gather", "coalesced", 2, "float16"),
        ("gather", "list", 4, "float32"),
        ("scatter", "list", 4, "float32"),
        ("all_to_all", "list", 2, "float32"),
        ("all_to_all", "tensor", 4, "float32"),
        ("all_to_all", "functional", 2, "int64"),
        ("send_recv", "tensor", 2, "float32"),
        ("send_recv", "async", 4, "float32"),
        ("send_recv", "batch", 2, "float32"),
        ("dtensor_pointwise", "shard", 2, "float32"),
        ("dtensor_views", "shard_last", 2, "float32"),
        ("dtensor_matmuls", "shard_uneven", 2, "float32"),
        ("dtensor_embedding", "replicate", 2, "float32"),
        ("dtensor_reductions", "partial", 2, "float32"),
        ("dtensor_softmax", "shard", 2, "float32"),
        ("operator", "sum", 2, "float64"),
        ("boundary", "full_tensor", 2, "float64"),
        ("boundary", "distribute_tensor", 2, "float64"),
        ("factory", "zeros", 2, "float64"),
        ("factory", "rand_like", 2, "float64"),
        ("collective_gradient", "functional_all_reduce", 2, "float64"),
        ("collective_layout", "reduce_scatter_tensor", 2, "float32"),
        ("collective_layout", "all_to_all_functional", 2, "int64"),
        ("sizes_reduce_scatter", "wait", 2, "uint8"),
    ]
]


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[Case, str | None], Outcome]:
    """What becomes of every case: without a fault, and with every one that concerns it."""
    folder = tmp_path_factory.mktemp("run")
    names = [case.id for case in CASES]
    run = Run(Options(devices=["cpu"], report_dir=folder, cases=names, largest=1 << 18))
    run.start()
    try:
        run.ready()
        todo: list[tuple[Case, str | None]] = [(case, None) for case in CASES]
        todo += [
            (case, fault)
            for case in CASES
            for fault in run.torch.operation_faults[f"{case.scenario}/{case.strategy}"]
        ]
        return dict(run.side_by_side(todo, lambda one: run.course.job(one[0], mutant=one[1])))
    finally:
        run.close(reported=True)


def test_right_operations_pass(outcomes: dict[tuple[Case, str | None], Outcome]) -> None:
    right = {case.id: outcome for (case, fault), outcome in outcomes.items() if fault is None}

    assert {case: outcome.message for case, outcome in right.items() if outcome.status.bad} == {}
    assert all(outcome.facts["checks"] > 0 for outcome in right.values())


def test_every_check_that_a_fault_concerns_sees_it(
    outcomes: dict[tuple[Case, str | None], Outcome],
) -> None:
    faulty = {(case, fault): found for (case, fault), found in outcomes.items() if fault}
    answers = [
        concerned(case.scenario, case.strategy, case.dtype, case.world_size, fault)
        for case, fault in faulty
    ]

    missed = [
        (case.id, fault, check)
        for ((case, fault), outcome), checks in zip(faulty.items(), answers, strict=True)
        for check in checks
        if check not in outcome.diverged and check not in outcome.facts.get("refused", "")
    ]
    assert missed == []
    # Of DTensor's functions, some cannot see what others do.
    must_fail = {
        (case.id, fault): outcome.status
        for ((case, fault), outcome), checks in zip(faulty.items(), answers, strict=True)
        if any(check not in outcome.facts.get("refused", "") for check in checks)
        or not isinstance(faults.load()[fault], faults.OfCollectives)
    }
    assert {key: found for key, found in must_fail.items() if found is not Status.FAILED} == {}


def test_every_case_has_a_fault_that_it_must_see() -> None:
    assert [case for case, seen in operations.visible().items() if not seen] == []


def test_every_fault_concerns_some_case(
    outcomes: dict[tuple[Case, str | None], Outcome],
) -> None:
    assert {
        "not_written",
        "contribution_replaced",
        "result_shifted",
        "peers_swapped",
        "sum_for_avg",
        "neighbours_part",
        "last_element_unwritten",
        "result_one_bit",
        "written_beyond",
        "input_changed",
        "reduced_in_bfloat16",
        "part_lost",
        "gradient_summed",
        "partial_lost",
        "large_tail_lost",
        "element_far",
    } == {fault for _, fault in outcomes if fault is not None}


@pytest.mark.parametrize(
    ("op", "dtype", "terms", "value", "allowed"),
    [
        # One rounding for two terms: u times the sum of their magnitudes.
        pytest.param("SUM", "float32", [[1.0], [-3.0]], -2.0, 4 * 2.0**-24, id="sum"),
        pytest.param("AVG", "float32", [[1.0], [-3.0]], -1.0, 2 * 2 * 2.0**-24, id="mean"),
        pytest.param("PRODUCT", "float32", [[2.0], [-3.0]], -6.0, 6 * 2.0**-24, id="product"),
        pytest.param("SUM", "bfloat16", [[1.0], [1.0]], 2.0, 2 * 2.0**-8, id="coarse dtype"),
        pytest.param("AVG", "float32", [[5.0]], 5.0, 0.0, id="nobody else"),
        pytest.param("MIN", "float32", [[1.0], [-3.0]], -3.0, None, id="minimum"),
        pytest.param("SUM", "uint8", [[200], [100]], 44, None, id="integers wrap around"),
        pytest.param("AVG", "int64", [[2], [4]], 3, None, id="mean of integers"),
        pytest.param("BXOR", "int64", [[6], [3]], 5, None, id="bits"),
        pytest.param("SUM", "bool", [[True], [True]], True, None, id="sum of truths"),
        pytest.param("BXOR", "bool", [[True], [True]], False, None, id="exclusive or"),
    ],
)
def test_reduction_in_plain_arithmetic(
    op: str, dtype: str, terms: list[Any], value: float, allowed: float | None
) -> None:
    (found,), bound = reduced(op, dtype, terms)

    assert found == value
    if allowed is None:
        assert bound is None
    else:
        assert bound is not None
        assert bound[0] == pytest.approx(allowed, rel=0.02, abs=1e-300)
        assert len(bound) == 1


@pytest.fixture(scope="module")
def some(suite: Suite) -> Ran:
    cases = [f"all_reduce/tensor-ws2-{dtype}" for dtype in ("float32", "int64")]
    return suite("--device", "cpu", *cases)


def test_case_says_how_much_was_checked_and_what_is_refused(some: Ran) -> None:
    facts = some.properties("here-cpu")

    assert some.code == 0, some.output
    assert sorted(facts) == ["all_reduce/tensor-ws2-float32", "all_reduce/tensor-ws2-int64"]
    assert all(int(found["checks"]) >= 10 for found in facts.values())
    assert 0 < float(facts["all_reduce/tensor-ws2-float32"]["ratio"]) <= 1
    assert float(facts["all_reduce/tensor-ws2-int64"]["ratio"]) == 0
    refused = facts["all_reduce/tensor-ws2-int64"]["refused"]
    assert refused.startswith("the mean of integers: torch ")
    assert " says RuntimeError: " in refused


def test_failure_names_check_rank_element_and_values(
    outcomes: dict[tuple[Case, str | None], Outcome],
) -> None:
    case = next(case for case in CASES if case.id == "all_reduce/tensor-ws2-float32")

    message = outcomes[case, "result_shifted"].message

    assert message.startswith("SUM: result 0, rank 0: off by ")
    assert " elements, worst at [" in message
    assert "expected " in message
    assert "(ratio " in message


def test_page_lists_every_operation() -> None:
    page = (Path(TESTS).parent / "docs" / "operations.md").read_text()
    folder = Path(TESTS).parent / "src" / "distparity" / "operations"

    for family in ("collectives", "dtensor"):
        names = {path.stem for path in (folder / family).glob("[a-z]*.py")} - {"base"}
        assert names
        assert {name for name in names if f"| `{name}` |" not in page} == set()


@pytest.mark.parametrize(
    ("refuses", "verdict"),
    [
        pytest.param({"no such reduction": "sim: it cannot"}, "refused", id="declared"),
        pytest.param({"no such tensor": "sim: it cannot"}, "diverged", id="other words"),
        pytest.param({}, "diverged", id="undeclared"),
    ],
)
def test_what_a_device_refuses_of_an_operation_is_what_it_declared(
    refuses: dict[str, str], verdict: str
) -> None:
    refused, diverged = all_refused(refuses)

    assert (refused == ["SUM"]) == (verdict == "refused")
    assert (diverged == ["SUM"]) == (verdict == "diverged")
