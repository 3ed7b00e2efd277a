"""Write the sample inputs of torch's operators, from the registry of torch's own tests.

    python ci/operator_samples.py          # with the newest release, and expecttest beside it

The registry (``torch.testing._internal``) differs between releases and imports packages that torch does
not require. So its samples are data of ours: one file, the same for every release. An operator is kept
if it draws no random numbers, a sample has a tensor, and DTensor can run at least one of them in some
way. A sample is kept if its plain result is the same twice, finite, and made of few elements.
"""

from __future__ import annotations

import contextlib
import copy
import json
import math
import sys
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Replicate, Shard, distribute_tensor
from torch.testing._internal.common_methods_invocations import op_db
from torch.testing._internal.distributed.fake_pg import FakeStore
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

from distparity.operations.generated import samples

#: Samples of one operator, and elements of one sample.
_MOST = 12
_ELEMENTS = 600
#: The registry's smallest size is 5, which no number of ranks divides evenly; and one that two and four do.
_SIZES = (5, 4)
#: What has no one right result, or none that is made of its inputs alone.
_NOT = ("empty", "resize", "jiterator", "torch.", "sparse", "to_sparse", "_segment", "new_empty")
#: Arguments that have to be sorted.
_SORTED = {"bucketize": (1,)}


def main() -> None:
    warnings.simplefilter("ignore")
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=2)
    found: dict[str, Any] = {}
    for info in op_db:
        name = ".".join(filter(None, (info.name, info.variant_test_name))).replace("-", "_")
        if any(info.name.startswith(word) for word in _NOT) or torch.float64 not in info.dtypes:
            continue
        kept = _chosen(info)
        if kept and _distributes(info.name, kept) and not _is_random(info.name, kept):
            found[name] = {
                "call": info.name,
                "inplace": info.inplace_variant is not None,
                "out": bool(info.supports_out),
                "kinds": _kinds(info),
                "samples": kept,
            }
        print(name, len(kept), "" if name in found else "-", file=sys.stderr, flush=True)
    lines = [
        f"{json.dumps(name)}: {json.dumps(what, separators=(',', ':'))}"
        for name, what in sorted(found.items())
    ]
    Path(samples.FILE).write_text("{\n" + ",\n".join(lines) + "\n}\n", "utf-8")
    print(len(found), sum(len(one["samples"]) for one in found.values()), file=sys.stderr)


class _Random(TorchDispatchMode):
    """Notices operators that draw random numbers."""

    drawn = False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        self.drawn |= torch.Tag.nondeterministic_seeded in func.tags
        return func(*args, **(kwargs or {}))


def _is_random(name: str, kept: list[dict[str, Any]]) -> bool:
    """Whether an operator draws random numbers, whatever it does with them here."""
    call, random = samples.resolve(name), _Random()  # type: ignore[no-untyped-call]
    for sample in kept:
        args, kwargs = samples.build(sample, "float64", 0)
        with random:
            call(*args, **kwargs)
    return random.drawn


def _kinds(info: Any) -> list[str]:
    wanted = {"float64": torch.float64, "int64": torch.int64, "complex128": torch.complex128}
    return [name for name, dtype in wanted.items() if dtype in info.dtypes]


def _chosen(info: Any) -> list[dict[str, Any]]:
    """Samples that differ: each has something that those before it lack."""
    every: dict[str, dict[str, Any]] = {}
    for sample in _samples(info):
        every.setdefault(json.dumps(sample, sort_keys=True), sample)
    left = [(set(_features(sample)), sample) for sample in every.values()]
    seen: set[str] = set()
    kept: list[dict[str, Any]] = []
    while left and len(kept) < _MOST:
        best = max(range(len(left)), key=lambda n: (len(left[n][0] - seen), -n))
        features, sample = left.pop(best)
        if not features - seen:
            break
        if _works(info, sample):
            seen |= features
            kept.append(sample)
    return kept


def _samples(info: Any) -> Iterator[dict[str, Any]]:
    modules = [m for name, m in list(sys.modules.items()) if name.startswith("torch.testing._int")]
    for size in _SIZES:
        for module in modules:
            if getattr(module, "S", None) in _SIZES:
                vars(module)["S"] = size
        torch.manual_seed(0)
        made = info.sample_inputs("cpu", torch.float64, requires_grad=False)
        while True:
            try:
                sample = next(made)
                args = [_told(one) for one in (sample.input, *sample.args)]
                for n in _SORTED.get(info.name, ()):
                    args[n]["in"] = "sorted"
                kwargs = {key: _told(one) for key, one in sample.kwargs.items()}
                yield {"args": args, "kwargs": kwargs}
            except StopIteration:
                break
            except Untold:
                continue
            except Exception as error:
                # A size that the registry itself did not think of.
                print(f"  {info.name} at {size}: {str(error)[:80]}", file=sys.stderr)
                break


