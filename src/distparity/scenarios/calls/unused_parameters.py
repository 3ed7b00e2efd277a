"""A unit is used in no step: its parameters never have a gradient, and do not change."""

from __future__ import annotations

from distparity.scenarios.calls.skipped_unit import SkippedUnit


class UnusedParameters(SkippedUnit):
    steps = 3

    def skips(self, step: int) -> bool:
        return True
