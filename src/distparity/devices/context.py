"""The context of a task in a rank."""

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

    #: From 0.
    rank: int
    world_size: int
    #: The device that this rank computes on, as :meth:`Device.take` returned it.
    device: torch.device
    #: The plug-in for that device.
    kind: Device
    #: The number of the current optimizer step, from 0.
    step: int = 0
