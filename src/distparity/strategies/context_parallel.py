"""``context_parallel``: every rank has some of the tokens, and attention goes round the ranks."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import nn
from torch.nn import functional as F

from distparity.core.known_limit import Limit
from distparity.strategies._meshes import DeviceMesh, DTensor, Shard, mesh
from distparity.strategies.ddp import Ddp

if TYPE_CHECKING:
    from distparity.devices.context import RankContext
    from distparity.scenarios import Batch, Scenario
    from distparity.strategies.base import Strategy


class ContextParallel(Ddp):
    """The tokens of one batch are split, and DDP takes the mean of what they give as gradients."""

    name = "cp"
    title = "context_parallel, DistributedDataParallel"
    tier = "variant"
    needs: ClassVar[Mapping[str, str]] = {
        "attention": "the scenario has no attention, so its tokens need no exchange",
    }
    limits: ClassVar[tuple[Limit, ...]] = (
        Limit(
            fact="context_parallel on cpu",
            answer=r"scaled_dot_product|context_parallel|torch.distributed.tensor",
            device="cpu",
        ),
        Limit(
            fact="context_parallel in this dtype",
            answer=r"scaled_dot_product|[Nn]o available kernel",
            dtype="float64",
        ),
    )
    sequence_dim: int
    context: RankContext

    def suit(self, scenario: Scenario) -> Strategy:
        mine = copy.copy(self)
        assert scenario.sequence_dim is not None
        mine.sequence_dim = scenario.sequence_dim
        return mine

    def wrap(self, model: nn.Module, units: Any, context: RankContext) -> nn.Module:
        self.context = context
        return super().wrap(model, units, context)

    def attempt(self, context: RankContext, dtype: torch.dtype, features: Collection[str]) -> None:
        ranks = context.world_size
        words = torch.ones(1, 1, 4 * ranks, 8, device=context.device, dtype=dtype)
        if context.device.type == "cpu":
            _attempt_on_cpu(words, mesh(context, (ranks,)))
            return
        with self._split(context, [words], 2):
            mine = words.clone().requires_grad_()
            F.scaled_dot_product_attention(mine, mine, mine).sum().backward()

    splits_rows = True

    def rows(self, batch: Batch, context: RankContext) -> Batch:
        return batch

    def rows_shared_by(self, context: RankContext) -> int:
        return context.world_size

    def learn(
        self,
        losses: Callable[[nn.Module, Batch], Iterable[torch.Tensor]],
        model: nn.Module,
        batch: Batch,
        weight: float,
        turn: tuple[int, int],
        *,
        scale: Callable[[torch.Tensor], torch.Tensor],
    ) -> torch.Tensor:
        # The context replaces the batch by this rank's tokens.
        mine = tuple(tensor.clone() for tensor in batch)
        with self._split(self.context, list(mine), self.sequence_dim):
            return super().learn(losses, model, mine, weight, turn, scale=scale)

    def _split(self, context: RankContext, tensors: list[torch.Tensor], dim: int) -> Any:
        from torch.distributed.tensor.experimental import context_parallel

        return context_parallel(
            mesh(context, (context.world_size,)),
            buffers=tensors,
            buffer_seq_dims=[dim] * len(tensors),
            no_restore_buffers=set(tensors),
        )


def _attempt_on_cpu(words: torch.Tensor, ranks: DeviceMesh) -> None:
    # Only the backward, because that is refused; for the forward, torch searches for a kernel for about
    # a minute first.
    aten, attention = torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu"
    out, sums = getattr(aten, attention)(words, words, words)
    parts = [DTensor.from_local(one, ranks, [Shard(2)]) for one in (words, out, sums)]
    backward = getattr(aten, f"{attention}_backward")
    backward(parts[1], *[parts[0]] * 3, parts[1], parts[2], 0.0, False)
