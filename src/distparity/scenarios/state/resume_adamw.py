"""Training with AdamW goes on in a new model: moments and counts of steps are part of the state."""

from distparity.scenarios.optimizers.adamw import AdamW


class ResumeAdamW(AdamW):
    reload_after = 1
