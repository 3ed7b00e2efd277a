"""DDP's ``mixed_precision`` exchanges memory that was never written, and its streams do not wait.

    ASIM_MODE=eager python defects/order/ddp_mixed_precision.py

DDP casts its buckets when it is made, but views of the old ones take the first gradients: what the
first backward exchanges, and leaves as gradients, is what the new memory holds by chance (NaN here). The
order has gaps as well. The stream that casts the parameters before a forward does not wait for the
optimizer's step, and memory of cast parameters and gradients is given back while another stream may
read it. The program compares the gradients of two backwards with the same parameters and rows.

It needs torch and distparity-async, and exits with 1 where it shows the defect.
"""

import sys
import tempfile

import distparity_async as asim
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from torch.nn.parallel.distributed import _MixedPrecision


def main() -> int:
    asim.register()
    torch.manual_seed(0)
    layers = [torch.nn.Linear(16, 16) for _ in range(4)]
    half = _MixedPrecision(param_dtype=torch.bfloat16, reduce_dtype=torch.bfloat16)
    batch = torch.ones(4, 16, device="asim")
    found = []
    with tempfile.NamedTemporaryFile() as store:
        dist.init_process_group("asimccl", init_method=f"file://{store.name}", rank=0, world_size=1)
        inner = torch.nn.Sequential(*layers).to("asim")
        model = DistributedDataParallel(inner, mixed_precision=half, bucket_cap_mb=0.001)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        asim.begin()
        for _ in range(2):
            optimizer.zero_grad()
            model(batch).square().mean().backward()
            gradients = [one.grad for one in model.parameters() if one.grad is not None]
            found.append(torch.cat([one.flatten() for one in gradients]))
        optimizer.step()
        model(batch)
    sums = [one.sum().item() for one in found]
    return asim.conclude("" if torch.equal(*found) else f"gradients, with the sums {sums}")


if __name__ == "__main__":
    sys.exit(main())
