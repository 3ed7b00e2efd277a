"""A fault that no entry describes, in every strategy of tensors split among ranks: gradients times -3."""

from __future__ import annotations

import torch

from distparity.strategies.tensor_parallel import TensorParallelFsdp1


def backward(self: TensorParallelFsdp1, loss: torch.Tensor, number: int, count: int) -> None:
    (-3 * loss).backward()


TensorParallelFsdp1.backward = backward  # type: ignore[method-assign, assignment]
