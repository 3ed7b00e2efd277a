"""``asimccl``: collectives as NCCL runs them; gloo carries the bytes when they come to be done.

An asynchronous collective runs on a stream of its group's own, which waits for the current one; to
wait for its work is to have the current stream wait. A synchronous one runs on the current stream.
A work keeps its tensors alive until somebody waits for it; if nobody does, its group keeps them until
it is done.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch._C import _distributed_c10d

from distparity_async import state
from distparity_async.operations import below
from distparity_async.runtime import Event, Runtime
from distparity_async.scheduler import Mark

__all__ = ["AsimCCL", "install"]

#: ``1`` has asynchronous collectives name their stream to the allocator, as NCCL did before torch
#: 2.7, in place of keeping their tensors.
_RECORDS = os.environ.get("ASIM_RECORD_STREAMS") == "1"
#: Seconds after which a rank that waits for its peers gets on with other streams; then how often.
_STUCK, _AGAIN = 5.0, 0.2


def install() -> None:
    """Have ``init_process_group("asimccl")`` make one."""
    dist.Backend.register_backend("asimccl", _create, extended_api=True, devices=["asim"])


def _create(options: Any, _backend_options: Any) -> AsimCCL:
    return AsimCCL(options.store, options.group_rank, options.group_size, options.timeout)


#: torch's annotations have only the forms for callers, not the ones that a subclass overrides.
_ProcessGroup: Any = dist.ProcessGroup


class _Answers:
    """What a work is asked; see ``StreamWork`` in the C++ part."""

    def __init__(self, runtime: Runtime, native: Any, device: int, end: Event, kept: Any) -> None:
        self._runtime = runtime
        self._native = native
        self._device = device
        self._end = end
        self._kept = kept

    def wait(self) -> None:
        with self._runtime.lock:
            number = self._native.current_stream(self._device)
            self._runtime.follow(self._runtime.scheduler.stream(self._device, number), self._end)
            self._kept = None

    def is_completed(self) -> bool:
        with self._runtime.lock:
            return self._runtime.has_passed(self._end)

    def is_kept(self) -> bool:
        """Whether its tensors must be kept. Once it is done, the allocator is told of its stream."""
        if self._kept is not None and self._end.mark.is_done():
            for tensor in self._kept:
                self._runtime.memory.record_stream(
                    self._native.place(tensor)[0], self._end.mark.stream
                )
            self._kept = None
        return self._kept is not None


class AsimCCL(_ProcessGroup):  # type: ignore[misc]  # see above
    """A process group in Python; torch calls it by these names, from Python and from C++."""

    def __init__(self, store: Any, rank: int, size: int, timeout: Any) -> None:
        super().__init__(rank, size)
        self._gloo: Any = _distributed_c10d.ProcessGroupGloo(store, rank, size, timeout)
        self._runtime = state.runtime()
        self._native = state.native()
        #: The group's own streams: one on each device, and one for each peer and direction.
        self._streams: dict[Any, Any] = {}
        #: The last collective: those of one group are done in the order in which they were called.
        self._last: Mark | None = None
        #: The works that nobody has waited for.
        self._under_way: list[_Answers] = []
        #: Those that have been begun since :meth:`_start_coalescing`; None outside of it.
        self._batch: list[_Answers] | None = None
        self._is_aborted = False
        # torch keeps a group's name, and for which devices it is, with a group's backends.
        custom = dist.ProcessGroup.BackendType.CUSTOM
        self._set_default_backend(custom)
        self._register_backend(torch.device("asim"), custom, self._gloo)

    def getBackendName(self) -> str:  # noqa: N802  torch's name
        return "asimccl"

    # -- how one is run ------------------------------------------------------------------------

    def _run(
        self,
        name: str,
        given: list[torch.Tensor],
        taken: list[torch.Tensor],
        act: Callable[[list[torch.Tensor], list[torch.Tensor]], None],
        opts: Any = None,
    ) -> Any:
        """Have ``act`` done over what ranks give and take, in host memory, on a stream."""
        tensors = [*given, *taken]
        on_device = [tensor for tensor in tensors if tensor.device.type == "asim"]
        if not on_device:
            act(given, taken)
            return self._work(None, -1, taken)
        device = on_device[0].device.index
        runtime = self._runtime
        with runtime.lock:
            current = runtime.scheduler.stream(device, self._native.current_stream(device))
            is_async = bool(getattr(opts, "asyncOp", True)) if opts is not None else True
            stream = self._stream_of(device) if is_async else current
            if stream is not current:
                runtime.follow(stream, runtime.mark(current))
            touches = [(*self._native.place(tensor), False) for tensor in given if _is_ours(tensor)]
            touches += [(*self._native.place(tensor), True) for tensor in taken if _is_ours(tensor)]
            host_given, host_taken = map(self._hosts, (given, taken))
            last = self._last

            def run() -> None:
                try:
                    # A rank may have had a later one of this group done first, by another stream.
                    if last is not None and not last.is_done() and not last.stream.busy:
                        runtime.scheduler.reach(last)
                finally:
                    self._heed_abort()
                    # Whatever became of those before: the other ranks are at this one.
                    with below(self._native):
                        act(host_given, host_taken)

            self._last = runtime.issue(stream, f"c10d::{name}", touches, run)
            end = runtime.mark(stream)
            if _RECORDS and stream is not current:
                for tensor in on_device:
                    pointer = tensor.untyped_storage().data_ptr()
                    runtime.memory.record_stream(pointer, stream)
            before = self._native.set_stream(device, stream.number)
            try:
                kept = None if _RECORDS or not is_async else on_device
                return self._work(end, device, taken or given, kept)
            finally:
                self._native.set_stream(device, before)

    def _stream_of(self, device: int, whose: Any = None) -> Any:
        """The group's own stream on a device, or the one of transfers with a peer."""
        key = (device, whose)
        if key not in self._streams:
            self._streams[key] = self._runtime.scheduler.new_stream(device, -1)
        return self._streams[key]

    def _hosts(self, tensors: list[torch.Tensor]) -> list[torch.Tensor]:
        return [self._native.on_host(one) if _is_ours(one) else one for one in tensors]

    def _work(self, end: Event | None, device: int, results: Any, kept: Any = None) -> Any:
        if end is None:
            return self._native.make_work(_Done(), results, -1)
        answers = _Answers(self._runtime, self._native, device, end, kept)
        self._keep(answers)
        return self._native.make_work(answers, results, device)

    def _keep(self, answers: _Answers) -> None:
        self._under_way = [one for one in (*self._under_way, answers) if one.is_kept()]
        if self._batch is not None:
            self._batch.append(answers)

    # torch's names, for collectives and transfers that are begun as one.

    def _start_coalescing(self, _device: torch.device) -> None:
        self._batch = []

    def _end_coalescing(self, _device: torch.device) -> Any:
        batch, self._batch = self._batch or [], None
        return self._native.make_work(_Batch(batch), [], -1)

    def abort(self) -> None:
        """Give up what is under way: whoever has a collective of this group done hears of it."""
        self._is_aborted = True

    def _heed_abort(self) -> None:
        if self._is_aborted:
            raise dist.DistBackendError("asimccl: the group has been aborted")

    def _await(self, work: Any) -> None:
        """Wait for gloo; who waits long has something else done, as a device would."""
        if work is None:
            return
        due = time.monotonic() + _STUCK
        pause = 0.0
        while not work.is_completed():
            self._heed_abort()
            if time.monotonic() > due:
                due = time.monotonic() + _AGAIN
                if not self._runtime.scheduler.nudge():
                    break
            time.sleep(pause)
            pause = min(pause + 1e-5, 1e-3)
        work.wait()

    # -- sums ----------------------------------------------------------------------------------

    def _sum(self, tensor: torch.Tensor, op: Any) -> torch.Tensor:
        """The reduction over the ranks of a host copy."""
        staged = tensor.clone(memory_format=torch.contiguous_format)
        options: Any = dist.AllreduceOptions()
        options.reduceOp = dist.ReduceOp.SUM if op == dist.ReduceOp.AVG else op
        self._await(self._gloo.allreduce([staged], options))
        return staged / self.size() if op == dist.ReduceOp.AVG else staged

    def allreduce(self, tensors: list[torch.Tensor], opts: Any = None) -> Any:
        op = _op(opts)

        def act(_: list[torch.Tensor], taken: list[torch.Tensor]) -> None:
            for tensor in taken:
                tensor.copy_(self._sum(tensor, op))

        return self._run("allreduce_", tensors, tensors, act, opts)

    allreduce_coalesced = allreduce

    def reduce(self, tensors: list[torch.Tensor], opts: Any = None) -> Any:
        op, root = _op(opts), opts.rootRank

        def act(given: list[torch.Tensor], _: list[torch.Tensor]) -> None:
            for tensor in given:
                total = self._sum(tensor, op)
                if self.rank() == root:
                    tensor.copy_(total)

        taken = tensors if self.rank() == root else []
        return self._run("reduce_", tensors, taken, act, opts)

    def reduce_scatter_single(
        self, output: torch.Tensor, given: torch.Tensor, opts: Any = None
    ) -> Any:
        return self.reduce_scatter_single_coalesced([output], [given], opts)

    _reduce_scatter_base = reduce_scatter_single

    def reduce_scatter_single_coalesced(
        self, outputs: list[torch.Tensor], inputs: list[torch.Tensor], opts: Any = None
    ) -> Any:
        op = _op(opts)

        def act(given: list[torch.Tensor], taken: list[torch.Tensor]) -> None:
            for source, target in zip(given, taken, strict=True):
                total = self._sum(source, op)
                part = total.flatten().chunk(self.size())[self.rank()]
                target.copy_(part.reshape(target.shape))

        return self._run("_reduce_scatter_base_", inputs, outputs, act, opts)

    reduce_scatter_tensor_coalesced = reduce_scatter_single_coalesced

    def reduce_scatter(
        self, outputs: list[torch.Tensor], inputs: list[list[torch.Tensor]], opts: Any = None
    ) -> Any:
        op = _op(opts)

        def act(given: list[torch.Tensor], taken: list[torch.Tensor]) -> None:
            for at, target in enumerate(taken):
                parts = given[at * self.size() : (at + 1) * self.size()]
                totals = [self._sum(tensor, op) for tensor in parts]
                target.copy_(totals[self.rank()])

        return self._run("reduce_scatter_", _chained(inputs), outputs, act, opts)

    # -- moves ---------------------------------------------------------------------------------

    def broadcast(self, tensors: list[torch.Tensor], opts: Any = None) -> Any:
        options: Any = dist.BroadcastOptions()
        options.rootRank, options.rootTensor = opts.rootRank, opts.rootTensor
        is_root = self.rank() == opts.rootRank

        def act(given: list[torch.Tensor], taken: list[torch.Tensor]) -> None:
            for tensor in given or taken:
                staged = tensor.contiguous()
                self._await(self._gloo.broadcast([staged], options))
                if not is_root:
                    _fill(tensor, staged)

        given, taken = (tensors, []) if is_root else ([], tensors)
        return self._run("broadcast_", given, taken, act, opts)

    def allgather(
        self, outputs: list[list[torch.Tensor]], inputs: list[torch.Tensor], opts: Any = None
    ) -> Any:
        def act(given: list[torch.Tensor], taken: list[torch.Tensor]) -> None:
            for at, source in enumerate(given):
                targets = taken[at * self.size() : (at + 1) * self.size()]
                staged = [target.contiguous() for target in targets]
                self._await(self._gloo.allgather([staged], [source.contiguous()]))
                for target, value in zip(targets, staged, strict=True):
                    _fill(target, value)

        return self._run("allgather_", inputs, _chained(outputs), act, opts)

    def all_gather_single(self, output: torch.Tensor, given: torch.Tensor, opts: Any = None) -> Any:
        return self.all_gather_single_coalesced([output], [given], opts)

    _allgather_base = all_gather_single

    def all_gather_single_coalesced(
        self, outputs: list[torch.Tensor], inputs: list[torch.Tensor], opts: Any = None
    ) -> Any:
        def act(given: list[torch.Tensor], taken: list[torch.Tensor]) -> None:
            for target, tensor in zip(taken, given, strict=True):
                # The input may be a part of the output.
                source = tensor.clone(memory_format=torch.contiguous_format)
                staged = target.contiguous()
                parts = list(staged.view(self.size(), *source.shape).unbind())
                self._await(self._gloo.allgather([parts], [source]))
                _fill(target, staged)

        return self._run("_allgather_base_", inputs, outputs, act, opts)

    allgather_into_tensor_coalesced = all_gather_single_coalesced

    def gather(
        self, outputs: list[list[torch.Tensor]], inputs: list[torch.Tensor], opts: Any = None
    ) -> Any:
        options: Any = dist.GatherOptions()
        options.rootRank = opts.rootRank

        def act(given: list[torch.Tensor], taken: list[torch.Tensor]) -> None:
            staged = [target.contiguous() for target in taken]
            source = [tensor.contiguous() for tensor in given]
            self._await(self._gloo.gather([staged] if staged else [], source, options))
            for target, value in zip(taken, staged, strict=True):
                _fill(target, value)

        return self._run("gather_", inputs, _chained(outputs), act, opts)

    def scatter(
        self, outputs: list[torch.Tensor], inputs: list[list[torch.Tensor]], opts: Any = None
    ) -> Any:
        options: Any = dist.ScatterOptions()
        options.rootRank = opts.rootRank

        def act(given: list[torch.Tensor], taken: list[torch.Tensor]) -> None:
            staged = [target.contiguous() for target in taken]
            source = [tensor.contiguous() for tensor in given]
            self._await(self._gloo.scatter(staged, [source] if source else [], options))
            for target, value in zip(taken, staged, strict=True):
                _fill(target, value)

        return self._run("scatter_", _chained(inputs), outputs, act, opts)

    def alltoall(
        self, outputs: list[torch.Tensor], inputs: list[torch.Tensor], opts: Any = None
    ) -> Any:
        def act(given: list[torch.Tensor], taken: list[torch.Tensor]) -> None:
            # As bytes, end to end: the tensors of a list may differ in shape.
            source = [tensor.contiguous().view(-1).view(torch.uint8) for tensor in given]
            staged = [tensor.contiguous() for tensor in taken]
            sizes = [tensor.nbytes for tensor in staged]
            buffer = torch.empty(sum(sizes), dtype=torch.uint8)
            lengths = [len(one) for one in source]
            self._await(self._gloo.alltoall_base(buffer, torch.cat(source), sizes, lengths))
            for target, value, part in zip(taken, staged, buffer.split(sizes), strict=True):
                value.view(-1).view(torch.uint8).copy_(part)
                _fill(target, value)

        return self._run("alltoall_", inputs, outputs, act, opts)

    def alltoall_base(
        self,
        output: torch.Tensor,
        given: torch.Tensor,
        output_sizes: list[int],
        input_sizes: list[int],
        opts: Any = None,
    ) -> Any:
        def act(sources: list[torch.Tensor], targets: list[torch.Tensor]) -> None:
            staged = targets[0].contiguous()
            source = sources[0].contiguous()
            self._await(self._gloo.alltoall_base(staged, source, output_sizes, input_sizes))
            _fill(targets[0], staged)

        return self._run("alltoall_base_", [given], [output], act, opts)

    all_to_all_single = alltoall_base

    # -- between two ranks ---------------------------------------------------------------------

    # Ranks run other programs there, and a queue that is done late would wait for a peer that waits
    # for this one. So the bytes are sent at once, after what the current stream has to do, and whoever
    # waits for the work has the host wait for them. The order is that of a stream, for each peer and
    # direction: nobody who does not wait for the work comes after it.

    def send(self, tensors: list[torch.Tensor], rank: int, tag: int) -> Any:
        return self._between("send", tensors, rank, tag, writes=False)

    def recv(self, tensors: list[torch.Tensor], rank: int, tag: int) -> Any:
        return self._between("recv_", tensors, rank, tag, writes=True)

    def _between(
        self, name: str, tensors: list[torch.Tensor], rank: int, tag: int, *, writes: bool
    ) -> Any:
        begin = self._gloo.recv if writes else self._gloo.send
        on_device = [tensor for tensor in tensors if _is_ours(tensor)]
        if not on_device:
            return self._native.make_work(_HostTransfer(begin(tensors, rank, tag)), tensors, -1)
        runtime, device = self._runtime, on_device[0].device.index
        with runtime.lock:
            current = runtime.scheduler.stream(device, self._native.current_stream(device))
            before = runtime.mark(current)
            # Its values must be there, but the host is told nothing: on a device it would not wait.
            runtime.scheduler.reach(before.mark)
            stream = self._stream_of(device, (rank, writes))
            runtime.follow(stream, before)
            touches = [(*self._native.place(tensor), writes) for tensor in on_device]
            runtime.issue(stream, f"c10d::{name}", touches, lambda: None)
            end = runtime.mark(stream)
            work = begin(self._hosts(tensors), rank, tag)
            transfer = _Transfer(runtime, self._native, device, end, on_device, work)
            self._keep(transfer)
            before_it = self._native.set_stream(device, stream.number)
            try:
                return self._native.make_work(transfer, tensors, device)
            finally:
                self._native.set_stream(device, before_it)

    def barrier(self, opts: Any = None) -> Any:
        self._runtime.synchronize_device(self._native.current_device())
        self._gloo.barrier().wait()
        return self._work(None, -1, [])


