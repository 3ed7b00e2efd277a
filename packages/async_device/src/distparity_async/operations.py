"""Every operation of the device: its outputs at once, its arithmetic on the stream, by the CPU.

An operation allocates what it returns and puts a closure on the current stream, which computes over
addresses and owns nothing. What shape the outputs have is learned by computing once on memory full
of zeros, and remembered. Views are done at once. What cannot be known before the values are
(``item``, ``nonzero``, an index of booleans) makes the host wait, as on other devices.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch

from distparity_async import kernels
from distparity_async.runtime import Runtime, Touch

__all__ = ["below", "install"]

_KEYS = torch._C.DispatchKey.__members__
_HOST = torch._C.DispatchKeySet(torch._C.DispatchKey.CPU)
_AUTOCAST = torch._C.DispatchKeySet(_KEYS["AutocastPrivateUse1"])
#: How a closure computes, whoever has it done: below autograd and autocast, and without Python's modes.
_INCLUDED = torch._C.DispatchKeySet(torch._C.DispatchKey.BackendSelect)
_EXCLUDED = functools.reduce(
    lambda keys, name: keys | torch._C.DispatchKeySet(_KEYS[name]),
    [
        name
        for name in _KEYS
        if name.startswith(("Autograd", "Autocast", "Python"))
        and "Alias" not in name
        and name not in ("Autograd", "PythonDispatcher")
    ]
    + ["ADInplaceOrView"],
    torch._C.DispatchKeySet(_KEYS["AutogradOther"]),
)
_aten = torch.ops.aten


def _convolution_backward(grad: Any, x: Any, weight: Any, *rest: Any) -> Any:
    return _aten.convolution_backward.default(grad, x, weight, [weight.shape[0]], *rest)


#: Operations that have no kernel on the CPU, since only devices are asked for them.
_INSTEAD: dict[Any, Any] = {
    **{getattr(_aten, name).default: kernel for name, kernel in kernels.ALL.items()},
    _aten.convolution_overrideable.default: _aten.convolution.default,
    _aten.convolution_backward_overrideable.default: _convolution_backward,
}
#: What the device does itself, as others do, though torch would compose it.
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
#: They change a tensor itself, not its bytes.
_METADATA = {"aten::set_"}
#: The kinds of values by which alone an operation's outputs differ in shape.
_SHAPING = (int, bool, str, torch.dtype, torch.layout, torch.memory_format, type(None))

_libraries: list[torch.library.Library] = []


@contextlib.contextmanager
def below(native: Any) -> Iterator[None]:
    """Compute on the CPU as a device would: whoever has it done, in whatever state torch is there."""
    before = native.quiet(True)
    try:
        with torch._C._ForceDispatchKeyGuard(_INCLUDED, _EXCLUDED):
            yield
    finally:
        native.quiet(before)


class _Facts:
    """What an operation's schema says, read once."""

    __slots__ = ("instead", "is_random", "is_view", "name", "names", "outs", "returned", "tensors",
                 "waits", "writes")  # fmt: skip

    def __init__(self, op: Any) -> None:
        schema = op._schema
        self.name = schema.name
        arguments = schema.arguments
        self.names = [argument.name for argument in arguments]
        self.tensors = [isinstance(argument.type, torch.TensorType) for argument in arguments]
        written = [_writes(argument) for argument in arguments]
        self.writes = dict(zip(self.names, written, strict=True))
        self.outs = [one.name for one in arguments if one.kwarg_only and _writes(one)]
        in_place = schema.name in _METADATA or torch.Tag.inplace_view in op.tags
        self.is_view = in_place or any(
            value.alias_info is not None and not value.alias_info.is_write
            for value in schema.returns
        )
        tags = op.tags
        self.is_random = torch.Tag.nondeterministic_seeded in tags
        self.waits = (
            torch.Tag.data_dependent_output in tags
            or (torch.Tag.dynamic_output_shape in tags and schema.name != "aten::index")
            or any("Tensor" not in str(value.type) for value in schema.returns)
        )
        #: For each return the name of the argument that it is, or None for a fresh one.
        self.returned = [_same(value, arguments) for value in schema.returns]
        self.instead = _INSTEAD.get(op)


