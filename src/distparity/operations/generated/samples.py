"""The sample inputs of torch's operators: data, the same for every release of torch.

``samples.json`` is written by ``ci/operator_samples.py`` from the registry of torch's own tests. By
operator, it has the function's name, what variants it has, and arguments. A tensor is its shape and a
range, or its elements if they are integers. ``sorted`` is a range too: the function is undefined otherwise.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch

__all__ = ["FILE", "SPELLED", "Absent", "build", "load", "resolve"]

FILE = Path(__file__).with_name("samples.json")
#: Numbers are multiples of this, so that a sum of parts is exact in float64.
_GRAIN = 2.0**20


#: Functions that the registry calls with other arguments first, as they are spelled.
SPELLED = {
    "where": "lambda x, condition, other: torch.where(condition, x, other)",
    "nn.functional.embedding": "lambda table, index, **words: torch.nn.functional.embedding(index, table, **words)",
    "einsum": "lambda tensors, equation: torch.einsum(equation, tensors)",
    "polygamma": "lambda x, n: torch.polygamma(n, x)",
    "special.polygamma": "lambda x, n: torch.special.polygamma(n, x)",
}
_REORDERED: dict[str, Callable[..., Any]] = {
    name: eval(text, {"torch": torch})  # noqa: S307  the lines above
    for name, text in SPELLED.items()
}


class Absent(Exception):
    """This torch has no such function."""


@cache
def load() -> dict[str, Any]:
    """Every operator's variants and samples, by its name."""
    found: dict[str, Any] = json.loads(FILE.read_text("utf-8"))
    return found


def resolve(name: str) -> Callable[..., Any]:
    """The function with a name of the registry: of ``torch`` or of a tensor; raises :class:`Absent`."""
    if name in _REORDERED:
        return _REORDERED[name]
    found: Any = torch
    for part in name.split("."):
        found = getattr(found, part, None)
    if found is None or isinstance(found, torch.dtype):
        found = getattr(torch.Tensor, name, None)
    if found is None:
        raise Absent(f"torch {torch.__version__} has no {name}")
    if callable(found):
        function: Callable[..., Any] = found
        return function
    return lambda tensor: getattr(tensor, name)


def build(sample: dict[str, Any], dtype: str, seed: int) -> tuple[list[Any], dict[str, Any]]:
    """The arguments and keyword arguments of a sample: plain tensors of ``dtype`` on the CPU."""
    args = [_build(value, dtype, seed, str(n)) for n, value in enumerate(sample["args"])]
    kwargs = {key: _build(value, dtype, seed, key) for key, value in sample["kwargs"].items()}
    return args, kwargs


def _build(value: Any, dtype: str, seed: int, key: str) -> Any:
    if not isinstance(value, dict):
        return value
    if "shape" in value:
        return _tensor(value, dtype, seed, key)
    if "float" in value:
        return float(value["float"])
    if "complex" in value:
        return complex(*value["complex"])
    if "torch" in value:
        return getattr(torch, value["torch"])
    if "slice" in value:
        return slice(*value["slice"])
    if "ellipsis" in value:
        return ...
    inner: list[Any] = value["list"] if "list" in value else value["tuple"]
    made = [_build(one, dtype, seed, f"{key}.{n}") for n, one in enumerate(inner)]
    return made if "list" in value else tuple(made)


def _tensor(value: dict[str, Any], dtype: str, seed: int, key: str) -> torch.Tensor:
    shape = tuple(value["shape"])
    (other,) = value.keys() - {"shape"}
    if other != "in":
        return torch.tensor(value[other], dtype=getattr(torch, other)).reshape(shape)
    generator = torch.Generator().manual_seed(seed + zlib.crc32(f"{key} {shape}".encode()))
    if dtype == "int64":
        low = 1 if value["in"] in ("positive", "unit") else -9
        drawn = torch.randint(low, 10, shape, generator=generator)
        # Strictly increasing.
        return drawn.sort().values + torch.arange(shape[0]) if value["in"] == "sorted" else drawn
    real = _reals(value["in"], shape, generator)
    if dtype == "complex128":
        return torch.complex(real, _reals(value["in"], shape, generator))
    return real.to(getattr(torch, dtype))


def _reals(kind: str, shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    if kind in ("any", "sorted"):
        drawn = torch.randn(shape, generator=generator, dtype=torch.float64)
        drawn = drawn.sort().values if kind == "sorted" else drawn
    else:
        low, high = {"unit": (0.1, 0.9), "positive": (0.25, 3.0), "inner": (-0.9, 0.9)}[kind]
        drawn = torch.rand(shape, generator=generator, dtype=torch.float64) * (high - low) + low
    return (drawn * _GRAIN).round() / _GRAIN if math.prod(shape) else drawn
