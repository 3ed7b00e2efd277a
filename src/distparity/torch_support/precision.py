"""Mixed precision: the dtypes in which a unit computes and ranks exchange gradients."""

from __future__ import annotations

from dataclasses import dataclass

import torch

__all__ = ["Precision"]


@dataclass(frozen=True)
class Precision:
    """Dtypes by torch's names; None means the parameters' dtype."""

    #: Of parameters and inputs in a unit's forward and backward.
    computes_in: str | None = None
    #: Of gradients in the exchange between ranks.
    reduces_in: str | None = None
    #: Of floating-point buffers.
    buffers_in: str | None = None

    @property
    def reduce_dtype(self) -> str | None:
        """The gradient reduction dtype; by default, the dtype in which gradients are computed."""
        return self.reduces_in or self.computes_in

    @property
    def compute(self) -> torch.dtype | None:
        """:attr:`computes_in` as a dtype."""
        return _dtype(self.computes_in)

    @property
    def reduce(self) -> torch.dtype | None:
        """:attr:`reduces_in` as a dtype."""
        return _dtype(self.reduces_in)

    @property
    def buffer(self) -> torch.dtype | None:
        """:attr:`buffers_in` as a dtype."""
        return _dtype(self.buffers_in)


def _dtype(name: str | None) -> torch.dtype | None:
    return None if name is None else getattr(torch, name)
