"""The norm of all gradients together is clipped in a model whose layers can be split among ranks."""

from distparity.scenarios.layers.transformer_block import TransformerBlock


class ClippingSplitLayers(TransformerBlock):
    clip_norm = 0.05