def _writes(argument: Any) -> bool:
    return argument.alias_info is not None and argument.alias_info.is_write


def _same(value: Any, arguments: Any) -> str | None:
    if value.alias_info is None:
        return None
    sets = value.alias_info.before_set
    for argument in arguments:
        if argument.alias_info is not None and argument.alias_info.before_set & sets:
            return str(argument.name)
    return None


class Operations:
    """The device's kernels, over a runtime and the C++ part."""

    def __init__(self, runtime: Runtime, native: Any) -> None:
        self._runtime = runtime
        self._native = native
        self._facts: dict[Any, _Facts] = {}
        #: The shapes of outputs by an operation's signature; None where only values decide.
        self._shapes: dict[Any, Any] = {}

    def run(self, op: Any, *args: Any, **kwargs: Any) -> Any:
        facts = self._facts.get(op)
        if facts is None:
            facts = self._facts[op] = _Facts(op)
        if facts.is_view:
            # The CPU's kernel works on the tensor's description only, so that storage is shared.
            return op.redispatch(_HOST, *args, **kwargs)
        return _Call(self, facts, op, args, kwargs).run()


class _Call:
    """One operation under way."""

    __slots__ = ("_all", "_args", "_device", "_facts", "_hosts", "_kwargs", "_native", "_op", "_runtime",
                 "_shapes", "_touches")  # fmt: skip

    def __init__(self, all_: Operations, facts: _Facts, op: Any, args: Any, kwargs: Any) -> None:
        self._runtime = all_._runtime
        self._native = all_._native
        self._shapes = all_._shapes
        self._facts = facts
        self._op = op
        self._touches: list[Touch] = []
        self._device = -1
        self._hosts: dict[str, Any] = {}
        self._all = dict(zip(facts.names, args, strict=False)) | kwargs
        writes = facts.writes
        self._args = [
            self._lower(value, writes[name]) for name, value in zip(facts.names, args, strict=False)
        ]
        self._kwargs = {name: self._lower(value, writes[name]) for name, value in kwargs.items()}

    def _lower(self, value: Any, writes: bool) -> Any:
        """An argument as the CPU takes it."""
        if isinstance(value, torch.Tensor):
            if value.device.type == "asim":
                self._touches.append((*self._native.place(value), writes))
                if self._device < 0:
                    self._device = value.device.index
                return self._native.on_host(value)
            # A copy: the host may write to it before the stream comes to this.
            return value if self._runtime.mode.name == "eager" else value.detach().clone()
        if isinstance(value, (list, tuple)):
            return type(value)(self._lower(item, writes) for item in value)
        if isinstance(value, torch.device):
            if value.type == "asim" and value.index is not None and self._device < 0:
                self._device = value.index
            return torch.device("cpu")
        return value

    def run(self) -> Any:
        if self._device < 0:
            self._device = self._native.current_device()
        if self._facts.waits or self._has_values():
            return self._waiting()
        shapes = None
        if self._facts.outs or self._needs_shapes():
            key = self._signature()
            if key not in self._shapes:
                self._shapes[key] = self._learn()
            shapes = self._shapes[key]
            if shapes is None:
                return self._waiting()
        if self._facts.outs:
            self._resize_outs(shapes)
        return self._queued(shapes)

    def _needs_shapes(self) -> bool:
        return None in self._facts.returned

    def _has_values(self) -> bool:
        """Whether it asks for what only values say, of arguments and not of itself."""
        if self._facts.name == "aten::index":
            kinds = (torch.bool, torch.uint8)
            return any(index is not None and index.dtype in kinds for index in self._args[1])
        return any(isinstance(value, torch.Generator) for value in self._all.values())

    # -- computing -----------------------------------------------------------------------------

    def _kernel(self) -> Callable[..., Any]:
        """What computes it on the CPU."""
        facts, op = self._facts, self._op
        if facts.instead is not None:
            return facts.instead  # type: ignore[no-any-return]
        # A number that torch has made a tensor of comes as a number; another overload takes those.
        wanted = zip(facts.tensors, self._args, strict=False)
        if any(isinstance(value, (int, float)) and tensor for tensor, value in wanted):
            return op.overloadpacket  # type: ignore[no-any-return]
        return functools.partial(op.redispatch, _HOST)

    def _closure(self, compute: Callable[[], Any]) -> Callable[[], Any]:
        """To be called by whoever has it done, in whatever state torch is there."""
        native = self._native
        draw = _drawing(self._runtime, self._device) if self._facts.is_random else None

        def act() -> Any:
            with below(native):
                return compute() if draw is None else draw(compute)

        return act

    def _stream(self) -> Any:
        number = self._native.current_stream(self._device)
        return self._runtime.scheduler.stream(self._device, number)

    def _queued(self, shapes: Any) -> Any:
        outputs = _map(shapes, self._fresh) if self._needs_shapes() else None
        targets: list[Any] = []
        _map(outputs, lambda tensor: targets.append(self._native.on_host(tensor)))
        kernel, args, kwargs = self._kernel(), self._args, self._kwargs

        def compute() -> None:
            sources: list[Any] = []
            _map(kernel(*args, **kwargs), sources.append)
            if targets:
                for target, source in zip(targets, sources, strict=True):
                    target.copy_(source)

        touches = self._touches
        _map(outputs, lambda tensor: touches.append((*self._native.place(tensor), True)))
        with self._runtime.lock:
            self._runtime.issue(self._stream(), self._facts.name, touches, self._closure(compute))
        return self._returns(outputs)

    def _waiting(self) -> Any:
        """Have it done, and hand out what came: the host knows all that came before."""
        results: list[Any] = []
        kernel, args, kwargs = self._kernel(), self._args, self._kwargs

        def compute() -> None:
            fresh = {
                name: torch.empty(0, dtype=kwargs[name].dtype)
                for name in self._facts.outs
                if kwargs.get(name) is not None
            }
            results.append(kernel(*args, **{**kwargs, **fresh}))

        stream = self._stream()
        with self._runtime.lock:
            self._runtime.issue(stream, self._facts.name, self._touches, self._closure(compute))
            self._runtime.synchronize_stream(stream.device, stream.number)
        outs = [name for name in self._facts.outs if self._all.get(name) is not None]
        if outs:
            found = results[0] if isinstance(results[0], (tuple, list)) else [results[0]]
            for name, value in zip(outs, found, strict=True):
                target = self._all[name]
                if target.shape != value.shape:
                    target.resize_(value.shape)
                target.copy_(value)
            return self._returns(None)
        return _map(results[0], self._upload)

    def _upload(self, value: Any) -> Any:
        """A result that the host has, as a tensor of the device; what is no tensor, as it is."""
        for name, argument in self._all.items():
            if (
                self._facts.writes.get(name)
                and value is not None
                and isinstance(argument, torch.Tensor)
            ):
                return argument
        made = self._fresh((tuple(value.shape), value.stride(), value.dtype))
        made.copy_(value)
        return made

    # -- outputs -------------------------------------------------------------------------------

    def _signature(self) -> Any:
        return (
            self._op,
            *map(_sign, self._args),
            *((k, _sign(v)) for k, v in self._kwargs.items()),
        )

    def _learn(self) -> Any:
        """The outputs' shapes, strides and dtypes, by computing on zeros; None where that fails."""
        outs = {
            name: torch.empty(0, dtype=self._kwargs[name].dtype)
            for name in self._facts.outs
            if self._kwargs.get(name) is not None
        }
        args = _blank(self._args)
        kwargs = {**{name: _blank(value) for name, value in self._kwargs.items()}, **outs}
        state = torch.get_rng_state() if self._facts.is_random else None
        kernel, results = self._kernel(), None
        try:
            with torch._C._ForceDispatchKeyGuard(_INCLUDED, _EXCLUDED):
                results = kernel(*args, **kwargs)
        except (RuntimeError, IndexError, ValueError, ZeroDivisionError):
            name = self._facts.name
            self._runtime.waited[name] = self._runtime.waited.get(name, 0) + 1
            return None
        finally:
            if state is not None:
                torch.set_rng_state(state)
        return _map(results, lambda value: (tuple(value.shape), value.stride(), value.dtype))

    def _fresh(self, shape: Any) -> torch.Tensor:
        size, stride, dtype = shape
        return torch.empty_strided(
            size, stride, dtype=dtype, device=torch.device("asim", self._device)
        )

    def _resize_outs(self, shapes: Any) -> None:
        wanted: list[Any] = [shapes] if len(self._facts.outs) == 1 else list(shapes)
        wanted = wanted[0] if wanted and isinstance(wanted[0], list) else wanted
        for name, shape in zip(self._facts.outs, wanted, strict=False):
            tensor = self._all.get(name)
            if isinstance(tensor, torch.Tensor) and tuple(tensor.shape) != shape[0]:
                tensor.resize_(shape[0])
                self._kwargs[name] = self._native.on_host(tensor)
                self._touches.append((*self._native.place(tensor), True))

    def _returns(self, outputs: Any) -> Any:
        returned = self._facts.returned
        if not returned:
            return None
        if all(name is None for name in returned):
            return outputs
        found = tuple(self._all[name] for name in returned if name is not None)
        return found[0] if len(returned) == 1 else found


