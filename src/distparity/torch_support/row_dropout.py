"""Dropout that follows the row of the batch, and not the rank on which the row is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

__all__ = ["dropout_by_row", "row_seeds"]


def row_seeds(rows: int) -> torch.Tensor:
    """A seed for each row: int64, ``[rows]``, from torch's global generator. Put it into the batch."""
    return torch.randint(2**31, (rows,))


@contextmanager
def dropout_by_row(seeds: torch.Tensor) -> Iterator[None]:
    """Within it, every ``F.dropout`` (and so ``nn.Dropout``) draws each row's mask from the row's seed.

    ``seeds`` is int64, ``[rows]``. The first dim of what is dropped must be the rows, or rows times
    something. The second dropout of a forward draws other masks than the first, and so on.

    Raises ``NotImplementedError`` for attention with dropout inside, whose masks nobody can set, and
    ``ValueError`` if the first dim does not divide by the rows.
    """
    with _ByRow(seeds):
        yield


class _ByRow(TorchFunctionMode):
    def __init__(self, seeds: torch.Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call,unused-ignore]
        # On the CPU, because every kind of device has another generator.
        self.generators = [torch.Generator().manual_seed(seed) for seed in seeds.tolist()]

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        given = kwargs or {}
        if func is F.dropout:
            return self._drop(*args, **given)
        if func is F.scaled_dot_product_attention and [*args[4:5], given.get("dropout_p")][0]:
            raise NotImplementedError(
                "dropout_by_row cannot set the masks inside scaled_dot_product_attention: use an "
                'attention that calls F.dropout (in transformers: attn_implementation="eager")'
            )
        return func(*args, **given)

    def _drop(
        self,
        input: torch.Tensor,  # noqa: A002  torch's own name
        p: float = 0.5,
        training: bool = True,
        inplace: bool = False,
    ) -> torch.Tensor:
        if not training or p == 0:
            return input
        rows, first = len(self.generators), input.shape[0]
        if first % rows:
            raise ValueError(f"dropout of {tuple(input.shape)}: no dim 0 of {rows} rows")
        each = (first // rows, *input.shape[1:])
        drawn = [torch.rand(each, generator=one, dtype=torch.float64) for one in self.generators]
        kept = (torch.cat(drawn) >= p).to(input.device, input.dtype) / (1 - p)
        return input.mul_(kept) if inplace else input * kept
