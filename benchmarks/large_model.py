"""A model as large as asked for, and tasks that note their peak memory; ranks import this."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn import functional as F

from distparity.devices.context import RankContext
from distparity.scenarios import Batch, Scenario
from distparity.worker import tasks
from distparity.worker.rank_loop import Task

WIDTH = 512


class LargeModel(Scenario):
    """A chain of ``LARGE_LAYERS`` layers of a quarter of a million parameters each."""

    steps = 2
    dtypes: ClassVar[tuple[str, ...]] = ("float32",)

    def model(self) -> nn.Module:
        layers = int(os.environ.get("LARGE_LAYERS", "16"))
        return nn.Sequential(
            *(part for _ in range(layers) for part in (nn.Linear(WIDTH, WIDTH), nn.Tanh()))
        )

    def units(self, model: nn.Module) -> list[nn.Module]:
        return [part for part in model if isinstance(part, nn.Linear)]  # type: ignore[attr-defined]

    def batch(self, rows: int) -> Batch:
        return torch.randn(rows, WIDTH), torch.randn(rows, WIDTH)

    def loss(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        x, target = batch
        return F.mse_loss(model(x), target)


def _noted(name: str, task: Task) -> Task:
    def noting(
        context: RankContext, args: dict[str, Any], blobs: list[bytes]
    ) -> tuple[dict[str, Any], list[bytes]]:
        # The kernel counts the peak anew.
        Path("/proc/self/clear_refs").write_text("5")
        before, started = _memory("VmRSS"), time.perf_counter()
        found = task(context, args, blobs)
        line = {
            "task": name,
            "before": before,
            "peak": _memory("VmHWM"),
            "seconds": time.perf_counter() - started,
        }
        with Path(os.environ["LARGE_NOTES"]).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        return found

    return noting


def _memory(which: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{which}:"):
            return int(line.split()[1]) << 10
    return 0


tasks.TASKS.update(
    {
        name: _noted(name, tasks.TASKS[name])
        for name in ("consult", "reference_runs", "alive", "parity", "judge")
    }
)
