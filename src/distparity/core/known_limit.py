"""What a strategy cannot do by torch's own word, declared as data."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from distparity.core.record import Record
from distparity.core.refusal import pattern

__all__ = ["ATTEMPTED", "Limit"]

#: Features that a strategy's smallest training can have; what else is special about a scenario can
#: only be asked by training it.
ATTEMPTED = ("clip_norm",)


@dataclass(frozen=True)
class Limit(Record):
    """Something that a strategy cannot do by torch's own word, and when torch is asked about it.

    A limit skips nothing by itself. Where it applies, ranks make the strategy's smallest training,
    or the scenario's own where that has no such ``feature``; only if torch refuses it with ``answer``
    is the case *not supported*. Another error is a failure, and a limit that no longer holds skips
    nothing.
    """

    #: What is asked, for a reader: "fully_shard on cpu".
    fact: str
    #: A regular expression for torch's words when it refuses; ``ValueError`` where everything has it.
    answer: str
    #: Asked of releases before this one; of all when None.
    before: tuple[int, int] | None = None
    #: Asked on this kind of device; on all when None.
    device: str | None = None
    #: Never asked on this kind of device.
    except_device: str | None = None
    #: Asked for this dtype; for all when None.
    dtype: str | None = None
    #: Asked where the scenario uses this (``clip_norm``); everywhere when None.
    feature: str | None = None
    #: Asked on devices whose backend has no such reduction (``AVG``); on all when None.
    without: str | None = None

    def __post_init__(self) -> None:
        try:
            pattern(self.answer)
        except ValueError as error:
            raise ValueError(f"the limit {self.fact!r}: {error}") from None

    def applies(
        self,
        release: tuple[int, int],
        device: str,
        dtype: str,
        features: Collection[str],
        no_reductions: Collection[str] = (),
    ) -> bool:
        """Whether the question arises, under torch ``release``."""
        return (
            (self.before is None or release < self.before)
            and self.device in (None, device)
            and self.except_device != device
            and self.dtype in (None, dtype)
            and (self.feature is None or self.feature in features)
            and (self.without is None or self.without in no_reductions)
        )
