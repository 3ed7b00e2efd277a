"""``torch.linalg.matrix_rank(t[0], hermitian=True)`` of DTensors (R) differs from that of plain tensors.

The last line begins with ``defect:`` (exit code 1) or ``right:`` (0). It needs torch alone."""

import datetime
import tempfile

import torch
import torch.distributed as dist
from torch.distributed._tensor import DTensor, Partial, Replicate, Shard
from torch.distributed._tensor import distribute_tensor

RANKS, LIMIT = 2, datetime.timedelta(seconds=20)
WHOLE = [torch.tensor([[[-0.1683197021484375, 0.7823343276977539, 0.7239160537719727, -0.3313484191894531, -0.3601236343383789], [-0.3722066879272461, -0.7501535415649414, -0.46588706970214844, 0.20291900634765625, -0.17604541778564453], [-0.12318992614746094, 0.758244514465332, -0.3551359176635742, -0.5379047393798828, 0.6665716171264648], [-0.24369239807128906, -0.5885839462280273, 0.25908756256103516, 0.6808633804321289, 0.8846855163574219], [-0.40397071838378906, 0.8510417938232422, -0.8216514587402344, -0.5514612197875977, -0.20767784118652344]], [[-0.2819833755493164, -0.7560825347900391, -0.33586883544921875, -0.32361888885498047, 0.46407318115234375], [0.17379188537597656, -0.07674217224121094, -0.8736047744750977, -0.7671470642089844, 0.6520185470581055], [0.33032989501953125, 0.8599166870117188, 0.039101600646972656, 0.8266286849975586, -0.37750911712646484], [-0.6462373733520508, 0.7887382507324219, -0.0037584304809570312, -0.771540641784668, -0.3615694046020508], [0.4882946014404297, -0.23762989044189453, 0.024286270141601562, -0.2173595428466797, -0.7331047058105469]]], dtype=torch.float64)]
PARTS = [[WHOLE[0].clone() for _ in range(RANKS)]]
PLACEMENTS = [[Replicate()]]


def compute(t):
    made = torch.linalg.matrix_rank(WHOLE[0], hermitian=True)
    outs = [torch.full_like(one, 77) for one in (made if isinstance(made, tuple) else [made])]
    if isinstance(t[0], DTensor):
        mesh, how = t[0].device_mesh, Replicate()
        hows = [how if one.dim() else Replicate() for one in outs]
        outs = [distribute_tensor(one, mesh, [how]) for one, how in zip(outs, hows)]
    with torch.no_grad():
        torch.linalg.matrix_rank(t[0], hermitian=True, out=outs[0] if len(outs) == 1 else tuple(outs))
    return {f"out {n}": full(one) for n, one in enumerate(outs)}


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
