"""A parameter of more than 2^31 bytes: an embedding with one number for each of half a billion words.

Where a kernel, a collective or a checkpoint counts bytes in 32 bits, its end is not what it should be.
A batch uses words from both ends and from the middle.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import nn
from torch.nn import functional as F

from distparity.scenarios.base import Batch, Scenario

TOKENS, CLASSES = 16, 5


class Model(nn.Module):
    def __init__(self, words: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(words, 1)
        self.head = nn.Linear(TOKENS, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.head(torch.tanh(self.embed(x).squeeze(-1)))
        return out


class HugeParameter(Scenario):
    large = True
    steps = 1
    dtypes: ClassVar[tuple[str, ...]] = ("float32",)
    #: A multiple neither of the ranks nor of 16 bytes.
    words: ClassVar[int] = (1 << 29) + 1001
    # Measured at 2 ranks with 2^22 and 2^24 words: 207 bytes a word in processes, 270 in files.
    memory = 160 << 30

    def model(self) -> nn.Module:
        return Model(self.words)

    def units(self, model: nn.Module) -> list[nn.Module]:
        return [model.embed]  # type: ignore[list-item]

    def batch(self, rows: int) -> Batch:
        near = torch.randint(self.words // 100, (rows, TOKENS // 2))
        words = torch.cat([near, self.words - 1 - near], 1)
        words[:, 0] = torch.randint(self.words, (rows,))
        return words, torch.randint(CLASSES, (rows,))

    def loss(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        x, target = batch
        return F.cross_entropy(model(x), target)
