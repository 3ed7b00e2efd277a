"""A generated check as a program of a few lines that needs torch alone."""

from __future__ import annotations

from typing import Any

import torch

from distparity.operations.base import Check, members
from distparity.operations.generated import samples
from distparity.operations.generated.collective_gradient import CALLS, Flow
from distparity.operations.generated.operator import OfSample
from distparity.operations.generated.placing import part

__all__ = ["write"]

_FRAME = '''\
"""{title}

The last line begins with ``defect:`` (exit code 1) or ``right:`` (0). It needs torch alone.
"""

import datetime
import tempfile

import torch
import torch.distributed as dist
{imports}

RANKS, LIMIT = {ranks}, datetime.timedelta(seconds=20)
{body}


def differ(found, right):
    for name, value in right.items():
        one, other = found[name].resolve_conj(), value.resolve_conj()
        alike = one.shape == other.shape and one.dtype == other.dtype
        if not (alike and torch.allclose(one, other, 1e-5, 1e-5, equal_nan=True)):
            words = [f"{{t.dtype}} {{list(t.shape)}} {{t.flatten()[:3].tolist()}}" for t in (one, other)]
            return f"{{name}}: {{words[0]}}, not {{words[1]}}"
    return ""


def run(rank, folder):
    dist.init_process_group("gloo", f"file://{{folder}}/store", LIMIT, RANKS, rank)
    try:
        said = differ(distributed(rank), expected(rank))
        dist.barrier()
    except Exception as error:
        said = f"raised {{type(error).__name__}}: {{error}}".splitlines()[0]
    torch.save(said, f"{{folder}}/{{rank}}")
    dist.destroy_process_group()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(run, (folder,), nprocs=RANKS)
        said = [torch.load(f"{{folder}}/{{rank}}") for rank in range(RANKS)]
    waited = ["Timed out" in words or "onnection" in words for words in said]
    wrong = any(said) and (any(waited) or not all(words.startswith("raised") for words in said))
    words = min(zip(waited, said), key=lambda one: (not one[1], one[0]))[1] or "the same"
    print(f"{{'defect' if wrong else 'right'}}: torch {{torch.__version__}}: {{words}}")
    raise SystemExit(wrong)
'''
_DTENSOR = """\
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed._tensor import DTensor, Partial, Replicate, Shard"""

_MODULES = {
    "differentiable": "import torch.distributed.nn.functional as differentiable",
    "functional": "from torch.distributed import _functional_collectives as functional",
}


def write(check: Check) -> str | None:
    """The text of the program; None if there is none for this kind of check."""
    if isinstance(check, OfSample):
        return _operator(check)
    # A rank outside of all groups has nothing to show.
    if isinstance(check, Flow) and all(map(check.ranks, range(check.request.ranks))):
        return _gradient(check)
    return None


def _operator(check: OfSample) -> str:
    sample = check.sample
    mesh = tuple(map(int, check.mesh.partition(".")[0].split("x")))
    whole = [_literal(one) for one in sample.tensors]
    pieces = []
    for n, (one, how) in enumerate(zip(sample.tensors, check.how, strict=True)):
        if set(how.split(".")) == {"R"}:
            pieces.append(f"[WHOLE[{n}].clone() for _ in range(RANKS)]")
            continue
        sizes = mesh if "." not in check.mesh else (mesh[1],)
        ats = [_at(rank, mesh, check.mesh) for rank in range(check.request.ranks)]
        made = [_literal(part(one, how, sizes, at, check.request.seed)) for at in ats]
        pieces.append(f"[{', '.join(made)}]")
    hows = ", ".join(f"[{', '.join(map(_placement, how.split('.')))}]" for how in check.how)
    strided = "X" in "".join(check.how)
    call = _call(sample)
    body = f"""\
WHOLE = [{", ".join(whole)}]
PARTS = [{", ".join(pieces)}]
PLACEMENTS = [{hows}]


def compute(t):
{_computation(check, call)}


def full(t):
    return t.full_tensor() if isinstance(t, DTensor) else t


def expected(rank):
    return compute([w.clone() for w in WHOLE])


def distributed(rank):
    mesh = init_device_mesh("cpu", {mesh}, mesh_dim_names={("a", "b")[: len(mesh)]}){_slice(check.mesh)}
    words = [{{"run_check": False, "shape": w.shape, "stride": w.stride()}} for w in WHOLE]
    inputs = zip(PARTS, PLACEMENTS, words)
    return compute([DTensor.from_local(p[rank], mesh, how, **more) for p, how, more in inputs])
"""
    title = f"``{call}`` of DTensors ({', '.join(check.how)}) differs from that of plain tensors."
    imports = _DTENSOR
    if strided:
        imports += "\nfrom torch.distributed.tensor.placement_types import _StridedShard"
    words = {"title": title, "imports": imports, "ranks": check.request.ranks}
    return _FRAME.format(**words, body=body.rstrip())


