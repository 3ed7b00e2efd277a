"""Training with AdamW goes on from a distributed checkpoint: moments and counts of steps are in it."""

from distparity.scenarios.optimizers.adamw import AdamW


class ResumeCheckpointAdamW(AdamW):
    reload_after = 1
    reload_by = "checkpoint"
