"""A block of a transformer of width 1024 with 16 heads: 12.6 million parameters."""

from __future__ import annotations

from typing import ClassVar

from torch import nn

from distparity.scenarios.layers.transformer_block import Block, TransformerBlock

WIDTH, HEADS = 1024, 16


class WideBlock(TransformerBlock):
    large = True
    steps = 2
    dtypes: ClassVar[tuple[str, ...]] = ("float32",)

    def model(self) -> nn.Module:
        return Block(WIDTH, WIDTH // HEADS, 4 * WIDTH)
