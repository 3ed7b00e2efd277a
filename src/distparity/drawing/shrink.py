"""Shrink a case that is red to the smallest that is red for the same reason."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from distparity.core.case import Case
from distparity.drawing.grammar import FIELDS, LAYERS, Draw

__all__ = ["Shrunk", "contains", "shrink", "smaller"]

#: Strategies that are part of another one, or do the same with less, in the order in which to try them.
SIMPLER: dict[str, tuple[str, ...]] = {
    "fsdp2_hsdp_tp": ("fsdp2", "tp", "fsdp2_tp"),
    "fsdp2_tp": ("fsdp2", "tp"),
    "fsdp2_tp_sequence": ("fsdp2", "tp", "tp_sequence", "fsdp2_tp"),
    "fsdp2_tp_loss": ("fsdp2", "tp", "tp_loss", "fsdp2_tp"),
    "fsdp1_tp": ("fsdp1_orig_params", "tp"),
    "tp_sequence": ("tp",),
    "tp_loss": ("tp",),
    "tp_loss_implicit": ("tp", "tp_loss"),
    "pp_ddp": ("ddp", "pp_1f1b"),
    "pp_fsdp2": ("fsdp2", "pp_1f1b"),
    "pp_interleaved_ddp": ("ddp", "pp_interleaved", "pp_ddp"),
    "pp_interleaved_fsdp2": ("fsdp2", "pp_interleaved", "pp_fsdp2"),
    "pp_zbv": ("pp_gpipe", "pp_zero_bubble"),
    "pp_dual_pipe_v": ("pp_gpipe", "pp_zero_bubble"),
    "pp_zero_bubble": ("pp_gpipe", "pp_interleaved"),
    "pp_interleaved": ("pp_gpipe",),
    "pp_looped_bfs": ("pp_gpipe",),
    "pp_1f1b": ("pp_gpipe",),
    "zero1": ("ddp",),
}
#: Of the other strategies, the beginning of their names and what they are a variant of.
_VARIANTS = (
    ("fsdp2_hsdp", ("fsdp2", "fsdp2_hsdp_1xn", "fsdp2_hsdp_nx1")),
    ("fsdp2_", ("fsdp2",)),
    ("fsdp1_hybrid", ("fsdp1", "fsdp1_orig_params", "fsdp1_no_shard")),
    ("fsdp1_", ("fsdp1", "fsdp1_orig_params")),
    ("ddp_", ("ddp",)),
    ("replicate_fsdp2", ("fsdp2",)),
    ("replicate", ("ddp",)),
)


@dataclass(frozen=True)
class Shrunk:
    """The smallest case, and how many were tried for it."""

    case: Case
    tried: int


def shrink(case: Case, red: Callable[[Sequence[Case]], Case | None], most: int = 120) -> Shrunk:
    """The smallest case that is red for the same reason, by trying smaller ones in turn.

    ``red`` gets cases in the order in which they are wanted, and answers with the first of them that is
    red for the same reason; None if none is. At most ``most`` cases are tried.
    """
    tried, seen = 0, {case}
    while True:
        todo = [one for one in dict.fromkeys(smaller(case)) if one not in seen][: most - tried]
        if not todo:
            return Shrunk(case, tried)
        found = red(todo)
        # What came after the one that was found was not looked at.
        looked = todo if found is None else todo[: todo.index(found) + 1]
        seen.update(looked)
        tried += len(looked)
        if found is None or tried >= most:
            return Shrunk(found or case, tried)
        case = found


def smaller(case: Case) -> Iterator[Case]:
    """The cases that are one move smaller, the largest moves first."""
    now = Draw.of(case.scenario)
    for draw in _smaller_draws(now):
        if draw.problem() is None:
            yield case._replace(scenario=draw.name)
    if case.world_size > 2:
        yield case._replace(world_size=2)
    for strategy in _simpler(case.strategy):
        for size in dict.fromkeys((2, case.world_size)):
            yield case._replace(strategy=strategy, world_size=size)
    if case.dtype != "float32":
        yield case._replace(dtype="float32")


def _smaller_draws(draw: Draw) -> Iterator[Draw]:
    """Draws that are one move smaller; some of them are no sentence."""
    layers, words = draw.layers, draw.by_field()
    # Without its word, a draw has more than the fewest steps.
    free = [field for field in words if field != "steps"]
    away: list[tuple[str, ...]] = [(field,) for field in free]
    # What needs the other goes with it.
    away += [both for both in _TOGETHER if words.keys() >= set(both)]
    if len(free) > 3:
        half = len(free) // 2
        away = [tuple(free[:half]), tuple(free[half:]), *away]
    if len(layers) > 2:
        yield Draw.made(layers[:1], words)
    for fields in away:
        yield Draw.made(layers, {f: word for f, word in words.items() if f not in fields})
    yield from (Draw.made(fewer, words) for fewer in _smaller_layers(layers))
    for field in free:
        if words[field] != FIELDS[field][0]:
            yield Draw.made(layers, {**words, field: FIELDS[field][0]})
    for steps in (1, 2):
        if steps < draw.steps:
            yield Draw.made(layers, {**words, "steps": f"steps_{steps}"})
    if draw.steps > 3:
        yield Draw.made(layers, {field: words[field] for field in free})


def _smaller_layers(layers: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    for place in range(len(layers)):
        yield (*layers[:place], *layers[place + 1 :])
    for place, layer in enumerate(layers):
        if layer != LAYERS[0]:
            yield (*layers[:place], LAYERS[0], *layers[place + 1 :])


#: Fields of which the second word needs the first.
_TOGETHER = (("micro", "calls"),)


def _simpler(strategy: str) -> tuple[str, ...]:
    if strategy in SIMPLER:
        return SIMPLER[strategy]
    found = next((base for start, base in _VARIANTS if strategy.startswith(start)), ())
    return tuple(one for one in found if one != strategy)


def contains(large: Case, small: Case) -> bool:
    """Whether a case has all that a smaller one has, so that it may be red for the same reason."""
    one, other = Draw.of(large.scenario), Draw.of(small.scenario)
    kinds = {layer for layer in other.layers if layer != LAYERS[0]}
    mine = one.by_field()
    # Few steps are no feature. The simplest word of a field may stand for another one.
    rest = {
        field
        for field, word in other.by_field().items()
        if field != "steps" and not (field in mine and word in (mine[field], FIELDS[field][0]))
    }
    strategies = {large.strategy, *_simpler(large.strategy)}
    return (
        small.strategy in strategies
        and not rest
        and kinds <= set(one.layers)
        and len(other.layers) <= len(one.layers)
    )
