"""Collectives over sizes: which sizes, what every element says, and what a wrong result is called."""

from __future__ import annotations

import functools
import math
import operator
import re
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.distributed as dist
from conftest import Suite
from torch.utils._python_dispatch import TorchDispatchMode

from distparity import operations
from distparity.core.bad_request import BadRequest
from distparity.operations.base import Request, Site
from distparity.operations.collectives.base import Collective
from distparity.operations.judge import Made, Where, judge
from distparity.operations.sizes import base
from distparity.operations.sizes.base import (
    UNWRITTEN,
    Calls,
    Measured,
    OverSizes,
    Sweep,
    Wrong,
    elements,
    modulus,
    origin,
)
from distparity.session import arguments

DTYPES = [getattr(torch, name) for name in OverSizes.dtypes]
REDUCTIONS = ["SUM", "MAX", "MIN", "PRODUCT", "BAND", "BOR", "BXOR", "AVG"]


def test_sizes_are_around_powers_of_two() -> None:
    found = list(elements(70, 2))

    assert {1, 2, 63, 64, 65, 67, 70} <= set(found)
    assert all(count <= 70 for count in found)
    assert any(count % 2 and count * 4 % 16 for count in found)


@pytest.mark.parametrize("most", [1, 7, 64, 1000, 1 << 24])
def test_a_few_sizes_are_of_every_kind_and_have_the_largest(most: int) -> None:
    few, every = list(elements(most, 2, every=False)), list(elements(most, 2))

    assert few[-1] == every[-1] == most
    assert set(few) <= set(every)
    assert len(few) <= most.bit_length() + 1
    assert most < 1000 or {15, 32, 65, 131} < set(few)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("op", [*REDUCTIONS, None])
@pytest.mark.parametrize("ranks", [2, 4, 8])
def test_every_result_is_exact(dtype: torch.dtype, op: str | None, ranks: int) -> None:
    top = modulus(dtype, ranks, op) - 1
    most = {"SUM": top * ranks, "AVG": top * ranks, "PRODUCT": 2 ** min(ranks, 6)}.get(
        op or "", top
    )

    assert torch.tensor(most).to(dtype).long() == most
    small = dtype in (torch.uint8, torch.int8)
    assert not small or op == "PRODUCT" or most < UNWRITTEN


def test_another_rank_place_or_chunk_has_other_numbers() -> None:
    places, mod = torch.arange(4096), 250
    right = origin(0, places, mod)

    shifted = [origin(0, places + shift, mod) for shift in (1, mod, 4096, 65_536, 1 << 20)]
    others = [origin(rank, places, mod) for rank in (1, 2, 3)]
    assert all(float((right == other).float().mean()) < 0.5 for other in [*shifted, *others])


@pytest.mark.parametrize("start", [0, 5, 65_000, 300_000])
@pytest.mark.parametrize("op", [None, *REDUCTIONS])
@pytest.mark.parametrize("table", [1 << 27, 1 << 10], ids=["kept", "made again"])
def test_numbers_are_those_of_the_definition(
    monkeypatch: pytest.MonkeyPatch, start: int, op: str | None, table: int
) -> None:
    monkeypatch.setattr(base, "TABLE", table)
    made, ranks = base.Numbers(250, torch.device("cpu")), [2, 0, 9][: 3 if op else 1]
    each = [origin(rank, torch.arange(start, start + 99), 250) for rank in ranks]
    plain: dict[str | None, Callable[[list[int]], float]] = {
        None: lambda terms: terms[0],
        "SUM": sum,
        "AVG": lambda terms: sum(terms) / len(terms),
        "MAX": max,
        "MIN": min,
        "PRODUCT": lambda terms: math.prod(2 if term % 5 < 2 else 1 for term in terms),
        "BAND": lambda terms: functools.reduce(operator.and_, terms),
        "BOR": lambda terms: functools.reduce(operator.or_, terms),
        "BXOR": lambda terms: functools.reduce(operator.xor, terms),
    }

    for _ in range(2):
        found = made(ranks, start, 99, op, torch.float64, op).tolist()
        terms = zip(*(one.tolist() for one in each), strict=True)
        assert found == [plain[op](list(some)) for some in terms]


