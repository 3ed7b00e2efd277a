"""``--each-pair``: which pair of nodes computes wrong, and the node that all such pairs share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import combinations_with_replacement

from distparity.core.outcome import Outcome

__all__ = ["every", "matrix", "shared"]

#: The facts of an outcome: the pairs that ran, and those that did not pass.
RAN, WRONG = "pairs", "pairs_wrong"


def every(nodes: Sequence[int]) -> list[tuple[int, int]]:
    """Each node with itself, and each pair of two."""
    return list(combinations_with_replacement(nodes, 2))


def shared(wrong: Iterable[str]) -> str:
    """The node that all wrong pairs share, and the only such one; "" if there is none.

    A pair is the two names with a space between.
    """
    pairs = [set(pair.split()) for pair in wrong]
    common = set.intersection(*pairs) if pairs else set()
    return common.pop() if len(common) == 1 else ""


def matrix(outcomes: Iterable[Outcome]) -> list[str]:
    """Lines for the terminal: node against node, how many cases were wrong of how many that ran."""
    ran: dict[tuple[str, str], int] = {}
    wrong: dict[tuple[str, str], int] = {}
    for outcome in outcomes:
        for counts, name in ((ran, RAN), (wrong, WRONG)):
            if name == WRONG and not outcome.status.bad:
                # It fails as an expectation says, on any node.
                continue
            for pair in filter(None, str(outcome.facts.get(name, "")).split("; ")):
                one, other = pair.split()
                counts[one, other] = counts.get((one, other), 0) + 1
    names = list(dict.fromkeys(name for pair in ran for name in pair))
    if not names:
        return []
    width = max(len(name) for name in names)
    rows = [["", *names]]
    for one in names:
        cells = []
        for other in names:
            both = (one, other) if (one, other) in ran else (other, one)
            cells.append(f"{wrong.get(both, 0)}/{ran[both]}" if both in ran else "-")
        rows.append([one, *cells])
    lines = ["each pair of nodes: cases that were wrong, of those that ran"]
    lines += ["  " + "  ".join(word.ljust(width) for word in row).rstrip() for row in rows]
    bad = shared(" ".join(pair) for pair in wrong)
    if bad:
        lines.append(f"  {bad} is in every pair that was wrong")
    elif wrong:
        lines.append("  no node is in all pairs that were wrong")
    return lines
