"""A scenario from a draw (:mod:`distparity.drawing.grammar`).

All activations between the first and the last layer are ``[rows, TOKENS, width]``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from typing import Any, ClassVar

import torch
from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from distparity.drawing.grammar import Draw
from distparity.scenarios.base import Batch, Scenario
from distparity.torch_support.precision import Precision

__all__ = ["Drawn", "build", "lacking"]

#: Tokens of a row, features of an input, classes and kinds of token: they divide by 2, 3 and 4.
TOKENS, INPUTS, CLASSES = 12, 6, 12
#: Norms that every gradient here is larger than.
_NORMS = {"clip_2": 2.0, "clip_1": 1.0, "clip_inf": float("inf")}
_CLIP = {"clip_2": 0.05, "clip_1": 0.2, "clip_inf": 0.01}


# -- layers ----------------------------------------------------------------------------------------


class Linear(nn.Module):
    def __init__(self, width: int, bias: bool) -> None:
        super().__init__()
        self.linear = nn.Linear(width, width, bias=bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.linear(x))


class Norm(nn.Module):
    def __init__(self, width: int, bias: bool) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width) if bias else nn.RMSNorm(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.norm(x)
        return out


class Perceptron(nn.Module):
    def __init__(self, width: int, bias: bool) -> None:
        super().__init__()
        # Where the width is uneven, so is this.
        hidden = 2 * width if width % 4 == 0 else width + width // 2
        self.up = nn.Linear(width, hidden, bias=bias)
        self.down = nn.Linear(hidden, width, bias=bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = x + self.down(F.gelu(self.up(x)))
        return out


class Attention(nn.Module):
    def __init__(self, width: int, bias: bool) -> None:
        super().__init__()
        #: Features of a head: as many heads as divide by the same numbers as the width.
        self.head = 1 if width % 3 == 0 else 2
        self.query = nn.Linear(width, width, bias=bias)
        # A bias of the keys adds the same to all scores of a query: its gradient would be only rounding.
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width, bias=bias)
        self.out = nn.Linear(width, width, bias=bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        query, key, value = (self._heads(at(x)) for at in (self.query, self.key, self.value))
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        out: torch.Tensor = x + self.out(mixed.transpose(1, 2).flatten(2))
        return out

    def _heads(self, x: torch.Tensor) -> torch.Tensor:
        # The number of heads is taken from the tensor, because a rank may have only some of them.
        return x.view(*x.shape[:-1], -1, self.head).transpose(1, 2)


class Convolution(nn.Module):
    def __init__(self, width: int, bias: bool) -> None:
        super().__init__()
        self.convolution = nn.Conv1d(width, width, 3, padding=1, bias=bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.convolution(x.transpose(1, 2)).transpose(1, 2))


class Experts(nn.Module):
    """Three experts in one parameter; each token is a mixture of what they say."""

    def __init__(self, width: int, bias: bool) -> None:
        super().__init__()
        self.gate = nn.Parameter(torch.randn(width, 3) / width**0.5)
        self.experts = nn.Parameter(torch.randn(3, width, width) / width**0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weights = torch.softmax(x @ self.gate, -1)
        said = torch.tanh(torch.einsum("rti,eij->rtej", x, self.experts))
        out: torch.Tensor = x + (weights.unsqueeze(-1) * said).sum(2)
        return out


class Scale(nn.Module):
    def __init__(self, width: int, bias: bool) -> None:
        super().__init__()
        self.scale = nn.Parameter(1 + torch.randn(width) / 4)
        self.gain = nn.Parameter(torch.ones(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(x * self.scale * self.gain)


class Tied(nn.Module):
    def __init__(self, width: int, bias: bool) -> None:
        super().__init__()
        self.enter = nn.Linear(width, width, bias=bias)
        self.leave = nn.Linear(width, width, bias=bias)
        self.leave.weight = self.enter.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.leave(torch.tanh(self.enter(x))))


class Twice(nn.Module):
    def __init__(self, width: int, bias: bool) -> None:
        super().__init__()
        self.linear = nn.Linear(width, width, bias=bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.linear(torch.tanh(self.linear(x))))


class Buffer(nn.Module):
    """A buffer that never changes, and one that changes before each step."""

    def __init__(self, width: int, bias: bool) -> None:
        super().__init__()
        self.linear = nn.Linear(width, width, bias=bias)
        self.register_buffer("fixed", 1 + torch.rand(width))
        self.register_buffer("pace", torch.ones(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        fixed: Any = self.fixed
        pace: Any = self.pace
        out: torch.Tensor = torch.tanh(self.linear(x)) * (fixed * pace).to(x.dtype)
        return out


_KINDS: dict[str, type[nn.Module]] = {
    "linear": Linear,
    "norm": Norm,
    "mlp": Perceptron,
    "attention": Attention,
    "convolution": Convolution,
    "experts": Experts,
    "scale": Scale,
    "tied": Tied,
    "twice": Twice,
    "buffer": Buffer,
}


class Model(nn.Module):
    def __init__(self, draw: Draw) -> None:
        super().__init__()
        width, bias = draw.width, draw.word("bias") is None
        tokens = draw.word("entry") is not None
        self.draw = draw
        self.enter = nn.Embedding(CLASSES, width) if tokens else nn.Linear(INPUTS, width, bias=bias)
        for number, kind in enumerate(draw.layers):
            self.add_module(f"layer{number}", _KINDS[kind](width, bias))
        tied = draw.word("entry") == "tokens_tied"
        self.leave = nn.Linear(width, CLASSES, bias=bias and not tied)
        if tied:
            self.leave.weight = self.enter.weight

    def layers(self) -> list[nn.Module]:
        return [getattr(self, f"layer{number}") for number in range(len(self.draw.layers))]

    def forward(self, x: torch.Tensor, gate: torch.Tensor | None = None) -> torch.Tensor:
        x = self.enter(x)
        layers, gated = self.layers(), self.draw.word("calls") == "gated"
        for layer in layers[:-1] if gated else layers:
            x = self._call(layer, x)
        if gated and gate is not None and bool(gate.any()):
            x = x + gate.to(x.dtype)[:, None, None] * self._call(layers[-1], x)
        if self.draw.word("calls") == "again":
            x = self._call(self.layers()[0], x)
        out: torch.Tensor = self.leave(x)
        return out

    def _call(self, layer: nn.Module, x: torch.Tensor) -> torch.Tensor:
        if self.draw.word("recompute") == "recompute":
            again: torch.Tensor = checkpoint(layer, x, use_reentrant=False)
            return again
        found: torch.Tensor = layer(x)
        return found


# -- the scenario ----------------------------------------------------------------------------------


class Drawn(Scenario):
    """A class of its own is made for each draw, by :func:`build`."""

    draw: ClassVar[Draw]
    rows_per_rank = 4
    compares_norm = True

    def model(self) -> nn.Module:
        model = Model(self.draw)
        word = self.draw.word("freeze")
        if word in ("frozen", "thawed"):
            model.layers()[0].requires_grad_(requires_grad=False)
        elif word == "frozen_entry":
            model.enter.requires_grad_(requires_grad=False)
        elif word == "frozen_bias":
            for name, parameter in model.named_parameters():
                parameter.requires_grad_(not name.endswith("bias"))
        return model

    def units(self, model: nn.Module) -> list[nn.Module]:
        word, layers = self.draw.word("units"), _layers(model)
        if word is None:
            return []
        if word == "unit_first":
            return layers[:1]
        if word == "units_nested":
            return [inner for layer in layers for inner in (*_inner(layer), layer)]
        if word == "units_all":
            entry = [] if self.draw.word("entry") == "tokens_tied" else [model.enter, model.leave]
            return [*layers, *entry]  # type: ignore[list-item]
        return layers

    def batch(self, rows: int) -> Batch:
        draw = self.draw
        tokens = draw.word("entry") is not None
        x = torch.randint(CLASSES, (rows, TOKENS)) if tokens else torch.randn(rows, TOKENS, INPUTS)
        return (x, *self._target(rows))

    def _target(self, rows: int) -> Iterator[torch.Tensor]:
        loss = self.draw.word("loss")
        if loss in (None, "kl"):
            target = torch.randn(rows, TOKENS, CLASSES)
            yield torch.softmax(target, -1) if loss == "kl" else 4 * target
        else:
            target = torch.randint(CLASSES, (rows, TOKENS))
            if loss == "ce_ignore":
                target[:, ::3] = -100
            yield target
        if loss == "ce_tokens":
            yield torch.rand(rows, TOKENS) + 0.5
        if self.draw.word("calls") == "gated":
            # On every rank alike: the first half of its rows, which are the first micro-batch.
            yield torch.arange(rows) % self.rows_per_rank < self.rows_per_rank // 2

    def loss(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        return torch.stack(self.losses(model, batch)).sum()

    def losses(self, model: nn.Module, batch: Batch) -> list[torch.Tensor]:
        x, target, *more = batch
        gate = [more.pop()] if self.draw.word("calls") == "gated" else []
        penalty = self.draw.word("backward") == "penalty"
        if penalty:
            x = x.detach().requires_grad_()
        out = model(x, *gate)
        if self.draw.word("precision") is not None:
            out = out.to(x.dtype)
        found = self._of(out, target, *more)
        if penalty:
            (slope,) = torch.autograd.grad(out.sum(), x, create_graph=True)
            found = found + slope.square().mean()
        if self.draw.word("backward") == "backward_twice":
            return [found, 0.1 * out.square().mean()]
        return [found]

    def _of(self, out: torch.Tensor, target: torch.Tensor, *weights: torch.Tensor) -> torch.Tensor:
        word = self.draw.word("loss")
        if word is None:
            return F.mse_loss(out, target)
        tokens = target.shape[0] * TOKENS
        if word == "kl":
            return F.kl_div(F.log_softmax(out, -1), target, reduction="sum") / tokens
        flat, wanted = out.flatten(0, 1), target.flatten()
        if word == "ce_tokens":
            each = F.cross_entropy(flat, wanted, reduction="none")
            return (each * weights[0].flatten()).sum() / tokens
        if word == "ce_classes":
            classes = torch.linspace(0.5, 1.5, CLASSES, dtype=out.dtype, device=out.device)
            return F.cross_entropy(flat, wanted, classes, reduction="sum") / tokens
        if word == "ce_smooth":
            return F.cross_entropy(flat, wanted, label_smoothing=0.1)
        if word in ("ce_sum", "ce_ignore"):
            return F.cross_entropy(flat, wanted, reduction="sum") / tokens
        found = F.cross_entropy(flat, wanted)
        if word == "entropy":
            likely = F.log_softmax(out, -1)
            found = found + 0.1 * (likely.exp() * likely).sum(-1).mean()
        return found

    def groups(self, named: dict[str, nn.Parameter]) -> Iterable[Any]:
        word = self.draw.word("groups")
        if word is None:
            return named.values()
        if word == "group_empty":
            return [{"params": [], "lr": 0.2}, {"params": list(named.values())}]
        mine = (".bias",) if word == "groups" else ("enter.", "layer0.")
        first = [
            one
            for name, one in named.items()
            if (name.endswith(mine) if word == "groups" else name.startswith(mine))
        ]
        rest = [one for one in named.values() if not any(one is other for other in first)]
        return [{"params": first, "lr": 0.03}, {"params": rest, "weight_decay": 0.05}]

    def optimizer(self, parameters: Iterable[Any]) -> torch.optim.Optimizer:
        known = torch.optim
        word = self.draw.word("optimizer")
        if word is None:
            return known.SGD(parameters, lr=0.1, momentum=0.9)
        make, more = _OPTIMIZERS[word]
        found: torch.optim.Optimizer = getattr(known, make)(parameters, **more)
        return found

    def schedule(
        self, optimizer: torch.optim.Optimizer
    ) -> torch.optim.lr_scheduler.LRScheduler | None:
        kinds, word = torch.optim.lr_scheduler, self.draw.word("schedule")
        if word == "lr_step":
            return kinds.StepLR(optimizer, step_size=1, gamma=0.5)
        if word == "lr_onecycle":
            return kinds.OneCycleLR(
                optimizer, max_lr=0.2, total_steps=self.steps + 2, cycle_momentum=False
            )
        if word == "lr_cosine":
            return kinds.CosineAnnealingLR(optimizer, T_max=2 * self.steps)
        return None

    def before_wrap(self, model: nn.Module) -> None:
        if self.draw.word("recompute") == "recompute_wrapper":
            for number, layer in enumerate(_layers(model)):
                setattr(model, f"layer{number}", checkpoint_wrapper(layer))

    def original_name(self, name: str) -> str:
        return name.replace("_checkpoint_wrapped_module.", "")

    def after_wrap(self, model: nn.Module) -> None:
        if self.draw.word("freeze") == "frozen_after_wrap":
            _layers(model)[0].requires_grad_(requires_grad=False)

    def before_step(self, model: nn.Module, step: int) -> None:
        word = self.draw.word("freeze")
        if word in ("frozen_later", "frozen_between", "thawed"):
            _layers(model)[0].requires_grad_(not self._frozen(step))
        for number, kind in enumerate(self.draw.layers):
            if kind == "buffer":
                layer = _layers(model)[number]
                with torch.no_grad():
                    layer.pace.mul_(0.75).add_(0.5)  # type: ignore[operator]

    def _frozen(self, step: int) -> bool:
        word = self.draw.word("freeze")
        return (
            word in ("frozen", "frozen_after_wrap")
            or (word == "frozen_later" and step > 0)
            or (word == "frozen_between" and step == 1)
            or (word == "thawed" and step == 0)
        )

    def idle(self, step: int) -> list[str]:
        word, names = self.draw.word("freeze"), _names(self.draw)
        if word == "frozen_entry":
            return [name for name in names if name.startswith("enter.")]
        if word == "frozen_bias":
            return [name for name in names if name.endswith("bias")]
        return [name for name in names if name.startswith("layer0.")] if self._frozen(step) else []


#: The class and the arguments of each optimizer. An ``eps`` that is not tiny, so that a gradient near
#: nothing is not blown up to a whole step.
_OPTIMIZERS: dict[str, tuple[str, dict[str, Any]]] = {
    "sgd_plain": ("SGD", {"lr": 0.2, "weight_decay": 0.1}),
    "foreach": ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True, "foreach": True}),
    "adamw": ("AdamW", {"lr": 0.05, "eps": 1e-3, "weight_decay": 0.1}),
    "fused": ("AdamW", {"lr": 0.05, "eps": 1e-3, "fused": True}),
    "amsgrad": ("Adam", {"lr": 0.05, "eps": 1e-3, "amsgrad": True}),
    "rmsprop": ("RMSprop", {"lr": 0.02, "eps": 1e-2, "momentum": 0.5, "centered": True}),
    "adagrad": ("Adagrad", {"lr": 0.1, "eps": 1e-3}),
    "nadam": ("NAdam", {"lr": 0.05, "eps": 1e-3}),
    "adafactor": ("Adafactor", {"lr": 0.05}),
}


def _layers(model: Any) -> list[nn.Module]:
    found: list[nn.Module] = model.layers()
    return found


def _inner(layer: nn.Module) -> list[nn.Module]:
    """The modules in a layer that are units of their own; those with a common weight are none."""
    if isinstance(layer, Tied):
        return []
    kinds = (nn.Linear, nn.Conv1d, nn.LayerNorm)
    return [module for module in layer.modules() if isinstance(module, kinds)]


@cache
def _names(draw: Draw) -> tuple[str, ...]:
    with torch.random.fork_rng(devices=[]):
        return tuple(name for name, _ in Model(draw).named_parameters())


def build(name: str) -> Drawn:
    """The scenario with a name; raises :class:`distparity.drawing.grammar.NoSentence`."""
    return _build(name)


def lacking(name: str) -> str | None:
    """What this torch has not and the draw uses; None if it has all."""
    word = Draw.of(name).word("optimizer")
    if word in _OPTIMIZERS and not hasattr(torch.optim, _OPTIMIZERS[word][0]):
        return f"torch.optim.{_OPTIMIZERS[word][0]}"
    return None


@cache
def _build(name: str) -> Drawn:
    draw = Draw.of(name)
    word = draw.word
    reload = word("reload")
    made: dict[str, Any] = {
        "name": name,
        "draw": draw,
        "__module__": __name__,
        "steps": draw.steps,
        "traits": tuple(_traits(draw)),
        "micro_batches": 1 if word("micro") is None else 2,
        "exchange_last_only": word("micro") != "micro_exchanged",
        "clip_norm": _CLIP.get(word("clip") or ""),
        "clip_kind": _NORMS.get(word("clip") or "", 2.0),
        "clip_value": 0.002 if word("clip") == "clip_value" else None,
        "loss_scale": 1024.0 if word("scaling") else None,
        "reload_after": None if reload is None else 0,
        "reload_by": (reload or "").partition("_")[2] or "full",
        "deferred": word("meta") is not None,
        "precision": {
            "mixed": Precision(computes_in="bfloat16", reduces_in="float32"),
            "mixed_reduced": Precision(computes_in="bfloat16", reduces_in="bfloat16"),
        }.get(word("precision") or ""),
        "autocast": "bfloat16" if word("precision") == "autocast" else None,
        "dtypes": ("float32",) if word("precision") else ("float32", "float64"),
        "tensor_parallel": _plan(draw) if draw.splits else {},
        "sequence_dim": 1 if set(draw.layers) <= {"mlp", "norm", "attention"} else None,
        "stages": _stages(draw) if draw.stages else (),
    }
    kind: type[Drawn] = type("Draw", (Drawn,), made)
    return kind()


def _stages(draw: Draw) -> tuple[tuple[str, ...], ...]:
    layers = [f"layer{number}" for number in range(len(draw.layers))]
    return tuple((name,) for name in ("enter", *layers, "leave"))


def _traits(draw: Draw) -> Iterator[str]:
    """The features that its words have in common with those of other scenarios."""
    has = draw.features.__contains__
    known = {
        "tied": has("tied_layer") or has("tokens_tied"),
        "twice": has("again") or (has("twice_layer") and has("units_nested")),
        "unused_parameters": has("gated"),
        "two_backwards": has("backward_twice"),
        "second_order": has("penalty"),
        "groups_in_unit": has("groups") or has("groups_layers"),
        "recomputed": draw.word("recompute") is not None,
        "fused": has("fused"),
        "not_elementwise": has("adafactor"),
        "splits_unevenly": draw.splits and bool(draw.width % 4),
        **_frozen(draw),
    }
    yield from (trait for trait, there in known.items() if there)


def _frozen(draw: Draw) -> dict[str, bool]:
    word = draw.word("freeze")
    in_unit = word in ("frozen_bias", "frozen_entry") or draw.word("units") is None
    later = word in ("frozen_after_wrap", "frozen_later", "frozen_between", "thawed")
    return {
        "frozen": word is not None,
        "frozen_in_unit": word is not None and in_unit,
        "frozen_after_wrap": later,
        "frozen_later_in_unit": later and in_unit,
        "thawed": word in ("frozen_between", "thawed"),
    }


def _plan(draw: Draw) -> Mapping[str, str]:
    """How each module with parameters is split; see :attr:`Scenario.tensor_parallel`."""
    found = {"enter": "split"}
    for number, kind in enumerate(draw.layers):
        parts = _PLANS[kind]
        if kind == "attention" and draw.width % 4:
            # The heads cannot be shared out, but each projection can be split.
            parts = dict.fromkeys(parts, "split")
        for part, word in parts.items():
            found[f"layer{number}.{part}".rstrip(".")] = word
    return {**found, "leave": "head"}


_PLANS: dict[str, dict[str, str]] = {
    "linear": {"linear": "split"},
    "norm": {"norm": "norm"},
    "mlp": {"up": "column", "down": "row"},
    "attention": {"query": "column", "key": "column", "value": "column", "out": "row"},
    "convolution": {"convolution": "norm"},
    "experts": {"": "norm"},
    "scale": {"": "norm"},
    "tied": {},
    "twice": {"linear": "split"},
    "buffer": {"linear": "split"},
}