def one(
    operation: str, op: str | None, dtype: torch.dtype = torch.float32
) -> tuple[Calls, torch.Tensor]:
    """Rank 1 of two with its right result for blocks of 100 elements."""
    kind = operations.load()[operation]
    assert isinstance(kind, OverSizes)
    context: Any = SimpleNamespace(rank=1, world_size=2, device=torch.device("cpu"))
    sweep = Sweep(kind, Request("wait", dtype, 2, 0), op, every=True)
    found = Calls(Site(context), sweep, 100, 400)
    blocks = [found._expected([0, 1], b, 0, 100, 0) for b in range(kind.gets or 2)]
    return found, torch.cat(blocks)


KINDS = {
    name.removeprefix("sizes_"): kind
    for name, kind in operations.load().items()
    if isinstance(kind, OverSizes)
}
EXCHANGES = [
    (name, op) for name, kind in KINDS.items() for op in (REDUCTIONS if kind.reduces else [None])
]


def test_every_collective_is_called_with_sizes() -> None:
    every = {name for name, kind in operations.load().items() if isinstance(kind, Collective)}

    assert set(KINDS) == every


@pytest.mark.parametrize(
    ("name", "gets", "sources"),
    [
        ("gather", {0}, [([0], 0), ([1], 0), ([2], 0)]),
        ("reduce", {0}, [([0, 1, 2], 0)]),
        ("scatter", {0, 1, 2}, [([0], 1)]),
        ("send_recv", {0, 1, 2}, [([0], 0)]),
        ("broadcast", {0, 1, 2}, [([0], 0)]),
    ],
)
def test_who_gets_what_from_whom(
    name: str, gets: set[int], sources: list[tuple[list[int], int]]
) -> None:
    kind = KINDS[name]

    assert {me for me in range(3) if kind.has_result(me)} == gets
    found = [kind.source(1, block, 3) for block in range(kind.gets or 3)]
    assert [(list(ranks), block) for ranks, block in found] == sources


@pytest.mark.parametrize(("name", "op"), EXCHANGES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_right_result_is_right_and_any_wrong_element_is_seen(
    name: str, op: str | None, dtype: torch.dtype
) -> None:
    found, right = one(f"sizes_{name}", op, dtype)

    assert found._compare(right, [0, 1], 0) is None
    for at in (0, 57, len(right) - 1):
        wrong = right.clone()
        wrong[at] += 1
        seen = found._compare(wrong, [0, 1], 0)
        assert seen is not None
        assert f"1 elements from {at} of {len(right)}" in seen.message


class Largest(TorchDispatchMode):
    """The bytes of the largest tensor that an operation returns."""

    bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        if isinstance(found, torch.Tensor):
            self.bytes = max(self.bytes, found.nbytes)
        return found


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float64], ids=str)
def test_only_blocks_take_more_memory_than_a_message(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype
) -> None:
    monkeypatch.setattr(base, "BLOCK", 1 << 10)
    monkeypatch.setattr(base, "TABLE", 0)
    monkeypatch.setattr(base.dist, "get_process_group_ranks", lambda _: [0, 1])
    monkeypatch.setattr(Site, "group", lambda *_: object())
    found, right = one("sizes_all_reduce", "SUM", dtype)
    found.count = 1 << 20

    with Largest() as largest:  # type: ignore[no-untyped-call]
        ((_, ranks, number, given, taken),) = found._made()
        found._compare(given, ranks, number)

    assert taken.nbytes == len(taken) * right.element_size()
    assert largest.bytes == taken.nbytes


def swapped(result: torch.Tensor) -> torch.Tensor:
    return torch.cat([result[100:], result[:100]])


