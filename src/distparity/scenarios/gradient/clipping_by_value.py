"""Every element of every gradient is clipped to within a value, which some exceed and some do not."""

from distparity.scenarios.calls.basic import Basic


class ClippingByValue(Basic):
    clip_value = 0.05
