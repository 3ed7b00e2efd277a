"""``torch.scatter(t[0], -1, t[1], t[2])`` of DTensors (R, S0, R) differs from that of plain tensors.

The last line begins with ``defect:`` (exit code 1) or ``right:`` (0). It needs torch alone."""

import datetime
import tempfile

import torch
import torch.distributed as dist
from torch.distributed._tensor import DTensor, Partial, Replicate, Shard

RANKS, LIMIT = 2, datetime.timedelta(seconds=20)
WHOLE = [torch.tensor([[1.258366584777832, 0.3541383743286133, -0.015147209167480469, 0.4614725112915039, 0.7374763488769531], [1.0716772079467773, 0.6241912841796875, 1.3006153106689453, -0.5015945434570312, 0.04254722595214844], [0.09378910064697266, 0.39471912384033203, -1.5111799240112305, 0.054360389709472656, 1.8869085311889648], [-0.6339454650878906, -0.19162368774414062, -0.9292736053466797, 0.24622726440429688, 0.5357122421264648], [-0.22278499603271484, -0.26987361907958984, 0.9904642105102539, 1.278864860534668, -1.0714960098266602], [0.3318519592285156, -1.554966926574707, -2.046182632446289, -0.26966285705566406, -0.16547489166259766], [0.5935382843017578, -0.7078771591186523, -0.4773874282836914, -1.0156965255737305, -0.42867088317871094], [-0.048644065856933594, 0.03564453125, -0.8139333724975586, -0.317596435546875, -0.06523323059082031], [-0.15812969207763672, 0.3541584014892578, 0.47504520416259766, 0.47208213806152344, -1.3267316818237305], [1.88812255859375, -0.16034698486328125, -0.20066261291503906, -0.5752792358398438, 0.14870071411132812]], dtype=torch.float64), torch.tensor([[3, 2, 1, 0, 4], [3, 1, 4, 2, 0], [4, 0, 2, 3, 1], [1, 3, 0, 2, 4], [4, 0, 2, 1, 3]], dtype=torch.int64), torch.tensor([[-0.8869857788085938, 0.6979637145996094, -0.24007892608642578, 0.5558938980102539, 0.2951030731201172], [0.27266502380371094, 0.2897500991821289, -0.13584232330322266, 1.9656438827514648, -0.338714599609375], [1.5973577499389648, -1.1267414093017578, 0.09791374206542969, -2.6255321502685547, 1.2090578079223633], [0.9256715774536133, 0.5684757232666016, 0.6148099899291992, -1.1921091079711914, -1.3822431564331055], [-0.09634971618652344, 0.9789609909057617, 0.7668180465698242, 0.4556694030761719, 0.02895069122314453]], dtype=torch.float64)]
PARTS = [[WHOLE[0].clone() for _ in range(RANKS)], [torch.tensor([[3, 2, 1, 0, 4], [3, 1, 4, 2, 0], [4, 0, 2, 3, 1]], dtype=torch.int64), torch.tensor([[1, 3, 0, 2, 4], [4, 0, 2, 1, 3]], dtype=torch.int64)], [WHOLE[2].clone() for _ in range(RANKS)]]
PLACEMENTS = [[Replicate()], [Shard(0)], [Replicate()]]


def compute(t):
    [t[n].requires_grad_() for n in [0, 2]]
    made = torch.scatter(t[0], -1, t[1], t[2])
    made = list(made) if isinstance(made, (tuple, list)) else [made]
    found = {f"result {n}": torch.as_tensor(full(one)).detach() for n, one in enumerate(made)}
    loss = sum((full(one) * torch.arange(1.0, full(one).numel() + 1, dtype=torch.float64)
                .reshape(full(one).shape).cos()).sum() for one in made if torch.is_tensor(one) and one.requires_grad)
    loss.backward() if torch.is_tensor(loss) else None
    for n in [0, 2]:
        none = t[n].grad is None
        found[f"gradient {n}"] = full(torch.zeros_like(t[n]) if none else t[n].grad).detach()
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
