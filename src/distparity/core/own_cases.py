"""The cases of a project's own scenarios, as ``distparity.cases`` declares them in a test file."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from distparity.core.record import Record

__all__ = ["Module", "OwnCases", "OwnScenario", "declare"]


@dataclass(frozen=True)
class Module(Record):
    """A module that ranks import: by its name, or from its file if the name leads elsewhere."""

    name: str
    file: str


@dataclass(frozen=True)
class OwnScenario(Record):
    """A scenario class of a project: where it is defined, and what it is called in cases."""

    module: Module
    qualname: str
    name: str
    dtypes: tuple[str, ...]
    checkpoint: str = ""


@dataclass(frozen=True)
class OwnCases:
    """Scenarios times strategies times world sizes. pytest collects it from a test file."""

    scenarios: tuple[OwnScenario, ...]
    #: The names of the strategies, and the modules that define those of the project.
    strategies: tuple[str, ...]
    modules: tuple[Module, ...]
    world_sizes: tuple[int, ...]
    device: str = "auto"
    timeout: float = 60.0
    marks: Sequence[Any] = field(default=(), hash=False)

    def combinations(self) -> Iterator[tuple[OwnScenario, str, int, str]]:
        """Scenario, strategy, world size and dtype of every case, in order."""
        for scenario in self.scenarios:
            for strategy in self.strategies:
                for size in self.world_sizes:
                    for dtype in scenario.dtypes:
                        yield scenario, strategy, size, dtype


def declare(
    scenarios: Sequence[Any],
    strategies: Sequence[Any],
    world_sizes: Sequence[int],
    dtypes: Sequence[str] | None,
    device: str,
    timeout: float,
    checkpoint: str | os.PathLike[str] | None,
    marks: Sequence[Any],
) -> OwnCases:
    """See :func:`distparity.cases`."""
    if not scenarios or not strategies or not world_sizes:
        raise TypeError("distparity.cases needs a scenario, a strategy and a world size")
    start = "" if checkpoint is None else os.path.abspath(checkpoint)  # noqa: PTH100  of a string
    names = [one if isinstance(one, str) else vars(one).get("name") for one in strategies]
    for one, name in zip(strategies, names, strict=True):
        if not isinstance(name, str):
            raise TypeError(
                f"the strategy {one!r} has no name: set the attribute name in its class"
            )
    modules = [_module(one) for one in strategies if not isinstance(one, str)]
    return OwnCases(
        tuple(_scenario(one, dtypes, start) for one in scenarios),
        tuple(str(name) for name in names),
        tuple(dict.fromkeys(modules)),
        tuple(world_sizes),
        device,
        timeout,
        tuple(marks),
    )


def _scenario(kind: Any, dtypes: Sequence[str] | None, checkpoint: str) -> OwnScenario:
    if not isinstance(kind, type) or not hasattr(kind, "dtypes"):
        raise TypeError(f"{kind!r} is not a subclass of distparity.Scenario")
    name = vars(kind).get("name") or kind.__name__
    # A case's id is scenario/strategy-wsN-dtype.
    if not name.replace(".", "").isidentifier():
        raise TypeError(f"a scenario cannot be called {name!r}: use letters, digits, _ and .")
    chosen = tuple(kind.dtypes[:1] if dtypes is None else dtypes)
    return OwnScenario(_module(kind), kind.__qualname__, name, chosen, checkpoint)


def _module(kind: type) -> Module:
    if "<locals>" in kind.__qualname__:
        raise TypeError(
            f"{kind.__qualname__} is defined in a function: ranks import it, so define it at the top "
            "level of a module"
        )
    file = getattr(sys.modules[kind.__module__], "__file__", None)
    if file is None:
        raise TypeError(f"{kind.__qualname__} is in a module without a file, {kind.__module__}")
    return Module(kind.__module__, os.path.abspath(file))  # noqa: PTH100  of a string
