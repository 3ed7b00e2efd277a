"""Every rank has the same rows: gradients that are not exchanged would not show."""

import torch

from distparity.scenarios import Batch
from distparity.scenarios.calls.basic import Basic


class Twins(Basic):
    def batch(self, rows: int) -> Batch:
        return torch.randn(1, 6).expand(rows, 6), torch.randn(1, 3).expand(rows, 3)
