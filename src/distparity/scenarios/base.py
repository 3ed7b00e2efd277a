"""What a scenario says: a model, its units, batches, a loss, an optimizer, a few steps.

A scenario knows nothing of ranks, devices or wrappers. It is written in plain PyTorch, and the same
methods train it in one process and in many.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any, ClassVar

import torch
from torch import nn

from distparity.torch_support.precision import Precision

__all__ = ["Batch", "Scenario"]

Batch = tuple[torch.Tensor, ...]


class Scenario:
    """One thing worth training. Subclass it in a file of its own under ``scenarios/``.

    The case's name is the file's name. Randomness comes from torch's global generator, which the
    training loop seeds before each call; nothing else may be random.
    """

    #: Optimizer steps.
    steps: ClassVar[int] = 3
    #: Rows of the batch that each data-parallel rank takes at each step.
    rows_per_rank: ClassVar[int] = 4
    #: Dtypes of parameters and data, by torch's names.
    dtypes: ClassVar[tuple[str, ...]] = ("float32", "float64")
    #: An anchor is in the default selection in all its dtypes and world sizes, under every strategy.
    #: Like :attr:`slow`, said by each class for itself: it is not inherited.
    anchor: ClassVar[bool] = False
    #: In the selection ``full`` only.
    slow: ClassVar[bool] = False
    #: Micro-batches into which a rank's rows are cut, whose gradients accumulate.
    micro_batches: ClassVar[int] = 1
    #: Whether gradients are exchanged with the last micro-batch only, or with each.
    exchange_last_only: ClassVar[bool] = True
    #: Clip the norm of all gradients together to this before the optimizer's step.
    clip_norm: ClassVar[float | None] = None
    #: Which norm that is.
    clip_kind: ClassVar[float] = 2.0
    #: Clip every element of every gradient to within this.
    clip_value: ClassVar[float | None] = None
    #: Scale the loss by this with a ``GradScaler``, which skips a step whose gradients overflow.
    loss_scale: ClassVar[float | None] = None
    #: After this step (0 is the first) save everything, and go on from it with a new model. That must
    #: be the same as just going on, which is what the reference runs do.
    reload_after: ClassVar[int | None] = None
    #: What is saved: ``full`` or ``sharded`` state dicts, or a distributed ``checkpoint`` on disk.
    reload_by: ClassVar[str] = "full"
    #: After this step the first half of the rows is missing: their ranks have run out of batches.
    runs_out_after: ClassVar[int | None] = None
    #: Whether missing rows count, with a gradient of nothing; otherwise the mean is over the others.
    missing_rows_count: ClassVar[bool] = True
    #: Each parameter is stepped within the backward, as soon as its gradient is there.
    step_in_backward: ClassVar[bool] = False
    #: The model is on the meta device when it is wrapped, and gets its numbers afterwards.
    deferred: ClassVar[bool] = False
    #: Methods besides ``forward`` through which :meth:`loss` enters the model.
    methods: ClassVar[tuple[str, ...]] = ()
    #: Whether :meth:`before_step` is given whole parameters, to ``read`` or to ``write``.
    whole_parameters: ClassVar[str | None] = None
    #: Modules with parameters, by name, that a wrapper is told to leave alone. The gradients there
    #: are averaged over the ranks by hand.
    left_alone: ClassVar[tuple[str, ...]] = ()
    #: The gradient is so many times the mean over ranks, by a divisor of the wrapper's own.
    gradient_factor: ClassVar[float] = 1.0
    #: The whole model is compiled after it was wrapped, in ranks; the reference runs are not.
    compiles_whole: ClassVar[bool] = False
    #: What else is special about it: data that a strategy's ``lacks`` and ``limits`` and the mutants
    #: refer to. ``twice``: a unit is called twice in a forward. ``attention``: by
    #: ``F.scaled_dot_product_attention``, without a mask, among what :attr:`sequence_dim` counts.
    traits: ClassVar[tuple[str, ...]] = ()
    #: Whether the rows can be taken in micro-batches with the same gradients in the end.
    divisible: ClassVar[bool] = True
    #: Every rank but the first begins with other numbers, which wrapping must put right.
    ranks_begin_apart: ClassVar[bool] = False
    #: Kinds of quantity (``buffer``, ``optimizer``, ...) that are not compared, each with the reason.
    exempt: ClassVar[Mapping[str, str]] = {}
    #: Dtypes in which units compute and gradients travel; a strategy that can is told, the oracle and
    #: its float64 are not.
    precision: ClassVar[Precision | None] = None
    #: Units, by name, that compute in the parameters' own dtype whatever :attr:`precision` says.
    kept_precise: ClassVar[tuple[str, ...]] = ()
    #: Modules, by name, with parameters of another dtype than the case's.
    other_dtypes: ClassVar[Mapping[str, str]] = {}
    #: The dtype to which the forward runs under autocast, but for the oracle's.
    autocast: ClassVar[str | None] = None
    #: How modules with parameters, by name, split among ranks that share one batch: ``split`` (a
    #: linear layer's input features, of a whole input), ``column`` (its output features), ``row``
    #: (the input features that a ``column`` before it left), ``norm`` (nothing), ``head`` (the
    #: classes of a cross entropy). All modules, or there is no such plan.
    tensor_parallel: ClassVar[Mapping[str, str]] = {}
    #: The dim of activations between those modules that may be split instead, if there is one.
    sequence_dim: ClassVar[int | None] = None
    #: The model as stages that are called one after the other: of each, the names of its children.
    stages: ClassVar[tuple[tuple[str, ...], ...]] = ()

    def features(self) -> list[str]:
        """What the scenario asks of a strategy beyond a forward, a backward and a step."""
        asked = {
            "micro_batches": self.micro_batches > 1,
            "no_sync": self.micro_batches > 1 and self.exchange_last_only,
            "exchanges_often": self.micro_batches > 1 and not self.exchange_last_only,
            "clip_norm": self.clip_norm is not None,
            "clip_value": self.clip_value is not None,
            "loss_scale": self.loss_scale is not None,
            "reload": self.reload_after is not None,
            f"reload_{self.reload_by}": self.reload_after is not None,
            "step_in_backward": self.step_in_backward,
            "deferred": self.deferred,
            "methods": bool(self.methods),
            "begins_with_rank_0": self.ranks_begin_apart,
            "precision": self.precision is not None,
            "buffer_precision": self.precision is not None
            and self.precision.buffers_in is not None,
            "several_dtypes": bool(self.other_dtypes),
            "uneven_batches": self.runs_out_after is not None,
            "missing_rows_left_out": not self.missing_rows_count,
            "whole_parameters": self.whole_parameters is not None,
            "writes_whole_parameters": self.whole_parameters == "write",
            "left_alone": bool(self.left_alone),
            "gradient_factor": self.gradient_factor != 1,
            "compiles_whole": self.compiles_whole,
            "tensor_parallel": bool(self.tensor_parallel),
            "sequence": bool(self.tensor_parallel) and self.sequence_dim is not None,
            "head": "head" in self.tensor_parallel.values(),
            "stages": bool(self.stages),
        }
        return [*self.traits, *(feature for feature, wanted in asked.items() if wanted)]

    def computes_in(self) -> str | None:
        """The dtype of a forward's arithmetic, where it is not the case's own."""
        mixed = None if self.precision is None else self.precision.computes_in
        return mixed or self.autocast

    def model(self) -> nn.Module:
        """A fresh model on the CPU in torch's default dtype."""
        raise NotImplementedError

    def units(self, model: nn.Module) -> list[nn.Module]:
        """Submodules that a sharding strategy shards by themselves, innermost first."""
        return []

    def batch(self, rows: int) -> Batch:
        """A global batch: tensors whose dim 0 is ``rows``. Every step draws another one."""
        raise NotImplementedError

    def loss(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        """A scalar: the *mean* over the rows of ``batch`` of a loss per row.

        A mean, so that the mean of the ranks' losses is the global batch's.
        """
        raise NotImplementedError

    def losses(self, model: nn.Module, batch: Batch) -> list[torch.Tensor]:
        """What adds up to :meth:`loss`, in the order in which each has a backward of its own."""
        return [self.loss(model, batch)]

    def groups(self, named: dict[str, nn.Parameter]) -> Iterable[Any]:
        """What an optimizer is made of: parameters, or groups of them with options of their own."""
        return named.values()

    def optimizer(self, parameters: Iterable[Any]) -> torch.optim.Optimizer:
        """SGD with momentum: unlike Adam's, its step shows a gradient of the wrong scale."""
        return torch.optim.SGD(parameters, lr=0.1, momentum=0.9)

    def schedule(
        self, optimizer: torch.optim.Optimizer
    ) -> torch.optim.lr_scheduler.LRScheduler | None:
        """What changes the learning rate after each step."""
        return None

    # -- what happens beside the steps; ``model`` is what :meth:`model` made, wrapped inside ---------

    def before_wrap(self, model: nn.Module) -> None:
        """Once, before the model is distributed: what torch offers to be put around units.

        It must leave the mathematics as it is. The reference runs leave it out.
        """

    def original_name(self, name: str) -> str:
        """A parameter's or buffer's name before :meth:`before_wrap`, from its name after."""
        return name

    def after_wrap(self, model: nn.Module) -> None:
        """Once, between wrapping the model and making the optimizer."""

    def before_step(self, model: nn.Module, step: int) -> None:
        """Before each step, on every rank alike."""

    def idle(self, step: int) -> Collection[str]:
        """Parameters that have no gradient at a step. All others must have one that is alive."""
        return ()
