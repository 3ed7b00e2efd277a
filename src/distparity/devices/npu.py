"""Huawei's Ascend, through torch_npu."""

from __future__ import annotations

from distparity.devices.base import Device, ask_float64

__all__ = ["DEVICE"]


class Npu(Device):
    kind = "npu"
    packages = ("torch_npu",)

    def environment(self, index: int) -> dict[str, str]:
        # HCCL reads it when a communicator is made.
        return {"HCCL_DETERMINISTIC": "true"}

    def exact(self) -> None:
        import torch

        torch.use_deterministic_algorithms(True, warn_only=True)
        # HF32 is Ascend's counterpart of TF32; it is on by default for convolutions.
        self.module().matmul.allow_hf32 = False
        self.module().conv.allow_hf32 = False

    def load(self) -> None:
        import torch_npu  # type: ignore[import-not-found]  # noqa: F401

    def backend(self) -> str:
        return "cpu:gloo,npu:hccl"

    def backend_version(self) -> str:
        from importlib.metadata import version

        return f"torch_npu {version('torch_npu')}"

    def lacks(self) -> dict[str, str]:
        # Some operations on float64 are documented to return float32.
        fact = ask_float64(self.kind)
        return {} if fact is None else {"float64": f"npu: {fact}"}


DEVICE = Npu()
