"""What the torch that is here is, which cases it can make, and which devices were found."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from distparity.core.known_limit import Limit
from distparity.core.record import Record

__all__ = [
    "DeviceFacts",
    "GradientExchange",
    "MutantFacts",
    "OperationFacts",
    "Probed",
    "ScenarioFacts",
    "SharingFacts",
    "StrategyFacts",
    "TorchFacts",
]


@dataclass(frozen=True)
class ScenarioFacts(Record):
    """What a scenario declares, as :class:`distparity.scenarios.Scenario` has it."""

    #: The file that defines it.
    file: str
    family: str
    anchor: bool
    slow: bool
    #: By torch's names, the one for the smaller selections first.
    dtypes: tuple[str, ...]
    features: tuple[str, ...]
    #: The dtype in which its units compute, where that is not the parameters' own.
    computes_in: str | None
    #: The dtype in which it asks for gradients to be reduced, where that is not the parameters' own.
    reduce_dtype: str | None
    steps: int
    reload_after: int | None
    traits: tuple[str, ...]


@dataclass(frozen=True)
class StrategyFacts(Record):
    """What a strategy declares, as :class:`distparity.strategies.Strategy` has it."""

    title: str
    tier: str
    limits: tuple[Limit, ...]
    lacks: dict[str, str]
    needs: dict[str, str]
    made_for: tuple[str, ...]
    least_ranks: int
    most_ranks: int | None
    ranks_multiple_of: int
    reduce_dtype: str | None
    replicates: bool
    exchanges: bool
    multiplies: bool
    enters_at_first: bool
    resume_world_size: int | None

    def refuses(self, features: Collection[str]) -> str | None:
        """Why it does not go together with a scenario of these features; None when it does."""
        lacking = [why for feature, why in self.lacks.items() if feature in features]
        missing = [why for feature, why in self.needs.items() if feature not in features]
        return next(iter(lacking + missing), None)


@dataclass(frozen=True)
class OperationFacts(Record):
    """What an operation declares, as :class:`distparity.operations.Operation` has it."""

    file: str
    family: str
    dtypes: tuple[str, ...]
    pairs_only: tuple[str, ...]
    default_ranks: int | None
    #: The dtypes of every way in which it is called.
    ways: dict[str, tuple[str, ...]]


@dataclass(frozen=True)
class MutantFacts(Record):
    """What a deliberate fault declares, as :class:`distparity.mutants.Mutant` has it."""

    title: str
    diagnosis: tuple[str, ...]
    equivalent: str | None
    size: float | None
    needs: str | None
    sharded: bool | None
    #: Whether it sits in how ranks exchange gradients or parameters.
    exchange: bool
    at_step: int
    spares_first: bool


@dataclass(frozen=True)
class GradientExchange(Record):
    """How gradients travel between ranks, where that rounds more than the case's dtype does."""

    #: The gradient reduction dtype, by torch's name; None is the case's own.
    reduce_dtype: str | None = None
    #: Whether a gradient goes through two products of matrices of its size on its way.
    multiplies: bool = False


@dataclass(frozen=True)
class TorchFacts(Record):
    """The torch that was imported, and every scenario, strategy, operation and fault by name."""

    torch: str
    release: tuple[int, int]
    git: str | None
    cuda: str | None
    hip: str | None
    xpu: str | None
    numpy: str | None
    #: Private parts that diagnostics would use and that it does not have, by what they are for.
    gone: tuple[str, ...]
    #: The collective backends that it was built with.
    collectives: tuple[str, ...]
    #: The kinds of device that are known, here or not.
    devices: tuple[str, ...]
    #: What rounding alone is allowed to be off, relative, by dtype.
    rounding: dict[str, float]
    scenarios: dict[str, ScenarioFacts]
    operations: dict[str, OperationFacts]
    strategies: dict[str, StrategyFacts]
    mutants: dict[str, MutantFacts]
    #: The faults that concern an operation, by ``operation/way``.
    operation_faults: dict[str, tuple[str, ...]]

    @cached_property
    def files(self) -> dict[str, str]:
        """The file that defines each scenario and operation."""
        defined: dict[str, ScenarioFacts | OperationFacts] = {**self.scenarios, **self.operations}
        return {name: what.file for name, what in defined.items()}

    @cached_property
    def families(self) -> dict[str, str]:
        """The family of each scenario and operation."""
        defined: dict[str, ScenarioFacts | OperationFacts] = {**self.scenarios, **self.operations}
        return {name: what.family for name, what in defined.items()}

    def exchange(self, scenario: str, strategy: str, dtype: str) -> GradientExchange:
        """How gradients of a scenario travel under a strategy in a case of ``dtype``."""
        how = self.strategies[strategy]
        asked = how.reduce_dtype or self.scenarios[scenario].reduce_dtype
        return GradientExchange(None if asked == dtype else asked, how.multiplies)


@dataclass(frozen=True)
class SharingFacts(Record):
    """A way in which several ranks compute on one device, and what is different in it."""

    backend: str
    refuses: dict[str, str]


@dataclass(frozen=True)
class DeviceFacts(Record):
    """A kind of device that was found, as :class:`distparity.devices.Device` answers."""

    #: torch's device type.
    type: str
    count: int
    #: The most ranks that a world can have here; None is any number.
    most_ranks: int | None
    name: str
    backend: str
    backend_version: str
    #: By dtype, why the device cannot compute in it.
    lacks: dict[str, str]
    no_reductions: tuple[str, ...]
    #: By regular expression of an error's text, the fact in one line.
    refuses: dict[str, str]
    #: Named facts of its arithmetic (:mod:`distparity.devices.numerics`).
    numerics: dict[str, Any]
    #: Seconds that a world may take to start beyond what every device is given.
    start_seconds: float
    exclusive: bool
    sharing: dict[str, SharingFacts] = field(default_factory=dict)
    #: Variables that stand before the command that runs a case again.
    replay: dict[str, str] = field(default_factory=dict)

    def shared(self, way: str) -> DeviceFacts:
        """The same where all ranks of a world are on one device, by a way of :attr:`sharing`."""
        found = self.sharing[way]
        return replace(self, most_ranks=None, backend=found.backend, refuses=found.refuses)


@dataclass(frozen=True)
class Probed(Record):
    """What came of looking for a kind of device: it was found, or why it was not."""

    found: DeviceFacts | None = None
    absent: str = ""
    #: The whole account where the plug-in failed; empty where there is no such device.
    broken: str = ""
