"""Every parameter is stepped by a hook, as soon as the backward has its gradient.

No gradient need be kept for a step after the backward, which is what this is done for.
"""

from distparity.scenarios.calls.basic import Basic


class InBackward(Basic):
    step_in_backward = True
    divisible = False
