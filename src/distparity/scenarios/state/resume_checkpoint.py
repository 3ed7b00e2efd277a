"""Training goes on in a new model from a distributed checkpoint that all ranks wrote to disk."""

from distparity.scenarios.calls.basic import Basic


class ResumeCheckpoint(Basic):
    steps = 4
    reload_after = 1
    reload_by = "checkpoint"