def cut(result: torch.Tensor) -> torch.Tensor:
    result[180:] = UNWRITTEN
    return result


def noise(result: torch.Tensor) -> torch.Tensor:
    result[5:] = torch.arange(195) % 3
    return result


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (swapped, "from 0 of 200 .*: that is block 0 of rank 1's input"),
        (cut, "from 180 of 200 .*: never written"),
        (noise, "from 5 of 200 .*: neither of one rank nor unwritten"),
    ],
    ids=["blocks swapped", "tail lost", "noise"],
)
def test_what_is_wrong_is_told_apart(damage: Any, said: str) -> None:
    found, right = one("sizes_all_gather", None)

    seen = found._compare(damage(right), [0, 1], 0)

    assert seen is not None
    assert re.search(said, seen.message)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16], ids=str)
def test_another_reduction_is_known_up_to_its_rounding(dtype: torch.dtype) -> None:
    found, _ = one("sizes_reduce_scatter", "MAX", dtype)
    mod = found._mod([0, 1])
    total = sum(origin(rank, torch.arange(100, 200), mod).to(dtype) for rank in (0, 1))
    assert isinstance(total, torch.Tensor)
    # The next number, as another order of the sum would give.
    total[90] *= 1 + torch.finfo(dtype).eps

    seen = found._compare(total, [0, 1], 0)

    assert seen is not None
    assert seen.looks == "that is the SUM of all ranks"


@pytest.mark.parametrize("number", [0, 2])
@pytest.mark.parametrize("op", ["MIN", "PRODUCT", "BXOR"])
@pytest.mark.parametrize(
    ("more", "looks"),
    [(0, "that is the SUM of all ranks"), (1, "that is the SUM of all ranks, but not everywhere")],
    ids=["all of it", "with another fault"],
)
def test_another_reduction_is_named(number: int, op: str, more: int, looks: str) -> None:
    found, _ = one("sizes_reduce_scatter", op, torch.int32)
    summed = found._expected([0, 1], 0, 0, 100, number, "SUM")
    summed[90] += more

    seen = found._compare(summed, [0, 1], number)

    assert seen is not None
    assert seen.looks == looks
    assert seen.message.endswith(looks)


LOST, SUMMED = Wrong(400, "lost", "the tail is lost"), Wrong(800, "summed", "summed")


@pytest.mark.parametrize(
    ("each", "wrong", "fact"),
    [
        (
            [Measured(9, 900, (), 2e9), Measured(9, 900, (), 3e9)],
            [],
            "9 sizes, right to 900 B, 2 GB/s",
        ),
        (
            [Measured(9, 900, (), 2e9), Measured(9, 300, (LOST, SUMMED), 3e9)],
            [
                "SUM: 400 bytes, rank 1: the tail is lost (ratio inf)",
                "SUM: 800 bytes, rank 1: summed (ratio inf)",
            ],
            "9 sizes, right to 300 B, wrong from 400 B, 2 GB/s",
        ),
        (
            [Measured(9, 900, (), 2e9), Measured(8, 800, (), 3e9)],
            ["SUM: the sizes, rank 1: 8 sizes were called (ratio inf)"],
            "9 sizes, right to 800 B, 2 GB/s",
        ),
        (
            [Measured(), Measured()],
            [f"SUM: the sizes, rank {rank}: 0 sizes were called (ratio inf)" for rank in (0, 1)],
            "0 sizes, right to 0 B, 0 GB/s",
        ),
        (
            [Measured(9, 900, (), 2e9), None],
            ["SUM: the sizes, rank 1: 0 sizes were called (ratio inf)"],
            "9 sizes, right to 0 B, 0 GB/s",
        ),
    ],
    ids=["right", "wrong on one rank", "fewer sizes", "no size", "no answer"],
)
def test_a_size_is_right_if_it_is_right_on_all_ranks(
    each: list[Measured | None], wrong: list[str], fact: str
) -> None:
    kind = operations.load()["sizes_all_reduce"]
    check = next(iter(kind.checks(Request("wait", torch.float32, 2, 0))))
    made = [{} if one is None else {"SUM: measured": one.to_tensor()} for one in each]

    found = judge(kind, [check], [Made(one, {}) for one in made], Where((2, 13), "cpu", "float32"))

    assert [str(divergence) for divergence in found.divergences] == wrong
    assert [str(divergence) for divergence in found.samples()] == wrong
    told = found.conclude()
    assert told.told == {"SUM": fact}
    assert (
        f"right to {told.largest} B" in fact and f"{(told.bandwidth or 0.0) / 1e9:g} GB/s" in fact
    )
    assert found.passed is not bool(wrong)


