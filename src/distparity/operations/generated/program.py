"""A generated check as a program of a few lines that needs torch alone."""

from __future__ import annotations

import math
from typing import Any

import torch

from distparity.core.registry import name
from distparity.operations.base import Check, members
from distparity.operations.collectives.base import Exchange
from distparity.operations.dtensor.base import OfSubject
from distparity.operations.generated import samples
from distparity.operations.generated.boundary import Crossing
from distparity.operations.generated.collective_gradient import CALLS, Flow
from distparity.operations.generated.collective_layout import LaidOut
from distparity.operations.generated.operator import OfSample
from distparity.operations.generated.placing import part
from distparity.training.program.folding import NotWritable, Stub
from distparity.training.program.sources import Sources

__all__ = ["write"]

_FRAME = '''\
"""{title}

The last line begins with ``defect:`` (exit code 1) or ``right:`` (0). It needs torch alone."""

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
        off = ~torch.isclose(one, other, {tolerance}, {tolerance}, equal_nan=True) if alike else torch.ones(1)
        for n in off.flatten().nonzero().flatten().tolist():
            seen = [f"{{t.dtype}} {{list(t.shape)}} {{t.flatten()[n:][:3].tolist()}}" for t in (one, other)]
            return f"{{name}}: {{seen[0]}}, not {{seen[1]}}, from element {{n}} on"
    return ""


def run(rank, folder):
    dist.init_process_group("gloo", f"file://{{folder}}/store", LIMIT, RANKS, rank)
    dist.barrier()  # A rank that leaves early would end the others' connecting.
    try:
        said = differ(distributed(rank), expected(rank))
        dist.barrier()
    except Exception as error:
        said = f"raised {{type(error).__name__}}: {{error}}".splitlines()[0]
    torch.save(said, f"{{folder}}/{{rank}}")
    dist.destroy_process_group()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        started = torch.multiprocessing.start_processes(run, (folder,), RANKS, False, start_method="fork")
        died = [f"died: {{one.exitcode}}" for one in started.processes if one.join() or one.exitcode not in (0, 1, -9)]
        said = died or [torch.load(f"{{folder}}/{{rank}}") for rank in range(RANKS)]
    seen = sorted(("Timed out" in words or "onnection" in words, words) for words in said if words)
    wrong = any(seen) and (seen[-1][0] or not all(words.startswith("raised") for words in said))
    print(f"{{'defect' if wrong else 'right'}}: torch {{torch.__version__}}: {{seen[0][1] if seen else 'the same'}}")
    raise SystemExit(wrong)
'''
#: What an element may be off, relative and absolute.
_TOLERANCE = "1e-5"
_DTENSOR = """\
from torch.distributed._tensor import DTensor, Partial, Replicate, Shard"""

#: What follows a mesh of so many dims: each of several has groups of its own, which ranks connect.
_MET = ("", "", "\n    dist.barrier()")
_DISTRIBUTE = "\nfrom torch.distributed._tensor import distribute_tensor"
_STRIDED = "\nfrom torch.distributed.tensor.placement_types import _StridedShard"
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
    if isinstance(check, Crossing):
        return _boundary(check)
    if isinstance(check, LaidOut):
        return _layout(check)
    try:
        if isinstance(check, OfSubject):
            return _subject(check)
        if isinstance(check, Exchange):
            return _exchange(check)
    except NotWritable:
        pass
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
    mesh = dist.init_device_mesh("cpu", {mesh}, mesh_dim_names={("a", "b")[: len(mesh)]}){_slice(check.mesh)}{_MET[len(mesh)]}
    words = [{{"run_check": False, "shape": w.shape, "stride": w.stride()}} for w in WHOLE]
    return compute([DTensor.from_local(p[rank], mesh, h, **w) for p, h, w in zip(PARTS, PLACEMENTS, words)])
"""
    title = f"``{call}`` of DTensors ({', '.join(check.how)}) differs from that of plain tensors."
    imports = _DTENSOR
    if strided:
        imports += _STRIDED
    if "distribute_tensor" in body:
        imports += _DISTRIBUTE
    words = {"title": title, "imports": imports, "ranks": check.request.ranks}
    return _FRAME.format(**words, tolerance=_TOLERANCE, body=body.rstrip())


def _subject(check: OfSubject) -> str:
    sources = Sources()
    sources.plain("function", check.subject.function)
    imports, texts = sources.texts()
    hows = check.placements()
    parts = [f"[{', '.join(map(_literal, parts))}]" for _, parts in check.inputs()]
    whole = "mean" if check.request.way == "partial_avg" else "sum"
    dtype = str(check.request.dtype)
    tracked = (
        "" if check.is_partial else "[one.requires_grad_() for one in t if one.is_floating_point()]"
    )
    body = f"""\
