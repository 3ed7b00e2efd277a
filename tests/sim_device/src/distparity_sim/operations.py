"""Every operation of the device, in terms of the CPU's over the same bytes."""

from __future__ import annotations

import functools
from typing import Any

import torch

from distparity_sim import faults
from distparity_sim.memory import on_device, on_host, poison

__all__ = ["install"]

_HOST = torch._C.DispatchKeySet(torch._C.DispatchKey.CPU)
_AUTOCAST = torch._C.DispatchKeySet(torch._C.DispatchKey.__members__["AutocastPrivateUse1"])
_aten = torch.ops.aten
#: Matrix products, each with the places of its two factors.
_FACTORS = {"mm": (0, 1), "bmm": (0, 1), "addmm": (1, 2), "baddbmm": (1, 2)}
#: They hand out memory that nobody has written to.
_BLANK = {_aten.empty.memory_format, _aten.empty_strided.default}
#: They change a tensor itself, not its bytes.
_METADATA = {"aten::set_"}


def _convolution_backward(grad: Any, x: Any, weight: Any, *rest: Any) -> Any:
    bias = [weight.shape[0]]
    return _aten.convolution_backward.default(grad, x, weight, bias, *rest)


#: Operations without a kernel on the CPU, by which a device says how it convolves.
_INSTEAD: dict[Any, Any] = {
    _aten.convolution_overrideable.default: _aten.convolution.default,
    _aten.convolution_backward_overrideable.default: _convolution_backward,
}

#: What the device does itself, as others do, though torch would compose it. The composition's
#: statistics of an empty (0, 8) are (0, 8) and not (0, 1), in torch 2.4 to 2.15; and from 2.15 on
#: DTensor gathers them, of a rank without rows as well.
_OWN = (_aten.native_layer_norm.default,)

#: What runs in autocast's dtype inside its context; the rest stays in its own.
_LOWERED = (
    _aten.mm.default,
    _aten.bmm.default,
    _aten.addmm.default,
    _aten.baddbmm.default,
    _aten.matmul.default,
    _aten.linear.default,
    _aten.convolution.default,
)

_libraries: list[torch.library.Library] = []


def install() -> None:
    """Register all of it under the device's dispatch key."""
    everything = torch.library.Library("_", "IMPL")
    everything.fallback(_run, "PrivateUse1")
    aten = torch.library.Library("aten", "IMPL")
    aten.impl("_copy_from", _copy_from, "PrivateUse1")
    aten.impl("resize_", _resize, "PrivateUse1")
    aten.impl("record_stream", lambda tensor, stream: None, "PrivateUse1")
    for op in (*_INSTEAD, *_OWN):
        aten.impl(op, functools.partial(_run, op), "PrivateUse1")
    # ``parameter.data = on_another_device``: torch has PrivateUse1 not on its list of the dense.
    aten.impl("_has_compatible_shallow_copy_type", lambda one, other: True, "PrivateUse1")
    # Its copies read conjugates and negatives as such. torch would first make a copy that is neither, for
    # which it calls this again.
    for key in ("Conjugate", "Negative"):
        aten.impl("_copy_from", torch.library.fallthrough_kernel, key)
    autocast = torch.library.Library("_", "IMPL")
    autocast.fallback(torch.library.fallthrough_kernel, "AutocastPrivateUse1")
    for op in _LOWERED:
        aten.impl(op, functools.partial(_autocast, op), "AutocastPrivateUse1")
    _libraries.extend((everything, aten, autocast))


def _run(op: Any, *args: Any, **kwargs: Any) -> Any:
    if _is_view(op):
        # The CPU's kernel works on the tensor's description only, so that storage is shared.
        return op.redispatch(_HOST, *args, **kwargs)
    faults.tick()
    mine: dict[int, torch.Tensor] = {}
    args = _lower(args, mine)
    kwargs = {name: _lower(value, mine) for name, value in kwargs.items()}
    factors = _FACTORS.get(op._schema.name.removeprefix("aten::"), ())
    for place in factors:
        args = (*args[:place], faults.truncate(args[place]), *args[place + 1 :])
    outs = {name: mine[id(kwargs[name])] for name in _outs(op) if id(kwargs.get(name)) in mine}
    fresh = {name: torch.empty(0, dtype=tensor.dtype) for name, tensor in outs.items()}
    result = _on_the_host(op, args)(*args, **{**kwargs, **fresh})
    if factors:
        faults.waver(result)
    for name, tensor in outs.items():
        _fill(tensor, fresh[name])
        mine[id(fresh[name])] = tensor
    if op in _BLANK:
        poison(result)
    faults.land(1)
    return _raise(result, mine)


