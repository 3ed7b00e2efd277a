"""NVIDIA's CUDA and AMD's ROCm, which torch both calls ``cuda``."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from distparity.devices.base import Device, Sharing

__all__ = ["DEVICE"]

#: The first release in which NCCL lets several ranks use one GPU, with a switch:
#: https://docs.nvidia.com/deeplearning/nccl/user-guide/docs/env.html
MULTI_RANK = (2, 30)
#: gloo copies a GPU's tensors through the host in collectives, but not in send and recv: there the
#: kernel gets the GPU's address (https://github.com/pytorch/pytorch/issues/45995).
NO_TRANSFERS = {"Bad address": "cuda: gloo cannot send or receive GPU memory"}


#: What the driver of a GPU puts under /dev: NVIDIA's and AMD's.
NODES = ("/dev/nvidiactl", "/dev/kfd")


class Cuda(Device):
    kind = "cuda"

    def environment(self, index: int) -> dict[str, str]:
        # All ranks are on this machine; otherwise NCCL would listen on the network.
        interface = os.environ.get("NCCL_SOCKET_IFNAME", "lo")
        # cuBLAS is repeatable from run to run only with a fixed workspace.
        return {"CUBLAS_WORKSPACE_CONFIG": ":4096:8", "NCCL_SOCKET_IFNAME": interface}

    def absent(self) -> str | None:
        import torch

        if torch.version.cuda is None and torch.version.hip is None:
            return "cuda: this torch was built without CUDA and ROCm"
        return super().absent()

    def installed(self) -> str:
        return next((node for node in NODES if Path(node).exists()), "")

    def describe(self) -> str:
        import torch

        runtime = f"ROCm {torch.version.hip}" if torch.version.hip else f"CUDA {torch.version.cuda}"
        return f"{super().describe()} ({runtime})"

    def backend(self) -> str:
        # gloo in addition, for tensors that strategies keep on the host.
        return "cpu:gloo,cuda:nccl"

    def backend_version(self) -> str:
        import torch

        name = "RCCL" if torch.version.hip else "NCCL"
        return f"{name} {'.'.join(map(str, torch.cuda.nccl.version()))}"

    def sharing(self) -> Sequence[Sharing]:
        import torch

        ways = [Sharing("gloo", "gloo", refuses=NO_TRANSFERS)]
        # Second, because it is documented as experimental and may hang; RCCL has no such switch.
        if torch.version.hip is None and torch.cuda.nccl.version()[:2] >= MULTI_RANK:
            # The variables after the switch are those that its documentation requires.
            switches = {"NCCL_MULTI_RANK_GPU_ENABLE": "1", "NCCL_NVLS_ENABLE": "0"}
            ways.append(Sharing(self.backend(), "nccl", {**switches, "NCCL_MAX_CTAS": "2"}))
        return ways

    def exact(self) -> None:
        import torch

        torch.use_deterministic_algorithms(True, warn_only=True)
        # TF32 is not the float32 arithmetic that the case requests. Sums in half precision inside
        # half-precision products are not the requested arithmetic either.
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = False
        torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cudnn.benchmark = False


DEVICE = Cuda()
