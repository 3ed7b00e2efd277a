"""Take each wait and each keep-alive out of FSDP, one by one, and see who notices.

    python packages/async_device/order_faults.py [--mode eager --mode late] [PART-OF-A-NAME ...]

The statements are found in the sources of the torch that is here: calls of ``wait_stream``,
``wait_event``, ``wait``, ``synchronize`` and ``record_stream`` whose result nobody uses. Each line of
the output is one of them: where it is, how often the cases came by, and for each mode whether the
numbers were wrong and how many pairs of accesses the checker reported. Two ranks, three steps.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import gc
import importlib
import inspect
import multiprocessing
import os
import random
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import (
    CPUOffload,
    CPUOffloadPolicy,
    FullyShardedDataParallel,
    MixedPrecisionPolicy,
    fully_shard,
)

CALLS = ("wait_stream", "wait_event", "wait", "synchronize", "_no_dispatch_record_stream")
SOURCES = {
    "torch.distributed.fsdp._fully_shard._fsdp_collectives": "fsdp2",
    "torch.distributed.fsdp._fully_shard._fsdp_param_group": "fsdp2",
    "torch.distributed.fsdp._fully_shard._fsdp_state": "fsdp2",
    "torch.distributed.fsdp._runtime_utils": "fsdp1",
    "torch.distributed.fsdp._flat_param": "fsdp1",
}
LAYERS, RANKS, STEPS = 6, 2, 3
#: Seconds that one fault may take; who hangs is noticed as well.
LIMIT = 120.0


@dataclass(frozen=True)
class Fault:
    """A statement that is left out."""

    module: str
    line: int
    text: str

    @property
    def name(self) -> str:
        return f"{self.module.rpartition('.')[2]}:{self.line} {self.text}"


def faults() -> list[Fault]:
    """All statements that wait or keep alive, in the torch that is here."""
    found = []
    for module in SOURCES:
        for node in ast.walk(ast.parse(inspect.getsource(importlib.import_module(module)))):
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
                called = node.value.func
                name = getattr(called, "attr", getattr(called, "id", ""))
                if name in CALLS:
                    found.append(Fault(module, node.lineno, ast.unparse(node)))
    return found


@contextlib.contextmanager
def left_out(fault: Fault) -> Iterator[list[int]]:
    """Run without the statement; the list has an entry for each time that it would have been reached."""
    module = importlib.import_module(fault.module)
    reached: list[int] = []
    vars(module)["_left_out"] = lambda: reached.append(1)

    class LeaveOut(ast.NodeTransformer):
        def visit_Expr(self, node: ast.Expr) -> ast.Expr:
            if node.lineno == fault.line:
                call = ast.Expr(ast.Call(ast.Name("_left_out", ast.Load()), [], []))
                return ast.fix_missing_locations(ast.copy_location(call, node))
            return node

    tree = LeaveOut().visit(ast.parse(inspect.getsource(module)))
    code = _around(compile(tree, str(module.__file__), "exec"), fault.line)
    changed = [one for one in gc.get_objects() if _is_of(one, code)]
    kept = [(one, one.__code__) for one in changed]
    for one in changed:
        one.__code__ = code
    try:
        yield reached
    finally:
        for one, before in kept:
            one.__code__ = before


def _around(code: CodeType, line: int) -> CodeType:
    """The innermost function whose lines hold one."""
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            lines = [number for *_, number in inner.co_lines() if number is not None]
            if min(lines) <= line <= max(lines):
                return _around(inner, line)
    return code


def _is_of(thing: Any, code: CodeType) -> bool:
    if not isinstance(thing, FunctionType):
        return False
    own = thing.__code__
    return (own.co_filename, own.co_name, own.co_firstlineno) == (
        code.co_filename,
        code.co_name,
        code.co_firstlineno,
    )


# -- the cases -------------------------------------------------------------------------------------


def _fsdp2(model: nn.Sequential, **options: Any) -> nn.Module:
    for layer in model:
        fully_shard(layer, **options)
    fully_shard(model, **options)
    return model


def _fsdp1(model: nn.Sequential, **options: Any) -> nn.Module:
    options |= {"device_id": torch.device("asim", 0), "use_orig_params": True}
    for at, layer in enumerate(model):
        model[at] = FullyShardedDataParallel(layer, **options)
    return FullyShardedDataParallel(model, **options)


def _hybrid(model: nn.Sequential) -> nn.Module:
    mesh = init_device_mesh("asim", (RANKS, 1), mesh_dim_names=("replicate", "shard"))
    half = MixedPrecisionPolicy(reduce_dtype=torch.bfloat16)
    return _fsdp2(model, mesh=mesh, mp_policy=half)


CASES: dict[str, dict[str, Callable[[nn.Sequential], nn.Module]]] = {
    "fsdp2": {
        "plain": _fsdp2,
        "half": lambda m: _fsdp2(m, mp_policy=MixedPrecisionPolicy(reduce_dtype=torch.bfloat16)),
        "offload": lambda m: _fsdp2(m, offload_policy=CPUOffloadPolicy()),
        "hybrid": _hybrid,
    },
    "fsdp1": {
        "plain": _fsdp1,
        "offload": lambda m: _fsdp1(m, cpu_offload=CPUOffload(offload_params=True)),
    },
}


def train(wrap: Callable[[nn.Sequential], nn.Module]) -> list[float]:
    """The losses of some steps, the last parameters summed among them."""
    torch.manual_seed(0)
    layers = [nn.Sequential(nn.Linear(16, 16), nn.ReLU()) for _ in range(LAYERS)]
    model = wrap(nn.Sequential(*layers).to("asim"))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
    draw = torch.Generator().manual_seed(dist.get_rank())
    losses = []
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss = model(torch.randn(4, 16, generator=draw).to("asim")).square().sum()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    shards = [getattr(one, "_local_tensor", one).detach() for one in model.parameters()]
    return [*losses, float(sum(one.cpu().double().sum() for one in shards))]


def _rank(
    rank: int, port: int, fault: Fault | None, family: str, modes: list[str], out: Any
) -> None:
    with Path(os.devnull).open("w") as null:
        os.dup2(null.fileno(), 2)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    import distparity_async as asim

    asim.register()
    dist.init_process_group("asimccl", rank=rank, world_size=RANKS)
    found: dict[str, Any] = {"reached": 0}
    with contextlib.ExitStack() as stack:
        reached = [] if fault is None else stack.enter_context(left_out(fault))
        for mode in modes:
            for name, wrap in CASES[family].items():
                asim.begin(mode)
                losses = train(wrap)
                found[f"{mode}/{name}"] = (losses, len(asim.races()))
        found["reached"] = len(reached)
    out.put((rank, found))
    out.close()
    out.join_thread()
    os._exit(0)


def run(fault: Fault | None, family: str, modes: list[str]) -> list[dict[str, Any]] | None:
    """What each rank found; None where one of them failed or did not come back."""
    context = multiprocessing.get_context("fork")
    out = context.Queue()
    port = random.randint(20_000, 40_000)  # noqa: S311  no secret
    ranks = [
        context.Process(target=_rank, args=(rank, port, fault, family, modes, out))
        for rank in range(RANKS)
    ]
    for rank in ranks:
        rank.start()
    found: dict[int, dict[str, Any]] = {}
    try:
        for _ in ranks:
            number, answer = out.get(timeout=LIMIT)
            found[number] = answer
    except Exception:
        return None
    finally:
        for rank in ranks:
            rank.kill()
    return [found[number] for number in range(RANKS)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mode", action="append", dest="modes")
    parser.add_argument("names", nargs="*")
    options = parser.parse_args()
    modes = options.modes or ["eager"]
    print(f"torch {torch.__version__}; {', '.join(modes)}: wrong numbers, reports")
    right = {family: run(None, family, modes) for family in CASES}
    for family, ranks in right.items():
        reports = (
            sum(one[1] for key, one in ranks[0].items() if key != "reached") if ranks else None
        )
        print(f"{family} unfaulted: {reports} reports", flush=True)
    for fault in faults():
        family = SOURCES[fault.module]
        if options.names and not any(part in fault.name for part in options.names):
            continue
        found = run(fault, family, modes)
        print(_line(fault, found, right[family], modes), flush=True)
    return 0


def _line(fault: Fault, found: Any, right: Any, modes: list[str]) -> str:
    if found is None:
        return f"{fault.name} | fails or hangs"
    words = [fault.name, f"reached {found[0]['reached']}"]
    for mode in modes:
        keys = [key for key in found[0] if key.startswith(f"{mode}/")]
        wrong = [
            key.partition("/")[2]
            for key in keys
            if any(
                repr(one[key][0]) != repr(good[key][0])
                for one, good in zip(found, right, strict=True)
            )
        ]
        reports = sum(one[key][1] for one in found for key in keys)
        words.append(f"{mode}: {','.join(wrong) or 'right'}, {reports}")
    return " | ".join(words)


if __name__ == "__main__":
    sys.exit(main())