PARTS = [{", ".join(parts)}]


{chr(10).join(f"{text}{chr(10)}{chr(10)}" for text in texts)}
def full(t):
    return t.full_tensor() if isinstance(t, DTensor) else t


def compute(t):
    leaves = {tracked or "[]"}
    made = function(*t)
    made = [full(one) for one in (made if isinstance(made, (tuple, list)) else [made])]
    found = {{f"result {{n}}": one.detach() for n, one in enumerate(made)}}
    slopes = [torch.arange(1.0, one.numel() + 1).cos().reshape(one.shape).to(one.dtype) for one in made]
    loss = sum((one * slope).sum() for one, slope in zip(made, slopes) if one.requires_grad)
    loss.backward() if torch.is_tensor(loss) else None
    return found | {{f"gradient {{n}}": full(one.grad) for n, one in enumerate(leaves) if one.grad is not None}}


def expected(rank):
    wholes = [torch.stack(parts) for parts in PARTS]
    return compute([one.{whole}(0) if len(one) > 1 else one[0].clone() for one in wholes])


def distributed(rank):
    mesh, hows = dist.init_device_mesh("cpu", (RANKS,)), [{", ".join(hows)}]
    one = lambda p, how: distribute_tensor(p[0], mesh, [how]) if len(p) == 1 else DTensor.from_local(p[rank], mesh, [how])
    return compute([one(parts, how) for parts, how in zip(PARTS, hows)])
"""
    title = f"``{check.name}`` of DTensors ({', '.join(hows)}, {dtype}) differs from that of plain tensors."
    used = "\n".join(line for line in imports if line != "import torch")
    words = {"title": title, "imports": f"{_DTENSOR}{_DISTRIBUTE}\n{used}".rstrip()}
    return _FRAME.format(
        **words, tolerance=_TOLERANCE, ranks=check.request.ranks, body=body.rstrip()
    )


#: The most elements of a tensor that a program has in its text.
_MOST_ELEMENTS = 1000


def _exchange(check: Exchange) -> str:
    setting, ranks = check.setting, range(check.request.ranks)
    groups = members(setting.team, check.request.ranks)
    given = {rank: check.gives(rank) for group in groups for rank in group}
    right = {rank: check.gets(rank) for rank in given}
    if setting.layout != "contiguous" or type(check) is not Exchange:
        raise NotWritable("a tensor with gaps in memory")
    if any(one.numel() > _MOST_ELEMENTS for every in given.values() for one in every):
        raise NotWritable("a large tensor")
    call = Stub()
    known = {"way": check.way, "setting": setting, "is_async": setting.special == "async"}
    vars(call).update(known, word=(setting.op or "SUM").lower())
    sources = Sources()
    sources.method("act", check.collective, "call", call=call)
    imports, (act, *rest) = sources.texts()
    root = "None" if setting.root is None else f"team[{setting.root}]"
    values = {
        n: [f"({_literal(e.value.to(e.dtype))})" for e in every] for n, every in right.items()
    }
    results = "call.given" if check.is_in_place else "call.taken"
    more = "".join(f"{text}{chr(10)}{chr(10)}{chr(10)}" for text in (*rest, act))
    body = f"""\
GROUPS = {groups}
GIVEN = {{{", ".join(f"{n}: [{', '.join(map(_literal, every))}]" for n, every in given.items())}}}
RIGHT = {{{", ".join(f"{n}: [{', '.join(every)}]" for n, every in values.items())}}}


{more}def expected(rank):
    return {{f"result {{n}}": one for n, one in enumerate(RIGHT.get(rank, []))}}


def distributed(rank):
    made = {{tuple(ranks): dist.new_group(ranks) for ranks in GROUPS}}
    dist.barrier()
    team = next((ranks for ranks in GROUPS if rank in ranks), None)
    if team is None:
        return {{}}
    taken = [torch.full_like(one, 77) if one.dtype != torch.bool else ~one for one in RIGHT[rank]]
    call = SimpleNamespace(group=made[tuple(team)], team=team, me=team.index(rank), given=GIVEN[rank], taken=taken)
    call.op, call.root = dist.ReduceOp.{setting.op or "SUM"}, {root}
    call.is_root = rank == call.root
    found = act(call)
    found = {results} if found is None else [one * 1 for one in found]
    return {{f"result {{n}}": one for n, one in enumerate(found)}}
