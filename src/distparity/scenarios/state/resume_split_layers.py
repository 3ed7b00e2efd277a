"""Training goes on in a new model, whose layers can be split among ranks, from what was saved."""

from distparity.scenarios.layers.transformer_block import TransformerBlock


class ResumeSplitLayers(TransformerBlock):
    # Few rows, so that the ranks' gradients differ by more than the rounding of a bfloat16 reduction.
    rows_per_rank = 2
    steps = 4
    reload_after = 1
    reload_by = "sharded"
