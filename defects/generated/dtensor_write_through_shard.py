"""``torch.split(t[0], 2)`` of DTensors (S0) differs from that of plain tensors.

The last line begins with ``defect:`` (exit code 1) or ``right:`` (0). It needs torch alone."""

import datetime
import tempfile

import torch
import torch.distributed as dist
from torch.distributed._tensor import DTensor, Partial, Replicate, Shard

RANKS, LIMIT = 2, datetime.timedelta(seconds=20)
WHOLE = [torch.tensor([[[0.13693904876708984, 0.9246330261230469, -1.2699813842773438, -1.4441556930541992], [-0.015488624572753906, -0.1458120346069336, 1.8608169555664062, 1.1595096588134766], [0.5204315185546875, 0.9758443832397461, 1.653843879699707, 0.28851318359375], [-0.8831491470336914, 1.8876209259033203, 1.151662826538086, 0.6377058029174805]], [[1.5748405456542969, 1.1222591400146484, -0.6519327163696289, -0.7804784774780273], [-1.0077552795410156, -1.3164129257202148, -0.47361087799072266, 1.8359746932983398], [0.5474405288696289, 0.3221931457519531, -0.8332433700561523, -0.7533302307128906], [0.3497600555419922, -2.5916128158569336, 1.078810691833496, -1.7395410537719727]], [[0.511749267578125, 1.780670166015625, -0.9681167602539062, 0.3304281234741211], [0.707707405090332, -0.12697792053222656, -1.6578388214111328, -0.05127239227294922], [0.07401847839355469, 0.15978240966796875, 0.34584712982177734, 1.7489547729492188], [-0.983098030090332, -1.0340557098388672, -0.9009714126586914, -0.9081974029541016]], [[1.6907958984375, 0.7934837341308594, -1.006840705871582, -0.24431228637695312], [1.1258182525634766, 1.4779300689697266, 1.1199731826782227, -0.41650390625], [-0.1172952651977539, 1.9659786224365234, -0.8918085098266602, -1.317399024963379], [0.5523004531860352, -0.4130210876464844, -0.6469736099243164, -2.3105602264404297]]], dtype=torch.float64)]
PARTS = [[torch.tensor([[[0.13693904876708984, 0.9246330261230469, -1.2699813842773438, -1.4441556930541992], [-0.015488624572753906, -0.1458120346069336, 1.8608169555664062, 1.1595096588134766], [0.5204315185546875, 0.9758443832397461, 1.653843879699707, 0.28851318359375], [-0.8831491470336914, 1.8876209259033203, 1.151662826538086, 0.6377058029174805]], [[1.5748405456542969, 1.1222591400146484, -0.6519327163696289, -0.7804784774780273], [-1.0077552795410156, -1.3164129257202148, -0.47361087799072266, 1.8359746932983398], [0.5474405288696289, 0.3221931457519531, -0.8332433700561523, -0.7533302307128906], [0.3497600555419922, -2.5916128158569336, 1.078810691833496, -1.7395410537719727]]], dtype=torch.float64), torch.tensor([[[0.511749267578125, 1.780670166015625, -0.9681167602539062, 0.3304281234741211], [0.707707405090332, -0.12697792053222656, -1.6578388214111328, -0.05127239227294922], [0.07401847839355469, 0.15978240966796875, 0.34584712982177734, 1.7489547729492188], [-0.983098030090332, -1.0340557098388672, -0.9009714126586914, -0.9081974029541016]], [[1.6907958984375, 0.7934837341308594, -1.006840705871582, -0.24431228637695312], [1.1258182525634766, 1.4779300689697266, 1.1199731826782227, -0.41650390625], [-0.1172952651977539, 1.9659786224365234, -0.8918085098266602, -1.317399024963379], [0.5523004531860352, -0.4130210876464844, -0.6469736099243164, -2.3105602264404297]]], dtype=torch.float64)]]
PLACEMENTS = [[Shard(0)]]


def compute(t):
    views = torch.split(t[0], 2)
    (views[0] if isinstance(views, (tuple, list)) else views).mul_(3)
    return {"input": full(t[0])}


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