class Untold(Exception):
    """Something that JSON cannot say."""


def _told(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return _tensor(value)
    if isinstance(value, bool) or value is None or isinstance(value, (int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {"float": str(value)}
    if isinstance(value, complex):
        return {"complex": [value.real, value.imag]}
    if isinstance(value, (torch.dtype, torch.memory_format, torch.layout)):
        return {"torch": str(value).removeprefix("torch.")}
    if isinstance(value, slice):
        return {"slice": [value.start, value.stop, value.step]}
    if value is Ellipsis:
        return {"ellipsis": True}
    if isinstance(value, (list, tuple)):
        return {"list" if isinstance(value, list) else "tuple": [_told(one) for one in value]}
    raise Untold(repr(value)[:80])


def _tensor(value: torch.Tensor) -> dict[str, Any]:
    if value.numel() > _ELEMENTS or value.layout is not torch.strided or value.is_complex():
        raise Untold(str(value.shape))
    shape = list(value.shape)
    if value.is_floating_point():
        low, high = (float(value.min()), float(value.max())) if value.numel() else (-1.0, 1.0)
        # A range, not the numbers: positive, in the unit interval, or any.
        if low >= 0:
            return {"shape": shape, "in": "unit" if high <= 1 else "positive"}
        return {"shape": shape, "in": "inner" if low >= -1 else "any"}
    if value.dtype not in (torch.int64, torch.int32, torch.bool, torch.uint8):
        raise Untold(str(value.dtype))
    return {"shape": shape, str(value.dtype).removeprefix("torch."): value.flatten().int().tolist()}


def _features(sample: dict[str, Any]) -> Iterator[str]:
    for key, value in [*enumerate(sample["args"]), *sample["kwargs"].items()]:
        yield from _of(key, value)


def _of(key: Any, value: Any) -> Iterator[str]:
    if isinstance(value, dict) and "shape" in value:
        yield f"{key} {len(value['shape'])}-d"
        for size in value["shape"]:
            yield f"{key} {'none' if size == 0 else 'one' if size == 1 else 'odd' if size % 2 else 'even'}"
        if len(value["shape"]) in (2, 3) and all(value["shape"]):
            yield f"{key} usual"
    elif isinstance(value, dict) and ("list" in value or "tuple" in value):
        inner: list[Any] = value["list"] if "list" in value else value["tuple"]
        yield f"{key} of {len(inner)}"
        for one in inner:
            yield from _of(key, one)
    else:
        yield f"{key}={json.dumps(value)[:40]}"


def _works(info: Any, sample: dict[str, Any]) -> bool:
    """Whether the plain operator gives the registry's result, the same finite one twice."""
    try:
        return _same(info, sample)
    except Exception:
        return False


def _same(info: Any, sample: dict[str, Any]) -> bool:
    call = samples.resolve(info.name)
    results = []
    for function in (call, call, info.op):
        args, kwargs = samples.build(sample, "float64", 0)
        found = tree_flatten(function(*args, **kwargs))[0]
        results.append([torch.as_tensor(one) for one in found])
    first, *others = results
    if any(t.layout is not torch.strided for t in first) or not any(t.numel() for t in first):
        return False
    if sum(t.numel() for t in first) > 20 * _ELEMENTS:
        return False
    for other in others:
        if len(other) != len(first) or not all(map(torch.equal, first, other)):
            return False
    return all(bool(t.isfinite().all()) for t in first if t.is_floating_point())


def _distributes(name: str, kept: list[dict[str, Any]]) -> bool:
    """Whether DTensor has a rule: some sample runs with all inputs replicated, or the first sharded."""
    mesh = init_device_mesh("cpu", (2,))
    call = samples.resolve(name)
    for sample in kept:
        for first in (Replicate(), Shard(0)):
            args, kwargs = samples.build(sample, "float64", 0)
            state = {"n": 0}

            def place(value: Any, first: Any = first, state: dict[str, int] = state) -> Any:
                if not isinstance(value, torch.Tensor):
                    return value
                state["n"] += 1
                how = first if state["n"] == 1 and value.dim() else Replicate()
                return distribute_tensor(copy.copy(value), mesh, [how])

            with contextlib.suppress(Exception):
                call(*tree_map(place, args), **tree_map(place, kwargs))
                if state["n"]:
                    return True
    return False


if __name__ == "__main__":
    main()
