"""What a training holds is free when it ends, whatever cycles a wrapper makes."""

from __future__ import annotations

import copy
import gc
import weakref
from collections.abc import Callable

import pytest
import torch
from torch import nn

from distparity import devices
from distparity.devices.context import RankContext
from distparity.scenarios.base import Scenario
from distparity.scenarios.calls.basic import Basic
from distparity.strategies.single import Single
from distparity.training.loop import Recipe, train
from distparity.training.trajectory import Trajectory

torch.set_num_threads(1)


def _attribute(module: nn.Module, view: torch.Tensor) -> None:
    module.view = view


def _buffer(module: nn.Module, view: torch.Tensor) -> None:
    module.register_buffer("view", view)


def once(scenario: Scenario) -> Trajectory:
    context = RankContext(0, 1, torch.device("cpu"), devices.get("cpu"))
    return train(Recipe(scenario, torch.float32, torch.float32, 4, 7), Single(), context)


@pytest.mark.parametrize("keep", [_attribute, _buffer])
@pytest.mark.parametrize("raises", [False, True], ids=["ends", "raises"])
def test_a_model_is_free_after_its_training(
    keep: Callable[[nn.Module, torch.Tensor], None],
    raises: bool,
) -> None:
    models = []

    class Cyclic(Basic):
        steps = 1

        def after_wrap(self, model: nn.Module) -> None:
            models.append(weakref.ref(model))
            # As FSDP1: a flat parameter knows its modules, and these have views of it.
            model.flat = nn.Parameter(torch.zeros(4))
            vars(model.flat)["belongs_to"] = [model]
            keep(model, model.flat[:2])
            if raises:
                raise ValueError("no training")

    try:
        once(Cyclic())
    except ValueError:
        assert raises
    gc.collect()

    assert [model() for model in models] == [None]


def test_a_module_of_several_trainings_stays_whole() -> None:
    backbone = nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6)).requires_grad_(requires_grad=False)
    backbone[0].mask = torch.ones(6)
    before = copy.deepcopy(backbone[0].state_dict())

    class OnBackbone(Basic):
        steps = 1

        def model(self) -> nn.Module:
            return nn.Sequential(backbone, nn.Linear(6, 3))

        def units(self, model: nn.Module) -> list[nn.Module]:
            return []

    first, second = once(OnBackbone()), once(OnBackbone())

    assert first.steps[0].gradient.keys() == second.steps[0].gradient.keys()
    assert all(after.equal(before[name]) for name, after in backbone[0].state_dict().items())
    assert backbone[0].mask.equal(torch.ones(6))
