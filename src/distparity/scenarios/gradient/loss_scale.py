"""A ``GradScaler`` scales the loss, and scales the gradients back before they are clipped and used."""

from distparity.scenarios.calls.basic import Basic


class LossScale(Basic):
    loss_scale = 1024.0
    clip_norm = 0.05
