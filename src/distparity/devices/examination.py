"""Examine a device from inside a rank: first every method of the plug-in, then computations.

Each step is logged before it begins and after it ends, so that the controller knows in which step a
process died or hangs.
"""

from __future__ import annotations

import inspect
import json
import os
import re
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distparity.devices import numerics
from distparity.devices.base import Device

if TYPE_CHECKING:
    import torch

    from distparity.devices.context import RankContext

__all__ = ["collectives", "examine"]

#: Bytes to allocate for the check of the memory peak.
_PIECE = 4 << 20
#: The relative error that a training step in float32 may have; it holds for TF32 too.
_COARSE = 2.0**-7
#: Elements per rank in a collective; divisible by two, three and four ranks.
_ELEMENTS = 24
#: Collectives that a device may refuse, and how to declare that.
_OPTIONAL = {
    "all_reduce AVG": "if it is not supported, declare it in no_reductions, with the reason in one line",
}


class Unfit(Exception):
    """The device's answer is wrong."""


class _Patient:
    """A device under examination, and its answers so far."""

    def __init__(self, kind: Any) -> None:
        self.kind = kind
        self.found: dict[str, Any] = {}

    def environment(self) -> Any:
        variables = self.kind.environment(0)
        os.environ.update(variables)
        return variables

    def absent(self) -> Any:
        reason = self.kind.absent()
        if reason is not None:
            raise Unfit(f"not available: {reason}")
        return "available"

    def module(self) -> Any:
        module = self.kind.module()
        return "none" if module is None else module.__name__

    def take(self) -> Any:
        self.found["device"] = self.kind.take(0)
        return str(self.found["device"])

    def lacks(self) -> Any:
        self.found["lacks"] = self.kind.lacks()
        return self.found["lacks"] or "nothing"

    def most_ranks(self) -> Any:
        most = self.kind.most_ranks()
        return "no bound" if most is None else most

    def groups(self) -> Any:
        return ", ".join(" ".join(map(str, group)) for group in self.kind.groups())

    def sharing(self) -> Any:
        return [way.name for way in self.kind.sharing()] or "no way"

    def seed(self) -> Any:
        self.kind.seed(0)
        return "done"

    def peak_memory(self) -> Any:
        import torch

        piece = torch.empty(_PIECE, dtype=torch.uint8, device=self.found["device"])
        self.kind.synchronize()
        peak = self.kind.peak_memory()
        if peak is not None and peak < piece.numel():
            raise Unfit(f"counts {peak} bytes with {piece.numel()} in use")
        return "nobody counts" if peak is None else f"{peak} bytes"

    def findings(self) -> Any:
        return self.kind.findings() or "nothing"

    def replay(self) -> Any:
        return self.kind.replay() or "nothing"

    def numerics(self) -> Any:
        return numerics.ask(self.found["device"], self.found["lacks"])

    def training(self) -> Any:
        off = _step_of_training(self.found["device"])
        if not off <= _COARSE:
            raise Unfit(f"a gradient in float32 is off by {off:.3g} of its size")
        return f"a gradient in float32 is off by {off:.1e} of its size"


#: In the order in which a rank calls them. Methods that :class:`_Patient` lacks are called directly.
_STEPS = (
    "environment", "load", "absent", "module", "count", "groups", "most_ranks", "take", "exact", "describe",
    "backend", "backend_version", "sharing", "lacks", "seed", "forget_peak", "synchronize",
    "peak_memory", "findings", "replay", "numerics", "training",
)  # fmt: skip
#: Advice for steps that are not methods.
_BEYOND = {
    "numerics": "make sums and matrix products work on the device, and copies to and from it",
    "training": "make a linear layer, its backward and SGD work, and agree with the CPU",
}


def _advice(step: str) -> str:
    """Advice for a failed step: the method to implement, and its purpose."""
    if step in _OPTIONAL:
        return _OPTIONAL[step]
    if step in _BEYOND:
        return _BEYOND[step]
    summary = (inspect.getdoc(getattr(Device, step, None)) or "").partition("\n\n")[0]
    return f"{step}(): {' '.join(summary.split())}"


def examine(kind: Any, log: str) -> bool:
    """Run and log all steps until one fails; returns whether all succeeded."""
    patient = _Patient(kind)
    for name in _STEPS:
        act = getattr(patient, name, None) or getattr(kind, name)
        if not _step(log, name, act, own=_is_own(kind, name)):
            return False
    return True


def _is_own(kind: Any, name: str) -> bool | None:
    """Whether the device overrides a method; None if it is not a method."""
    if not hasattr(Device, name):
        return None
    bare = type(getattr(kind, "_device", kind))
    return getattr(bare, name, None) is not getattr(Device, name, None)


def _step(log: str, name: str, act: Callable[[], Any], **more: Any) -> bool:
    about = {"name": name, "advice": _advice(name), "optional": name in _OPTIONAL}
    _write(log, {"begin": about})
    started = time.perf_counter()
    answer, error, wrong, detail = None, None, False, ""
    try:
        answer = act()
    except Unfit as caught:
        error, wrong = str(caught), True
    except Exception as caught:
        missing = _missing(caught)
        error = f"{type(missing or caught).__name__}: {missing or caught}"
        if missing is None:
            detail = traceback.format_exc()
        else:
            about["advice"] = _install(missing)
    seconds = round(time.perf_counter() - started, 4)
    text = "done" if answer is None else _short(answer)
    if error is None:
        about["advice"] = None
    about["optional"] = about["optional"] and not wrong
    found = {"answer": text, "error": error, "wrong": wrong, "seconds": seconds, "detail": detail}
    _write(log, {**about, **found, **more})
    return error is None


