"""``torch.index_add(t[0], -1, t[1], t[2], alpha=-1)`` of DTensors (S1, R, R) differs from that of plain tensors.

The last line begins with ``defect:`` (exit code 1) or ``right:`` (0). It needs torch alone."""

import datetime
import tempfile

import torch
import torch.distributed as dist
from torch.distributed._tensor import DTensor, Partial, Replicate, Shard

RANKS, LIMIT = 2, datetime.timedelta(seconds=20)
WHOLE = [torch.tensor([[1.3977317810058594, 0.4444131851196289, -0.7430715560913086, 0.30560779571533203, 1.2444133758544922], [1.4998226165771484, -1.2116804122924805, 1.1989116668701172, -0.10172748565673828, 0.2368154525756836], [0.33266448974609375, -0.9134931564331055, 0.9187078475952148, -0.12013721466064453, 0.9199628829956055], [1.9857120513916016, -0.4336376190185547, 0.3095998764038086, -0.41550636291503906, 0.8355484008789062], [0.4395599365234375, -0.9428939819335938, 0.23992538452148438, 1.106003761291504, -1.7565603256225586]], dtype=torch.float64), torch.tensor([4, 0, 2, 1, 3], dtype=torch.int64), torch.tensor([[-0.8869857788085938, 0.6979637145996094, -0.24007892608642578, 0.5558938980102539, 0.2951030731201172], [0.27266502380371094, 0.2897500991821289, -0.13584232330322266, 1.9656438827514648, -0.338714599609375], [1.5973577499389648, -1.1267414093017578, 0.09791374206542969, -2.6255321502685547, 1.2090578079223633], [0.9256715774536133, 0.5684757232666016, 0.6148099899291992, -1.1921091079711914, -1.3822431564331055], [-0.09634971618652344, 0.9789609909057617, 0.7668180465698242, 0.4556694030761719, 0.02895069122314453]], dtype=torch.float64)]
PARTS = [[torch.tensor([[1.3977317810058594, 0.4444131851196289, -0.7430715560913086], [1.4998226165771484, -1.2116804122924805, 1.1989116668701172], [0.33266448974609375, -0.9134931564331055, 0.9187078475952148], [1.9857120513916016, -0.4336376190185547, 0.3095998764038086], [0.4395599365234375, -0.9428939819335938, 0.23992538452148438]], dtype=torch.float64), torch.tensor([[0.30560779571533203, 1.2444133758544922], [-0.10172748565673828, 0.2368154525756836], [-0.12013721466064453, 0.9199628829956055], [-0.41550636291503906, 0.8355484008789062], [1.106003761291504, -1.7565603256225586]], dtype=torch.float64)], [WHOLE[1].clone() for _ in range(RANKS)], [WHOLE[2].clone() for _ in range(RANKS)]]
PLACEMENTS = [[Shard(1)], [Replicate()], [Replicate()]]


def compute(t):
    t[0].index_add_(-1, t[1], t[2], alpha=-1)
    return {"changed input": full(t[0])}


def full(t):
    return t.full_tensor() if isinstance(t, DTensor) else t


def expected(rank):
    return compute([w.clone() for w in WHOLE])


def distributed(rank):
    mesh = dist.init_device_mesh("cpu", (2,), mesh_dim_names=('a',))
    words = [{"run_check": False, "shape": w.shape, "stride": w.stride()} for w in WHOLE]
    return compute([DTensor.from_local(p[rank], mesh, h, **w) for p, h, w in zip(PARTS, PLACEMENTS, words)])


def differ(found, right):
    for name, value in right.items():
        one, other = found[name].resolve_conj(), value.resolve_conj()
        alike = one.shape == other.shape and one.dtype == other.dtype
        off = ~torch.isclose(one, other, 1e-5, 1e-5, equal_nan=True) if alike else torch.ones(1)
        for n in off.flatten().nonzero().flatten().tolist():
            seen = [f"{t.dtype} {list(t.shape)} {t.flatten()[n:][:3].tolist()}" for t in (one, other)]
            return f"{name}: {seen[0]}, not {seen[1]}, from element {n} on"
    return ""


def run(rank, folder):
    dist.init_process_group("gloo", f"file://{folder}/store", LIMIT, RANKS, rank)
    dist.barrier()  # A rank that leaves early would end the others' connecting.
    try:
        said = differ(distributed(rank), expected(rank))
        dist.barrier()
    except Exception as error:
        said = f"raised {type(error).__name__}: {error}".splitlines()[0]
    torch.save(said, f"{folder}/{rank}")
    dist.destroy_process_group()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        started = torch.multiprocessing.start_processes(run, (folder,), RANKS, False, start_method="fork")
        died = [f"died: {one.exitcode}" for one in started.processes if one.join() or one.exitcode not in (0, 1, -9)]
        said = died or [torch.load(f"{folder}/{rank}") for rank in range(RANKS)]
    seen = sorted(("Timed out" in words or "onnection" in words, words) for words in said if words)
    wrong = any(seen) and (seen[-1][0] or not all(words.startswith("raised") for words in said))
    print(f"{'defect' if wrong else 'right'}: torch {torch.__version__}: {seen[0][1] if seen else 'the same'}")
    raise SystemExit(wrong)
