"""``torch.fill(t[0], value=True)`` of DTensors (Psum) differs from that of plain tensors.

The last line begins with ``defect:`` (exit code 1) or ``right:`` (0). It needs torch alone."""

import datetime
import tempfile

import torch
import torch.distributed as dist
from torch.distributed._tensor import DTensor, Partial, Replicate, Shard

RANKS, LIMIT = 2, datetime.timedelta(seconds=20)
WHOLE = [torch.tensor([2.378169059753418, -1.0634441375732422, 0.5330982208251953, 0.3382854461669922, -0.13698673248291016, 1.1032352447509766, 0.4624671936035156, -1.3406562805175781, -0.8459901809692383, 1.1285877227783203, 2.8276119232177734, -0.1342153549194336, -0.0821533203125, 0.8052330017089844, 0.993565559387207, 0.8883838653564453, -1.3763656616210938, 0.3839530944824219, 0.1504535675048828, 0.6117343902587891], dtype=torch.float64)]
PARTS = [[torch.tensor([-0.9076948165893555, 0.03908348083496094, -0.991236686706543, 0.1189413070678711, -0.5324001312255859, -0.6684637069702148, -0.2407674789428711, -0.7981719970703125, 0.8271608352661133, -0.32080841064453125, 0.3936948776245117, 1.5105514526367188, 2.061861991882324, -0.07974433898925781, -0.4233665466308594, 0.052130699157714844, -0.0639810562133789, -0.9083080291748047, -0.6949939727783203, 0.3609180450439453], dtype=torch.float64), torch.tensor([3.2858638763427734, -1.1025276184082031, 1.5243349075317383, 0.2193441390991211, 0.3954133987426758, 1.7716989517211914, 0.7032346725463867, -0.5424842834472656, -1.6731510162353516, 1.4493961334228516, 2.4339170455932617, -1.6447668075561523, -2.144015312194824, 0.8849773406982422, 1.4169321060180664, 0.8362531661987305, -1.3123846054077148, 1.2922611236572266, 0.8454475402832031, 0.25081634521484375], dtype=torch.float64)]]
PLACEMENTS = [[Partial("sum")]]


def compute(t):
    t[0].fill_(value=True)
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
