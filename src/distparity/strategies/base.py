"""The interface of a strategy: wrap a model, and read its full state back.

A strategy knows nothing about the scenario that it runs: it gets a model, the submodules to wrap
separately, and the context of its rank.
"""

from __future__ import annotations

import copy
import os
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar
from weakref import WeakKeyDictionary

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed import checkpoint
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    get_state_dict,
    set_model_state_dict,
    set_state_dict,
)

from distparity.core.known_limit import Limit
from distparity.strategies.spelling import Spelling
from distparity.torch_support.precision import Precision

if TYPE_CHECKING:
    from distparity.devices.context import RankContext
    from distparity.scenarios import Batch, Scenario

__all__ = [
    "Pending",
    "Strategy",
    "Tensors",
    "parameters_in",
    "plain_state",
    "state_keys",
    "state_of",
]

Tensors = dict[str, "torch.Tensor | None"]


class Pending(Mapping[str, "torch.Tensor | None"]):
    """Full tensors by name that ranks gather at the first look.

    The first look is a collective call on all ranks. The values are those from when this was made,
    and share no memory with the model.
    """

    #: The tensors, once they have been gathered.
    found: Tensors | None = None

    def gather(self) -> None:
        """Gather the tensors into :attr:`found`, with all others that wait for it."""
        raise NotImplementedError

    def _look(self) -> Tensors:
        if self.found is None:
            self.gather()
        assert self.found is not None
        return self.found

    def __getitem__(self, name: str) -> torch.Tensor | None:
        return self._look()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._look())

    def __len__(self) -> int:
        return len(self._look())


_FULL = StateDictOptions(full_state_dict=True)


