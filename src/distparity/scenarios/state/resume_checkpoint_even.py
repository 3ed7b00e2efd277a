"""Training goes on from a distributed checkpoint to which every rank wrote a shard of every tensor."""

from distparity.scenarios.parameters.even_shards import EvenShards


class ResumeCheckpointEven(EvenShards):
    steps = 4
    reload_after = 1
    reload_by = "checkpoint"
