"""The norm is clipped while some parameters are frozen: they have no gradient to count."""

from distparity.scenarios.parameters.frozen_unit import FrozenUnit


class ClippingFrozen(FrozenUnit):
    clip_norm = 0.05