class Strategy:
    """One way to distribute training. Subclass it in a file of its own under ``strategies/``."""

    #: The strategy's name in a case.
    name: ClassVar[str]
    #: A description in one line.
    title: ClassVar[str]
    #: ``core`` runs every scenario in the default selection, ``variant`` only some, ``drawn`` only drawn
    #: scenarios, ``ordered`` only those of the selection ``order``.
    tier: ClassVar[str] = "variant"
    limits: ClassVar[tuple[Limit, ...]] = ()
    #: Features of a scenario (:meth:`Scenario.features`) and dtypes of a case that it cannot run, each with
    #: the reason in one sentence: torch's documentation excludes it, never promises it, or its rounding
    #: alone may be as large as what is compared.
    lacks: ClassVar[Mapping[str, str]] = {}
    #: Features without which the strategy has nothing to do, each with the reason in one sentence.
    needs: ClassVar[Mapping[str, str]] = {}
    #: The smallest world size for which the strategy is defined, and the number it must be a multiple of.
    least_ranks: ClassVar[int] = 1
    ranks_multiple_of: ClassVar[int] = 1
    #: The largest world size for which it is defined; None for any.
    most_ranks: ClassVar[int | None] = None
    #: Whether it can wrap a model on the meta device.
    defers: bool = False
    #: Features for which a variant exists: by default it runs the scenarios that have one of them.
    made_for: ClassVar[tuple[str, ...]] = ()
    #: Into how many parts per rank of the world it cuts a model: its ``layers`` or its ``stages``.
    cuts: ClassVar[Mapping[str, int]] = {}
    #: Whether every rank holds full parameters between steps.
    replicates: ClassVar[bool] = False
    #: The gradient reduction dtype, by torch's name; None for the case's dtype.
    reduce_dtype: ClassVar[str | None] = None

    #: Whether a gradient goes through two matrix products of its own size, as in PowerSGD.
    multiplies: ClassVar[bool] = False
    #: Whether a mutant can change the exchange of gradients and parameters: it uses collectives that
    #: Python calls, or an object that takes a communication hook (:meth:`reducers`).
    exchanges: ClassVar[bool] = True

    #: Whether only the first rank's rows and losses count, because inputs enter and leave there.
    enters_at_first: ClassVar[bool] = False

    #: torch's device type of a model's parameters between steps, if it is not the rank's own.
    parameters_on: ClassVar[str | None] = None

    #: Whether it is one process with all rows.
    alone: ClassVar[bool] = False
    #: The resume world size: how many ranks continue from a checkpoint, in a world of their own.
    resume_world_size: ClassVar[int | None] = None

    #: Declarations of the scenario that :meth:`suit` copied for :meth:`wrap`.
    precision: Precision | None = None
    kept_precise: tuple[str, ...] = ()
    left_alone: tuple[str, ...] = ()
    gradient_factor: float = 1.0

    def suit(self, scenario: Scenario) -> Strategy:
        """A copy of the strategy with the declarations of a scenario."""
        suited = copy.copy(self)
        suited.precision = scenario.precision
        suited.kept_precise = scenario.kept_precise
        suited.left_alone = scenario.left_alone
        suited.gradient_factor = scenario.gradient_factor
        return suited

    def phase(self, number: int) -> Strategy:
        """The strategy for phase ``number`` of a case, from 0; each phase has its own world."""
        return self

    def wrap(self, model: nn.Module, units: Sequence[nn.Module], context: RankContext) -> nn.Module:
        """Distribute ``model``; returns the wrapped model.

        ``model`` is on ``context.device`` and equal on every rank. A scenario may ask for a model on
        the meta device, or with other values on other ranks. ``units`` are its submodules to wrap
        separately, innermost first.
        """
        raise NotImplementedError

    def spelled(self, context: RankContext) -> Spelling | None:
        """How a program writes the strategy; None where none does.

        A subclass that trains by other methods is not written, unless it spells itself.
        """
        return None

    def attempt(self, context: RankContext, dtype: torch.dtype, features: Collection[str]) -> None:
        """Run the smallest training, which torch refuses if one of :attr:`limits` holds.

        Raises torch's refusal.
        """
        # Large enough for every rank to have a shard: a rank without one would not be refused.
        model = self.wrap(nn.Linear(16, 16).to(context.device, dtype), [], context)
        model(torch.ones(1, 16, device=context.device, dtype=dtype)).sum().backward()
        if "clip_norm" in features:
            self.clip(model, 1.0)

    def parameters(self, model: nn.Module) -> Tensors | Pending:
        """Every full parameter, by its name before :meth:`wrap`; a collective call on all ranks.

        The tensors may share memory with the model: the caller copies what it keeps.
        """
        raise NotImplementedError

    def gradients(self, model: nn.Module) -> Tensors | Pending:
        """Every full gradient, by the parameter's name before :meth:`wrap`; None if there is none.

        They have the parameters' full shapes. A collective call on all ranks.
        """
        raise NotImplementedError

    def buffers(self, model: nn.Module) -> Tensors:
        """This rank's buffers, by their names before :meth:`wrap`."""
        return {self.clean(name): buffer for name, buffer in model.named_buffers()}

    @contextmanager
    def no_sync(self, model: nn.Module) -> Iterator[None]:
        """Within it, a backward adds to this rank's gradients without exchanging them."""
        with model.no_sync():  # type: ignore[operator]
            yield

    def uneven(self, model: nn.Module, missing_count: bool) -> AbstractContextManager[None]:
        """Within it, some ranks may make fewer steps than others.

        ``missing_count`` says whether a gradient is a mean over all ranks or over those that go on.
        """
        raise NotImplementedError

    def whole(self, model: nn.Module, *, write: bool) -> AbstractContextManager[None]:
        """Within it, modules have full parameters; with ``write``, changes to them are kept."""
        raise NotImplementedError

    def average(self, model: nn.Module, modules: Collection[str]) -> None:
        """Average the gradients of these modules over all ranks, because the wrapper ignores them."""
        for name, parameter in model.named_parameters():
            if self.clean(name).startswith(tuple(f"{module}." for module in modules)):
                dist.all_reduce(parameter.grad)
                assert parameter.grad is not None
                parameter.grad.div_(dist.get_world_size())

    def clip(self, model: nn.Module, norm: float, kind: float = 2.0) -> torch.Tensor:
        """Scale all gradients so that their norm, over all parameters and ranks, is at most ``norm``.

        ``kind`` is the kind of norm: 1, 2 or infinity. Returns the norm before that: a tensor of shape
        ``[]``, or a DTensor.
        """
        return nn.utils.clip_grad_norm_(model.parameters(), norm, norm_type=kind)

    def clip_value(self, model: nn.Module, value: float) -> None:
        """Clip every element of every gradient to at most ``value`` in absolute value."""
        nn.utils.clip_grad_value_(model.parameters(), value)

    def scaler(self, context: RankContext, scale: float) -> Any:
        """A ``GradScaler`` with the initial ``scale``, which does not grow during the few steps."""
        return torch.amp.GradScaler(context.device.type, init_scale=scale, growth_interval=10**6)

    def fill(self, model: nn.Module, state: dict[str, Any], context: RankContext) -> None:
        """Load a full state dict into a model that was wrapped on the meta device."""
        set_model_state_dict(model, state, options=_FULL)

    def step_in_backward(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        make: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer],
    ) -> None:
        """Step each parameter in a hook during the backward, by its own optimizer from ``make``.

        These optimizers share the state of ``optimizer``, which makes no steps itself.
        """
        for parameter in model.parameters():
            own = make([parameter])
            own.state = optimizer.state
            parameter.register_post_accumulate_grad_hook(lambda _, own=own: own.step())

    def enter_by(self, model: nn.Module, method: str) -> None:
        """Make a method of the model run the wrapper's hooks, as ``forward`` does."""
        raise NotImplementedError

    def optimizer_state(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> Tensors:
        """The full optimizer state, by ``name.key``; a collective call on all ranks."""
        found: Any = get_optimizer_state_dict(model, optimizer, options=_FULL)["state"]
        return {
            f"{self.clean(name)}.{key}": value
            for name, state in found.items()
            for key, value in state.items()
            if isinstance(value, torch.Tensor)
        }

    #: Whether :meth:`state` shows the state of every parameter.
    shows_state: ClassVar[bool] = False

    def state(
        self, model: nn.Module, optimizer: torch.optim.Optimizer
    ) -> Iterable[Tensors | Pending]:
        """The optimizer's state between two steps, by ``name.key``: what has its parameter's shape.

        Unlike :meth:`optimizer_state`, it uses none of torch's state-dict helpers. A rank may have only
        some parameters' state. The caller copies what it keeps.
        """
        return ()

    def reload(
        self,
        old: tuple[nn.Module, torch.optim.Optimizer],
        new: tuple[nn.Module, torch.optim.Optimizer],
        by: str = "full",
    ) -> None:
        """Copy the state of a model and its optimizer to another model and optimizer.

        ``by`` is the form: ``full`` or ``sharded`` state dicts, or sharded ones through a distributed
        ``checkpoint`` on disk.
        """
        options = _FULL if by == "full" else StateDictOptions()
        if by == "checkpoint":
            with _common_folder() as folder:
                self.save(*old, folder)
                _exchange(folder)
                self.load(*new, folder)
            return
        model, optimizer = get_state_dict(*old, options=options)
        set_state_dict(*new, model_state_dict=model, optim_state_dict=optimizer, options=options)

    def save(self, model: nn.Module, optimizer: torch.optim.Optimizer, folder: str) -> None:
        """Write a distributed checkpoint; a collective call on all ranks."""
        state = get_state_dict(model, optimizer)
        checkpoint.save({"model": state[0], "optimizer": state[1]}, checkpoint_id=folder)

    def load(self, model: nn.Module, optimizer: torch.optim.Optimizer, folder: str) -> None:
        """Load a checkpoint that :meth:`save` of any strategy wrote, with any number of ranks."""
        state = get_state_dict(model, optimizer)
        found: dict[str, Any] = {"model": state[0], "optimizer": state[1]}
        checkpoint.load(found, checkpoint_id=folder)
        set_state_dict(
            model,
            optimizer,
            model_state_dict=found["model"],
            optim_state_dict=found["optimizer"],
        )

    def clean(self, name: str) -> str:
        """The name of a parameter or buffer before :meth:`wrap`, from its name afterwards."""
        return name

    def rows(self, batch: Batch, context: RankContext) -> Batch:
        """This rank's rows of a global batch: by default, the rank-th of ``world_size`` chunks."""
        return tuple(tensor.chunk(context.world_size)[context.rank] for tensor in batch)

    #: Whether a rank has a part of each of its rows (a part of the sequence), and its loss is over those.
    splits_rows: ClassVar[bool] = False

    def rows_shared_by(self, context: RankContext) -> int:
        """The number of ranks that train on the same rows. A case that passes with another is an error."""
        return 1

    def learn(
        self,
        losses: Callable[[nn.Module, Batch], Iterable[torch.Tensor]],
        model: nn.Module,
        batch: Batch,
        weight: float,
        turn: tuple[int, int],
        *,
        scale: Callable[[torch.Tensor], torch.Tensor],
    ) -> torch.Tensor:
        """Run forward and backward for the ``losses`` of a micro-batch, each times ``weight``.

        ``turn`` is the micro-batch's number, from 0, and the number of micro-batches. ``backward`` is
        called on ``scale(loss)``. Returns the sum of the unscaled losses: a detached tensor of shape
        ``[]`` on the rank's device.
        """
        shares = [loss * weight for loss in losses(model, batch)]
        for number, share in enumerate(shares):
            # They may be of one graph.
            self.backward(scale(share), *turn, keep=number < len(shares) - 1)
        return torch.stack([share.detach() for share in shares]).sum(0)

    def reducers(self, model: nn.Module) -> list[Any]:
        """The objects that take a communication hook for gradients (``register_comm_hook``).

        None if Python calls the collectives one by one.
        """
        return []

    def backward(self, loss: torch.Tensor, number: int, count: int, *, keep: bool = False) -> None:
        """Run the backward of micro-batch ``number`` of ``count``, on its share of the rank's loss.

        With ``keep``, another backward of the same graph may follow.
        """
        loss.backward(retain_graph=keep)

    def optimizer(self, scenario: Scenario, model: nn.Module) -> torch.optim.Optimizer:
        """The scenario's optimizer for the wrapped model's parameters."""
        named = {self.clean(name): parameter for name, parameter in model.named_parameters()}
        return scenario.optimizer(scenario.groups(named))


def state_of(optimizer: Any, parameter: torch.Tensor, key: str) -> torch.Tensor | None:
    """One tensor of a parameter's state, if there is one of the parameter's shape and dtype."""
    found = optimizer.state.get(parameter, {}).get(key)
    like = isinstance(found, torch.Tensor) and found.shape == parameter.shape
    return found if like and found.dtype is parameter.dtype else None


def state_keys(optimizer: torch.optim.Optimizer) -> list[str]:
    """The names under which an optimizer keeps state; equal on all ranks.

    A rank whose shards are empty has no state to read them from. A step on numbers that are not the
    model's tells them.
    """
    if optimizer not in _KEYS:
        # Some take vectors and matrices alike, some keep other state of each, some take matrices only.
        shapes = ((2,), (2, 2))
        _KEYS[optimizer] = sorted(set().union(*(_keys_of(optimizer, one) for one in shapes)))
    return _KEYS[optimizer]


def _keys_of(optimizer: torch.optim.Optimizer, shape: tuple[int, ...]) -> set[str]:
    """The names of the state of parameters of a shape; none if the optimizer takes no such parameters."""
    twin = copy.copy(optimizer)
    twin.state = defaultdict(dict)
    twin.param_groups = [
        {**group, "params": [nn.Parameter(torch.ones(shape))]} for group in optimizer.param_groups
    ]
    for group in twin.param_groups:
        group["params"][0].grad = torch.ones(shape)
    found = twin
    try:
        twin.step()
    except KeyError:
        # It made the state of all parameters when it was made, empty shards included (Adagrad).
        found = optimizer
    except ValueError:
        return set()
    return {key for state in found.state.values() for key in state}


_KEYS: WeakKeyDictionary[torch.optim.Optimizer, list[str]] = WeakKeyDictionary()


def plain_state(
    model: nn.Module, optimizer: torch.optim.Optimizer, clean: Callable[[str], str]
) -> Tensors:
    """The state of parameters that this rank has in full."""
    return {
        f"{clean(name)}.{key}": value
        for name, parameter in model.named_parameters()
        for key in optimizer.state.get(parameter, {})
        if (value := state_of(optimizer, parameter, key)) is not None
    }


def parameters_in(model: nn.Module, modules: Sequence[str]) -> dict[str, nn.Parameter]:
    """The parameters of the named modules, by full name."""
    return {
        f"{module}.{name}": parameter
        for module in modules
        for name, parameter in model.get_submodule(module).named_parameters()
    }


@contextmanager
def _common_folder() -> Iterator[str]:
    """Within it, a folder that all ranks can write and read.

    If they are on several machines, each has its own, and :func:`_exchange` makes them equal.
    """
    # Each rank has its own folder for temporary files; rank 0's is used by all.
    folder = [tempfile.mkdtemp()]
    if dist.is_initialized() and not _on_several_machines():
        dist.broadcast_object_list(folder, src=0)
    try:
        yield folder[0]
        if dist.is_initialized():
            # Delete nothing before all ranks have read.
            dist.barrier()
    finally:
        shutil.rmtree(folder[0], ignore_errors=True)


def _exchange(folder: str) -> None:
    """Give every rank the files that the ranks on other machines wrote; a collective call."""
    if not _on_several_machines():
        return
    mine = {
        str(path.relative_to(folder)): path.read_bytes()
        for path in Path(folder).rglob("*")
        if path.is_file()
    }
    every: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(every, mine)
    for files in every:
        for name, data in files.items():
            if name not in mine:
                Path(folder, name).write_bytes(data)


def _on_several_machines() -> bool:
    names = ("LOCAL_WORLD_SIZE", "WORLD_SIZE")
    return dist.is_initialized() and len({os.environ.get(name) for name in names}) > 1