"""
    used = [
        line for line in imports if line not in ("import torch", "import torch.distributed as dist")
    ]
    words = {"title": f"``{type(check.collective).__name__}``: {check.request.way}, {check.name}."}
    words["imports"] = "\n".join(["from types import SimpleNamespace", *used])
    dtype = check.request.dtype
    half = dtype.is_floating_point and dtype.itemsize == 2
    tolerance = f"{16 * torch.finfo(dtype).eps:.2g}" if half else _TOLERANCE
    return _FRAME.format(**words, tolerance=tolerance, ranks=len(ranks), body=body.rstrip())


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
    dist.barrier()
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
    return _FRAME.format(**words, tolerance=_TOLERANCE, body=body.rstrip())


_LEAF = "leaf = make(rank, mesh).requires_grad_()"
_LOSS = '(found["whole"] * WEIGHTS).sum().backward()'
_OWN_LOSS = '(found["part"] * OWN[rank]).sum().backward()'
_GRADIENT = (
    'found["gradient"] = torch.zeros_like(WHOLE) if leaf.grad is None else leaf.grad.full_tensor()'
)
#: By way: the lines that compute ``found`` on a rank, and what is right.
_CROSSINGS = {
    "redistribute": (
        (
            _LEAF,
            "moved = leaf.redistribute(mesh, END{more})",
            'found = {{"whole": moved.full_tensor(), "part": moved.to_local()}}',
            _LOSS,
        ),
        '{{"whole": WHOLE, {part}"gradient": WEIGHTS}}',
    ),
    "full_tensor": (
        (
            _LEAF,
            'found = {{"whole": leaf.full_tensor()}}',
            _LOSS,
        ),
        '{{"whole": WHOLE, "gradient": WEIGHTS}}',
    ),
    "to_local": (
        (
            _LEAF,
            'found = {{"part": leaf.to_local()}}',
            _OWN_LOSS,
        ),
        '{{"part": PARTS[rank], "gradient": WEIGHTS}}',
    ),
    "to_local_terms": (
        (
            _LEAF,
            'terms = [Partial("sum")] * len(HOW)',
            'found = {{"part": leaf.to_local(grad_placements=terms)}}',
            _OWN_LOSS,
        ),
        '{{"part": PARTS[rank], "gradient": sum(OWN)}}',
    ),
    "from_local": (
        (
            "PARTS[rank].requires_grad_()",
            'found = {{"whole": make(rank, mesh).full_tensor()}}',
            _LOSS,
            'found["gradient of the part"] = PARTS[rank].grad',
        ),
        '{{"whole": WHOLE, "gradient of the part": OWN[rank]}}',
    ),
    "round_trip": (
        (
            _LEAF,
            "again = DTensor.from_local(leaf.to_local(), mesh, HOW, run_check=False, **SIZE)",
            'found = {{"whole": again.full_tensor()}}',
            _LOSS,
        ),
        '{{"whole": WHOLE, "gradient": WEIGHTS}}',
    ),
    "distribute_tensor": (
        (
            "leaf = distribute_tensor(WHOLE.clone(), mesh, HOW).requires_grad_()",
            'found = {{"part": leaf.to_local(), "whole": leaf.full_tensor()}}',
            _LOSS,
        ),
        '{{"part": PARTS[rank], "whole": WHOLE, "gradient": WEIGHTS}}',
    ),
}


def _boundary(check: Crossing) -> str:
    way, ranks = check.request.way, range(check.request.ranks)
    lines, right = _CROSSINGS[way.removesuffix("_async")]
    if way != "from_local":
        lines = (*lines, _GRADIENT)
    more = ", async_op=True" if way.endswith("_async") else ""
    whole, weights = check.whole(), check.weights()
    data = [
        f"WHOLE = {_literal(whole)}",
        f"WEIGHTS = {_literal(weights)}",
        f"PARTS = [{', '.join(_literal(check.mine(n, check.source, whole)) for n in ranks)}]",
        f"HOW = [{', '.join(map(_placement, check.source.split('.')))}]",
        'SIZE = {"shape": WHOLE.shape, "stride": WHOLE.stride()}',
    ]
    part_of_end = ""
    names = '("a", "b")' if len(check.sizes) > 1 else '("a",)'
    if check.end:
        data.append(f"END = [{', '.join(map(_placement, check.end.split('.')))}]")
        if "P" not in check.end:
            ends = [_literal(check.mine(n, check.end, whole)) for n in ranks]
            data.append(f"AT_END = [{', '.join(ends)}]")
            part_of_end = '"part": AT_END[rank], '
    if "OWN" in right + "".join(lines):
        terms = way == "to_local_terms"
        own = [check.weights(n) if terms else check.mine(n, check.linear, weights) for n in ranks]
        data.append(f"OWN = [{', '.join(map(_literal, own))}]")
    body = f"""\
{chr(10).join(data)}


