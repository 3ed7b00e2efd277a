"""Gradients are divided by a number that is not the number of ranks: they are one and a half times as large."""

from distparity.scenarios.calls.basic import Basic


class Divisor(Basic):
    gradient_factor = 1.5