def _on_the_host(op: Any, args: Any) -> Any:
    """What computes an operation on the CPU."""
    if op in _INSTEAD:
        return _INSTEAD[op]
    # A number that torch has made a tensor of comes as a number; another overload takes those.
    wanted = zip(op._schema.arguments, args, strict=False)
    if any(isinstance(value, (int, float)) and _takes_a_tensor(one) for one, value in wanted):
        return op.overloadpacket
    return op


def _takes_a_tensor(argument: Any) -> bool:
    return isinstance(argument.type, torch.TensorType)


def _outs(op: Any) -> list[str]:
    """The names of ``out=`` arguments: an operation may resize them, and our memory cannot be."""
    return [
        argument.name
        for argument in op._schema.arguments
        if argument.kwarg_only and argument.alias_info is not None and argument.alias_info.is_write
    ]


def _fill(tensor: torch.Tensor, value: torch.Tensor) -> None:
    """Write what an operation left on the host to where it was told to write it."""
    if tensor.shape == value.shape:
        on_host(tensor).copy_(value)
    else:
        _adopt(tensor, on_device(value))


def _adopt(tensor: torch.Tensor, source: torch.Tensor) -> None:
    """Give a tensor another's storage and shape: memory from outside cannot grow."""
    _aten.set_.source_Tensor.redispatch(_HOST, tensor, source)


def _resize(tensor: torch.Tensor, size: list[int], *, memory_format: Any = None) -> torch.Tensor:
    blank = torch.empty(
        size, dtype=tensor.dtype, memory_format=memory_format or torch.contiguous_format
    )
    kept = min(blank.numel(), tensor.numel())
    blank.view(-1)[:kept] = on_host(tensor).reshape(-1)[:kept]
    _adopt(tensor, on_device(blank))
    return tensor


def _autocast(op: Any, *args: Any, **kwargs: Any) -> Any:
    dtype = torch.get_autocast_dtype("sim")
    lowered = [
        value.to(dtype) if isinstance(value, torch.Tensor) and value.is_floating_point() else value
        for value in args
    ]
    with torch._C._ExcludeDispatchKeyGuard(_AUTOCAST):
        return op(*lowered, **kwargs)


def _is_view(op: Any) -> bool:
    schema = op._schema
    return schema.name in _METADATA or any(
        value.alias_info is not None and not value.alias_info.is_write for value in schema.returns
    )


def _lower(value: Any, mine: dict[int, torch.Tensor]) -> Any:
    """An argument as the CPU takes it; ``mine`` remembers what stands for which tensor."""
    if isinstance(value, torch.Tensor):
        if value.device.type != "sim":
            return value
        found = on_host(value)
        mine[id(found)] = value
        return found
    if isinstance(value, torch.device):
        return torch.device("cpu")
    if isinstance(value, (list, tuple)):
        return type(value)(_lower(item, mine) for item in value)
    return value


def _raise(value: Any, mine: dict[int, torch.Tensor]) -> Any:
    """A result as the device gives it: an argument that was written to is returned as itself."""
    if isinstance(value, torch.Tensor):
        return mine[id(value)] if id(value) in mine else on_device(value)
    if isinstance(value, (list, tuple)):
        return type(value)(_raise(item, mine) for item in value)
    return value


def _copy_from(source: torch.Tensor, target: torch.Tensor, non_blocking: bool = False) -> Any:
    """Every copy to, from and on the device."""
    given = on_host(source) if source.device.type == "sim" else source
    taken = on_host(target) if target.device.type == "sim" else target
    taken.copy_(given)
    faults.land(1)
    return target
