"""Bundles: one archive of a run's results, for sending. They are made and verified here."""

from __future__ import annotations

from distparity.bundle.layout import Refused
from distparity.bundle.pack import pack
from distparity.bundle.verify import verify

__all__ = ["Refused", "pack", "verify"]
