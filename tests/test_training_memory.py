"""What a training holds is free when it ends, whatever cycles a wrapper makes."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable

import pytest
import torch
from torch import nn

from distparity import devices
from distparity.devices.context import RankContext
from distparity.scenarios.calls.basic import Basic
from distparity.strategies.single import Single
from distparity.training.loop import Recipe, train

torch.set_num_threads(1)


def _attribute(module: nn.Module, view: torch.Tensor) -> None:
    module.view = view


def _buffer(module: nn.Module, view: torch.Tensor) -> None:
    module.register_buffer("view", view)


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

    context = RankContext(0, 1, torch.device("cpu"), devices.get("cpu"))
    recipe = Recipe(Cyclic(), torch.float32, torch.float32, 4, 7)
    try:
        train(recipe, Single(), context)
    except ValueError:
        assert raises
    gc.collect()

    assert [model() for model in models] == [None]