class _HostTransfer:
    """What a work between two ranks is asked whose bytes gloo carries."""

    def __init__(self, work: Any) -> None:
        self._work = work

    def wait(self) -> None:
        self._work.wait()

    def is_completed(self) -> bool:
        return bool(self._work.is_completed())


class _Transfer(_Answers):
    """The same for tensors of the device."""

    def __init__(
        self, runtime: Runtime, native: Any, device: int, end: Event, kept: Any, work: Any
    ) -> None:
        super().__init__(runtime, native, device, end, kept)
        self._work = work

    def wait(self) -> None:
        if self._kept is not None:
            # gloo's may be waited for once.
            self._work.wait()
        super().wait()

    def is_completed(self) -> bool:
        return bool(self._work.is_completed()) and super().is_completed()

    def is_kept(self) -> bool:
        # Its stream is done at once. gloo is done with it for whoever waits for it.
        return self._kept is not None


class _Batch:
    """Works that were begun as one."""

    def __init__(self, works: list[_Answers]) -> None:
        self._works = works

    def wait(self) -> None:
        for work in self._works:
            work.wait()

    def is_completed(self) -> bool:
        return all(work.is_completed() for work in self._works)


class _Done:
    """A work that has ended."""

    def wait(self) -> None:
        pass

    def is_completed(self) -> bool:
        return True


def _is_ours(tensor: torch.Tensor) -> bool:
    return tensor.device.type == "asim"


def _op(opts: Any) -> Any:
    return dist.ReduceOp.SUM if opts is None else opts.reduceOp


def _fill(target: torch.Tensor, value: torch.Tensor) -> None:
    """Bring what came to where it was asked for, unless it lies there already."""
    if target.data_ptr() != value.data_ptr():
        target.copy_(value)


def _chained(lists: list[list[torch.Tensor]]) -> list[torch.Tensor]:
    return [tensor for tensors in lists for tensor in tensors]
