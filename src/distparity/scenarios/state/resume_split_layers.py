"""Training goes on in a new model, whose layers can be split among ranks, from what was saved."""

from distparity.scenarios.layers.transformer_block import TransformerBlock


class ResumeSplitLayers(TransformerBlock):
    steps = 4
    reload_after = 1
    reload_by = "sharded"
