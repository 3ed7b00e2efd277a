"""A generated check as a program of a few lines that needs torch alone."""

from __future__ import annotations

from typing import Any

import torch

from distparity.operations.base import Check
from distparity.operations.generated import samples
from distparity.operations.generated.operator import OfSample
from distparity.operations.generated.placing import part

__all__ = ["write"]

_FRAME = '''\
"""{title}

The last line begins with ``defect:`` (exit code 1) or ``right:`` (0). It needs torch alone.
"""

import sys
import tempfile

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
{imports}

RANKS = {ranks}
{body}


def differ(found, right):
    for name, value in right.items():
        other = found[name].resolve_conj()
        if other.shape != value.shape or other.dtype != value.dtype:
            return f"{{name}}: {{other.dtype}} {{list(other.shape)}}, not {{value.dtype}} {{list(value.shape)}}"
        if not torch.allclose(other, value.resolve_conj(), 1e-5, 1e-5, equal_nan=True):
            return f"{{name}}: {{other.flatten()[:4].tolist()}}, not {{value.flatten()[:4].tolist()}}"
    return ""


def run(rank, folder):
    dist.init_process_group("gloo", init_method=f"file://{{folder}}/store", rank=rank, world_size=RANKS)
    torch.save(differ(distributed(rank), compute([w.clone() for w in WHOLE])), f"{{folder}}/{{rank}}")
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(run, (folder,), nprocs=RANKS)
        said = [torch.load(f"{{folder}}/{{rank}}") for rank in range(RANKS)]
    wrong = next(filter(None, said), "")
    print(f"{{'defect' if wrong else 'right'}}: torch {{torch.__version__}}: {{wrong or 'the same'}}")
    sys.exit(bool(wrong))
'''
_DTENSOR = """\
from torch.distributed.device_mesh import init_device_mesh

try:
    from torch.distributed.tensor import DTensor, Partial, Replicate, Shard
except ImportError:  # before 2.5
    from torch.distributed._tensor import DTensor, Partial, Replicate, Shard"""


def write(check: Check) -> str | None:
    """The text of the program; None if there is none for this kind of check."""
    return _operator(check) if isinstance(check, OfSample) else None


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
# By input: each rank's part, and its placements.
PARTS = [{", ".join(pieces)}]
PLACEMENTS = [{hows}]


def compute(t):
{_computation(check, call)}


def full(t):
    return t.full_tensor() if isinstance(t, DTensor) else t


def distributed(rank):
    mesh = init_device_mesh("cpu", {mesh}, mesh_dim_names={("a", "b")[: len(mesh)]}){_slice(check.mesh)}
    return compute([
        DTensor.from_local(p[rank], mesh, how, run_check=False, shape=w.shape, stride=w.stride())
        for p, how, w in zip(PARTS, PLACEMENTS, WHOLE)
    ])
"""
    title = f"``{call}`` of DTensors ({', '.join(check.how)}) differs from that of plain tensors."
    imports = _DTENSOR
    if strided:
        imports += "\nfrom torch.distributed.tensor.placement_types import _StridedShard"
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
                f"for n in {floats}:",
                "    t[n].requires_grad_()",
                *lines,
                "loss = sum((full(one) * torch.arange(1.0, full(one).numel() + 1, dtype=torch.float64)",
                "            .reshape(full(one).shape).cos()).sum() for one in made if one.requires_grad)",
                "if torch.is_tensor(loss):",
                "    loss.backward()",
                f"for n in {floats}:",
                "    none = torch.zeros(t[n].shape, dtype=t[n].dtype)",
                '    found[f"gradient {n}"] = none if t[n].grad is None else full(t[n].grad)',
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
