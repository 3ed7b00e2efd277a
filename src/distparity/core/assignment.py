"""The arguments of the tasks that ranks and the judge get."""

from __future__ import annotations

from dataclasses import dataclass

from distparity.core.case import Case
from distparity.core.record import Record
from distparity.core.torch_facts import GradientExchange

__all__ = ["Judging", "Operating", "Question", "Stored", "Training", "Weighing"]


@dataclass(frozen=True)
class Training(Record):
    """The training of one case: the same for its ranks, its reference runs and its judge."""

    scenario: str
    strategy: str
    #: The kind of device.
    device: str
    #: The dtype by torch's name, for example ``float32``.
    dtype: str
    #: The sizes of the worlds in which it is trained, one world after the other.
    worlds: tuple[int, ...]
    exchange: GradientExchange
    seed: int
    #: The name of the mutant to inject, if any.
    mutant: str | None = None
    #: The index of this world in ``worlds``.
    phase: int = 0
    #: The folder for the checkpoint between two worlds; None if there is only one.
    folder: str | None = None
    #: The file to which it appends the trajectories (:mod:`distparity.core.spool`).
    spool: str = ""

    @classmethod
    def of(
        cls,
        case: Case,
        seed: int,
        exchange: GradientExchange | None = None,
        *,
        resume_world_size: int | None = None,
        mutant: str | None = None,
    ) -> Training:
        """The training of a case, which resumes with ``resume_world_size`` ranks unless that is None."""
        more = () if resume_world_size is None else (resume_world_size,)
        return cls(
            scenario=case.scenario,
            strategy=case.strategy,
            device=case.device,
            dtype=case.dtype,
            worlds=(case.world_size, *more),
            exchange=exchange or GradientExchange(),
            seed=seed,
            mutant=mutant,
        )

    @property
    def parts(self) -> int:
        """The number of parts of the global batch: the size of the largest world."""
        return max(self.worlds)

    @property
    def oracle(self) -> tuple[object, ...]:
        """The key of its oracle: trainings with the same key share one."""
        return self.scenario, self.dtype, self.parts, self.seed

    @property
    def reference(self) -> tuple[object, ...]:
        """The key of its reference runs: trainings with the same key share them."""
        return self.device, self.exchange, *self.oracle


@dataclass(frozen=True)
class Stored(Record):
    """Trajectories in a file, each at its place."""

    path: str
    places: tuple[int, ...]


@dataclass(frozen=True)
class Judging(Record):
    """What the judge of a training needs."""

    training: Training
    #: The oracle, its parts, and the reference runs.
    reference: Stored
    #: One trajectory per rank; None before there is one.
    ranks: Stored | None = None


@dataclass(frozen=True)
class Question(Record):
    """What torch is asked to do before a case runs, to see whether a declared limit holds."""

    strategy: str
    dtype: str
    #: The size of the world that is asked.
    parts: int
    #: The features that limits are declared for.
    features: tuple[str, ...]
    #: The scenario to train; None for the strategy's smallest training.
    scenario: str | None
    seed: int


@dataclass(frozen=True)
class Operating(Record):
    """One case of an operation."""

    operation: str
    way: str
    dtype: str
    #: The world size.
    ranks: int
    seed: int
    #: The name of the fault to inject, if any.
    mutant: str | None = None
    #: Only the checks with these names; empty for all.
    checks: tuple[str, ...] = ()
    #: As for :class:`distparity.operations.base.Request`.
    largest: int | None = None


@dataclass(frozen=True)
class Weighing(Record):
    """What the judge of an operation's case needs in addition to the ranks' results."""

    case: Operating
    #: For each rank, by check, the first line of the exception that it raised.
    raised: tuple[dict[str, str], ...]
    #: For each rank, by check, whose code raised it (:mod:`distparity.core.refusal`).
    whose: tuple[dict[str, str], ...]
    #: torch's device type.
    device_type: str
    #: The names of reductions that the backend does not support.
    no_reductions: tuple[str, ...]
    #: As :attr:`distparity.devices.Device.refuses`.
    refuses: dict[str, str]
