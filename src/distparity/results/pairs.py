"""``--each-pair``: which pair of nodes computes wrong, and the node that all such pairs share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations, combinations_with_replacement
from typing import Any

__all__ = ["RAN", "WRONG", "Matrix", "alone", "every", "name"]

#: The facts of an outcome: the pairs that ran, and those that did not pass.
RAN, WRONG = "pairs", "pairs_wrong"

Pair = tuple[str, str]


def every(
    nodes: Sequence[int], devices: Callable[[int], int]
) -> Iterator[tuple[tuple[int, int], tuple[int, ...]]]:
    """Each pair of two nodes, and within a node each pair of its devices, by their indices.

    A node with at most two devices is one pair, whose devices are not chosen.
    """
    for one, other in combinations_with_replacement(nodes, 2):
        if one == other and devices(one) > 2:
            yield from (((one, one), two) for two in combinations(range(devices(one)), 2))
        else:
            yield (one, other), ()


def name(nodes: Sequence[str], devices: Sequence[int]) -> str:
    """What a pair is called in the facts: two nodes, or two devices of one."""
    if not devices:
        return " ".join(nodes)
    return " ".join(f"{node}:{index}" for node, index in zip(nodes, devices, strict=True))


def alone(pair: str) -> bool:
    """Whether a pair lies in one node."""
    return len({_node(place) for place in pair.split()}) == 1


def _node(place: str) -> str:
    head, colon, index = place.rpartition(":")
    return head if colon and index.isdecimal() else place


@dataclass(frozen=True)
class Matrix:
    """How many cases each pair ran, and how many were wrong there."""

    ran: Counter[Pair] = field(default_factory=Counter)
    wrong: Counter[Pair] = field(default_factory=Counter)

    @classmethod
    def of(cls, results: Iterable[tuple[Mapping[str, Any], bool]]) -> Matrix:
        """From each case's facts, and whether its outcome is bad.

        An expected failure is none: it fails so on any node.
        """
        found = cls()
        for facts, bad in results:
            counted = [(found.ran, RAN)]
            if bad:
                counted.append((found.wrong, WRONG))
            for counts, fact in counted:
                for pair in filter(None, str(facts.get(fact, "")).split("; ")):
                    one, other = pair.split()
                    counts[one, other] += 1
        return found

    @property
    def tables(self) -> list[list[list[str]]]:
        """Node against node, then device against device of each node whose devices were paired.

        Each has its names as the first row and column; a cell is "wrong/ran", "-" if nothing ran.
        """
        nodes = list(dict.fromkeys(_node(place) for pair in self.ran for place in pair))
        found = [self._table(nodes, _node)] if nodes else []
        for node in nodes:
            devices = dict.fromkeys(
                place for pair in self.ran for place in pair if _node(place) == node != place
            )
            if devices:
                found.append(self._table(list(devices), str))
        return found

    def _table(self, names: list[str], of: Callable[[str], str]) -> list[list[str]]:
        counts: list[Counter[frozenset[str]]] = []
        for counted in (self.ran, self.wrong):
            counts.append(Counter())
            for pair, number in counted.items():
                counts[-1][frozenset(map(of, pair))] += number
        ran, wrong = counts
        rows = [
            [one, *(f"{wrong[two]}/{ran[two]}" if ran[two] else "-" for two in _with(one, names))]
            for one in names
        ]
        return [["", *names], *rows]

    @property
    def shared(self) -> str:
        """The device, or else the node, that all wrong pairs share, and the only one; "" if there is none."""
        for of in (str, _node):
            places = [set(map(of, pair)) for pair in self.wrong]
            common = set.intersection(*places) if places else set()
            if len(common) == 1:
                return common.pop()
        return ""

    @property
    def conclusion(self) -> str:
        """What the tables show, in words."""
        if self.shared:
            return f"{self.shared} is in every pair that was wrong"
        return "no node is in all pairs that were wrong" if self.wrong else ""

    def lines(self) -> list[str]:
        """The tables as lines for the terminal; none if no pair ran."""
        lines = []
        for number, table in enumerate(self.tables):
            what = "devices" if number else "nodes"
            lines.append(f"each pair of {what}: cases that were wrong, of those that ran")
            width = max(len(word) for row in table for word in row)
            lines += ["  " + "  ".join(word.ljust(width) for word in row).rstrip() for row in table]
        return [*lines, *([f"  {self.conclusion}"] if self.conclusion else [])]


def _with(one: str, names: Iterable[str]) -> Iterator[frozenset[str]]:
    return (frozenset({one, other}) for other in names)
