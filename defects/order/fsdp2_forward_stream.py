"""Under ``fully_shard``, a forward on a stream of its own leaves gradients in memory that is free already.

    ASIM_MODE=side python defects/order/fsdp2_forward_stream.py

The backward's operations run on the stream of the forward, and the end of the backward on the stream that
called it. There the gradient of a layer whose input needs none is read, and given back without a word to
the stream that owns its memory, which may hand it out at once. (Before torch 2.15 the input of each
reduce-scatter is given back in the same way.) The program reads the loss on that stream, and compares the
gradients with those of plain torch.

It needs torch and distparity-async, and exits with 1 where it shows the defect.
"""

import sys
import tempfile
from typing import Any

import distparity_async as asim
import torch
import torch.distributed as dist
from torch.distributed.fsdp import fully_shard


def gradients(*, shards: bool) -> list[torch.Tensor]:
    torch.manual_seed(0)
    layers = [torch.nn.Linear(16, 16, bias=False) for _ in range(4)]
    model = torch.nn.Sequential(*layers).to("asim")
    if shards:
        for layer in (*model, model):
            fully_shard(layer)
    batch = torch.ones(4, 16, device="asim")
    side, current = torch.Stream(device="asim"), torch.accelerator.current_stream()
    side.wait_stream(current)
    with side:
        loss = model(batch).square().mean()
    loss.backward()
    with side:
        # As for a log.
        (loss.detach() * 2).item()
    current.wait_stream(side)
    found: list[Any] = [parameter.grad for parameter in model.parameters()]
    return [getattr(one, "_local_tensor", one).cpu() for one in found]


def main() -> int:
    asim.register()
    with tempfile.NamedTemporaryFile() as store:
        dist.init_process_group("asimccl", init_method=f"file://{store.name}", rank=0, world_size=1)
        exact = gradients(shards=False)
        asim.begin()
        found = gradients(shards=True)
    close = [torch.allclose(*pair) for pair in zip(exact, found, strict=True)]
    wrong = [number for number, same in enumerate(close) if not same]
    return asim.conclude(f"gradients of layers {wrong}" if wrong else "")


if __name__ == "__main__":
    sys.exit(main())
