"""In which dtypes a unit computes and gradients travel, where those are not the parameters' own."""

from __future__ import annotations

from dataclasses import dataclass

import torch

__all__ = ["Precision"]


@dataclass(frozen=True)
class Precision:
    """Dtypes by torch's names; None is the parameters' own."""

    #: Of parameters and inputs in a unit's forward and backward.
    computes_in: str | None = None
    #: Of gradients on their way between ranks.
    reduces_in: str | None = None
    #: Of floating-point buffers.
    buffers_in: str | None = None

    @property
    def reduce_dtype(self) -> str | None:
        """Gradients are reduced in what they were computed in, unless told otherwise."""
        return self.reduces_in or self.computes_in

    @property
    def compute(self) -> torch.dtype | None:
        return _dtype(self.computes_in)

    @property
    def reduce(self) -> torch.dtype | None:
        return _dtype(self.reduces_in)

    @property
    def buffer(self) -> torch.dtype | None:
        return _dtype(self.buffers_in)


def _dtype(name: str | None) -> torch.dtype | None:
    return None if name is None else getattr(torch, name)
