"""NVIDIA's CUDA and AMD's ROCm, which torch both calls ``cuda``."""

from __future__ import annotations

from distparity.devices.base import Device

__all__ = ["DEVICE"]


class Cuda(Device):
    kind = "cuda"

    def environment(self, local_rank: int) -> dict[str, str]:
        # cuBLAS is repeatable from run to run only with a fixed workspace.
        return {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"}

    def absent(self) -> str | None:
        import torch

        if torch.version.cuda is None and torch.version.hip is None:
            return "cuda: this torch was built without CUDA and ROCm"
        return super().absent()

    def describe(self) -> str:
        import torch

        runtime = f"ROCm {torch.version.hip}" if torch.version.hip else f"CUDA {torch.version.cuda}"
        return f"{super().describe()} ({runtime})"

    def backend(self) -> str:
        # gloo beside it, for what strategies keep on the host.
        return "cpu:gloo,cuda:nccl"

    def backend_version(self) -> str:
        import torch

        name = "RCCL" if torch.version.hip else "NCCL"
        return f"{name} {'.'.join(map(str, torch.cuda.nccl.version()))}"

    def exact(self) -> None:
        import torch

        # TF32 is another arithmetic than the float32 that the case asks for.
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cudnn.benchmark = False


DEVICE = Cuda()