_LAID = {
    "contiguous": "leaf * 1",
    "transposed": "leaf.t().contiguous().t()",
    "strided": "torch.stack([leaf, leaf], -1)[..., 0]",
    "expanded": "leaf.expand(12, 24)",
}
_SEEN = {
    "weighed": "(made * drawn(rank, made.shape, 0)).sum()",
    "summed": "made.sum() * (1.0 + rank)",
    "transposed": "(made.t() * drawn(rank, made.shape, 0).t().contiguous()).sum()",
}
_RIGHT = {
    "all_reduce": "{reduced}",
    "reduce": "{reduced}",
    "reduce_scatter": "{reduced}.chunk(len(given), {dim})[me]",
    "all_gather": "torch.cat(given, {dim})",
    "gather": "torch.cat(given, {dim})",
    "all_to_all": "torch.cat([one.chunk(len(given))[me] for one in given])",
    "scatter": "given[0].chunk(len(given))[me]",
    "broadcast": "given[0] * 1",
}
_REDUCED = {
    "SUM": "sum(0)",
    "AVG": "mean(0)",
    "MAX": "amax(0)",
    "MIN": "amin(0)",
    "PRODUCT": "prod(0)",
}


def _gradient(check: Flow) -> str:
    way, op = check.request.way, check.op or "SUM"
    kind, call = CALLS[way]
    groups = members(check.team, check.request.ranks)
    seen = _SEEN[check.seen]
    given = '{"gradient": leaves[me].grad, "result": every[me].detach()}'
    if kind in ("reduce", "gather"):
        seen = f"({seen} if rank == TEAM[rank][0] else made.sum() * 0)"
        given = f"{given} if me == 0 else {{'gradient': leaves[me].grad}}"
    spelled = {"reduction": f"dist.ReduceOp.{op}", "op.lower()": repr(op.lower())}
    spelled |= {", dim,": f", {check.dim},"}
    for word, text in spelled.items():
        call = call.replace(word, text)
    right = _RIGHT[kind].format(dim=check.dim, reduced=f"torch.stack(given).{_REDUCED[op]}")
    shape = "(1, 24)" if check.layout == "expanded" else "(12, 24)"
    body = f"""\
GROUPS = {groups}
TEAM = {{rank: ranks for ranks in GROUPS for rank in ranks}}


def drawn(rank, shape, what):
    generator = torch.Generator().manual_seed(100 * rank + what)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def loss(made, leaf, rank):
    own = (leaf * drawn(rank, leaf.shape, 1)).sum()
    return own + {seen}


def expected(rank):
    leaves = [drawn(one, {shape}, 2).requires_grad_() for one in TEAM[rank]]
    given, me = [{_LAID[check.layout]} for leaf in leaves], TEAM[rank].index(rank)
    every = [{right} for me in range(len(given))]
    sum(map(loss, every, leaves, TEAM[rank])).backward()
    return {given}


def distributed(rank):
    made = {{tuple(ranks): dist.new_group(ranks) for ranks in GROUPS}}
    ranks, group = TEAM[rank], made[tuple(TEAM[rank])]
    leaf = drawn(rank, {shape}, 2).requires_grad_()
    x = {_LAID[check.layout]}
    found = {call} * 1
    loss(found, leaf, rank).backward()
    grad = torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
    return {{"gradient": grad, "result": found.detach()}}
"""
    title = f"``{way}`` in a forward, and its gradient: {check.name}."
    imports = "\n".join(line for name, line in _MODULES.items() if f"{name}." in call)
    words = {"title": title, "imports": imports, "ranks": check.request.ranks}
    return _FRAME.format(**words, body=body.rstrip())


