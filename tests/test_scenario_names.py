"""Two scenarios with one name are an error, and what ``after_wrap`` draws is the same in every run."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from distparity import devices
from distparity.core.registry import Clash, unique
from distparity.devices.context import RankContext
from distparity.scenarios.calls.basic import Basic
from distparity.strategies.single import Single
from distparity.training.loop import Recipe, train

torch.set_num_threads(1)


def made(name: str, module: str, base: type = object) -> type:
    return type(name, (base,), {"__module__": module})


ONE = made("One", "mine.model")


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(made("Two", "mine.model"), id="two in one module"),
        pytest.param(made("One", "distparity.scenarios.calls.model"), id="a shipped one's name"),
        pytest.param(made("Two", "yours.model", ONE), id="derived in another module"),
    ],
)
def test_two_classes_with_one_name_are_an_error(other: type) -> None:
    with pytest.raises(Clash, match="have the same name 'model'"):
        unique([("model", ONE), ("model", other)])


def test_of_a_class_and_its_base_in_one_module_the_derived_one_counts() -> None:
    derived = made("Two", "mine.model", ONE)

    assert unique([("model", ONE), ("model", derived)]) == {"model": derived}
    assert unique([("model", derived), ("model", ONE)]) == {"model": derived}


@pytest.mark.parametrize(
    "draw",
    [
        pytest.param(lambda one: one.copy_(torch.randn(one.shape)), id="randn"),
        pytest.param(lambda one: one.copy_(torch.randn_like(one)), id="randn_like"),
        pytest.param(lambda one: one.normal_(0, 0.5), id="normal_"),
        pytest.param(lambda one: nn.init.uniform_(one, -1, 1), id="init"),
    ],
)
def test_what_is_drawn_after_the_wrapping_is_the_same_in_every_run(
    draw: Callable[[torch.Tensor], object],
) -> None:
    class Draws(Basic):
        steps = 1

        def after_wrap(self, model: nn.Module) -> None:
            with torch.no_grad():
                for parameter in model.parameters():
                    draw(parameter)

    context = RankContext(0, 1, torch.device("cpu"), devices.get("cpu"))
    run, oracle = (
        train(Recipe(Draws(), torch.float32, compute, 4, 7), Single(), context).steps[0]
        for compute in (torch.float32, torch.float64)
    )

    # Their first gradients differ by rounding, so their parameters were equal.
    for name, exact in oracle.gradient.items():
        found = run.gradient[name]
        assert exact is not None
        assert found is not None
        assert torch.allclose(found.double(), exact, atol=1e-5)
