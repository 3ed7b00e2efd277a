"""Collectives over sizes: which sizes, what every element says, and what a wrong result is called."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from distparity.core.bad_request import BadRequest
from distparity.core.sweep import Measured, Sweep
from distparity.operations import sizes as ranks_side
from distparity.operations.sizes import UNWRITTEN, elements, modulus, origin
from distparity.session import sizes

DTYPES = [getattr(torch, name) for name in sizes.DTYPES]


def test_sizes_are_around_powers_of_two() -> None:
    found = list(elements(70, 2))

    assert {1, 2, 63, 64, 65, 67} <= set(found)
    assert all(count <= 70 for count in found)
    assert any(count % 2 and count * 4 % 16 for count in found)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("op", ["SUM", "MAX", None])
@pytest.mark.parametrize("ranks", [2, 4, 8])
def test_every_result_is_exact(dtype: torch.dtype, op: str | None, ranks: int) -> None:
    most = (modulus(dtype, ranks, op) - 1) * (ranks if op == "SUM" else 1)

    assert torch.tensor(most).to(dtype).long() == most
    assert dtype is not torch.uint8 or modulus(dtype, ranks, op) <= UNWRITTEN


def test_another_rank_place_or_chunk_has_other_numbers() -> None:
    places, mod = torch.arange(4096), 250
    right = origin(0, places, mod)

    shifted = [origin(0, places + shift, mod) for shift in (1, mod, 4096, 65_536, 1 << 20)]
    others = [origin(rank, places, mod) for rank in (1, 2, 3)]
    assert all(float((right == other).float().mean()) < 0.5 for other in [*shifted, *others])


@pytest.mark.parametrize("start", [0, 5, 65_000, 300_000])
@pytest.mark.parametrize("op", [None, "SUM", "MAX", "MIN"])
@pytest.mark.parametrize("table", [1 << 27, 1 << 10], ids=["kept", "made again"])
def test_numbers_are_those_of_the_definition(
    monkeypatch: pytest.MonkeyPatch, start: int, op: str | None, table: int
) -> None:
    monkeypatch.setattr(ranks_side, "TABLE", table)
    made, ranks = ranks_side.Numbers(250, torch.device("cpu")), [2, 0, 9][: 3 if op else 1]
    each = [origin(rank, torch.arange(start, start + 999), 250) for rank in ranks]

    for _ in range(2):
        found = made(ranks, start, 999, op).long()
        expected = torch.stack(each)
        reduced = {"SUM": expected.sum(0), "MAX": expected.amax(0), "MIN": expected.amin(0)}
        assert found.equal(each[0] if op is None else reduced[op])


def one(operation: str, dtype: torch.dtype = torch.float32) -> tuple[Any, torch.Tensor]:
    """Rank 1 of two with its right result for blocks of 100 elements."""
    kind = ranks_side.OPERATIONS[operation]
    context: Any = SimpleNamespace(rank=1, world_size=2, device=torch.device("cpu"))
    found = ranks_side._One(context, kind, dtype, 100)
    blocks = [found._expected([0, 1], b, 0, 100, 0) for b in range(kind.gets or 2)]
    return found, torch.cat(blocks).to(dtype)


@pytest.mark.parametrize("operation", ranks_side.OPERATIONS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_right_result_is_right_and_any_wrong_element_is_seen(
    operation: str, dtype: torch.dtype
) -> None:
    found, right = one(operation, dtype)

    assert found._compare(right, [0, 1], 0) is None
    for at in (0, 57, len(right) - 1):
        wrong = right.clone()
        wrong[at] += 1
        assert f"1 elements from {at} of {len(right)}" in found._compare(wrong, [0, 1], 0)


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
    found, right = one("all_gather")

    text = found._compare(damage(right), [0, 1], 0)

    assert text is not None
    assert pytest.raises(AssertionError, match=said).matches(AssertionError(text))


def test_another_reduction_is_named() -> None:
    found, _ = one("reduce_scatter MIN")
    _, summed = one("reduce_scatter SUM")

    text = found._compare(summed, [0, 1], 0)

    assert text is not None
    assert text.endswith("that is the SUM of all ranks")


def test_the_operations_of_both_sides_are_the_same() -> None:
    assert list(sizes.OPERATIONS) == list(ranks_side.OPERATIONS)


def test_a_size_is_right_if_it_is_right_on_all_ranks() -> None:
    fine = Measured(sizes=9, right=900, bandwidth=2e9)
    bad = Measured(sizes=9, right=300, wrong=400, message="rank 1: ...", bandwidth=3e9)

    found = sizes.merged([fine, bad])

    assert (found.right, found.wrong, found.message) == (300, 400, "rank 1: ...")
    assert found.bandwidth == 2e9
    row = sizes.Row("cpu", 2, Sweep("all_gather", "wait", "float32", 900), found)
    assert row.bad
    assert list(sizes.table([row]))[-1] == "all_gather wait float32 at 2 ranks: rank 1: ..."


@pytest.mark.parametrize(("words", "size"), [("64MiB", 1 << 26), ("4GiB", 1 << 32), ("7", 7)])
def test_bytes(words: str, size: int) -> None:
    assert sizes.bytes_of(words) == size


@pytest.mark.parametrize("words", ["64 MB", "0", "MiB", "-1"])
def test_what_is_no_size(words: str) -> None:
    with pytest.raises(BadRequest, match="it must be a size"):
        sizes.bytes_of(words)
