"""Find where a list of releases changes from one kind to another, with as few queries as possible.

This module knows nothing about torch: a release is an index, and a query returns its kind, or None if
the release cannot be judged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

__all__ = ["Found", "search"]

#: Returns the kind of a release, by its index in the list; None if it cannot be judged.
Ask = Callable[[int], str | None]


@dataclass(frozen=True)
class Found:
    """A change between the indexes ``before`` and ``after``, which are of different kinds.

    Releases between them could not be judged; if there are none, ``after`` is the first of its kind.
    """

    before: int
    after: int

    @property
    def between(self) -> range:
        """The indexes of the releases that could not be judged."""
        return range(self.before + 1, self.after)


def search(first: int, last: int, ask: Ask) -> Found:
    """Find a change between two indexes of different kinds, by bisection.

    A release that cannot be judged is replaced by its nearest neighbour. If there are several
    changes, one of them is found; :func:`every` finds all.
    """
    before, after = first, last
    kind = ask(first)
    silent: set[int] = set()
    while untold := [place for place in range(before + 1, after) if place not in silent]:
        # The first of the two nearest to the middle, so that the order of queries is deterministic.
        place = min(untold, key=lambda place: abs(2 * place - before - after))
        said = ask(place)
        if said is None:
            silent.add(place)
        elif said == kind:
            before = place
        else:
            after = place
    return Found(before, after)


def every(first: int, last: int, ask: Ask) -> Iterator[Found]:
    """Find every change between two indexes, in order, by a query for every release."""
    before, kind = first, ask(first)
    for place in range(first + 1, last + 1):
        said = ask(place)
        if said is None:
            continue
        if said != kind:
            yield Found(before, place)
        before, kind = place, said