def make(rank, mesh):
    return DTensor.from_local(PARTS[rank], mesh, HOW, run_check=False, **SIZE)


def expected(rank):
    return {right.format(part=part_of_end)}


def distributed(rank):
    mesh = dist.init_device_mesh("cpu", {check.sizes}, mesh_dim_names={names}){_MET[len(check.sizes)]}
{chr(10).join(f"    {line.format(more=more)}" for line in lines)}
    return {{name: one.detach().clone() for name, one in found.items()}}
"""
    end = f" to {check.end}" if check.end else ""
    title = f"``{way}`` of a DTensor, and its gradient: {check.source}{end}."
    imports = _DTENSOR
    if way == "distribute_tensor":
        imports += _DISTRIBUTE
    if "X" in check.source + check.end:
        imports += _STRIDED
    words = {"title": title, "imports": imports, "ranks": check.request.ranks}
    return _FRAME.format(**words, tolerance=_TOLERANCE, body=body.rstrip())


#: By way: what a rank has, the call, and its result; ``part`` is a part of ``x`` for each rank. ``lay`` gives
#: a tensor the layout, and ``space`` is a result to write to.
_EXCHANGES = {
    "all_gather_list": (
        "out = [space(x) for _ in range(RANKS)]",
        "dist.all_gather(out, x{later})",
        "torch.cat(out)",
    ),
    "all_gather_tensor": (
        "out = space(torch.cat([x] * RANKS))",
        "dist.all_gather_into_tensor(out, x{later})",
        "out",
    ),
    "all_gather_functional": ("", "out = functional.all_gather_tensor(x, 0, GROUP)", "out"),
    "all_gather_coalesced": (
        "",
        "out = functional.all_gather_into_tensor_coalesced([x], GROUP)[0]",
        "out",
    ),
    "all_reduce_tensor": ("", "dist.all_reduce(x{later})", "x"),
    "all_reduce_functional": ("", 'out = functional.all_reduce(x, "sum", GROUP)', "out"),
    "all_reduce_coalesced": (
        "",
        'out = functional.all_reduce_coalesced([x], "sum", GROUP)[0]',
        "out",
    ),
    "all_to_all_list": (
        "out = [space(one) for one in part]",
        "dist.all_to_all(out, part{later})",
        "torch.cat(out)",
    ),
    "all_to_all_tensor": ("out = space(x)", "dist.all_to_all_single(out, x{later})", "out"),
    "all_to_all_functional": (
        "",
        "out = functional.all_to_all_single(x, None, None, GROUP)",
        "out",
    ),
    "broadcast_tensor": ("", "dist.broadcast(x, 0{later})", "x"),
    "broadcast_functional": ("", "out = functional.broadcast(x, 0, GROUP)", "out"),
    "gather_list": (
        "out = [space(x) for _ in range(RANKS)]",
        "dist.gather(x, None if rank else out{later})",
        "torch.cat(out)",
    ),
    "reduce_tensor": ("", "dist.reduce(x, 0{later})", "x"),
    "reduce_scatter_list": (
        "out = space(part[0])",
        "dist.reduce_scatter(out, part{later})",
        "out",
    ),
    "reduce_scatter_tensor": (
        "out = space(part[0])",
        "dist.reduce_scatter_tensor(out, x{later})",
        "out",
    ),
    "reduce_scatter_functional": (
        "",
        'out = functional.reduce_scatter_tensor(x, "sum", 0, GROUP)',
        "out",
    ),
    "reduce_scatter_coalesced": (
        "",
        'out = functional.reduce_scatter_tensor_coalesced([x], "sum", [0], GROUP)[0]',
        "out",
    ),
    "scatter_list": (
        "out = space(part[0])",
        "dist.scatter(out, None if rank else part{later})",
        "out",
    ),
}


def _layout(check: LaidOut) -> str | None:
    exchange, way = check.inner, check.request.way
    if way not in _EXCHANGES:
        return None
    layout, kind = exchange.setting.layout, name(type(exchange.collective))
    later = ", async_op=True" if exchange.setting.special == "async" else ""
    space, call, result = (text.format(later=later) for text in _EXCHANGES[way])
    call = f"({call}).wait()" if later and "later" in _EXCHANGES[way][1] else call
    lay = {**_LAID, "expanded": "leaf[:1].expand(leaf.shape)"}[layout]
    right = _RIGHT[kind].format(dim=0, reduced="torch.stack(given).sum(0)")
    given = f'{{"result": {right}}}'
    if kind in ("reduce", "gather"):
        given = f"{given} if me == 0 else {{}}"
    body = f"""\
