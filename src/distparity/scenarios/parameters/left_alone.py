"""The wrapper ignores one layer, whose gradients are averaged by hand."""

from distparity.scenarios.calls.basic import Basic


class LeftAlone(Basic):
    left_alone = ("4",)
