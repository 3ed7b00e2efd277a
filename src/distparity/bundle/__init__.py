"""One archive of what a run left, for sending: made here, and checked where it arrives."""

from __future__ import annotations

from distparity.bundle.layout import Refused
from distparity.bundle.pack import pack
from distparity.bundle.verify import verify

__all__ = ["Refused", "pack", "verify"]
