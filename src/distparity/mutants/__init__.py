"""Deliberate faults: what the suite must see, or it proves nothing.

A mutant is a strategy made wrong in one way. It is put in at the collectives and at the strategy's
own methods, inside a rank, so that it works on every device, under every strategy to which it means
something, and with every torch.
"""

from __future__ import annotations

from distparity.mutants import catalogue
from distparity.mutants.base import Mutant
from distparity.mutants.inject import mutate

__all__ = ["Mutant", "catalogue", "load", "mutate"]


def load() -> dict[str, type[Mutant]]:
    """All mutants by name, in the order in which they stand in the catalogue."""
    return {kind.name: kind for kind in Mutant.__subclasses__()}
