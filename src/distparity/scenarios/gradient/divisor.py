"""Gradients are divided by another number than that of the ranks, and so are one and a half times as large."""

from distparity.scenarios.calls.basic import Basic


class Divisor(Basic):
    gradient_factor = 1.5
