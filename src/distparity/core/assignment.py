"""What ranks and the judge are told to do: the arguments of their tasks."""

from __future__ import annotations

from dataclasses import dataclass

from distparity.core.case import Case
from distparity.core.record import Record
from distparity.core.torch_facts import GradientExchange

__all__ = ["Operating", "Question", "Training", "Weighing"]


@dataclass(frozen=True)
class Training(Record):
    """The training of one case, which its ranks, its reference runs and its judge know alike."""

    scenario: str
    strategy: str
    #: A kind of device.
    device: str
    dtype: str
    #: The ranks of each world in which it is trained, one world after the other.
    worlds: tuple[int, ...]
    exchange: GradientExchange
    seed: int
    #: The deliberate fault to train with.
    mutant: str | None = None
    #: Which of the worlds this one is.
    phase: int = 0
    #: Where a checkpoint goes from one world to the next.
    folder: str | None = None

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
        """A case's, which goes on in a world of ``resume_world_size`` ranks where that is given."""
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
        """Into how many parts the global batch is cut: the ranks of the largest world."""
        return max(self.worlds)

    @property
    def oracle(self) -> tuple[object, ...]:
        """What tells its oracle from others."""
        return self.scenario, self.dtype, self.parts, self.seed

    @property
    def reference(self) -> tuple[object, ...]:
        """What tells its reference runs from others."""
        return self.device, self.exchange, *self.oracle


@dataclass(frozen=True)
class Question(Record):
    """What torch is asked before a case runs."""

    strategy: str
    dtype: str
    #: The ranks of the world that is asked.
    parts: int
    #: The features that limits are declared for.
    features: tuple[str, ...]
    #: The scenario whose training is the question; a strategy's smallest training when None.
    scenario: str | None
    seed: int


@dataclass(frozen=True)
class Operating(Record):
    """One case of an operation."""

    operation: str
    way: str
    dtype: str
    ranks: int
    seed: int
    #: The deliberate fault to put in.
    mutant: str | None = None


@dataclass(frozen=True)
class Weighing(Record):
    """What the judge of an operation's case needs besides what the ranks made."""

    case: Operating
    #: For each rank, the first line of each exception, by check.
    raised: tuple[dict[str, str], ...]
    #: Whose each of those is (:mod:`distparity.core.refusal`).
    whose: tuple[dict[str, str], ...]
    device_type: str
    no_reductions: tuple[str, ...]
    #: What the device declares to refuse, as :attr:`distparity.devices.Device.refuses` has it.
    refuses: dict[str, str]
