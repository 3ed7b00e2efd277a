"""Where a task finds itself in a rank."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from distparity.devices.base import Device

__all__ = ["RankContext"]


@dataclass
class RankContext:
    """A rank, the size of its world, and its device."""

    rank: int
    world_size: int
    device: torch.device
    kind: Device
    #: The optimizer step that is under way.
    step: int = 0
