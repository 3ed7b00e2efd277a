"""Every strategy as its user meets it: what each makes of the scenario that it is there for."""

from __future__ import annotations

import pytest
from conftest import Ran, Suite

from distparity.scenarios import Scenario
from distparity.scenarios.calls.basic import Basic
from distparity.scenarios.parameters.left_alone import LeftAlone
from distparity.strategies.fsdp2 import Fsdp2

#: What torch refuses on a CPU, by strategy, and how the fact begins.
REFUSED = {
    "cp": "context_parallel on cpu: torch",
    "fsdp1_cpu_offload": "FSDP with CPUOffload on cpu, which pins memory: torch",
    "fsdp1_sync_states": "FSDP with sync_module_states on cpu",
    "fsdp1_tp": "FSDP of layers that are split unevenly: torch",
}
#: Wrong in torch itself: its reducer takes a schedule's second step for a fault.
BROKEN = {"pp_interleaved_ddp": "rebuilt_param_indices_"}


@pytest.fixture(scope="module")
def quick(suite: Suite) -> Ran:
    """Every variant, each with one scenario or a few, in its smallest world."""
    return suite("--device", "cpu", "--select", "quick", "-m", "variant")


def test_every_variant_passes_but_for_what_torch_refuses(quick: Ran) -> None:
    wrong = {
        case: facts["status"]
        for case, facts in quick.properties("here-cpu").items()
        if facts["status"] != "passed" and facts["strategy"] not in {*REFUSED, *BROKEN}
    }

    assert wrong == {}


@pytest.mark.parametrize(("strategy", "text"), [*REFUSED.items(), *BROKEN.items()])
def test_what_does_not_pass_says_why_in_torchs_words(quick: Ran, strategy: str, text: str) -> None:
    cases = [
        case
        for case, facts in quick.properties("here-cpu").items()
        if facts["strategy"] == strategy and facts["status"] != "passed"
    ]

    assert cases
    assert all(text in quick.text("here-cpu", case) for case in cases)


def test_no_world_is_too_small_for_a_strategy(quick: Ran) -> None:
    sizes = {f["strategy"]: int(f["world_size"]) for f in quick.properties("here-cpu").values()}

    assert sizes["fsdp2_hsdp"] == sizes["fsdp1_hybrid"] == sizes["fsdp2_tp"] == sizes["pp_ddp"] == 4
    assert sizes["ddp_bucket_view"] == sizes["tp"] == sizes["pp_gpipe"] == 2


def test_strategies_do_what_their_names_say(suite: Suite) -> None:
    ran = suite(
        "--include", "telling_strategies", "-k", "telling and multiple_forward and float32 and ws2"
    )  # fmt: skip

    assert ran.statuses("here-cpu") == {
        f"multiple_forward/telling_{name}-ws2-float32": "passed"
        for name in ("small_buckets", "powersgd", "powersgd_at_once")
    }, ran.output


def test_a_strategy_lacks_a_dtype_and_not_the_scenario(suite: Suite) -> None:
    half, single = (f"{name}/ddp_powersgd-ws2" for name in ("low_precision", "basic"))
    ran = suite("--case", f"{half}-float16", "--case", f"{single}-float32")

    assert ran.statuses("here-cpu") == {
        f"{half}-float16": "not supported",
        f"{single}-float32": "passed",
    }
    assert "by Gram-Schmidt" in ran.text("here-cpu", f"{half}-float16")


#: Scenarios whose shards are of every kind: uneven and empty, frozen, in two dtypes, and the like.
READ = (
    "multiple_forward or small_shards or frozen_now_and_then or tied_in_unit or left_alone"
    " or low_precision or mixed_bfloat16 or clipping_by_sum"
)


def test_shards_put_together_are_what_fsdp_unshards(suite: Suite) -> None:
    ran = suite(
        "--device", "cpu", "--include", "read_twice", "--select", "full", "--world-size", "4",
        "-k", f"read_twice and (float32 or bfloat16) and ({READ})",
    )  # fmt: skip
    statuses = ran.statuses("here-cpu")

    assert {
        case for case, status in statuses.items() if status not in ("passed", "not supported")
    } == set()
    assert {facts["strategy"] for facts in ran.properties("here-cpu").values() if facts["status"] == "passed"} == {
        "read_twice", "read_twice_orig_params", "read_twice_hybrid",
        "read_twice_hybrid_orig_params", "read_twice_no_shard", "read_twice_shard_grad_op",
    }  # fmt: skip


def test_shards_that_are_not_what_fsdp_unshards_fail_the_case(suite: Suite) -> None:
    ran = suite("--include", "read_twice", "-k", "misled and multiple_forward and float32 and ws2")

    assert ran.statuses("here-cpu") == {"multiple_forward/misled-ws2-float32": "failed"}
    assert "to other values than its shards hold" in ran.text(
        "here-cpu", "multiple_forward/misled-ws2-float32"
    )


@pytest.mark.parametrize(
    ("asked", "alone"),
    [(LeftAlone(), ["4.weight", "4.bias"]), (Basic(), [])],
    ids=["left_alone", "basic"],
)
def test_what_fully_shard_leaves_alone_has_a_group_of_its_own(
    asked: Scenario, alone: list[str]
) -> None:
    # A step over a list of tensors and DTensors is refused on accelerators.
    model = asked.model()
    names = {parameter: name for name, parameter in model.named_parameters()}

    made = Fsdp2().suit(asked).optimizer(asked, model)

    groups = [[names[one] for one in group["params"]] for group in made.param_groups]
    rest = [name for name in names.values() if name not in alone]
    assert groups == [one for one in (rest, alone) if one]
    assert len({group["lr"] for group in made.param_groups}) == 1
