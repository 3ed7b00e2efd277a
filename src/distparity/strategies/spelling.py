"""How a strategy is written in a program that needs torch alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

__all__ = ["Spelling", "Words", "arguments"]


@dataclass(frozen=True)
class Spelling:
    """Lines of Python. They may use ``model``, ``units``, ``device``, ``RANKS``, ``dist`` and ``torch``."""

    #: The body of ``wrap(model, units, device)``, which returns the wrapped model.
    wrap: tuple[str, ...]
    imports: tuple[str, ...] = ()
    #: A context in which ``model.named_parameters()`` are full tensors; empty where they always are.
    whole: str = ""
    #: Whether parameters are DTensors.
    dtensors: bool = False
    #: Whether parameters have their gradients there.
    gradients: bool = True
    #: What the wrapper puts into the names of parameters.
    prefix: str = ""
    #: A context in which a backward exchanges nothing, or the line that says so of the next, by ``last``.
    no_sync: str = "model.no_sync()"
    sync: str = ""
    #: The expression of this rank's rows of a tensor ``t``.
    rows: str = "t.chunk(RANKS)[rank]"
    #: How to clip by a ``{norm}`` of a ``{kind}``.
    clip: str = "torch.nn.utils.clip_grad_norm_(model.parameters(), {norm}, {kind})"
    #: A context for the losses.
    within: str = ""


class Words(str):
    """The text of an expression."""

    __slots__ = ()


def arguments(options: Mapping[str, Any]) -> str:
    """The arguments of a call after others, as text: ``, static_graph=True``."""
    return "".join(f", {name}={_text(value)}" for name, value in options.items())


def _text(value: Any) -> str:
    if isinstance(value, Words):
        return value
    # An enumeration's own text is no Python.
    return f"{type(value).__name__}.{value.name}" if isinstance(value, Enum) else repr(value)
