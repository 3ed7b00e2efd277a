"""Small trainings that come by the statements: one for each way in which wrappers order their work.

The host waits for nothing between the first and the last step: batches are on the device before, and
losses are read afterwards. A wait that the host makes by chance would hide one that torch must make.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import (
    CPUOffload,
    CPUOffloadPolicy,
    FullyShardedDataParallel,
    MixedPrecision,
    MixedPrecisionPolicy,
    ShardingStrategy,
    fully_shard,
)
from torch.distributed.fsdp._fully_shard import _fsdp_param_group
from torch.nn.parallel import DistributedDataParallel

__all__ = ["TRAININGS", "Training"]

LAYERS, WIDTH, ROWS, STEPS = 6, 16, 4, 3
Tensors = list[torch.Tensor]


@dataclass(frozen=True)
class Training:
    """One of them: returns the tensors that it computes, on the device."""

    name: str
    ranks: int
    run: Callable[[], Tensors]


TRAININGS: dict[str, Training] = {}


def _training(
    name: str, ranks: int = 2
) -> Callable[[Callable[[], Tensors]], Callable[[], Tensors]]:
    def add(run: Callable[[], Tensors]) -> Callable[[], Tensors]:
        TRAININGS[name] = Training(name, ranks, run)
        return run

    return add


def _plain(models: dict[str, Callable[[], Any]], ranks: int = 2) -> None:
    """Those that differ by their model alone, which is trained as usual."""
    for name, make in models.items():
        _training(name, ranks)(partial(_train_made, make))


def _train_made(make: Callable[[], Any]) -> Tensors:
    return _train(make())


# -- what they share -------------------------------------------------------------------------------


def _layers(*, bias: bool = True) -> Any:
    torch.manual_seed(0)
    layers = [nn.Sequential(nn.Linear(WIDTH, WIDTH, bias=bias), nn.ReLU()) for _ in range(LAYERS)]
    return nn.Sequential(*layers).to("asim")


def _batches(count: int = STEPS) -> Tensors:
    draw = torch.Generator().manual_seed(dist.get_rank())
    return [torch.randn(ROWS, WIDTH, generator=draw).to("asim") for _ in range(count)]


def _sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)


def _local(tensor: Any) -> torch.Tensor:
    found: torch.Tensor = getattr(tensor, "_local_tensor", tensor).detach()
    return found


def _train(
    model: Any,
    optimizer: Any = None,
    *,
    before: Callable[[], None] = lambda: None,
    after: Callable[[], None] = lambda: None,
    forward: Callable[[], AbstractContextManager[Any]] = nullcontext,
    batches: Tensors | None = None,
) -> Tensors:
    optimizer = _sgd(model) if optimizer is None else optimizer
    losses = []
    for batch in batches or _batches():
        before()
        with forward():
            loss = model(batch).square().sum()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        after()
        losses.append(loss.detach())
    return [*losses, *map(_local, model.parameters())]


def _accumulate(
    model: Any, exchange: Callable[[bool], AbstractContextManager[Any] | None]
) -> Tensors:
    """Two backwards a step; ``exchange`` is told before each whether it is the last one."""
    optimizer, losses = _sgd(model), []
    for number, batch in enumerate(_batches(2 * STEPS)):
        is_last = number % 2 == 1
        with exchange(is_last) or nullcontext():
            loss = model(batch).square().sum()
            loss.backward()
        losses.append(loss.detach())
        if is_last:
            optimizer.step()
            optimizer.zero_grad()
    return [*losses, *map(_local, model.parameters())]


def _accumulate_by(make: Callable[[], Any], method: str) -> Tensors:
    model = make()
    return _accumulate(model, getattr(model, method))


#: In place of an optimizer, where the steps are made in the backward.
_IN_BACKWARD = SimpleNamespace(step=lambda: None, zero_grad=lambda: None)


# -- FSDP2 -----------------------------------------------------------------------------------------


def _fsdp2(model: Any = None, **options: Any) -> Any:
    model = _layers() if model is None else model
    for layer in model:
        fully_shard(layer, **options)
    return fully_shard(model, **options)


_HALF = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.bfloat16)
_REDUCED = MixedPrecisionPolicy(reduce_dtype=torch.bfloat16)


def _replicas(**options: Any) -> Any:
    mesh = init_device_mesh("asim", (2, 1), mesh_dim_names=("replicate", "shard"))
    return _fsdp2(mesh=mesh, **options)


def _on_four(**options: Any) -> Any:
    mesh = init_device_mesh("asim", (2, 2), mesh_dim_names=("replicate", "shard"))
    return _fsdp2(mesh=mesh, **options)


_plain(
    {
        "FSDP2": _fsdp2,
        "FSDP2, reduced precision": lambda: _fsdp2(mp_policy=_HALF),
        "FSDP2, gradients reduced in bfloat16": lambda: _fsdp2(mp_policy=_REDUCED),
        "FSDP2, offload": lambda: _fsdp2(offload_policy=CPUOffloadPolicy()),
        "FSDP2, hybrid": lambda: _replicas(mp_policy=_REDUCED),
        "FSDP2, no reshard after forward": lambda: _fsdp2(reshard_after_forward=False),
    }
)
_plain(
    {
        "FSDP2, hybrid on 4 ranks": lambda: _on_four(mp_policy=_REDUCED),
        "FSDP2, reshard to half after forward": lambda: _fsdp2(reshard_after_forward=2),
    },
    ranks=4,
)

#: Those that accumulate: the model, and its method that is told whether a backward is the last one.
for _name, _make, _method in (
    ("FSDP2, exchange once in two backwards", _fsdp2, "set_requires_gradient_sync"),
    (
        "FSDP2, hybrid, exchange between replicas once in two backwards",
        lambda: _replicas(mp_policy=_REDUCED),
        "set_requires_all_reduce",
    ),
    (
        "FSDP2, accumulation with the end of backward put off",
        lambda: _fsdp2(mp_policy=_REDUCED),
        "set_is_last_backward",
    ),
    (
        "FSDP2, hybrid, accumulation with the end of backward put off",
        lambda: _replicas(mp_policy=_REDUCED),
        "set_is_last_backward",
    ),
):
    _training(_name)(partial(_accumulate_by, _make, _method))


@_training("FSDP2, accumulation with exchange")
def _() -> Tensors:
    return _accumulate(_fsdp2(), lambda _: None)


@_training("FSDP2, all-reduce hook on a stream of its own")
def _() -> Tensors:
    model = _fsdp2()
    side = torch.Stream(device="asim")
    for layer in model:
        layer.set_all_reduce_hook(lambda gradient: gradient.mul_(0.5), stream=side)
    return _train(model)


@_training("FSDP2, hybrid, all-reduce hook")
def _() -> Tensors:
    model = _replicas(mp_policy=_REDUCED)
    for layer in model:
        layer.set_all_reduce_hook(lambda gradient: gradient.mul_(0.5))
    return _train(model)


@_training("FSDP2, explicit prefetch")
def _() -> Tensors:
    model = _fsdp2()
    for at, layer in enumerate(model):
        layer.set_modules_to_forward_prefetch(list(model[at + 1 : at + 3]))
        layer.set_modules_to_backward_prefetch(list(model[max(at - 2, 0) : at])[::-1])
    return _train(model)


@_training("FSDP2, prefetch of what backward does not need")
def _() -> Tensors:
    model = _fsdp2()
    model[0].set_modules_to_backward_prefetch([model[LAYERS - 1]])
    return _train(model)


@_training("FSDP2, unshard(async_op=True)")
def _() -> Tensors:
    model = _fsdp2()

    def unshard() -> None:
        handles = [layer.unshard(async_op=True) for layer in model]
        handles[1].wait()

    return _train(model, before=unshard)


@_training("FSDP2, unshard(), whose result is read")
def _() -> Tensors:
    model = _fsdp2()
    read: Tensors = []

    def unshard() -> None:
        model[1].unshard()
        read.extend(_local(one).sum() for one in model[1].parameters())

    return [*_train(model, before=unshard), *read]


@_training("FSDP2, asynchronous collectives")
def _() -> Tensors:
    model = _fsdp2()
    model._set_unshard_async_op(async_op=True)
    return _train(model)


@_training("FSDP2, asynchronous collectives, prefetch of what backward does not need")
def _() -> Tensors:
    model = _fsdp2()
    model._set_unshard_async_op(async_op=True)
    model[0].set_modules_to_backward_prefetch([model[LAYERS - 1]])
    return _train(model)


@_training("FSDP2, optimizer on a stream of its own")
def _() -> Tensors:
    model = _fsdp2()
    optimizer, side, losses = _sgd(model), torch.Stream(device="asim"), []
    for batch in _batches():
        loss = model(batch).square().sum()
        loss.backward()
        side.wait_stream(torch.accelerator.current_stream())
        with side:
            optimizer.step()
            optimizer.zero_grad(set_to_none=False)
        # ``set_post_optim_event``: only the all-gathers wait for the step.
        model.set_post_optim_event(side.record_event())
        losses.append(loss.detach())
    torch.accelerator.current_stream().wait_stream(side)
    return [*losses, *map(_local, model.parameters())]


@_training("FSDP2, forward on a stream of its own")
def _() -> Tensors:
    return _forward_on_a_stream(fails=False)


@_training("FSDP2, forward on a stream of its own, begun again after a failure in backward")
def _() -> Tensors:
    return _forward_on_a_stream(fails=True)


def _forward_on_a_stream(*, fails: bool) -> Tensors:
    if "allocation_stream" not in _fsdp_param_group.ReduceScatterState._fields:
        raise NotImplementedError("defects/order/fsdp2_forward_stream.py")
    model: Any = _fsdp2(mp_policy=_REDUCED)
    optimizer, side, losses = _sgd(model), torch.Stream(device="asim"), []
    current = torch.accelerator.current_stream()
    for batch in _batches():
        side.wait_stream(current)
        hook = model[2][0].register_full_backward_hook(_fail) if fails else None
        with side, contextlib.suppress(ArithmeticError):
            # The same program shows: a layer whose input needs no gradient ends on the other stream.
            loss = model(batch.requires_grad_()).square().sum()
        # The operations of the backward run on that stream as well, and its end on this one.
        with contextlib.suppress(ArithmeticError):
            loss.backward()
        if hook is not None:
            hook.remove()
            model.reset_iter_state()
        with side:
            # What the backward gave back, this stream hands out again.
            losses.append(loss.detach() * 2)
        current.wait_stream(side)
        optimizer.step()
        optimizer.zero_grad()
    return [*losses, *map(_local, model.parameters())]


def _fail(*_: Any) -> None:
    raise ArithmeticError


@_training("FSDP2, hybrid, exchange between replicas of some layers only, which become more")
def _() -> Tensors:
    model = _replicas(mp_policy=_REDUCED)
    last = model[-1]
    # The last layer adds up what its replicas do not exchange: first for its bias alone.
    last.set_requires_all_reduce(False)
    with_weight = iter([False] + [True] * STEPS)
    return _train(model, before=lambda: last[0].weight.requires_grad_(next(with_weight)))


@_training("FSDP2, optimizer in backward")
def _() -> Tensors:
    model = _fsdp2()
    own = {parameter: torch.optim.SGD([parameter], lr=0.1) for parameter in model.parameters()}

    def step(parameter: torch.Tensor) -> None:
        own[parameter].step()
        own[parameter].zero_grad()

    for parameter in own:
        parameter.register_post_accumulate_grad_hook(step)
    return _train(model, _IN_BACKWARD)


@_training("FSDP2, a group of which forward calls a part")
def _() -> Tensors:
    class Chunked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = _layers()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            found: torch.Tensor = self.layers[:-1](x)
            return found

        def loss(self, x: torch.Tensor) -> torch.Tensor:
            found: torch.Tensor = self.layers[-1](x)
            return found.square().sum()

    model = Chunked()
    for layer in model.layers[:-2]:
        fully_shard(layer)
    fully_shard([model.layers[-2], model.layers[-1]])
    fully_shard(model)
    optimizer, losses = _sgd(model), []
    for batch in _batches():
        hidden = model(batch)
        seen = hidden.detach().requires_grad_()
        for part in seen.chunk(2):
            loss = model.loss(part)
            loss.backward()
            losses.append(loss.detach())
        assert seen.grad is not None
        hidden.backward(seen.grad)
        optimizer.step()
        optimizer.zero_grad()
    return [*losses, *map(_local, model.parameters())]


@_training("FSDP2, two buffers of the reduce-scatter")
def _() -> Tensors:
    model = _fsdp2()
    model.set_reduce_scatter_max_input_buffers(2)
    return _train(model)


@_training("FSDP2, begun again after a failure in forward")
def _() -> Tensors:
    return _begun_again(_fsdp2(mp_policy=_REDUCED), in_backward=False)


@_training("FSDP2, asynchronous collectives, begun again after a failure in forward")
def _() -> Tensors:
    model = _fsdp2()
    model._set_unshard_async_op(async_op=True)
    model[4].set_modules_to_forward_prefetch([model[5]])
    return _begun_again(model, in_backward=False)


@_training("FSDP2, begun again after a failure in backward")
def _() -> Tensors:
    return _begun_again(_fsdp2(mp_policy=_REDUCED), in_backward=True)


@_training("FSDP2, hybrid, begun again after a failure in backward")
def _() -> Tensors:
    return _begun_again(_replicas(mp_policy=_REDUCED), in_backward=True)


def _begun_again(model: Any, *, in_backward: bool) -> Tensors:
    batches = _batches(STEPS + 1)
    with contextlib.suppress(ArithmeticError):
        if in_backward:
            hook = model[2][0].register_full_backward_hook(_fail)
            model(batches[0]).square().sum().backward()
        else:
            hook = model[4][0].register_forward_hook(_fail)
            model(batches[0])
    hook.remove()
    model.reset_iter_state()
    return _train(model, batches=batches[1:])


@_training("FSDP2, activations offloaded by save_on_cpu")
def _() -> Tensors:
    offload = torch.autograd.graph.save_on_cpu
    return _train(_fsdp2(), forward=lambda: offload(pin_memory=True, device_type="asim"))


# -- FSDP1 -----------------------------------------------------------------------------------------


def _fsdp1(**options: Any) -> Any:
    model = _layers()
    options = {"device_id": torch.device("asim", 0), "use_orig_params": True, **options}
    for at, layer in enumerate(model):
        model[at] = FullyShardedDataParallel(layer, **options)
    return FullyShardedDataParallel(model, **options)


_FSDP1_HALF = MixedPrecision(param_dtype=torch.bfloat16, reduce_dtype=torch.bfloat16)


_plain(
    {
        "FSDP1": _fsdp1,
        "FSDP1, reduced precision": lambda: _fsdp1(mixed_precision=_FSDP1_HALF),
        "FSDP1, offload": lambda: _fsdp1(cpu_offload=CPUOffload(offload_params=True)),
        "FSDP1, no limit, prefetch in forward": lambda: _fsdp1(
            limit_all_gathers=False, forward_prefetch=True
        ),
        "FSDP1, gradients and optimizer sharded": lambda: _fsdp1(
            sharding_strategy=ShardingStrategy.SHARD_GRAD_OP
        ),
        "FSDP1, replicas in reduced precision": lambda: _fsdp1(
            sharding_strategy=ShardingStrategy.NO_SHARD, mixed_precision=_FSDP1_HALF
        ),
    }
)


def _fsdp1_hybrid(**options: Any) -> Any:
    mesh = init_device_mesh("asim", (2, 2), mesh_dim_names=("replicate", "shard"))
    hybrid = ShardingStrategy.HYBRID_SHARD
    return _fsdp1(sharding_strategy=hybrid, device_mesh=mesh, **options)


_plain({"FSDP1, hybrid": lambda: _fsdp1_hybrid(mixed_precision=_FSDP1_HALF)}, ranks=4)


@_training("FSDP1, hybrid, accumulation with exchange", ranks=4)
def _() -> Tensors:
    return _accumulate(_fsdp1_hybrid(), lambda _: None)


@_training("FSDP1, exchange once in two backwards")
def _() -> Tensors:
    model = _fsdp1()
    return _accumulate(model, lambda is_last: None if is_last else model.no_sync())


@_training("FSDP1, whole parameters between steps")
def _() -> Tensors:
    model = _fsdp1()
    whole: Tensors = []

    def read() -> None:
        with FullyShardedDataParallel.summon_full_params(model, writeback=True):
            for parameter in model.parameters():
                parameter.detach().mul_(0.5)
                whole.append(parameter.detach().sum())

    return [*_train(model, after=read), *whole]


@_training("FSDP1, _unshard(async_op=True)")
def _() -> Tensors:
    model = _fsdp1()

    def unshard() -> None:
        # Streams are made by the first forward.
        model(_zeros())
        for layer in model.module:
            layer._unshard(async_op=True)

    return _train(model, before=unshard)


@_training("FSDP1, _unshard(), whose result is read")
def _() -> Tensors:
    if [int(part) for part in torch.__version__.split(".")[:2]] < [2, 11]:
        raise NotImplementedError("defects/order/fsdp1_unshard.py")
    model = _fsdp1()
    read: Tensors = []

    def unshard() -> None:
        model(_zeros())
        model.module[0]._unshard()
        read.extend(one.detach().sum() for one in model.module[0].parameters())

    return [*_train(model, before=unshard), *read]


def _zeros() -> torch.Tensor:
    return torch.zeros(ROWS, WIDTH, device="asim")


@_training("FSDP1, a hook that compresses")
def _() -> Tensors:
    from torch.distributed.algorithms._comm_hooks import default_hooks

    model = _fsdp1()
    state = default_hooks.LowPrecisionState(process_group=dist.group.WORLD)
    model.register_comm_hook(state, default_hooks.bf16_compress_hook)
    return _train(model)


@_training("FSDP1, gradient scaler")
def _() -> Tensors:
    from torch.distributed.fsdp.sharded_grad_scaler import ShardedGradScaler

    model = _fsdp1(mixed_precision=MixedPrecision(param_dtype=torch.bfloat16))
    optimizer, losses = _sgd(model), []
    scaler = ShardedGradScaler(device="asim", init_scale=8.0)
    for batch in _batches():
        loss = model(batch).square().sum()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        losses.append(loss.detach())
    return [*losses, *map(_local, model.parameters())]


# -- DDP -------------------------------------------------------------------------------------------


def _ddp(**options: Any) -> Any:
    return DistributedDataParallel(_layers(), bucket_cap_mb=0.002, **options)


_plain(
    {
        "DDP": _ddp,
        "DDP, buckets as views, static graph": lambda: _ddp(
            gradient_as_bucket_view=True, static_graph=True
        ),
    }
)


@_training("DDP, optimizer in backward")
def _() -> Tensors:
    from torch.distributed.optim import _apply_optimizer_in_backward

    inner = _layers()
    _apply_optimizer_in_backward(torch.optim.SGD, inner.parameters(), {"lr": 0.1})
    return _train(DistributedDataParallel(inner, bucket_cap_mb=0.002), _IN_BACKWARD)


@_training("DDP, a rank that runs out of batches")
def _() -> Tensors:
    model = _ddp()
    with model.join():
        return _train(model, batches=_batches(STEPS - dist.get_rank()))


@_training("DDP, ZeRO")
def _() -> Tensors:
    from torch.distributed.optim import ZeroRedundancyOptimizer

    model = _ddp()
    optimizer = ZeroRedundancyOptimizer(model.parameters(), torch.optim.SGD, lr=0.1)
    return _train(model, optimizer)


@_training("DDP, ZeRO in backward")
def _() -> Tensors:
    from torch.distributed.algorithms.ddp_comm_hooks import ddp_zero_hook, default_hooks
    from torch.distributed.optim import ZeroRedundancyOptimizer

    model = DistributedDataParallel(
        _layers(), bucket_cap_mb=0.002, static_graph=True, gradient_as_bucket_view=True
    )
    zero = ZeroRedundancyOptimizer(
        model.parameters(), torch.optim.SGD, overlap_with_ddp=True, lr=0.1
    )
    hook = ddp_zero_hook.hook_with_zero_step(default_hooks.allreduce_hook, model, zero)
    model.register_comm_hook(None, hook)
    return _train(model, zero, batches=_batches(STEPS + 2))


# -- functional collectives ------------------------------------------------------------------------


@_training("functional collectives")
def _() -> Tensors:
    from torch.distributed import _functional_collectives as funcol

    group, rank = dist.group.WORLD, dist.get_rank()
    assert group is not None
    given = torch.arange(8.0, device="asim") + rank
    total = funcol.all_reduce(given, "sum", group) + 1
    whole = funcol.all_gather_tensor(total.reshape(4, 2), 0, group) * 2
    wide = funcol.all_gather_tensor(total.reshape(4, 2), 1, group) * 2
    part = funcol.reduce_scatter_tensor(whole, "sum", 0, group) * 2
    moved = funcol.all_to_all_single(part.clone(), None, None, group) * 2
    waited = funcol.wait_tensor(funcol.all_reduce(given * 3, "sum", group))
    return [total, whole, wide, part, moved, waited + 1]


@_training("functional collectives, with gradients")
def _() -> Tensors:
    from torch.distributed import _functional_collectives as funcol

    group = dist.group.WORLD
    assert group is not None
    given = (torch.arange(8.0, device="asim") + dist.get_rank()).requires_grad_()
    whole = funcol.all_gather_tensor_autograd(given.reshape(4, 2) * 2, 0, group) * 2
    part = funcol.reduce_scatter_tensor_autograd(whole, "sum", 0, group) * 2
    moved = funcol.all_to_all_single_autograd(part, None, None, group) * 2
    moved.square().sum().backward()
    assert given.grad is not None
    return [whole.detach(), part.detach(), moved.detach(), given.grad * 2]


def _tensor_parallel(mesh: Any) -> Any:
    from torch.distributed.tensor import Replicate, Shard
    from torch.distributed.tensor.parallel import (
        ColwiseParallel,
        RowwiseParallel,
        parallelize_module,
    )

    model = _layers()
    for at, layer in enumerate(model):
        first = at % 2 == 0
        # Activations are split by rows between the pairs, so that each begins with an all-gather.
        style = (
            ColwiseParallel(input_layouts=Replicate() if at == 0 else Shard(0))
            if first
            else RowwiseParallel(
                output_layouts=Shard(0) if at < LAYERS - 1 else Replicate(),
            )
        )
        parallelize_module(layer, mesh, {"0": style})
    return model


def _tensor_parallel_and_fsdp2() -> Any:
    mesh = init_device_mesh("asim", (2, 2), mesh_dim_names=("data", "tensor"))
    return _fsdp2(_tensor_parallel(mesh["tensor"]), mesh=mesh["data"])


_plain(
    {
        "functional collectives, tensor parallel": lambda: _tensor_parallel(
            init_device_mesh("asim", (2,))
        )
    }
)
_plain({"functional collectives, tensor parallel and FSDP2": _tensor_parallel_and_fsdp2}, ranks=4)


@_training("functional collectives, DTensor")
def _() -> Tensors:
    from torch.distributed.tensor import DTensor, Replicate, Shard

    mesh = init_device_mesh("asim", (2,))
    mine = torch.arange(8.0, device="asim").reshape(4, 2) + dist.get_rank()
    split = DTensor.from_local(mine, mesh, [Shard(0)])
    whole = split.redistribute(mesh, [Replicate()])
    turned = split.redistribute(mesh, [Shard(1)])
    later = split.redistribute(mesh, [Replicate()], async_op=True)
    return [whole.to_local() * 2, turned.to_local() * 2, later.to_local() * 2]


@_training("functional collectives, context parallel")
def _() -> Tensors:
    from torch.distributed.tensor.experimental import context_parallel
    from torch.nn import functional as F

    mesh = init_device_mesh("asim", (2,))
    torch.manual_seed(0)
    given = torch.randn(3, 2, 2, 8, 4).to("asim")
    query, key, value = (one.clone() for one in given.unbind())
    weight = torch.ones(4, device="asim", requires_grad=True)
    with context_parallel(
        mesh, buffers=[query, key, value], buffer_seq_dims=[2] * 3, no_restore_buffers=set()
    ):
        found = F.scaled_dot_product_attention(query * weight, key * weight, value * weight)
        loss = found.square().sum()
        loss.backward()
    assert weight.grad is not None
    return [loss.detach(), weight.grad]


# -- pipelines -------------------------------------------------------------------------------------


def _pipeline(schedule: str, *, per_rank: int = 1) -> Tensors:
    from torch.distributed import pipelining

    rank, stages = dist.get_rank(), 2 * per_rank
    layers, each = list(_layers()), LAYERS // stages
    mine = [rank + 2 * turn for turn in range(per_rank)]
    modules = [nn.Sequential(*layers[each * one : each * (one + 1)]) for one in mine]
    device = torch.device("asim", 0)
    made = [
        pipelining.PipelineStage(module, one, stages, device)
        for one, module in zip(mine, modules, strict=True)
    ]
    kind: Any = getattr(pipelining, schedule)
    run = kind(
        made if per_rank > 1 else made[0],
        n_microbatches=4,
        loss_fn=lambda output, _: output.square().sum(),
        scale_grads=False,
    )
    model = nn.ModuleList(modules)
    optimizer = _sgd(model)
    kept: Tensors = []
    torch.manual_seed(1)
    for batch in [torch.randn(2 * ROWS, WIDTH).to("asim") for _ in range(STEPS)]:
        losses: Tensors = []
        given = (batch,) if rank == 0 else ()
        has_end = stages - 1 in mine
        run.step(*given, target=batch if has_end else None, losses=losses if has_end else None)
        optimizer.step()
        optimizer.zero_grad()
        kept += [loss.detach() for loss in losses]
    return [*kept, *map(_local, model.parameters())]


for _name, _schedule, _per_rank in (
    ("pipelines, GPipe", "ScheduleGPipe", 1),
    ("pipelines, 1F1B", "Schedule1F1B", 1),
    ("pipelines, interleaved 1F1B", "ScheduleInterleaved1F1B", 2),
):
    _training(_name)(partial(_pipeline, _schedule, per_rank=_per_rank))


# -- checkpoints -----------------------------------------------------------------------------------


@_training("checkpoints, saved between steps")
def _() -> Tensors:
    from torch.distributed import checkpoint

    model = _fsdp2()
    read: Tensors = []

    def save() -> None:
        with tempfile.TemporaryDirectory() as folder:
            state = {"rank": {str(dist.get_rank()): list(map(_local, model.parameters()))}}
            checkpoint.save(state, checkpoint_id=folder, no_dist=True)
            found: Any = {
                "rank": {
                    str(dist.get_rank()): [
                        torch.zeros_like(one, device="cpu")
                        for one in map(_local, model.parameters())
                    ]
                }
            }
            checkpoint.load(found, checkpoint_id=folder, no_dist=True)
            read.extend(found["rank"][str(dist.get_rank())])

    return [*_train(model, after=save), *read]


@_training("checkpoints, staged beside training")
def _() -> Tensors:
    return _staged(waits=True)


def _staged(*, waits: bool) -> Tensors:
    from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions

    model = _fsdp2()
    stager = DefaultStager(
        StagingOptions(
            use_pinned_memory=False,
            use_shared_memory=False,
            use_async_staging=True,
            use_non_blocking_copy=True,
        )
    )
    staged: list[Any] = []

    def stage() -> None:
        if waits:
            torch.accelerator.synchronize()
        staged.append(
            stager.stage({"state": [one.detach() for one in map(_local, model.parameters())]})
        )

    def settle() -> None:
        stager.synchronize_staging()

    trained = _train(model, before=settle, after=stage)
    stager.synchronize_staging()
    read = [one.clone() for future in staged for one in future.result()["state"]]
    stager.close()
    return [*trained, *read]
