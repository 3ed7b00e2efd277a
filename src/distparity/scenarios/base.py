"""The interface of a scenario: a model, its units, batches, a loss, an optimizer, a few steps.

A scenario knows nothing about ranks, devices or wrappers. It is plain PyTorch, and the same methods
train it in one process and in many.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn

from distparity.torch_support.precision import Precision

__all__ = ["Batch", "Scenario"]

Batch = tuple[torch.Tensor, ...]


class Scenario:
    """One training to distribute. Subclass it in a file of its own under ``scenarios/``.

    The file's name is the scenario's name. Random numbers must come from torch's global generator,
    which the training loop seeds before each call of :meth:`model` and :meth:`batch`; nothing else
    may be random.
    """

    #: The number of optimizer steps.
    steps: ClassVar[int] = 3
    #: Rows of the global batch per data-parallel rank and step.
    rows_per_rank: ClassVar[int] = 4
    #: Dtypes of parameters and data, by torch's names; each makes cases.
    dtypes: ClassVar[tuple[str, ...]] = ("float32", "float64")
    #: An anchor is in the default selection in all its dtypes and world sizes, with every strategy.
    #: Like :attr:`slow`, it is not inherited: each class declares it.
    anchor: ClassVar[bool] = False
    #: Only in the selection ``full``.
    slow: ClassVar[bool] = False
    #: A model of millions of parameters: only in the selection ``large``, with the core strategies. Like
    #: :attr:`slow`, it is not inherited.
    large: ClassVar[bool] = False
    #: Bytes of memory, and as many of the disk, that the machine must have; 0: nobody asks.
    memory: ClassVar[int] = 0
    #: The number of micro-batches per step; their gradients accumulate.
    micro_batches: ClassVar[int] = 1
    #: Whether ranks exchange gradients only with the last micro-batch (``no_sync``), or with each.
    exchange_last_only: ClassVar[bool] = True
    #: The norm to which all gradients together are clipped before the optimizer's step.
    clip_norm: ClassVar[float | None] = None
    #: The kind of that norm: 1, 2 or infinity.
    clip_kind: ClassVar[float] = 2.0
    #: Whether the norm that clipping returns is compared as well.
    compares_norm: ClassVar[bool] = False
    #: The largest absolute value to which every element of every gradient is clipped.
    clip_value: ClassVar[float | None] = None
    #: The loss scale of a ``GradScaler``, which skips a step whose gradients overflow.
    loss_scale: ClassVar[float | None] = None
    #: After this step (from 0), save everything and continue with a new model that loads it. The
    #: result must be the same as without saving, which is what the reference runs do.
    reload_after: ClassVar[int | None] = None
    #: The form of saving: ``full`` or ``sharded`` state dicts, or a distributed ``checkpoint`` on disk.
    reload_by: ClassVar[str] = "full"
    #: After this step (from 0), the first half of the rows is missing: their ranks have no more batches.
    runs_out_after: ClassVar[int | None] = None
    #: Whether missing rows count with a zero gradient; otherwise the mean is over the other rows.
    missing_rows_count: ClassVar[bool] = True
    #: Whether each parameter is stepped during the backward, as soon as its gradient is ready.
    step_in_backward: ClassVar[bool] = False
    #: Whether the model is on the meta device when it is wrapped, and gets its values afterwards.
    deferred: ClassVar[bool] = False
    #: Methods of the model besides ``forward`` that :meth:`loss` calls.
    methods: ClassVar[tuple[str, ...]] = ()
    #: Whether :meth:`before_step` gets full parameters, to ``read`` or to ``write``; None: not.
    whole_parameters: ClassVar[str | None] = None
    #: Modules with parameters, by name, that the wrapper must ignore. Their gradients are averaged over
    #: the ranks by hand.
    left_alone: ClassVar[tuple[str, ...]] = ()
    #: The factor that a wrapper's own divisor puts on the mean of the gradients over ranks.
    gradient_factor: ClassVar[float] = 1.0
    #: Whether ranks compile the whole model after it is wrapped; the reference runs never do.
    compiles_whole: ClassVar[bool] = False
    #: Further features, for ``lacks`` and ``limits`` of strategies and for mutants. ``twice``: a unit is
    #: called twice in a forward. ``attention``: it uses ``F.scaled_dot_product_attention`` without a
    #: mask, along :attr:`sequence_dim`.
    traits: ClassVar[tuple[str, ...]] = ()
    #: Whether training in micro-batches gives the same gradients.
    divisible: ClassVar[bool] = True
    #: Whether all ranks but the first begin with other values, which the wrapper must replace.
    ranks_begin_apart: ClassVar[bool] = False
    #: Kinds of quantity (``buffer``, ``optimizer``, ...) that are not compared, each with its reason.
    exempt: ClassVar[Mapping[str, str]] = {}
    #: The dtypes in which units compute and ranks exchange gradients, for strategies with mixed
    #: precision; it does not apply to the oracle.
    precision: ClassVar[Precision | None] = None
    #: Units, by name, that compute in the parameters' dtype in spite of :attr:`precision`.
    kept_precise: ClassVar[tuple[str, ...]] = ()
    #: Modules, by name, with parameters of another dtype than the case's.
    other_dtypes: ClassVar[Mapping[str, str]] = {}
    #: The dtype of autocast in the forward; the oracle uses no autocast.
    autocast: ClassVar[str | None] = None
    #: The tensor parallel plan: how each module with parameters, by name, is split over ranks that
    #: share one batch. ``column``: a linear layer's output features. ``row``: its input features, after
    #: a ``column``. ``split``: its input features, with a full input. ``norm``: not split. ``head``: the
    #: classes of a cross entropy. It names all modules, or it is empty.
    tensor_parallel: ClassVar[Mapping[str, str]] = {}
    #: Among how many ranks its layers can be split at most (the number of heads); None for any number.
    most_parts: ClassVar[int | None] = None
    #: The dim of the activations between those modules that sequence parallelism may split, if any.
    sequence_dim: ClassVar[int | None] = None
    #: The pipeline stages, in the order in which they are called: the names of each stage's children.
    stages: ClassVar[tuple[tuple[str, ...], ...]] = ()
    #: The file of :meth:`state`, as ``torch.save`` writes it; empty for none.
    checkpoint: ClassVar[str] = ""

    def features(self) -> list[str]:
        """The names of the features that a strategy needs, beyond a forward, a backward and a step."""
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
        """The dtype of the forward's arithmetic; None for the case's dtype."""
        mixed = None if self.precision is None else self.precision.computes_in
        return mixed or self.autocast

    def model(self) -> nn.Module:
        """A new model on the CPU, in torch's default dtype (float64 when the training loop calls it)."""
        raise NotImplementedError

    def state(self) -> Mapping[str, Any] | None:
        """The state dict from which the model starts; None to start from :meth:`model` as it is.

        By default, :attr:`checkpoint`: a state dict, or a dict that has it under ``model``,
        ``model_state_dict`` or ``state_dict``.
        """
        if not self.checkpoint:
            return None
        if Path(self.checkpoint).suffix == ".safetensors":
            load: Any = import_module("safetensors.torch").load_file
            return load(self.checkpoint)  # type: ignore[no-any-return]
        found = torch.load(self.checkpoint, map_location="cpu", weights_only=True)
        keys = [key for key in ("model", "model_state_dict", "state_dict") if key in found]
        return found[keys[0]] if keys else found  # type: ignore[no-any-return]

    def units(self, model: nn.Module) -> list[nn.Module]:
        """The submodules that a sharding strategy wraps separately, innermost first."""
        return []

    def batch(self, rows: int) -> Batch:
        """A global batch: tensors ``[rows, ...]`` on the CPU. It is called once per step."""
        raise NotImplementedError

    def loss(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        """The *mean* over the rows of ``batch`` of a loss per row: a tensor of shape ``[]``.

        It must be a mean, so that the mean of the ranks' losses is that of the global batch.
        """
        raise NotImplementedError

    def losses(self, model: nn.Module, batch: Batch) -> list[torch.Tensor]:
        """Terms whose sum is :meth:`loss`; ``backward`` is called on each, in this order."""
        return [self.loss(model, batch)]

    def groups(self, named: dict[str, nn.Parameter]) -> Iterable[Any]:
        """The optimizer's parameters, or parameter groups with options, from parameters by name."""
        return named.values()

    def optimizer(self, parameters: Iterable[Any]) -> torch.optim.Optimizer:
        """The optimizer. SGD with momentum shows a gradient of the wrong scale, unlike Adam."""
        return torch.optim.SGD(parameters, lr=0.1, momentum=0.9)

    def schedule(
        self, optimizer: torch.optim.Optimizer
    ) -> torch.optim.lr_scheduler.LRScheduler | None:
        """The learning rate scheduler, which is stepped after each optimizer step; None for none."""
        return None

    # -- hooks; ``model`` is the object that :meth:`model` returned, with wrapped submodules ---------

    def before_wrap(self, model: nn.Module) -> None:
        """Called once in ranks, before the model is wrapped, for example to add checkpointing to units.

        It must not change the mathematics: the reference runs do not call it.
        """

    def original_name(self, name: str) -> str:
        """The name of a parameter or buffer before :meth:`before_wrap`, from its name afterwards."""
        return name

    def after_wrap(self, model: nn.Module) -> None:
        """Called once, after the model is wrapped and before the optimizer is made.

        Random numbers that it draws on the CPU (``torch.randn``, ``normal_``) are the same on every rank
        and in the reference runs, as long as a tensor is whole: one that is sharded gets others.
        """

    def before_step(self, model: nn.Module, step: int) -> None:
        """Called before each step, on every rank and in the reference runs."""

    def idle(self, step: int) -> Collection[str]:
        """Names of parameters without a gradient at a step. All others must have one that is not zero."""
        return ()
