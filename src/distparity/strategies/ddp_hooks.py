"""``DistributedDataParallel`` with a communication hook that compresses gradients."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks import default_hooks, powerSGD_hook

from distparity.core.known_limit import Limit
from distparity.strategies.ddp import Ddp

if TYPE_CHECKING:
    from distparity.devices.context import RankContext

Hook = tuple[Any, Callable[..., Any]]


class _Hooked(Ddp):
    """It has no name, so it makes no cases."""

    tier = "variant"
    lacks: ClassVar[Mapping[str, str]] = {
        **Ddp.lacks,
        # "User is responsible to divide by the world_size", and torch's own hooks divide by all.
        "missing_rows_left_out": "a hook divides by the number of all ranks, even if some have run out of batches",
    }

    def hook(self) -> Hook:
        """The hook's state, and the hook."""
        raise NotImplementedError

    def wrap(self, model: nn.Module, units: Sequence[nn.Module], context: RankContext) -> nn.Module:
        wrapped = super().wrap(model, units, context)
        for reducer in self.reducers(wrapped):
            reducer.register_comm_hook(*self.hook())
        return wrapped


class DdpAllreduceHook(_Hooked):
    """A hook that does what DDP does without one."""

    name = "ddp_allreduce_hook"
    title = "DistributedDataParallel, allreduce_hook"

    def hook(self) -> Hook:
        return None, default_hooks.allreduce_hook


class DdpFp16Hook(_Hooked):
    name = "ddp_fp16_hook"
    title = "DistributedDataParallel, fp16_compress_hook"
    reduce_dtype = "float16"

    def hook(self) -> Hook:
        return None, default_hooks.fp16_compress_hook


class DdpBf16Hook(_Hooked):
    name = "ddp_bf16_hook"
    title = "DistributedDataParallel, bf16_compress_hook"
    reduce_dtype = "bfloat16"
    limits: ClassVar[tuple[Limit, ...]] = (
        *Ddp.limits,
        Limit(fact="bf16_compress_hook on cpu", answer=r"bfloat16|BFloat16|bf16", device="cpu"),
        # On every device: torch checks what it was built for, and a build for the CPU lacks that.
        Limit(
            fact="bf16_compress_hook with this build of torch",
            answer="BF16 all reduce communication hook required",
        ),
    )

    def hook(self) -> Hook:
        return None, default_hooks.bf16_compress_hook


class _PowerSgd(_Hooked):
    """PowerSGD with a rank as high as that of any matrix.

    A low rank changes the optimization: it may drop a whole gradient, so that no error bound below the
    gradient itself holds. At full rank the projection keeps everything, and only rounding remains. In half
    precision that is no better: the columns are made orthogonal by Gram-Schmidt, whose errors grow with the
    gradient's condition number. The same products in one process were off by 0.14 of a gradient of 0.15.
    """

    multiplies = True
    lacks: ClassVar[Mapping[str, str]] = {
        **_Hooked.lacks,
        **dict.fromkeys(
            ("bfloat16", "float16"),
            "in half precision it orthogonalizes by Gram-Schmidt, which may round off a whole gradient",
        ),
    }


class DdpPowerSgd(_PowerSgd):
    name = "ddp_powersgd"
    title = "DistributedDataParallel, powerSGD_hook of full rank"

    def hook(self) -> Hook:
        state = powerSGD_hook.PowerSGDState(
            process_group=None,
            matrix_approximation_rank=2**20,
            # The earliest step that it accepts with its default error feedback.
            start_powerSGD_iter=2,
            # Compress even if that saves nothing.
            min_compression_rate=2**-30,
        )
        return state, powerSGD_hook.powerSGD_hook


class DdpPowerSgdAtOnce(_PowerSgd):
    name = "ddp_powersgd_at_once"
    title = "DistributedDataParallel, powerSGD_hook of full rank from the first step on"

    def hook(self) -> Hook:
        state = powerSGD_hook.PowerSGDState(
            process_group=None,
            matrix_approximation_rank=2**20,
            start_powerSGD_iter=0,
            min_compression_rate=2**-30,
            use_error_feedback=False,
            warm_start=False,
        )
        return state, powerSGD_hook.powerSGD_hook
