"""What a strategy does: wrap a model, and read its full state back.

A strategy knows nothing of the scenario that it runs: it gets a model, the submodules that are
sharding units, and its place among the ranks.
"""

from __future__ import annotations

import copy
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

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
from distparity.torch_support.precision import Precision

if TYPE_CHECKING:
    from distparity.devices.context import RankContext
    from distparity.scenarios import Batch, Scenario

__all__ = ["Pending", "Strategy", "Tensors", "parameters_in"]

Tensors = dict[str, "torch.Tensor | None"]


class Pending(Mapping[str, "torch.Tensor | None"]):
    """Full tensors by name that ranks bring together when somebody looks at one.

    All ranks look together. They are what they were when this was made, and share memory with none.
    """


_FULL = StateDictOptions(full_state_dict=True)


class Strategy:
    """One way to distribute training. Subclass it in a file of its own under ``strategies/``."""

    #: The strategy's name in a case.
    name: ClassVar[str]
    #: One line for people.
    title: ClassVar[str]
    #: ``core`` runs every scenario by default, ``variant`` some of them.
    tier: ClassVar[str] = "variant"
    limits: ClassVar[tuple[Limit, ...]] = ()
    #: Features of a scenario (:meth:`Scenario.features`) with which it does not go together, each
    #: with the sentence that says so: what the documentation refuses, or never promised.
    lacks: ClassVar[Mapping[str, str]] = {}
    #: Features without which there is nothing to do for it, each with the sentence that says why.
    needs: ClassVar[Mapping[str, str]] = {}
    #: The smallest world in which it is what its name says, and what the size is a multiple of.
    least_ranks: ClassVar[int] = 1
    ranks_multiple_of: ClassVar[int] = 1
    #: The largest world in which it is; of any size when None.
    most_ranks: ClassVar[int | None] = None
    #: Whether it can wrap a model on the meta device.
    defers: bool = False
    #: Features for which a variant is there: it runs the scenarios that have one by default.
    made_for: ClassVar[tuple[str, ...]] = ()
    #: Whether every rank holds whole parameters between steps.
    replicates: ClassVar[bool] = False
    #: The dtype, by torch's name, in which gradients travel when it is not the case's own.
    reduce_dtype: ClassVar[str | None] = None

    #: Whether a gradient goes through two products of matrices of its size on its way.
    multiplies: ClassVar[bool] = False
    #: Whether gradients and parameters are exchanged where a fault can be put in their way: by
    #: collectives that are called one by one from Python, or by what takes a communication hook
    #: (:meth:`reducers`).
    exchanges: ClassVar[bool] = True

    #: Whether only the first rank's rows and losses count: inputs enter and leave there.
    enters_at_first: ClassVar[bool] = False

    #: torch's device type of a model's parameters between steps, where it is not the rank's own.
    parameters_on: ClassVar[str | None] = None

    #: One process, which has all rows.
    alone: ClassVar[bool] = False
    #: How many ranks training goes on with from a checkpoint, in a world of their own.
    resume_world_size: ClassVar[int | None] = None

    #: What :meth:`suit` read of the scenario, for :meth:`wrap`.
    precision: Precision | None = None
    kept_precise: tuple[str, ...] = ()
    left_alone: tuple[str, ...] = ()
    gradient_factor: float = 1.0

    def suit(self, scenario: Scenario) -> Strategy:
        """The strategy for a scenario: a copy that has read its plan."""
        suited = copy.copy(self)
        suited.precision = scenario.precision
        suited.kept_precise = scenario.kept_precise
        suited.left_alone = scenario.left_alone
        suited.gradient_factor = scenario.gradient_factor
        return suited

    def phase(self, number: int) -> Strategy:
        """The strategy in world ``number`` of those in which it is trained; 0 is the first."""
        return self

    def wrap(self, model: nn.Module, units: Sequence[nn.Module], context: RankContext) -> nn.Module:
        """Distribute ``model``, which is on the place's device and equal on every rank."""
        raise NotImplementedError

    def attempt(self, context: RankContext, dtype: torch.dtype, features: Collection[str]) -> None:
        """The smallest training that torch refuses where one of :attr:`limits` holds."""
        # Large enough for every rank to have a part of it: one without would not be refused.
        model = self.wrap(nn.Linear(16, 16).to(context.device, dtype), [], context)
        model(torch.ones(1, 16, device=context.device, dtype=dtype)).sum().backward()
        if "clip_norm" in features:
            self.clip(model, 1.0)

    def parameters(self, model: nn.Module) -> Tensors | Pending:
        """Every full parameter, by the name it had before :meth:`wrap`; all ranks call together.

        The tensors may share memory with the model: the caller copies what it keeps.
        """
        raise NotImplementedError

    def gradients(self, model: nn.Module) -> Tensors | Pending:
        """Every full gradient by the parameter's name, None where there is none; likewise."""
        raise NotImplementedError

    def buffers(self, model: nn.Module) -> Tensors:
        """This rank's buffers by the name each had before :meth:`wrap`."""
        return {self.clean(name): buffer for name, buffer in model.named_buffers()}

    @contextmanager
    def no_sync(self, model: nn.Module) -> Iterator[None]:
        """Within it, a backward adds to the gradients of this rank and exchanges nothing."""
        with model.no_sync():  # type: ignore[operator]
            yield

    def uneven(self, model: nn.Module, missing_count: bool) -> AbstractContextManager[None]:
        """Within it, some ranks may make fewer steps than others.

        ``missing_count`` says whether a gradient is a mean over all ranks or over those that go on.
        """
        raise NotImplementedError

    def whole(self, model: nn.Module, *, write: bool) -> AbstractContextManager[None]:
        """Within it, modules have whole parameters; with ``write``, what is written there stays."""
        raise NotImplementedError

    def average(self, model: nn.Module, modules: Collection[str]) -> None:
        """The mean over all ranks of the gradients in these modules, which a wrapper leaves alone."""
        for name, parameter in model.named_parameters():
            if self.clean(name).startswith(tuple(f"{module}." for module in modules)):
                dist.all_reduce(parameter.grad)
                assert parameter.grad is not None
                parameter.grad.div_(dist.get_world_size())

    def clip(self, model: nn.Module, norm: float, kind: float = 2.0) -> None:
        """Scale all gradients so that their norm, over all parameters and ranks, is at most ``norm``.

        ``kind`` says which norm: 1, 2, infinity.
        """
        nn.utils.clip_grad_norm_(model.parameters(), norm, norm_type=kind)

    def clip_value(self, model: nn.Module, value: float) -> None:
        """Bring every element of every gradient to within ``value``."""
        nn.utils.clip_grad_value_(model.parameters(), value)

    def scaler(self, context: RankContext, scale: float) -> Any:
        """A ``GradScaler`` that begins with ``scale``, and does not grow while we watch."""
        return torch.amp.GradScaler(context.device.type, init_scale=scale, growth_interval=10**6)

    def fill(self, model: nn.Module, state: dict[str, Any], context: RankContext) -> None:
        """Give a model that was wrapped without numbers those of a full state dict."""
        set_model_state_dict(model, state, options=_FULL)

    def step_in_backward(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        make: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer],
    ) -> None:
        """Step each parameter by an optimizer of its own that ``make`` makes, from a hook.

        Their state is that of ``optimizer``, which makes no steps.
        """
        for parameter in model.parameters():
            own = make([parameter])
            own.state = optimizer.state
            parameter.register_post_accumulate_grad_hook(lambda _, own=own: own.step())

    def enter_by(self, model: nn.Module, method: str) -> None:
        """Have a method of the model do what ``forward`` does before and after it."""
        raise NotImplementedError

    def optimizer_state(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> Tensors:
        """The full optimizer state, ``name.key``; all ranks call together."""
        found: Any = get_optimizer_state_dict(model, optimizer, options=_FULL)["state"]
        return {
            f"{self.clean(name)}.{key}": value
            for name, state in found.items()
            for key, value in state.items()
            if isinstance(value, torch.Tensor)
        }

    def reload(
        self,
        old: tuple[nn.Module, torch.optim.Optimizer],
        new: tuple[nn.Module, torch.optim.Optimizer],
        by: str = "full",
    ) -> None:
        """Carry the state of a model and its optimizer over to another model and optimizer.

        ``by`` says in what form: ``full`` or ``sharded`` state dicts, or the latter by way of a
        distributed ``checkpoint`` on disk.
        """
        options = _FULL if by == "full" else StateDictOptions()
        if by == "checkpoint":
            with _common_folder() as folder:
                self.save(*old, folder)
                self.load(*new, folder)
            return
        model, optimizer = get_state_dict(*old, options=options)
        set_state_dict(*new, model_state_dict=model, optim_state_dict=optimizer, options=options)

    def save(self, model: nn.Module, optimizer: torch.optim.Optimizer, folder: str) -> None:
        """Write a distributed checkpoint; all ranks call together."""
        state = get_state_dict(model, optimizer)
        checkpoint.save({"model": state[0], "optimizer": state[1]}, checkpoint_id=folder)

    def load(self, model: nn.Module, optimizer: torch.optim.Optimizer, folder: str) -> None:
        """Take over what :meth:`save` wrote, by whatever strategy and however many ranks."""
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
        """A parameter's or buffer's name before :meth:`wrap`, from its name after."""
        return name

    def rows(self, batch: Batch, context: RankContext) -> Batch:
        """The rows of a global batch that are this rank's."""
        return tuple(tensor.chunk(context.world_size)[context.rank] for tensor in batch)

    #: Whether a rank has a part of each of its rows, of which its loss is, and not of whole rows.
    splits_rows: ClassVar[bool] = False

    def rows_shared_by(self, context: RankContext) -> int:
        """How many ranks train on the same rows; a passed case in which it is otherwise is an error."""
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
        """Forward and backward of the ``losses`` of a batch, times ``weight``; returns their sum.

        ``turn`` is the micro-batch's number and how many there are. What has a backward is
        ``scale`` of a loss; what is returned is not scaled, and detached.
        """
        shares = [loss * weight for loss in losses(model, batch)]
        for share in shares:
            self.backward(scale(share), *turn)
        return torch.stack([share.detach() for share in shares]).sum(0)

    def reducers(self, model: nn.Module) -> list[Any]:
        """What takes a communication hook for gradients (``register_comm_hook``); none where
        collectives are called one by one.
        """
        return []

    def backward(self, loss: torch.Tensor, number: int, count: int) -> None:
        """Backward of micro-batch ``number`` of ``count``; the loss is its share of the rank's."""
        loss.backward()

    def optimizer(self, scenario: Scenario, model: nn.Module) -> torch.optim.Optimizer:
        """The scenario's optimizer over what :meth:`wrap` made of its parameters."""
        named = {self.clean(name): parameter for name, parameter in model.named_parameters()}
        return scenario.optimizer(scenario.groups(named))


def parameters_in(model: nn.Module, modules: Sequence[str]) -> dict[str, nn.Parameter]:
    """The parameters in some modules of a model, by name."""
    return {
        f"{module}.{name}": parameter
        for module in modules
        for name, parameter in model.get_submodule(module).named_parameters()
    }


@contextmanager
def _common_folder() -> Iterator[str]:
    """A folder for files that all ranks write and read."""
    # Ranks have folders for temporary files of their own; one of them is for all.
    folder = [tempfile.mkdtemp()]
    if dist.is_initialized():
        dist.broadcast_object_list(folder, src=0)
    try:
        yield folder[0]
        if dist.is_initialized():
            # Nobody tidies up before all have read.
            dist.barrier()
    finally:
        shutil.rmtree(folder[0], ignore_errors=True)
