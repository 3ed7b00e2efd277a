"""Where a list of releases changes from one kind to the other, asking as few of them as will do.

Knows nothing of torch: a release is a number here, and what it is asked for is a kind, or None
where it cannot say.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

__all__ = ["Found", "search"]

#: What a release is, by its place in the list; None where nobody can say.
Ask = Callable[[int], str | None]


@dataclass(frozen=True)
class Found:
    """A change: ``before`` is still of the one kind, ``after`` of the other, by their places.

    What lies between them could not be judged; where nothing does, ``after`` is the first.
    """

    before: int
    after: int

    @property
    def between(self) -> range:
        return range(self.before + 1, self.after)


def search(first: int, last: int, ask: Ask) -> Found:
    """A change between two places whose kinds differ, by halves.

    What cannot say is passed over for its nearest neighbour. With more than one change between the
    two, one of them is found; :func:`every` finds all.
    """
    before, after = first, last
    kind = ask(first)
    silent: set[int] = set()
    while untold := [place for place in range(before + 1, after) if place not in silent]:
        # The first of the two nearest to the middle, so that the same list is asked the same way.
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
    """Every change between two places, in order, by asking all of them."""
    before, kind = first, ask(first)
    for place in range(first + 1, last + 1):
        said = ask(place)
        if said is None:
            continue
        if said != kind:
            yield Found(before, place)
        before, kind = place, said