def _at(rank: int, mesh: tuple[int, ...], name: str) -> tuple[int, ...]:
    if len(mesh) == 1:
        return (rank,)
    at = (rank // mesh[1], rank % mesh[1])
    return at[1:] if "." in name else at


def _slice(mesh: str) -> str:
    return f'["{mesh.partition(".")[2]}"]' if "." in mesh else ""


def _placement(word: str) -> str:
    if word == "R":
        return "Replicate()"
    if word[0] == "P":
        return f'Partial("{word[1:]}")'
    return f"Shard({word[1:]})" if word[0] == "S" else f"_StridedShard({word[1:]}, split_factor=2)"


def _literal(one: torch.Tensor) -> str:
    dtype = str(one.dtype)
    if not one.numel():
        return f"torch.empty({tuple(one.shape)}, dtype={dtype})"
    return f"torch.tensor({one.tolist()}, dtype={dtype})"


def _call(sample: Any) -> str:
    """The operator's call, of ``t[0]``, ``t[1]``, ...."""
    name, told = sample.call_name, _arguments(sample)
    spelled = samples.SPELLED.get(name)
    if spelled is not None:
        return f"({spelled})({told})"
    found: Any = torch
    for word in name.split("."):
        found = getattr(found, word, None)
    if callable(found) and not isinstance(found, torch.dtype):
        return f"torch.{name}({told})"
    method = getattr(torch.Tensor, name, None)
    return f"torch.Tensor.{name}({told})" if callable(method) else f"t[0].{name}"


def _computation(check: OfSample, call: str) -> str:
    """The body of a function of the tensors ``t``, which returns what is compared, by name."""
    lines: list[str]
    kind = check.question
    if kind == "_InPlace":
        told = _arguments(check.sample).partition("t[0]")[2].removeprefix(", ")
        method = check.sample.call_name.rpartition(".")[2]
        lines = [f"t[0].{method}_({told})", 'return {"changed input": full(t[0])}']
    elif kind == "_Write":
        lines = [
            f"views = {call}",
            "(views[0] if isinstance(views, (tuple, list)) else views).mul_(3)",
            'return {"input": full(t[0])}',
        ]
    elif kind in ("results", "results alone"):
        lines = [
            f"made = {call}",
            "made = list(made) if isinstance(made, (tuple, list)) else [made]",
            'found = {f"result {n}": full(one).detach() for n, one in enumerate(made)}',
        ]
        floats = [n for n, one in enumerate(check.sample.kinds) if one == "float"]
        if kind == "results" and floats and check.sample.dtype == "float64":
            lines = [
                f"[t[n].requires_grad_() for n in {floats}]",
                *lines,
                "loss = sum((full(one) * torch.arange(1.0, full(one).numel() + 1, dtype=torch.float64)",
                "            .reshape(full(one).shape).cos()).sum() for one in made if one.requires_grad)",
                "loss.backward() if torch.is_tensor(loss) else None",
                f"for n in {floats}:",
                "    none = t[n].grad is None",
                '    found[f"gradient {n}"] = full(torch.zeros_like(t[n]) if none else t[n].grad).detach()',
            ]
        lines.append("return found")
    else:
        lines = ['raise SystemExit("no program for this kind of check")']
    return "\n".join(f"    {line}" for line in lines)


def _arguments(sample: Any) -> str:
    """The arguments of a sample's call, with ``t[n]`` for its tensors."""
    count = iter(range(1000))

    def told(value: Any) -> str:
        if isinstance(value, torch.Tensor):
            return f"t[{next(count)}]"
        if isinstance(value, (list, tuple)):
            inner = ", ".join(map(told, value))
            closing = f"({inner}{',' if len(value) == 1 else ''})"
            return f"[{inner}]" if isinstance(value, list) else closing
        return "..." if value is ... else repr(value)

    args, kwargs = samples.build(sample.data, sample.dtype, sample.seed)
    return ", ".join([*map(told, args), *(f"{key}={told(one)}" for key, one in kwargs.items())])
