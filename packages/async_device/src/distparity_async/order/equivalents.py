"""Statements that nobody has to notice, and why: something else makes the same order, or torch raises."""

from __future__ import annotations

__all__ = ["EQUIVALENT", "REFUSED"]

_COPY_IN = (
    "the all-gather stream waits for the copy-in stream before each all-gather, and that one waits for "
    "the same"
)
_RESET = (
    "`_reset_iter_state` waits for the end of the reductions twice: by group, and by stream; and that "
    "comes after the collectives"
)
_FINALIZED = (
    "`finalize_backward` has waited for a later event: the end of what follows the reduce-scatter"
)
_KEPT = "the group keeps the memory of a collective for which nobody waits until it is done"

#: By :attr:`.statements.Statement.name`, which no release has changed the meaning of so far.
EQUIVALENT: dict[str, str] = {
    # -- FSDP2 --
    "_fsdp_param_group.FSDPParamGroup._wait_all_gather_streams_on_event: "
    "self.comm_ctx.all_gather_stream.wait_event(event)": _COPY_IN,
    "_fsdp_param_group.FSDPCommContext.wait_all_gather_streams_on_event: "
    "self.all_gather_stream.wait_event(event)": _COPY_IN,
    "_fsdp_state.FSDPState._root_pre_forward: self._comm_ctx.all_gather_stream.wait_event(event)": (
        _COPY_IN
    ),
    "_fsdp_state.FSDPState._root_pre_forward: "
    "self._comm_ctx.all_gather_stream.wait_stream(current_stream)": _COPY_IN,
    "_fsdp_state.FSDPState._post_forward: "
    "self._comm_ctx.all_gather_stream.wait_event(all_gather_state.event)": _COPY_IN,
    "_fsdp_state.FSDPState._root_post_backward_final_callback: "
    "self._device_handle.current_stream().wait_event(rs_state.event)": _FINALIZED,
    # The same in torch 2.10 and 2.11.
    "_fsdp_state.FSDPState._root_post_backward_final_callback: "
    "self._device_handle.current_stream().wait_event(self._comm_ctx.reduce_scatter_state.event)": (
        _FINALIZED
    ),
    "_fsdp_param_group.FSDPCommContext.release_all_gather_state_on_current_stream: "
    "self.device_handle.current_stream().wait_event(all_gather_state.event)": (
        "the event is that of the copy-out, which ran on the stream of the forward; the next forward uses "
        "the same parameters, so it is ordered behind that one anyway"
    ),
    "_fsdp_state.FSDPState._reset_iter_state: current_stream.wait_event(ag_state.event)": (
        "the event is that of the copy-out, which ran on the current stream itself"
    ),
    "_fsdp_state.FSDPState._reset_iter_state: current_stream.wait_event(rs_state.event)": _RESET,
    "_fsdp_state.FSDPState._reset_iter_state: current_stream.wait_event(event)": _RESET,
    "_fsdp_param_group.FSDPParamGroup._reset_iter_state: "
    "current_stream.wait_event(self._post_reduce_event)": _RESET,
    "_fsdp_param_group.FSDPParamGroup._reset_iter_state: "
    "current_stream.wait_event(self._all_reduce_state.event)": _RESET,
    "_fsdp_param_group.FSDPParamGroup.post_backward: "
    "self.device_handle.current_stream().wait_event(self._post_reduce_event)": (
        "all that the reduction reads is held, or is the reduce-scatter stream's own memory; torch's "
        "comment says the same, and has it for one kind of GPU"
    ),
    "_fsdp_param_group.FSDPParamGroup._wait_for_post_backward: "
    "self.device_handle.current_stream().wait_event(self._all_reduce_state.event)": (
        "the statement before it waits for a later event of the same stream"
    ),
    "_fsdp_param_group.FSDPParamGroup._reset_iter_state: work.wait()": _KEPT,
    "_fsdp_param_group.FSDPParamGroup.finalize_backward: work.wait()": _KEPT,
    # -- DDP --
    "distributed.DistributedDataParallel._match_all_reduce_for_bwd_pass: work.wait()": (
        f"a rank that has joined reads nothing of the sums, and {_KEPT}"
    ),
    # -- checkpoints --
    "staging.DefaultStager._stage: self._staging_stream.synchronize()": (
        "torch pins the memory by CUDA's runtime alone; elsewhere the host waits for each copy"
    ),
    # -- FSDP1 --
    "_runtime_utils._unshard: event.synchronize()": (
        "it keeps the host from running ahead, for memory's sake; all order is made by streams"
    ),
    "_runtime_utils._offload_grad: "
    "_no_dispatch_record_stream(grad_to_offload.data, state._post_backward_stream)": (
        "a shard's memory is that stream's own, and without shards the host waits for the copy"
    ),
    "_runtime_utils._cast_grad_to_param_dtype: "
    "_no_dispatch_record_stream(low_prec_grad_data, state._device_handle.current_stream())": (
        "a shard's memory is that stream's own; that of a whole gradient and of a hybrid one has been "
        "recorded by `_post_backward_hook` and `_reduce_grad`"
    ),
    "_unshard_param_utils._unshard_fsdp_state_params: state._device_handle.synchronize()": (
        "parameters are gathered on the current stream, which has waited for all others at the end of "
        "backward"
    ),
    "default_hooks._decompress: orig_grad_data.record_stream(backend.current_stream())": (
        "the hook itself has made the compressed gradient, on this very stream"
    ),
}

#: Statements without which torch raises, and with which words: nothing is left for others to notice.
REFUSED: dict[str, str] = {
    "schedules._PipelineScheduleRuntime._step_microbatches._perform_action: pending_sends.wait(key)": (
        "Pipeline sends have no matching wait"
    ),
}