def _missing(error: BaseException | None) -> ImportError | None:
    """The failed import because of which an exception was raised; None if there is none."""
    while error is not None and not isinstance(error, ImportError):
        error = error.__cause__
    return error


def _install(error: ImportError) -> str:
    """What to install for an import that failed."""
    library = re.search(r"(\S+\.so[.\d]*): cannot open shared object", str(error))
    if library:
        return f"install the driver or runtime that has {library[1]}, or set LD_LIBRARY_PATH to its folder"
    if isinstance(error, ModuleNotFoundError) and error.name:
        return f"install the Python package that has the module {error.name}"
    return "install what the device's package needs"


def _short(answer: Any) -> str:
    if isinstance(answer, dict):
        return ", ".join(f"{key} {value}" for key, value in answer.items()) or "nothing"
    if isinstance(answer, (list, tuple)):
        return ", ".join(map(str, answer))
    return str(answer)


def _write(log: str, line: dict[str, Any]) -> None:
    with Path(log).open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def _step_of_training(device: torch.device) -> float:
    """The error of a linear layer's gradient after one step on the device, relative to its largest."""
    import torch

    gradients = []
    for where, dtype in ((torch.device("cpu"), torch.float64), (device, torch.float32)):
        draw = torch.Generator().manual_seed(0)
        rows = torch.randn(8, 16, generator=draw, dtype=torch.float64).float()
        weight = torch.randn(4, 16, generator=draw, dtype=torch.float64).float()
        layer = torch.nn.Linear(16, 4, bias=False).to(where, dtype)
        with torch.no_grad():
            layer.weight.copy_(weight)
        optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
        for _ in range(2):
            optimizer.zero_grad()
            layer(rows.to(where, dtype)).square().mean().backward()
            optimizer.step()
        assert layer.weight.grad is not None
        gradients.append(layer.weight.grad.cpu().double())
    exact, found = gradients
    return float((found - exact).abs().max() / exact.abs().max())


# -- collectives -----------------------------------------------------------------------------------


def collectives(context: RankContext, log: str) -> None:
    """Try the collectives that strategies call, compare each with plain arithmetic, and log it.

    A collective call on all ranks.
    """
    for name, act in _collectives(context):
        _step(f"{log}.{context.rank}", name, act)


def _collectives(context: RankContext) -> Iterator[tuple[str, Callable[[], Any]]]:
    import torch.distributed as dist

    trial = _Trial(context)
    yield "all_reduce SUM", trial.all_reduce
    if "AVG" not in context.kind.no_reductions:
        yield "all_reduce AVG", trial.average
    yield "reduce_scatter_tensor", trial.reduce_scatter
    yield "all_gather_into_tensor", trial.all_gather
    yield "broadcast", trial.broadcast
    yield "all_gather_object", trial.objects
    yield "broadcast_object_list", trial.broadcast_objects
    yield "scatter_object_list", trial.scatter_objects
    yield "barrier", dist.barrier


class _Trial:
    """Each rank's input and the right result: small integers, so that sums are exact."""

    def __init__(self, context: RankContext) -> None:
        import torch

        self.context = context
        self.size = context.world_size
        self.given = [
            torch.arange(_ELEMENTS, dtype=torch.float32) + 100 * rank for rank in range(self.size)
        ]
        self.total = torch.stack(self.given).sum(0)

    def all_reduce(self) -> str:
        import torch.distributed as dist

        tensor = self._mine()
        dist.all_reduce(tensor)
        return self._check(tensor, self.total)

    def average(self) -> str:
        import torch.distributed as dist

        tensor = self._mine()
        dist.all_reduce(tensor, op=dist.ReduceOp.AVG)
        return self._check(tensor, self.total / self.size)

    def reduce_scatter(self) -> str:
        import torch.distributed as dist

        out = self._blank(_ELEMENTS // self.size)
        dist.reduce_scatter_tensor(out, self._mine())
        return self._check(out, self.total.chunk(self.size)[self.context.rank])

    def all_gather(self) -> str:
        import torch
        import torch.distributed as dist

        out = self._blank(_ELEMENTS * self.size)
        dist.all_gather_into_tensor(out, self._mine())
        return self._check(out, torch.cat(self.given))

    def broadcast(self) -> str:
        import torch.distributed as dist

        tensor = self._mine()
        dist.broadcast(tensor, self.size - 1)
        return self._check(tensor, self.given[-1])

    def objects(self) -> str:
        import torch.distributed as dist

        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, {"rank": self.context.rank})
        if found != [{"rank": rank} for rank in range(self.size)]:
            raise Unfit(f"gathered {found}")
        return "all there"

    def broadcast_objects(self) -> str:
        import torch.distributed as dist

        found: list[Any] = [{"rank": self.context.rank}]
        dist.broadcast_object_list(found, self.size - 1, device=self.context.device)
        if found != [{"rank": self.size - 1}]:
            raise Unfit(f"received {found}")
        return "all there"

    def scatter_objects(self) -> str:
        import torch.distributed as dist

        found: list[Any] = [None]
        dist.scatter_object_list(found, [{"rank": rank} for rank in range(self.size)], src=0)
        if found != [{"rank": self.context.rank}]:
            raise Unfit(f"received {found}")
        return "all there"

    def _mine(self) -> torch.Tensor:
        return self.given[self.context.rank].to(self.context.device, copy=True)

    def _blank(self, elements: int) -> torch.Tensor:
        import torch

        return torch.empty(elements, device=self.context.device)

    def _check(self, tensor: torch.Tensor, expected: torch.Tensor) -> str:
        self.context.kind.synchronize()
        found = tensor.cpu()
        for at, (one, other) in enumerate(zip(found.tolist(), expected.tolist(), strict=True)):
            if one != other:
                raise Unfit(f"element {at} is {one:g}, expected {other:g}")
        return "correct"
