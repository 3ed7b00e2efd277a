"""A Llama of Hugging Face's transformers, and GPT-2 with its dropout (pip install transformers)."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import distparity

pytest.importorskip("transformers")

# At the top, so that it is imported once, and not in every rank.
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
)


class Llama(distparity.Scenario):
    def model(self) -> nn.Module:
        config = LlamaConfig(
            vocab_size=128, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
            num_attention_heads=4, num_key_value_heads=2,
        )  # fmt: skip
        return LlamaForCausalLM(config)

    def units(self, model: nn.Module) -> list[nn.Module]:
        return list(model.model.layers)

    def batch(self, rows: int) -> distparity.Batch:
        return (torch.randint(128, (rows, 16)),)

    def loss(self, model: nn.Module, batch: distparity.Batch) -> torch.Tensor:
        (tokens,) = batch
        return model(input_ids=tokens, labels=tokens).loss


class Gpt2(distparity.Scenario):
    def model(self) -> nn.Module:
        config = GPT2Config(
            vocab_size=128, n_embd=32, n_layer=2, n_head=4, n_positions=16,
            # Dropout inside scaled_dot_product_attention cannot follow the row.
            attn_implementation="eager",
        )  # fmt: skip
        return GPT2LMHeadModel(config)

    def units(self, model: nn.Module) -> list[nn.Module]:
        return list(model.transformer.h)

    def batch(self, rows: int) -> distparity.Batch:
        return torch.randint(128, (rows, 16)), distparity.row_seeds(rows)

    def loss(self, model: nn.Module, batch: distparity.Batch) -> torch.Tensor:
        tokens, seeds = batch
        with distparity.dropout_by_row(seeds):
            return model(input_ids=tokens, labels=tokens).loss


test_llama = distparity.cases(Llama, strategies=["ddp", "fsdp1", "fsdp2"], world_sizes=[2])
test_gpt2 = distparity.cases(Gpt2, strategies=["ddp", "fsdp1", "fsdp2"], world_sizes=[2])
