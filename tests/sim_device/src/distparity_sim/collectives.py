"""``simccl``: the device's collectives. Each moves to host memory and asks gloo there."""

from __future__ import annotations

import os
from typing import Any

import torch
import torch.distributed as dist
from torch._C import _distributed_c10d

from distparity_sim import faults
from distparity_sim.memory import on_host

__all__ = ["SimCCL", "install"]

#: A restriction that some real backends have.
_NO_AVG = "SIM_NO_AVG" in os.environ


def install() -> None:
    """Have ``init_process_group("simccl")`` make one."""
    dist.Backend.register_backend("simccl", _create, extended_api=True, devices=["sim"])


def _create(options: Any, _backend_options: Any) -> SimCCL:
    faults.last_rank = 1 < options.group_size == options.group_rank + 1
    return SimCCL(options.store, options.group_rank, options.group_size, options.timeout)


#: torch's annotations have only the forms for callers, not the ones that a subclass overrides.
_ProcessGroup: Any = dist.ProcessGroup


class SimCCL(_ProcessGroup):  # type: ignore[misc]  # see above
    """A process group in Python; torch calls it by these names, from Python and from C++."""

    def __init__(self, store: Any, rank: int, size: int, timeout: Any) -> None:
        super().__init__(rank, size)
        self._gloo: Any = _distributed_c10d.ProcessGroupGloo(store, rank, size, timeout)
        # torch keeps a group's name, and for which devices it is, with a group's backends.
        custom = dist.ProcessGroup.BackendType.CUSTOM
        self._set_default_backend(custom)
        self._register_backend(torch.device("sim"), custom, self._gloo)

    def getBackendName(self) -> str:  # noqa: N802  torch's name
        return "simccl"

    # -- sums ----------------------------------------------------------------------------------

    def _sum(self, tensor: torch.Tensor, op: Any) -> torch.Tensor:
        """The reduction over the ranks of a host copy."""
        faults.hang()
        if op == dist.ReduceOp.AVG and _NO_AVG:
            raise RuntimeError("ReduceOp.AVG is not supported by simccl")
        staged = on_host(tensor).clone() if tensor.device.type == "sim" else tensor.clone()
        faults.lose(staged)
        options: Any = dist.AllreduceOptions()
        options.reduceOp = dist.ReduceOp.SUM if op == dist.ReduceOp.AVG else op
        self._gloo.allreduce([staged], options).wait()
        return staged / self.size() if op == dist.ReduceOp.AVG else staged

    def allreduce(self, tensors: list[torch.Tensor], opts: Any = None) -> Any:
        for tensor in tensors:
            self._deliver(self._sum(tensor, _op(opts)), tensor)
        return _done(tensors)

    allreduce_coalesced = allreduce

    def reduce(self, tensors: list[torch.Tensor], opts: Any = None) -> Any:
        for tensor in tensors:
            total = self._sum(tensor, _op(opts))
            if self.rank() == opts.rootRank:
                self._deliver(total, tensor)
        return _done(tensors)

    def reduce_scatter_single(
        self, output: torch.Tensor, given: torch.Tensor, opts: Any = None
    ) -> Any:
        total = self._sum(given, _op(opts))
        self._deliver(total.flatten().chunk(self.size())[self.rank()], output)
        return _done([output])

    _reduce_scatter_base = reduce_scatter_single

    def reduce_scatter_single_coalesced(
        self, outputs: list[torch.Tensor], inputs: list[torch.Tensor], opts: Any = None
    ) -> Any:
        for output, given in zip(outputs, inputs, strict=True):
            self.reduce_scatter_single(output, given, opts)
        return _done(outputs)

    reduce_scatter_tensor_coalesced = reduce_scatter_single_coalesced

    def reduce_scatter(
        self, outputs: list[torch.Tensor], inputs: list[list[torch.Tensor]], opts: Any = None
    ) -> Any:
        for output, given in zip(outputs, inputs, strict=True):
            totals = [self._sum(tensor, _op(opts)) for tensor in given]
            self._deliver(totals[self.rank()], output)
        return _done(outputs)

    def _deliver(self, staged: torch.Tensor, tensor: torch.Tensor) -> None:
        target = _host(tensor)
        faults.late(lambda: target.copy_(staged.reshape(target.shape)))

    # -- moves ---------------------------------------------------------------------------------

    def broadcast(self, tensors: list[torch.Tensor], opts: Any = None) -> Any:
        staged = [_packed(tensor) for tensor in tensors]
        self._gloo.broadcast(staged, opts).wait()
        return _unpacked(staged, tensors)

    def allgather(
        self, outputs: list[list[torch.Tensor]], inputs: list[torch.Tensor], opts: Any = None
    ) -> Any:
        staged = [[_packed(tensor) for tensor in output] for output in outputs]
        for parts, given in zip(staged, inputs, strict=True):
            self._gloo.allgather([parts], [_packed(given)]).wait()
        return _unpacked(_chained(staged), _chained(outputs))

    def all_gather_single(self, output: torch.Tensor, given: torch.Tensor, opts: Any = None) -> Any:
        # The input may be a part of the output.
        source = _packed(given).clone()
        target = _packed(output)
        parts = list(target.view(self.size(), *source.shape).unbind())
        self._gloo.allgather([parts], [source]).wait()
        return _unpacked([target], [output])

    _allgather_base = all_gather_single

    def all_gather_single_coalesced(
        self, outputs: list[torch.Tensor], inputs: list[torch.Tensor], opts: Any = None
    ) -> Any:
        for output, given in zip(outputs, inputs, strict=True):
            self.all_gather_single(output, given)
        return _done(outputs)

    allgather_into_tensor_coalesced = all_gather_single_coalesced

    def gather(
        self, outputs: list[list[torch.Tensor]], inputs: list[torch.Tensor], opts: Any = None
    ) -> Any:
        staged = [[_packed(tensor) for tensor in output] for output in outputs]
        self._gloo.gather(staged, [_packed(tensor) for tensor in inputs], opts).wait()
        return _unpacked(_chained(staged), _chained(outputs))

    def scatter(
        self, outputs: list[torch.Tensor], inputs: list[list[torch.Tensor]], opts: Any = None
    ) -> Any:
        staged = [_packed(tensor) for tensor in outputs]
        self._gloo.scatter(
            staged, [[_packed(one) for one in given] for given in inputs], opts
        ).wait()
        return _unpacked(staged, outputs)

    def alltoall(
        self, outputs: list[torch.Tensor], inputs: list[torch.Tensor], opts: Any = None
    ) -> Any:
        # As bytes, end to end: the tensors of a list may differ in shape.
        given = [_packed(tensor).view(-1).view(torch.uint8) for tensor in inputs]
        staged = [_packed(tensor) for tensor in outputs]
        sizes = [tensor.nbytes for tensor in staged]
        taken = torch.empty(sum(sizes), dtype=torch.uint8)
        self._gloo.alltoall_base(taken, torch.cat(given), sizes, [len(one) for one in given]).wait()
        for target, part in zip(staged, taken.split(sizes), strict=True):
            target.view(-1).view(torch.uint8).copy_(part)
        return _unpacked(staged, outputs)

    def alltoall_base(
        self,
        output: torch.Tensor,
        given: torch.Tensor,
        output_sizes: list[int],
        input_sizes: list[int],
        opts: Any = None,
    ) -> Any:
        target = _packed(output)
        self._gloo.alltoall_base(target, _packed(given), output_sizes, input_sizes).wait()
        return _unpacked([target], [output])

    all_to_all_single = alltoall_base

    # What is sent is waited for by the caller: two ranks that send to one another first, and
    # receive then, would wait here for ever.

    def send(self, tensors: list[torch.Tensor], rank: int, tag: int) -> Any:
        return self._gloo.send([_host(tensor) for tensor in tensors], rank, tag)

    def recv(self, tensors: list[torch.Tensor], rank: int, tag: int) -> Any:
        return self._gloo.recv([_host(tensor) for tensor in tensors], rank, tag)

    def barrier(self, opts: Any = None) -> Any:
        self._gloo.barrier().wait()
        return _done([])


def _op(opts: Any) -> Any:
    return dist.ReduceOp.SUM if opts is None else opts.reduceOp


def _host(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor's own bytes, where gloo can see them."""
    return on_host(tensor) if tensor.device.type == "sim" else tensor


def _packed(tensor: torch.Tensor) -> torch.Tensor:
    """The same without gaps in memory, which gloo would count as elements; a copy where it has any."""
    return _host(tensor).contiguous()


def _unpacked(staged: list[torch.Tensor], tensors: list[torch.Tensor]) -> Any:
    """Bring what came to where it was asked for, unless it lies there already."""
    for source, tensor in zip(staged, tensors, strict=True):
        target = _host(tensor)
        if target.data_ptr() != source.data_ptr():
            target.copy_(source)
    return _done(tensors)


def _chained(lists: list[list[torch.Tensor]]) -> list[torch.Tensor]:
    return [tensor for tensors in lists for tensor in tensors]


def _done(tensors: list[torch.Tensor]) -> Any:
    """A work that has ended; it hands out what it was made from."""
    c10d: Any = _distributed_c10d
    future: Any = torch.futures.Future(devices=[torch.device("sim", 0)])
    future.set_result(tensors)
    return c10d._create_work_from_future(future)
