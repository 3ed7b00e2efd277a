"""Three tests under one of PyTorch's own harnesses; in the middle one, a rank misbehaves.

Run by ``faults.py``, with HARNESS and FAULT in the environment.
"""

from __future__ import annotations

import importlib
import os
from types import SimpleNamespace
from typing import Any

import torch
import torch.distributed as dist
from torch.testing._internal.common_distributed import MultiProcContinuousTest, MultiProcessTestCase

from distparity import scenarios
from distparity.strategies import load
from distparity.training.loop import Recipe, train

# Its strategies are among those that load() finds.
importlib.import_module("injected")

FAULT = os.environ["FAULT"]


def work(strategy: str, rank: int) -> None:
    place: Any = SimpleNamespace(
        rank=rank,
        world_size=2,
        device=torch.device("cpu"),
        kind=SimpleNamespace(seed=torch.manual_seed),
    )
    scenario = scenarios.load()["multiple_forward"]
    train(Recipe(scenario, torch.float32, torch.float32, 8, 1), load()[strategy], place)


class Spawned(MultiProcessTestCase):
    world_size = 2

    def setUp(self) -> None:
        super().setUp()
        self._spawn_processes()

    def _train(self, strategy: str) -> None:
        store = dist.FileStore(self.file_name, 2)
        dist.init_process_group("gloo", store=store, rank=self.rank, world_size=2)
        work(strategy, self.rank)

    def test_1_before(self) -> None:
        self._train("ddp")

    def test_2_fault(self) -> None:
        self._train(FAULT)

    def test_3_after(self) -> None:
        self._train("ddp")


class Continuous(MultiProcContinuousTest):
    world_size = 2

    @classmethod
    def backend_str(cls) -> str:
        return "gloo"

    def test_1_before(self) -> None:
        work("ddp", self.rank)

    def test_2_fault(self) -> None:
        work(FAULT, self.rank)

    def test_3_after(self) -> None:
        work("ddp", self.rank)


if os.environ["HARNESS"] == "Spawned":
    del Continuous, MultiProcContinuousTest
else:
    del Spawned
# pytest would collect the bases as well.
del MultiProcessTestCase
