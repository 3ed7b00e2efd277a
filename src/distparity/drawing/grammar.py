"""The grammar of drawn trainings: what a draw may say, how it is named, and which draws mean nothing.

Every sentence means the same in one process as in many: losses are means over rows, and no layer looks
at more than one row. :mod:`distparity.scenarios.drawn` makes a scenario from a draw.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations

from distparity.core.record import Record

__all__ = ["FIELDS", "LAYERS", "PREFIX", "Draw", "NoSentence", "draw", "is_drawn"]

#: How the name of a drawn scenario begins; its words follow, separated by dots.
PREFIX = "drawn."

#: The kinds of layer between the first and the last; the first kind is the simplest.
LAYERS = (
    "linear",
    "norm",
    "mlp",
    "attention",
    "convolution",
    "experts",
    "scale",
    "tied",
    "twice",
    "buffer",
)
#: The most layers of a draw.
MOST_LAYERS = 4

#: By what they decide, the words of a draw, the simplest first. A draw has at most one word of each;
#: none is the simplest of all.
FIELDS: dict[str, tuple[str, ...]] = {
    # Features of a layer; without a word, 8. ``width_12`` divides by 3 as well, the others not by 4.
    "width": ("width_12", "width_6", "width_5"),
    # An embedding of tokens is the first layer, or it is also the weight of the last one.
    "entry": ("tokens", "tokens_tied"),
    "bias": ("no_bias",),
    # The first layer is called again after the others; the last one only by some micro-batches.
    "calls": ("again", "gated"),
    # What a sharding strategy wraps besides the root.
    "units": ("units", "unit_first", "units_nested", "units_all"),
    "freeze": (
        "frozen",
        "frozen_entry",
        "frozen_bias",
        "frozen_after_wrap",
        "frozen_later",
        "frozen_between",
        "thawed",
    ),
    "micro": ("micro", "micro_exchanged"),
    "loss": ("ce", "ce_sum", "ce_smooth", "ce_ignore", "ce_tokens", "ce_classes", "kl", "entropy"),
    # ``backward_twice``: two backwards of one graph. ``penalty``: the loss has a gradient in it.
    "backward": ("backward_twice", "penalty"),
    "optimizer": (
        "adamw",
        "sgd_plain",
        "foreach",
        "fused",
        "amsgrad",
        "rmsprop",
        "adagrad",
        "nadam",
        # Not Muon: it rounds to bfloat16 within a step, and one rounding becomes one of those.
        "adafactor",
    ),
    "groups": ("groups", "groups_layers", "group_empty"),
    "schedule": ("lr_step", "lr_onecycle", "lr_cosine"),
    "clip": ("clip_2", "clip_1", "clip_inf", "clip_value"),
    "reload": ("reload", "reload_sharded", "reload_checkpoint"),
    "recompute": ("recompute", "recompute_wrapper"),
    "precision": ("mixed", "mixed_reduced", "autocast"),
    "scaling": ("scaled",),
    "meta": ("deferred",),
    # Optimizer steps; without a word, 3.
    "steps": ("steps_2", "steps_1", "steps_5"),
}
#: How often a draw has a word of a field.
_OFTEN = {"units": 0.75, "loss": 0.5, "optimizer": 0.45, "freeze": 0.35, "clip": 0.35, "micro": 0.3}
_SOMETIMES = 0.18
_SELDOM = {"precision": 0.06, "scaling": 0.06, "meta": 0.05, "backward": 0.12, "recompute": 0.12}

_FIELD_OF = {word: field for field, words in FIELDS.items() for word in words}
_TIED = ("tied_layer", "tokens_tied")
#: Losses of a model's output and one target alone.
_OF_OUTPUT = frozenset({None, "ce", "ce_sum", "ce_smooth", "ce_classes", "kl", "entropy"})


class NoSentence(ValueError):
    """Words that are no draw: the message says why."""


@dataclass(frozen=True)
class Draw(Record):
    """One training: its layers in order, and its words in the order of :data:`FIELDS`."""

    layers: tuple[str, ...]
    words: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The name of its scenario, which :meth:`of` reads again."""
        return PREFIX + ".".join([*self.layers, *self.words])

    @classmethod
    def of(cls, name: str) -> Draw:
        """The draw with a name; raises :class:`NoSentence` if it is none, or means nothing."""
        if not is_drawn(name):
            raise NoSentence(f"{name!r} does not begin with {PREFIX!r}")
        parts = name[len(PREFIX) :].split(".")
        count = next((n for n, part in enumerate(parts) if part not in LAYERS), len(parts))
        found = cls(tuple(parts[:count]), tuple(parts[count:]))
        wrong = found.problem()
        if wrong is not None:
            raise NoSentence(f"{name!r}: {wrong}")
        return found

    @classmethod
    def made(cls, layers: tuple[str, ...], words: dict[str, str]) -> Draw:
        """A draw from its layers and its word of each field."""
        return cls(layers, tuple(words[field] for field in FIELDS if field in words))

    def word(self, field: str) -> str | None:
        """Its word of a field; None for the simplest."""
        return next((word for word in self.words if _FIELD_OF.get(word) == field), None)

    def by_field(self) -> dict[str, str]:
        """Its word of each field that it has one of."""
        return {_FIELD_OF[word]: word for word in self.words}

    @property
    def steps(self) -> int:
        return int((self.word("steps") or "steps_3").rpartition("_")[2])

    @property
    def width(self) -> int:
        return int((self.word("width") or "width_8").rpartition("_")[2])

    @property
    def features(self) -> frozenset[str]:
        """What it has: its words and its kinds of layer."""
        return frozenset({*self.words, *(f"{layer}_layer" for layer in self.layers)})

    def problem(self) -> str | None:
        """Why it means nothing, or not the same in one process as in many; None if it is a sentence."""
        if not 1 <= len(self.layers) <= MOST_LAYERS or not set(self.layers) <= set(LAYERS):
            return f"it has 1 to {MOST_LAYERS} layers of {', '.join(LAYERS)}"
        unknown = [word for word in self.words if word not in _FIELD_OF]
        if unknown:
            return f"there is no word {unknown[0]!r}"
        fields = [_FIELD_OF[word] for word in self.words]
        if fields != [field for field in FIELDS if field in fields]:
            return "its words are at most one of each field, in the order of the fields"
        return next((why for why, wrong in self._rules() if wrong), None)

    def _rules(self) -> Iterator[tuple[str, bool]]:
        has = self.features.__contains__
        tied = any(map(has, _TIED))
        low = self.word("precision") is not None
        yield (
            "a layer for some micro-batches needs micro-batches",
            (has("gated") and self.word("micro") is None),
        )
        yield "biases are frozen, and there are none", has("frozen_bias") and has("no_bias")
        yield (
            "what is saved after the first step needs a second",
            (self.word("reload") is not None and self.steps < 2),
        )
        yield (
            "what changes after the first step needs a second",
            (
                self.word("freeze") in ("frozen_later", "frozen_between", "thawed")
                and self.steps < 2
            ),
        )
        yield "attention has no second derivative", has("penalty") and has("attention_layer")
        yield "tokens have no gradient", has("penalty") and self.word("entry") is not None
        # Module.to(device="meta") makes new parameters, one for each name.
        yield "tied weights part on the meta device", has("deferred") and tied
        yield (
            "low precision: the inputs are numbers, and every call of a layer is the same",
            low
            and (
                self.word("entry") is not None
                or has("gated")
                or self.word("loss") not in (None, "ce")
                or self.word("backward") is not None
            ),
        )
        yield (
            "a wrapper of recomputation has names of its own on the meta device",
            (has("deferred") and has("recompute_wrapper")),
        )
        # Attention's heads and pairs of features need an even width.
        yield "attention needs an even width", has("attention_layer") and self.width % 2 == 1

    @property
    def splits(self) -> bool:
        """Whether it has a tensor parallel plan: nothing in it that means something else when it is split."""
        has = self.features.__contains__
        return not (
            any(map(has, _TIED))
            or has("recompute_wrapper")
            or has("deferred")
            or self.word("precision") is not None
        )

    @property
    def stages(self) -> bool:
        """Whether it can be cut into pipeline stages: four of them, of which each takes one tensor."""
        return not (
            len(self.layers) < 2
            or self.word("entry")
            or self.word("calls")
            or self.word("backward")
            or self.word("precision")
            or self.word("scaling")
            or self.word("meta")
            or self.word("recompute") == "recompute_wrapper"
            or self.word("loss") not in _OF_OUTPUT
        )

    def pairs(self, more: tuple[str, ...] = ()) -> Iterator[tuple[str, str]]:
        """The pairs of features that it covers, with those of ``more``."""
        yield from combinations(sorted({*self.features, *more}), 2)


def is_drawn(name: str) -> bool:
    """Whether a scenario's name is that of a draw."""
    return name.startswith(PREFIX)


def draw(luck: random.Random) -> Draw:
    """Draw a sentence."""
    while True:
        count = luck.choice((1, 2, 2, 2, 3, 3, 4))
        layers = tuple(luck.choice(LAYERS) for _ in range(count))
        words = {}
        for field, known in FIELDS.items():
            often = _OFTEN.get(field, _SELDOM.get(field, _SOMETIMES))
            if luck.random() < often:
                words[field] = luck.choice(known)
        if words.get("calls") == "gated":
            words.setdefault("micro", luck.choice(FIELDS["micro"]))
        found = Draw.made(layers, words)
        if found.problem() is None:
            return found
