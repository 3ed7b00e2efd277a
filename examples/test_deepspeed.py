"""DeepSpeed's ZeRO as a strategy (DS_BUILD_OPS=0 pip install deepspeed)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import distparity

deepspeed = pytest.importorskip("deepspeed")
utils = pytest.importorskip("deepspeed.utils")
# What a rank would import anew, for half a minute.
pytest.importorskip("deepspeed.runtime.engine")
pytest.importorskip("torch._inductor.compile_fx")


class Perceptron(distparity.Scenario):
    def model(self) -> nn.Module:
        return nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 3))

    def batch(self, rows: int) -> distparity.Batch:
        return torch.randn(rows, 6), torch.randn(rows, 3)

    def loss(self, model: nn.Module, batch: distparity.Batch) -> torch.Tensor:
        x, target = batch
        return F.mse_loss(model(x), target)


class Held(nn.Module):
    """DeepSpeed wants the optimizer when it wraps: the engine is made as soon as there is one."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.engine: Any = None

    def forward(self, *inputs: Any) -> Any:
        return self.engine(*inputs)


class EngineSteps:
    """The engine's step in the place of the optimizer's."""

    def __init__(self, engine: Any, plain: torch.optim.Optimizer) -> None:
        self.engine, self.param_groups, self.state = engine, plain.param_groups, plain.state

    def step(self) -> None:
        self.engine.step()

    def zero_grad(self) -> None:
        self.engine.zero_grad()


class Zero(distparity.Strategy):
    stage: int
    held: Held

    def wrap(self, model: nn.Module, units: Sequence[nn.Module], context: Any) -> nn.Module:
        self.held = Held(model)
        return self.held

    def clean(self, name: str) -> str:
        return name.removeprefix("model.")

    def optimizer(self, scenario: distparity.Scenario, model: nn.Module) -> Any:
        plain = super().optimizer(scenario, model)
        config = {
            "train_micro_batch_size_per_gpu": 1,
            "zero_optimization": {"stage": self.stage},
            "zero_allow_untested_optimizer": True,
            # Its default is to clip at a norm of 1: another training, and the first verdict here.
            "gradient_clipping": 0.0,
        }
        self.held.engine, *_ = deepspeed.initialize(
            model=self.held.model, optimizer=plain, config=config, dist_init_required=False
        )
        return EngineSteps(self.held.engine, plain)

    def backward(self, loss: torch.Tensor, number: int, count: int, *, keep: bool = False) -> None:
        self.held.engine.backward(loss)

    def parameters(self, model: nn.Module) -> Any:
        return {
            self.clean(name): utils.safe_get_full_fp32_param(one)
            for name, one in model.named_parameters()
        }

    def gradients(self, model: nn.Module) -> Any:
        return {
            self.clean(name): utils.safe_get_full_grad(one)
            for name, one in model.named_parameters()
        }

    def optimizer_state(self, model: nn.Module, optimizer: Any) -> Any:
        # What the scenario's optimizer keeps: by default it is SGD with momentum.
        return {
            f"{self.clean(name)}.{key}": utils.safe_get_full_optimizer_state(one, key)
            for name, one in model.named_parameters()
            for key in ("momentum_buffer",)
        }


class Zero1(Zero):
    name = "deepspeed_zero1"
    title = "deepspeed.initialize, ZeRO stage 1"
    stage = 1


class Zero2(Zero):
    name = "deepspeed_zero2"
    title = "deepspeed.initialize, ZeRO stage 2"
    stage = 2


test_deepspeed = distparity.cases(
    Perceptron, strategies=[Zero1, Zero2], world_sizes=[2, 4], timeout=300
)
