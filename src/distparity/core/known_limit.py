"""What torch refuses to do for a strategy or an operation, declared as data."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from distparity.core.record import Record
from distparity.core.refusal import pattern

__all__ = ["ATTEMPTED", "Limit"]

#: Features that a strategy's smallest training can have. To check any other feature of a scenario, the
#: scenario itself is trained.
ATTEMPTED = ("clip_norm",)


@dataclass(frozen=True)
class Limit(Record):
    """Something that torch refuses, and when to check that it does.

    A limit alone skips nothing. Where it applies, ranks run the strategy's smallest training, or the
    scenario's own training if the smallest one has no such ``feature``. Only if torch refuses that
    with ``answer`` is the case *not supported*. Any other error is a failure, and a limit that no
    longer holds skips nothing.
    """

    #: What is refused, for a reader: "fully_shard on cpu".
    fact: str
    #: A regular expression for torch's refusal. Raises ``ValueError`` if it matches everything.
    answer: str
    #: Checked with releases before this one; None for all.
    before: tuple[int, int] | None = None
    #: Checked on this kind of device; None for all.
    device: str | None = None
    #: Never checked on this kind of device.
    except_device: str | None = None
    #: Checked for this dtype; None for all.
    dtype: str | None = None
    #: Checked if the scenario uses this feature (``clip_norm``); None for always.
    feature: str | None = None
    #: Checked on devices whose backend lacks this reduction (``AVG``); None for all.
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
        """Whether to check the limit, with the torch ``release`` (major, minor)."""
        return (
            (self.before is None or release < self.before)
            and self.device in (None, device)
            and self.except_device != device
            and self.dtype in (None, dtype)
            and (self.feature is None or self.feature in features)
            and (self.without is None or self.without in no_reductions)
        )