def test_what_is_no_record_is_no_answer() -> None:
    with pytest.raises(ValueError, match="codec"):
        Measured.of_tensor(torch.tensor([1, 2, 255], dtype=torch.uint8))


@pytest.mark.parametrize(
    ("ranks", "dtype", "gone"),
    [
        (2, torch.float32, set()),
        (3, torch.float32, {"AVG"}),
        (8, torch.uint8, {"PRODUCT"}),
        (16, torch.int64, {"PRODUCT"}),
    ],
    ids=str,
)
def test_reductions_are_those_with_exact_results(
    ranks: int, dtype: torch.dtype, gone: set[str]
) -> None:
    checks = operations.load()["sizes_all_reduce"].checks(Request("wait", dtype, ranks, 0))
    whole = {"BAND", "BOR", "BXOR"} if not dtype.is_floating_point else {"AVG"}

    assert {check.name for check in checks} == {"SUM", "PRODUCT", "MIN", "MAX", *whole} - gone


@pytest.mark.parametrize(
    ("device", "free", "other", "largest"),
    [
        ("cpu", 1 << 20, 1 << 20, 64 << 20),
        ("meta", 80 << 30, 1 << 30, 1 << 30),
        ("meta", None, 1 << 30, 1 << 30),
        ("meta", 16 << 30, 1 << 30, 512 << 20),
        ("meta", 80 << 30, 7 << 20, 7 << 20),
    ],
    ids=["cpu", "enough", "unknown", "little", "less on another rank"],
)
def test_ranks_agree_on_the_largest_size(
    monkeypatch: pytest.MonkeyPatch, device: str, free: int | None, other: int, largest: int
) -> None:
    store = dist.HashStore()
    store.set("distparity/largest/7/0", str(other))
    monkeypatch.setattr(base, "_ASKED", iter([7]))
    monkeypatch.setattr(base.private, "default_store", lambda: store)
    kind = SimpleNamespace(free_memory=lambda: free)
    context: Any = SimpleNamespace(rank=1, world_size=2, device=torch.device(device), kind=kind)

    assert base._largest(context) == largest


@pytest.mark.parametrize(("words", "size"), [("64MiB", 1 << 26), ("4GiB", 1 << 32), ("7", 7)])
def test_bytes(words: str, size: int) -> None:
    assert arguments._bytes(words) == size


@pytest.mark.parametrize("words", ["64 MB", "0", "MiB", "-1"])
def test_what_is_no_size(words: str) -> None:
    with pytest.raises(BadRequest, match="it must be a size"):
        arguments._bytes(words)


def test_a_run_over_sizes_says_what_was_right_and_a_lost_tail_is_red(suite: Suite) -> None:
    words = ("--select", "sizes", "--largest", "128KiB", "--world-size", "2", "--scenario")
    ran = suite(*words, "sizes_all_gather,sizes_reduce_scatter", "-k", "float32")

    found = ran.properties("here-cpu")
    assert {facts["status"] for facts in found.values()} == {"passed"}
    assert "right to 128 KiB" in found["sizes_all_gather/in_place-ws2-float32"]["sizes"]
    assert "sizes_all_gather/async-ws2-float32" in ran.output
