"""``torch.nn.functional.conv1d(t[0], t[1], t[2], stride=(1,), padding='same', groups=2, dilation=(2,))`` of DTensors (Psum, R, R) differs from that of plain tensors.

The last line begins with ``defect:`` (exit code 1) or ``right:`` (0). It needs torch alone."""

import datetime
import tempfile

import torch
import torch.distributed as dist
from torch.distributed._tensor import DTensor, Partial, Replicate, Shard

RANKS, LIMIT = 2, datetime.timedelta(seconds=20)
WHOLE = [torch.tensor([[[0.052181243896484375, -0.19079303741455078, -0.760584831237793, 0.8412590026855469], [-0.19788551330566406, -0.11659717559814453, -0.7022418975830078, 0.8232393264770508]], [[-0.04760265350341797, -2.012500762939453, -0.7989168167114258, 1.0357933044433594], [1.0740633010864258, 1.1465215682983398, 1.2318010330200195, -0.41725730895996094]]], dtype=torch.float64), torch.tensor([[[0.21932506561279297, 0.22766494750976562, 0.14254093170166016, 0.65521240234375]], [[-0.13894271850585938, -0.882206916809082, -1.3044862747192383, -0.22350215911865234]]], dtype=torch.float64), torch.tensor([1.5331716537475586, -0.0885477066040039], dtype=torch.float64)]
PARTS = [[torch.tensor([[[-0.9076948165893555, 0.03908348083496094, -0.991236686706543, 0.1189413070678711], [-0.8434181213378906, -0.5547351837158203, -0.40300464630126953, 0.8017082214355469]], [[0.11680221557617188, 0.11233901977539062, -0.9485301971435547, 0.42162322998046875], [-0.46266651153564453, -0.9061212539672852, -1.1314716339111328, -0.36235618591308594]]], dtype=torch.float64), torch.tensor([[[0.9598760604858398, -0.22987651824951172, 0.23065185546875, 0.7223176956176758], [0.6455326080322266, 0.4381380081176758, -0.2992372512817383, 0.021531105041503906]], [[-0.16440486907958984, -2.1248397827148438, 0.1496133804321289, 0.6141700744628906], [1.5367298126220703, 2.052642822265625, 2.3632726669311523, -0.054901123046875]]], dtype=torch.float64)], [WHOLE[1].clone() for _ in range(RANKS)], [WHOLE[2].clone() for _ in range(RANKS)]]
PLACEMENTS = [[Partial("sum")], [Replicate()], [Replicate()]]


def compute(t):
    made = torch.nn.functional.conv1d(t[0], t[1], t[2], stride=(1,), padding='same', groups=2, dilation=(2,))
    made = list(made) if isinstance(made, (tuple, list)) else [made]
    found = {f"result {n}": torch.as_tensor(full(one)).detach() for n, one in enumerate(made)}
    return found


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
