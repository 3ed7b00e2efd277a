"""``all_reduce_in_place`` in a forward, and its gradient: SUM, contiguous input, weighed result.

The last line begins with ``defect:`` (exit code 1) or ``right:`` (0). It needs torch alone."""

import datetime
import tempfile

import torch
import torch.distributed as dist


RANKS, LIMIT = 2, datetime.timedelta(seconds=20)
GROUPS = [[0, 1]]
TEAM = {rank: ranks for ranks in GROUPS for rank in ranks}


def drawn(rank, shape, what):
    generator = torch.Generator().manual_seed(100 * rank + what)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def loss(made, leaf, rank):
    own = (leaf * drawn(rank, leaf.shape, 1)).sum()
    return own + (made * drawn(rank, made.shape, 0)).sum()


def expected(rank):
    leaves = [drawn(one, (12, 24), 2).requires_grad_() for one in TEAM[rank]]
    given, me = [leaf * 1 for leaf in leaves], TEAM[rank].index(rank)
    every = [torch.stack(given).sum(0) for me in range(len(given))]
    sum(map(loss, every, leaves, TEAM[rank])).backward()
    return {"gradient": leaves[me].grad, "result": every[me].detach()}


def distributed(rank):
    made = {tuple(ranks): dist.new_group(ranks) for ranks in GROUPS}
    dist.barrier()
    ranks, group = TEAM[rank], made[tuple(TEAM[rank])]
    leaf = drawn(rank, (12, 24), 2).requires_grad_()
    x = leaf * 1
    found = (y := x * 1, dist.all_reduce(y, dist.ReduceOp.SUM, group=group))[0] * 1
    loss(found, leaf, rank).backward()
    grad = torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
    return {"gradient": grad, "result": found.detach()}


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
