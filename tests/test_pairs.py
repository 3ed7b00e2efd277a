"""``--each-pair``: the pairs that there are, and what is said of those that are wrong."""

from __future__ import annotations

import pytest

from distparity.core.outcome import Outcome, Status
from distparity.results import pairs
from distparity.session.placement import of_pairs


def _of_pair(pair: str, *, right: bool) -> Outcome:
    status = Status.PASSED if right else Status.FAILED
    return Outcome(status, "as it was", facts={"placement": pair})


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        ({"b b", "a b", "b c"}, "b is in every pair that was wrong"),
        ({"a b"}, "no node is in all pairs that were wrong"),
        ({"a a", "b b"}, "no node is in all pairs that were wrong"),
        ({"c c"}, "c is in every pair that was wrong"),
        (set(), "c    0/2  0/2  0/2"),
    ],
)
def test_the_node_that_all_wrong_pairs_share_is_named(bad: set[str], told: str) -> None:
    every = ["a a", "a b", "a c", "b b", "b c", "c c"]
    found = of_pairs([_of_pair(pair, right=pair not in bad) for pair in every])
    assert found.status is (Status.FAILED if bad else Status.PASSED)
    right = of_pairs([_of_pair(pair, right=True) for pair in every])
    lines = pairs.Matrix.of((one.facts, one.status.bad) for one in (found, right)).lines()
    assert lines[-1].strip() == told
    assert lines[1].split() == ["a", "b", "c"]
    assert lines[2].split() == ["a", *(f"{int(f'a {one}' in bad)}/2" for one in "abc")]


def test_within_a_node_each_pair_of_its_devices_runs() -> None:
    counts = {0: 3, 1: 2}
    found = [
        pairs.name([f"n{number}" for number in nodes], devices)
        for nodes, devices in pairs.every([0, 1], counts.__getitem__)
    ]
    assert found == ["n0:0 n0:1", "n0:0 n0:2", "n0:1 n0:2", "n0 n1", "n1 n1"]


@pytest.mark.parametrize(
    ("wrong", "shared"),
    [
        ("a:0 a:2; a:1 a:2", "a:2"),
        ("a:0 a:2; a:1 a:2; a b", "a"),
        ("a:0 a:1", "a"),
        ("a:0 a:1; b b", ""),
    ],
)
def test_the_device_that_all_wrong_pairs_share_is_named(wrong: str, shared: str) -> None:
    ran = "a:0 a:1; a:0 a:2; a:1 a:2; a b; b b"
    found = pairs.Matrix.of([({pairs.RAN: ran, pairs.WRONG: wrong}, True)])
    assert found.shared == shared
    nodes, devices = found.tables
    assert nodes[0] == ["", "a", "b"]
    assert nodes[1][1].endswith("/3")
    assert devices[1] == [
        "a:0",
        "-",
        f"{int('a:0 a:1' in wrong)}/1",
        f"{int('a:0 a:2' in wrong)}/1",
    ]


def test_pairs_are_shown_as_tables_of_nodes_and_of_devices() -> None:
    results = [
        ({pairs.RAN: "a:0 a:1; a:0 a:2; a bc", pairs.WRONG: "a:0 a:1"}, True),
        ({pairs.RAN: "a:0 a:1; bc bc", pairs.WRONG: "a:0 a:1"}, False),
        ({"other": "x y"}, True),
    ]

    assert pairs.Matrix.of(results).lines() == [
        "each pair of nodes: cases that were wrong, of those that ran",
        "       a    bc",
        "  a    1/3  0/1",
        "  bc   0/1  0/1",
        "each pair of devices: cases that were wrong, of those that ran",
        "       a:0  a:1  a:2",
        "  a:0  -    1/2  0/1",
        "  a:1  1/2  -    -",
        "  a:2  0/1  -    -",
        "  a is in every pair that was wrong",
    ]
    assert pairs.Matrix().lines() == []


def test_each_device_of_a_pair_has_its_node() -> None:
    with pytest.raises(ValueError, match="zip"):
        pairs.name(["a"], (0, 1))


@pytest.mark.parametrize(
    ("pair", "alone"),
    [
        ("a a", True),
        ("a b", False),
        ("a:0 a:1", True),
        ("a:0 b:0", False),
        ("a:x a", False),
        ("a:b:0 a:b:1", True),
    ],
)
def test_a_pair_may_lie_in_one_node(pair: str, alone: bool) -> None:
    assert pairs.alone(pair) is alone