GROUP = list(range(RANKS))


def lay(leaf):
    return {lay}


def space(leaf):
    leaf = torch.full_like(leaf, 77)
    return {"leaf * 1" if layout == "expanded" else lay}


def drawn(rank):
    # Sums of integers are exact.
    x = (torch.arange(48) * (7 + 4 * rank) % 31 - 15).reshape(12, 4).to({check.request.dtype})
    return {"x[:1].expand(x.shape)" if layout == "expanded" else "x"}


def expected(me):
    given = [drawn(rank) for rank in range(RANKS)]
    return {given}


def distributed(rank):
    x, part = lay(drawn(rank)), [lay(one) for one in drawn(rank).chunk(RANKS)]
    {space}
    {call}
    return {{"result": {result}.clone()}}
"""
    body = body.replace("    \n    ", "    ")
    title = f"``{way}`` of tensors that are not in one piece of memory: {check.name}."
    imports = "\n".join(line for word, line in _MODULES.items() if f"{word}." in call)
    words = {"title": title, "imports": imports, "ranks": check.request.ranks}
    return _FRAME.format(**words, tolerance=_TOLERANCE, body=body.rstrip())


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
        lines = [
            f"t[0].{method}_({told})",
            'return {"changed input": full(t[0]), "shape": torch.tensor(t[0].shape)}',
        ]
    elif kind == "_Write":
        lines = [
            f"views = {call}",
            "(views[0] if isinstance(views, (tuple, list)) else views).mul_(3)",
            'return {"input": full(t[0])}',
        ]
    elif kind == "_Out":
        whole = call.replace("t[", "WHOLE[")
        how = "Replicate()" if check.name.endswith("out R") else "Shard(0)"
        lines = [
            f"made = {whole}",
            "outs = [torch.full_like(one, 77) for one in (made if isinstance(made, tuple) else [made])]",
            "if isinstance(t[0], DTensor):",
            f"    mesh, how = t[0].device_mesh, {how}",
            "    hows = [how if one.dim() else Replicate() for one in outs]",
            "    outs = [distribute_tensor(one, mesh, [how]) for one, how in zip(outs, hows)]",
            "with torch.no_grad():",
            f"    {call[:-1]}, out=outs[0] if len(outs) == 1 else tuple(outs))",
            'return {f"out {n}": full(one) for n, one in enumerate(outs)}',
        ]
    elif kind in ("results", "results alone"):
        lines = [
            f"made = {call}",
            "made = list(made) if isinstance(made, (tuple, list)) else [made]",
            'found = {f"result {n}": torch.as_tensor(full(one)).detach() for n, one in enumerate(made)}',
            'found |= {f"shape {n}": torch.tensor(getattr(t, "shape", ())) for n, t in enumerate(made)}',
        ]
        floats = [n for n, one in enumerate(check.sample.kinds) if one == "float"]
        if kind == "results" and floats and check.sample.dtype == "float64":
            lines = [
                f"[t[n].requires_grad_() for n in {floats}]",
                *lines,
                "loss = sum((full(one) * torch.arange(1.0, full(one).numel() + 1, dtype=torch.float64)",
                "            .reshape(full(one).shape).cos()).sum() for one in made if torch.is_tensor(one) and one.requires_grad)",
                "loss.backward() if torch.is_tensor(loss) else None",
                f"for n in {floats}:",
                '    found[f"gradient {n}"] = full(torch.zeros_like(t[n]) if t[n].grad is None else t[n].grad)',
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
        if isinstance(value, float) and not math.isfinite(value):
            return f'float("{value}")'
        return "..." if value is ... else repr(value)

    args, kwargs = samples.build(sample.data, sample.dtype, sample.seed)
    return ", ".join([*map(told, args), *(f"{key}={told(one)}" for key, one in kwargs.items())])
