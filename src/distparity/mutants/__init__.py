"""Mutants: deliberate faults that the suite must catch, or it proves nothing.

A mutant makes a strategy wrong in one way. It is injected into the collectives and into the strategy's
own methods, inside a rank, so that it works on every device, with every torch, and with every strategy
in which it has an effect.
"""

from __future__ import annotations

from distparity.mutants import catalogue
from distparity.mutants.base import Mutant
from distparity.mutants.inject import mutate

__all__ = ["Mutant", "catalogue", "load", "mutate"]


def load() -> dict[str, type[Mutant]]:
    """All mutants by name, in the order of the catalogue."""
    return {kind.name: kind for kind in Mutant.__subclasses__()}
