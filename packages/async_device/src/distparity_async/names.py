"""What lies in memory, by the names of models: which parameter, gradient or buffer."""

from __future__ import annotations

import contextlib
import gc
import weakref
from collections.abc import Iterator
from typing import Any

__all__ = ["Names"]

#: What wrappers put into names.
_WRAPPED = ("_fsdp_wrapped_module.", "module.")


class Names:
    """The models of this process, looked for when something is asked for the first time."""

    def __init__(self) -> None:
        self._models: list[weakref.ref[Any]] | None = None

    def forget(self) -> None:
        """Look for models again at the next question."""
        self._models = None

    def of(self, pointer: int) -> str:
        """Whose memory begins there: "the gradient of 0.weight"; empty where it is no model's."""
        if self._models is None:
            self._models = [weakref.ref(model) for model in _models()]
        for reference in self._models:
            model = reference()
            for name, tensor in () if model is None else _named(model):
                if _pointer(tensor) == pointer:
                    return name
        return ""


def _models() -> list[Any]:
    """The modules that are in no other module."""
    from torch import nn

    # By its type: to ask a lazy object for its class may import things, and warn.
    every: list[Any] = [one for one in gc.get_objects() if issubclass(type(one), nn.Module)]
    inner = {id(child) for one in every for child in one.children()}
    return [one for one in every if id(one) not in inner]


def _named(model: Any) -> Iterator[tuple[str, Any]]:
    for name, parameter in model.named_parameters():
        yield f"the parameter {_clean(name)}", parameter
        if parameter.grad is not None:
            yield f"the gradient of {_clean(name)}", parameter.grad
    for name, buffer in model.named_buffers():
        yield f"the buffer {_clean(name)}", buffer


def _clean(name: str) -> str:
    for part in _WRAPPED:
        name = name.replace(part, "")
    return name


def _pointer(tensor: Any) -> int | None:
    # Tensors without memory of their own raise.
    with contextlib.suppress(RuntimeError, NotImplementedError):
        return int(getattr(tensor, "_local_tensor", tensor).untyped_storage().data_ptr())
    return None
