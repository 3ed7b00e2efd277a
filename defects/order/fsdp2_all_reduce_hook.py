"""``set_all_reduce_hook(hook, stream=...)`` without hybrid sharding reads memory that is free already.

    ASIM_MODE=late python defects/order/fsdp2_all_reduce_hook.py

The hook and the cast after it read the reduce-scatter's output on the stream that was given. That
output belongs to the reduce-scatter's stream, nobody holds it, and the next layer's reduce-scatter
may be given its memory. The program compares the gradients with those of plain torch.

It needs torch and distparity-async, and exits with 1 where it shows the defect.
"""

import sys
import tempfile
from typing import Any

import distparity_async as asim
import torch
import torch.distributed as dist
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

LAYERS = 6


def gradients(*, shards: bool) -> list[torch.Tensor]:
    torch.manual_seed(0)
    layers = [torch.nn.Linear(16, 16, bias=False) for _ in range(LAYERS)]
    model = torch.nn.Sequential(*layers).to("asim")
    if shards:
        policy = MixedPrecisionPolicy(reduce_dtype=torch.bfloat16)
        side = torch.Stream(device="asim")
        for layer in model:
            fully_shard(layer, mp_policy=policy)
            layer.set_all_reduce_hook(  # type: ignore[operator]  # fully_shard has changed its class
                lambda gradient: gradient.mul_(1), stream=side
            )
        fully_shard(model, mp_policy=policy)
    model(torch.ones(4, 16, device="asim")).square().mean().backward()
    found: list[Any] = [parameter.grad for parameter in model.parameters()]
    return [getattr(one, "_local_tensor", one).cpu() for one in found]


def main() -> int:
    asim.register()
    with tempfile.NamedTemporaryFile() as store:
        dist.init_process_group("asimccl", init_method=f"file://{store.name}", rank=0, world_size=1)
        exact = gradients(shards=False)
        asim.begin()
        found = gradients(shards=True)
    close = [torch.allclose(*pair, rtol=0.02, atol=1e-6) for pair in zip(exact, found, strict=True)]
    wrong = [number for number, same in enumerate(close) if not same]
    return asim.conclude(f"gradients of layers {wrong}" if wrong else "")


if __name__ == "__main__":
    sys.exit(main())
