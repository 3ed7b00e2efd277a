"""The wrapper is told to leave a layer alone, whose gradients are averaged by hand."""

from distparity.scenarios.calls.basic import Basic


class LeftAlone(Basic):
    left_alone = ("4",)