def _map(value: Any, act: Callable[[Any], Any]) -> Any:
    """Apply to the tensors, or shapes, in a result; a tuple whose first is a tuple is a shape."""
    if isinstance(value, torch.Tensor) or _is_shape(value):
        return act(value)
    if isinstance(value, (list, tuple)):
        return type(value)(_map(item, act) for item in value)
    return value


def _is_shape(value: Any) -> bool:
    return isinstance(value, tuple) and len(value) == 3 and isinstance(value[2], torch.dtype)


def _sign(value: Any) -> Any:
    """What of an argument decides the outputs' shapes."""
    if isinstance(value, torch.Tensor):
        return (value.shape, value.stride(), value.dtype)
    if isinstance(value, (list, tuple)):
        return tuple(map(_sign, value))
    return (type(value), value) if isinstance(value, _SHAPING) else type(value)


def _blank(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        made = torch.empty_strided(value.shape, value.stride(), dtype=value.dtype)
        return made.zero_() if 0 not in value.stride() else made.fill_(0)
    if isinstance(value, (list, tuple)):
        return type(value)(map(_blank, value))
    return value


def _drawing(runtime: Runtime, device: int) -> Callable[[Callable[[], Any]], Any]:
    """Compute with the numbers that are due here, whenever that is: the device's own generator."""
    draws = runtime.draws_of(device)
    seed = (draws.seed * 6364136223846793005 + draws.offset * 1442695040888963407 + 1) % 2**63
    draws.offset += 4

    def draw(compute: Callable[[], Any]) -> Any:
        generator = torch.default_generator
        before = generator.get_state()
        generator.manual_seed(seed)
        try:
            return compute()
        finally:
            generator.set_state(before)

    return draw


# -- copies ----------------------------------------------------------------------------------------


def _copier(runtime: Runtime, native: Any) -> Callable[..., Any]:
    def copy_from(source: torch.Tensor, target: torch.Tensor, non_blocking: bool = False) -> Any:
        """Every copy to, from and on the device."""
        up, down = source.device.type != "asim", target.device.type != "asim"
        host = source if up else target
        pinned = (up or down) and host.is_pinned()
        device = (target if up else source).device.index
        stream = runtime.scheduler.stream(device, native.current_stream(device))
        touches: list[Touch] = []
        for tensor, writes in ((source, False), (target, True)):
            if tensor.device.type == "asim" or pinned:
                base, low, high = native.place(tensor)
                touches.append((base, low, high, writes))
        given = source.detach().clone() if up and not pinned else native.on_host(source)
        taken = native.on_host(target)

        def act() -> None:
            with below(native):
                taken.copy_(given)

        with runtime.lock:
            if not up and not down and source.device != target.device:
                _join(runtime, native, target.device.index, stream)
            runtime.issue(stream, "aten::copy_", touches, act)
            if not up and not down and source.device != target.device:
                number = native.current_stream(target.device.index)
                there = runtime.scheduler.stream(target.device.index, number)
                runtime.follow(there, runtime.mark(stream))
            # Memory that is not pinned is copied while the caller waits, whatever was asked for.
            if (up or down) and not (non_blocking and pinned):
                runtime.synchronize_stream(stream.device, stream.number)
        return target

    return copy_from


def _join(runtime: Runtime, native: Any, device: int, stream: Any) -> None:
    """A copy between two devices: the source's stream waits for what the target's has to do."""
    there = runtime.scheduler.stream(device, native.current_stream(device))
    runtime.follow(stream, runtime.mark(there))


# -- what the host reads without an operation -------------------------------------------------------


def _told(runtime: Runtime, native: Any, name: str) -> Callable[..., Any]:
    """A method of tensors that reads their bytes behind torch's dispatcher, told to the checker."""
    method = getattr(torch.Tensor, name)

    @functools.wraps(method)
    def told(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        is_plain = type(tensor) in (torch.Tensor, torch.nn.Parameter)
        if is_plain and tensor.device.type == "cpu" and runtime.memory.is_watched:
            base, low, high = native.place(tensor)
            runtime.host_access(base + low, base + high, False, f"Tensor.{name}")
        return method(tensor, *args, **kwargs)

    return told


# -- registration ----------------------------------------------------------------------------------


def install(runtime: Runtime, native: Any) -> None:
    """Register all of it under the device's dispatch key."""
    operations = Operations(runtime, native)
    everything = torch.library.Library("_", "IMPL")
    everything.fallback(operations.run, "PrivateUse1")
    aten = torch.library.Library("aten", "IMPL")
    aten.impl("_copy_from", _copier(runtime, native), "PrivateUse1")
    for bit in ("Conjugate", "Negative"):
        # It heeds these bits itself. What torch does for others is a copy, which would come here again.
        aten.impl("_copy_from", torch.library.fallthrough_kernel, bit)
    aten.impl("resize_", _resize, "PrivateUse1")
    for op in (*_INSTEAD, *_OWN):
        aten.impl(op, functools.partial(operations.run, op), "PrivateUse1")
    # ``parameter.data = on_another_device``: torch has PrivateUse1 not on its list of the dense.
    aten.impl("_has_compatible_shallow_copy_type", _is_compatible, "PrivateUse1")
    # ``torch.save`` takes a tensor apart by the last.
    for name in ("numpy", "tolist", "__reduce_ex__"):
        setattr(torch.Tensor, name, _told(runtime, native, name))
    autocast = torch.library.Library("_", "IMPL")
    autocast.fallback(torch.library.fallthrough_kernel, "AutocastPrivateUse1")
    for op in _LOWERED:
        aten.impl(op, functools.partial(_autocast, op), "AutocastPrivateUse1")
    _libraries.extend((everything, aten, autocast))


def _is_compatible(_one: torch.Tensor, _other: torch.Tensor) -> bool:
    return True


def _autocast(op: Any, *args: Any, **kwargs: Any) -> Any:
    dtype = torch.get_autocast_dtype("asim")
    lowered = [
        value.to(dtype) if isinstance(value, torch.Tensor) and value.is_floating_point() else value
        for value in args
    ]
    with torch._C._ExcludeDispatchKeyGuard(_AUTOCAST):
        return op(*lowered, **kwargs)


def _resize(tensor: torch.Tensor, size: list[int], *, memory_format: Any = None) -> torch.Tensor:
    blank = torch.empty(
        size,
        dtype=tensor.dtype,
        device="meta",
        memory_format=memory_format or torch.contiguous_format,
    )
    storage = tensor.untyped_storage()
    needed = (tensor.storage_offset() + blank.numel()) * tensor.element_size()
    if needed > storage.nbytes():
        storage.resize_(int(needed))
    _aten.set_.source_Storage_storage_offset.redispatch(
        _HOST, tensor, storage, tensor.storage_offset(), blank.shape, blank.stride()
    )
    return tensor
