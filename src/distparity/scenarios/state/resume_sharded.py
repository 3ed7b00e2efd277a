"""Training goes on in a new model from state dicts of which each rank saved its own part."""

from distparity.scenarios.calls.basic import Basic


class ResumeSharded(Basic):
    steps = 4
    reload_after = 1
    reload_by = "sharded"
