"""Facts about the installed torch: its version, the cases it can run, and the devices found."""

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
    """The declarations of a scenario; see :class:`distparity.scenarios.Scenario`."""

    #: The file that defines it.
    file: str
    family: str
    anchor: bool
    slow: bool
    large: bool
    #: Bytes of memory that the machine must have; 0: nobody asks.
    memory: int
    #: torch's names; the first is the one for the smaller selections.
    dtypes: tuple[str, ...]
    features: tuple[str, ...]
    #: The dtype in which its units compute, if it is not that of the parameters.
    computes_in: str | None
    #: The gradient reduction dtype that it requests, if it is not that of the parameters.
    reduce_dtype: str | None
    steps: int
    reload_after: int | None
    #: Among how many ranks its layers can be split at most, if not any number; how many stages it has.
    most_parts: int | None
    stages: int
    traits: tuple[str, ...]

    @property
    def patience(self) -> int:
        """How many times the time limit of a case its tasks have."""
        return 60 if self.memory else 5 if self.large else 1

    def too_large(self, memory: int) -> str | None:
        """Why a machine with so many bytes of memory (0: unknown) cannot run it; None if it can."""
        if not 0 < memory < self.memory:
            return None
        need, have = self.memory / 2**30, memory / 2**30
        return f"it needs {need:.0f} GiB of memory, and this machine has {have:.1f} GiB"


@dataclass(frozen=True)
class StrategyFacts(Record):
    """The declarations of a strategy; see :class:`distparity.strategies.Strategy`."""

    #: The file that defines it.
    file: str
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
    cuts: dict[str, int]
    exchanges: bool
    multiplies: bool
    enters_at_first: bool
    resume_world_size: int | None

    def refuses(self, features: Collection[str]) -> str | None:
        """Why it cannot run a scenario with these features; None if it can."""
        lacking = [why for feature, why in self.lacks.items() if feature in features]
        missing = [why for feature, why in self.needs.items() if feature not in features]
        return next(iter(lacking + missing), None)

    def too_many(self, ranks: int, scenario: ScenarioFacts) -> str | None:
        """Why it cannot cut a scenario's model among so many ranks; None if it can."""
        parts = {what: per_rank * ranks for what, per_rank in self.cuts.items()}
        most, stages = scenario.most_parts, scenario.stages
        if most is not None and parts.get("layers", 0) > most:
            return f"the layers can be split among at most {most} ranks"
        if parts.get("stages", 0) > stages:
            return f"the model has {stages} stages, and {ranks} ranks need {parts['stages']}"
        return None


@dataclass(frozen=True)
class OperationFacts(Record):
    """The declarations of an operation; see :class:`distparity.operations.Operation`."""

    file: str
    family: str
    dtypes: tuple[str, ...]
    pairs_only: tuple[str, ...]
    default_ranks: int | None
    #: The world sizes that it has checks for; none: any.
    worlds: tuple[int, ...]
    #: The selection that its cases are in, and in no other; "" for the usual ones.
    selection: str
    #: Whether its checks are generated; these also have a selection of their own.
    generated: bool
    #: How many times as long as another case one of its cases may take.
    patience: int
    #: Whether its cases run while nothing else runs.
    alone: bool
    #: By way to call it: the dtypes of its cases.
    ways: dict[str, tuple[str, ...]]


@dataclass(frozen=True)
class MutantFacts(Record):
    """The declarations of a mutant; see :class:`distparity.mutants.Mutant`."""

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
    """How ranks exchange gradients, if that rounds more than the case's dtype does."""

    #: The gradient reduction dtype, by torch's name; None is the case's own.
    reduce_dtype: str | None = None
    #: Whether a gradient goes through two matrix products of its own size, as in PowerSGD.
    multiplies: bool = False


@dataclass(frozen=True)
class TorchFacts(Record):
    """The imported torch, and every scenario, strategy, operation and mutant by name."""

    torch: str
    release: tuple[int, int]
    git: str | None
    cuda: str | None
    hip: str | None
    xpu: str | None
    numpy: str | None
    #: Diagnostics that this torch cannot provide, because it lacks a private API.
    gone: tuple[str, ...]
    #: The collective backends of this build.
    collectives: tuple[str, ...]
    #: The known kinds of device, available or not.
    devices: tuple[str, ...]
    #: By dtype: the relative error that rounding alone may have.
    rounding: dict[str, float]
    scenarios: dict[str, ScenarioFacts]
    operations: dict[str, OperationFacts]
    strategies: dict[str, StrategyFacts]
    mutants: dict[str, MutantFacts]
    #: By ``operation/way``: the faults that apply to it.
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
        """How a strategy exchanges the gradients of a scenario in a case of ``dtype``."""
        how = self.strategies[strategy]
        asked = how.reduce_dtype or self.scenarios[scenario].reduce_dtype
        return GradientExchange(None if asked == dtype else asked, how.multiplies)

    def coarsest(self, scenario: str, strategy: str, dtype: str) -> str:
        """The dtype of a case, or a coarser one in which it computes or exchanges gradients."""
        more = (
            self.exchange(scenario, strategy, dtype).reduce_dtype,
            self.scenarios[scenario].computes_in,
        )
        known = [dtype, *(one for one in more if one is not None)]
        return max(known, key=lambda one: self.rounding[one])

    def precision(self, scenario: str, strategy: str, dtype: str) -> str:
        """The dtype of a case, with the :meth:`coarsest` in parentheses if that is another."""
        coarsest = self.coarsest(scenario, strategy, dtype)
        return dtype if coarsest == dtype else f"{dtype} ({coarsest})"


@dataclass(frozen=True)
class SharingFacts(Record):
    """A way for several ranks to compute on one device; see :class:`distparity.devices.Sharing`."""

    backend: str
    refuses: dict[str, str]


@dataclass(frozen=True)
class DeviceFacts(Record):
    """A kind of device that was found; see :class:`distparity.devices.Device`."""

    #: torch's device type.
    type: str
    count: int
    #: The largest world size on this machine; None for no limit.
    most_ranks: int | None
    name: str
    backend: str
    backend_version: str
    #: By dtype, why the device cannot compute in it.
    lacks: dict[str, str]
    no_reductions: tuple[str, ...]
    #: By regular expression for an error's text: the fact in one line.
    refuses: dict[str, str]
    #: Facts about its arithmetic (:mod:`distparity.devices.numerics`).
    numerics: dict[str, Any]
    #: Additional seconds for a world to start.
    start_seconds: float
    exclusive: bool
    #: How many times the time limit of a case its cases have.
    slowness: float = 1.0
    sharing: dict[str, SharingFacts] = field(default_factory=dict)
    #: Environment variables for the command that runs a case again.
    replay: dict[str, str] = field(default_factory=dict)
    #: The indices of the devices that belong together, by group; empty if all do.
    groups: tuple[tuple[int, ...], ...] = ()

    def shared(self, way: str) -> DeviceFacts:
        """The same device, with all ranks of a world on one device, by a way of :attr:`sharing`."""
        found = self.sharing[way]
        return replace(self, most_ranks=None, backend=found.backend, refuses=found.refuses)


@dataclass(frozen=True)
class Probed(Record):
    """The result of a probe: the device that was found, or why none was."""

    found: DeviceFacts | None = None
    absent: str = ""
    #: The traceback or output if the plug-in failed; empty if there is no such device.
    broken: str = ""
    #: What of an absent device is installed here; empty for nothing.
    installed: str = ""
