"""How this run's devices compute: as exactly as they can, or as torch does when nothing is set."""

from __future__ import annotations

from distparity.devices.base import Device

__all__ = ["apply", "choose"]

#: One for a run: ranks are forked from the process in which it is chosen.
_chosen = "exact"


def choose(name: str) -> None:
    """Set what :func:`apply` does in this process and in those that are forked from it."""
    global _chosen  # noqa: PLW0603
    _chosen = name


def apply(kind: Device) -> None:
    """Prepare a device that was just taken: deterministic and in full precision, or untouched."""
    if _chosen == "exact":
        kind.exact()
