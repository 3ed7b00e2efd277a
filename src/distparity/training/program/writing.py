"""Write a training as a program: its scenario, folded, and its strategy, in one loop."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import TYPE_CHECKING

from distparity.core.judgement import Quantity
from distparity.core.registry import name
from distparity.scenarios import Scenario
from distparity.strategies import Strategy
from distparity.strategies.spelling import Spelling
from distparity.training.loop import Recipe
from distparity.training.program.folding import NotWritable
from distparity.training.program.sources import Sources

if TYPE_CHECKING:
    from distparity.devices.context import RankContext

__all__ = ["write"]

_PROGRAM = '''\
"""{title}
Its last line begins with ``defect:`` (exit code 1) or ``right:`` (0). It needs torch alone."""
import datetime
import tempfile
import torch
import torch.distributed as dist
{imports}

RANKS, LIMIT, TOLERANCE = {ranks}, datetime.timedelta(seconds=20), {tolerance}

{body}

def run(rank, folder):
    {take}device = torch.device({device})
    dist.init_process_group("{backend}", f"file://{{folder}}/store", LIMIT, RANKS, rank)
    dist.barrier()  # A rank that leaves early would end the others' connecting.
    try:
        found, right = train(device, rank), train(device)
        off = (~torch.isclose(found, right, TOLERANCE, TOLERANCE)).nonzero().tolist()
        said = "".join(f"{what} at {{at}}: {{found[tuple(at)]:.9g}}, not {{right[tuple(at)]:.9g}}" for at in off[:1])
    except Exception as error:
        said = f"raised {{type(error).__name__}}: {{error}}".splitlines()[0]
    torch.save(said, f"{{folder}}/{{rank}}")

if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        ranks = torch.multiprocessing.start_processes(run, (folder,), RANKS, False, start_method="{start}").processes
        died = [f"{{'died' if one.exitcode < 0 else 'raised'}}: {{one.exitcode}}" for one in ranks if one.join() or one.exitcode]
        said = sorted(filter(None, died or [torch.load(f"{{folder}}/{{rank}}") for rank in range(RANKS)]))
    word = "right" if not said else "defect" if {wrong} else "neither"
    print(f"{{word}}: torch {{torch.__version__}}: {{(said or ['the same'])[0]}}")
    raise SystemExit(("right", "defect", "neither").index(word))
'''
_DRAWN = """\
def drawn(seed, make):
    torch.manual_seed(seed)
    torch.set_default_dtype(torch.float64)
    made = make()
    torch.set_default_dtype(torch.float32)
    return made"""
#: What :func:`make` of a program returns.
_MADE = "inner, model, optimizer, schedule"
_STATE = "from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict"
_SETS = "set_state_dict(*new, model_state_dict=model, optim_state_dict=optimizer"
#: By the form of saving: imports, and how to move the state of one model and optimizer to others.
_MOVES = {
    "sharded": (
        [_STATE],
        f"""\
def move(old, new):
    model, optimizer = get_state_dict(*old)
    {_SETS})""",
    ),
    "full": (
        [f"{_STATE}, StateDictOptions"],
        f"""\
def move(old, new):
    options = StateDictOptions(full_state_dict=True)
    model, optimizer = get_state_dict(*old, options=options)
    {_SETS}, options=options)""",
    ),
    "checkpoint": (
        [_STATE, "from torch.distributed import checkpoint as saving"],
        f"""\
def move(old, new):
    folder = [tempfile.mkdtemp()]
    dist.broadcast_object_list(folder)
    saving.save(dict(zip(("model", "optimizer"), get_state_dict(*old))), checkpoint_id=folder[0])
    found = dict(zip(("model", "optimizer"), get_state_dict(*new)))
    saving.load(found, checkpoint_id=folder[0])
    model, optimizer = found["model"], found["optimizer"]
    {_SETS})""",
    ),
}
#: By dtype, what an element may be off: far more than rounding, and far less than most defects.
_TOLERANCES = {"float32": "1e-5", "float64": "1e-9"}
#: Features of a scenario that the loop below does not have.
_LACKS = (
    "deferred",
    "precision",
    "uneven_batches",
    "whole_parameters",
    "left_alone",
    "gradient_factor",
    "compiles_whole",
    "methods",
    "step_in_backward",
    "begins_with_rank_0",
    "several_dtypes",
    "complex",
    "loss_scale",
    "sync_batch_norm",
)
_HOOKS = ("before_wrap", "after_wrap", "before_step", "schedule")
_CLIP = "torch.nn.utils.clip_grad_norm_(model.parameters(), {norm}, {kind})"
#: The kinds of quantity that it can compare; others are compared as the parameter after the step.
_KINDS = ("loss", "gradient")
_LOSS = (
    "if rank is not None:",
    "    dist.all_reduce(loss)",
    "return loss if rank is None else loss / RANKS",
)


def write(
    recipe: Recipe, strategy: Strategy, context: RankContext, quantity: Quantity | None
) -> str:
    """The text of the program; raises :class:`NotWritable`, which says what it cannot write.

    It trains with the same random numbers as the case, once in one process and once in its ranks, and
    compares ``quantity``, which was the first to differ; None if a rank raised.
    """
    scenario, dtype = recipe.scenario, str(recipe.dtype).rpartition(".")[2]
    lacking = [one for one in _LACKS if one in scenario.features()]
    if lacking or scenario.autocast or scenario.checkpoint or dtype not in _TOLERANCES:
        raise NotWritable(f"a training with {', '.join(lacking) or dtype}")
    strategy = strategy.suit(scenario)
    spelled = strategy.spelled(context) if _as_spelled(type(strategy)) else None
    if spelled is None:
        raise NotWritable(f"the strategy {strategy.name}")
    writing = _Writing(recipe, spelled, quantity)
    imports, texts = writing.texts()
    wrap = "\n".join(["def wrap(model, units, device):", *(f"    {line}" for line in spelled.wrap)])
    every = [one for one in (*imports, *spelled.imports) if one not in _PROGRAM]
    more = []
    if writing.reloads:
        imported, text = _MOVES[scenario.reload_by]
        more = [text]
        every += imported
    body = "\n\n".join([*texts[:-1], wrap, _DRAWN, *more, texts[-1]])
    if "contextlib." in body:
        every = ["import contextlib", *every]
    return _PROGRAM.format(
        title=f"{strategy.title}, {context.world_size} ranks: {name(type(scenario))} differs from one process.",
        imports="\n".join(_merged(every)),
        ranks=context.world_size,
        **_where(context),
        tolerance=_TOLERANCES[dtype],
        body=body,
        what=writing.what,
        # A release that refuses the training does not have another's wrong numbers.
        wrong="said" if quantity is None else 'not all(one.startswith("raised") for one in said)',
    )


#: What a strategy trains by, of which its spelling tells.
_TRAINS: tuple[str, ...] = (
    "wrap",
    "shard",
    "groups",
    "style",
    "rows",
    "no_sync",
    "learn",
    "within",
    "backward",
)
_TRAINS += ("clip", "clip_value", "optimizer", "reload", "save", "load")


def _as_spelled(kind: type[Strategy]) -> bool:
    """Whether a strategy trains by the methods of the class that spells it, and changes none of them."""
    speller = next(one for one in kind.__mro__ if "spelled" in vars(one))
    return all(getattr(kind, one, None) is getattr(speller, one, None) for one in _TRAINS)


class _Writing:
    """One program."""

    def __init__(self, recipe: Recipe, spelled: Spelling, quantity: Quantity | None) -> None:
        self.recipe, self.spelled = recipe, spelled
        self.scenario = scenario = recipe.scenario
        model = recipe.model()
        self.units = bool(scenario.units(model))
        self.terms = len(scenario.losses(model, recipe.batch(0)))
        last = quantity is None or quantity.step is None
        self.step = scenario.steps - 1 if last else quantity.step or 0  # type: ignore[union-attr]
        kind = "" if quantity is None else quantity.kind
        self.kind = kind if kind in _KINDS else "parameter"
        if self.kind == "gradient" and not spelled.gradients:
            self.kind = "parameter"
        after = scenario.reload_after
        self.reloads = after is not None and self.step > after
        #: Whether the optimizer makes a step before the quantity is there.
        self.steps = self.step > 0 or self.kind == "parameter"
        names = [one for one, _ in model.named_parameters()]
        given = "" if quantity is None else quantity.name
        # The optimizer's state is named after the parameter.
        clean = f".replace({spelled.prefix!r}, '')" if spelled.prefix else ""
        self.named = f"{{name{clean}: one for name, one in model.named_parameters()}}"
        self.tensor = next(
            (one for one in names if given == one or given.startswith(f"{one}.")), names[0]
        )

    @property
    def what(self) -> str:
        of = "" if self.kind == "loss" else f" of {self.tensor}"
        return f"step {self.step}, {self.kind}{of}"

    def texts(self) -> tuple[list[str], list[str]]:
        """The imports, and the texts of functions and classes; the last function trains."""
        scenario, sources = self.scenario, Sources()
        own = [hook for hook in _HOOKS if _overridden(scenario, hook)]
        needed = [
            "model",
            "batch",
            "losses",
            "groups",
            "optimizer",
            *(["units"] if self.units else []),
        ]
        has = sources.instance("Scenario", scenario, [*needed, *own], Scenario)
        if self.reloads:
            sources.function("\n".join(self._make(has)), "case")
        sources.function("\n".join(self._train(has)), "case")
        imports, texts = sources.texts()
        values = ast.unparse(ast.parse(f"{self.named}.values()"))
        return imports, [text.replace(values, "model.parameters()") for text in texts]

    def _made(self, has: set[str]) -> Iterator[str]:
        """The lines that make the model, and what trains it."""
        recipe = self.recipe
        yield f"inner = model = drawn({recipe.seed}, lambda: case.model()).to(device, {recipe.dtype})"
        yield "if rank is not None:"
        if "before_wrap" in has:
            yield "    case.before_wrap(inner)"
        yield f"    model = wrap(inner, {'case.units(inner)' if self.units else '[]'}, device)"
        if "after_wrap" in has:
            yield f"drawn({recipe.seed}, lambda: case.after_wrap(inner))"
        if self.steps:
            yield f"optimizer = case.optimizer(case.groups({self.named}))"
        if self.steps and "schedule" in has:
            yield "schedule = case.schedule(optimizer)"

    def _train(self, has: set[str]) -> Iterator[str]:
        yield "def train(device, rank=None):"
        if self.reloads:
            yield f"    {_MADE} = make(device, rank)"
        else:
            yield from (f"    {line}" for line in self._made(has))
        if self.step == 0:
            yield from (f"    {line}" for line in self._of_step(has, "0"))
        else:
            yield f"    for step in range({self.step + 1}):"
            yield from (f"        {line}" for line in self._of_step(has, "step"))
        if self.kind == "parameter":
            yield from (f"    {line}" for line in self._read(gradient=False))

    def _make(self, has: set[str]) -> Iterator[str]:
        yield "def make(device, rank):"
        yield from (f"    {line}" for line in self._made(has))
        if "schedule" not in has:
            yield "    schedule = None"
        yield f"    return {_MADE}"

    def _of_step(self, has: set[str], step: str) -> Iterator[str]:
        """The lines of a step, of which the last returns a loss or a gradient."""
        recipe, spelled = self.recipe, self.spelled
        seed = str(recipe.seed + 1) if step == "0" else f"{recipe.seed + 1} + step"
        yield f"batch = drawn({seed}, lambda: case.batch({recipe.rows}))"
        as_ = f"{recipe.dtype} if t.is_floating_point() else t.dtype"
        mine = "t" if spelled.rows == "t" else f"(t if rank is None else {spelled.rows})"
        yield f"batch = [{mine}.to(device, {as_}) for t in batch]"
        if "before_step" in has:
            yield f"case.before_step(inner, {step})"
        yield from self._backward()
        yield from self._clip()
        if self.kind != "parameter":
            last = () if step == "0" else (f"if step == {self.step}:",)
            yield from last
            lines = self._read(gradient=True) if self.kind == "gradient" else _LOSS
            yield from (f"    {line}" if last else line for line in lines)
            if not last:
                return
        yield "optimizer.step()"
        yield "optimizer.zero_grad()"
        if "schedule" in has:
            yield "schedule.step()"
        if self.reloads:
            yield f"if step == {self.scenario.reload_after} and rank is not None:"
            yield "    old, schedule_before = (model, optimizer), schedule"
            yield f"    {_MADE} = make(device, rank)"
            yield "    move(old, (model, optimizer))"
            if "schedule" in has:
                yield "    schedule.load_state_dict(schedule_before.state_dict())"

    def _read(self, *, gradient: bool) -> Iterator[str]:
        """The lines that return the one tensor, or its gradient."""
        margin = ""
        if self.spelled.whole:
            yield f"with contextlib.nullcontext() if rank is None else {self.spelled.whole}:"
            margin = "    "
        parts = self.tensor.split(".")
        path = "".join(f"[{part}]" if part.isdigit() else f".{part}" for part in parts)
        yield f"{margin}one = inner{path}"
        if gradient:
            yield f"{margin}one = torch.zeros_like(one) if one.grad is None else one.grad"
        yield f"{margin}return {self._whole('one')}.detach().clone()"

    def _whole(self, name: str) -> str:
        """The full tensor of what may be a DTensor."""
        if not self.spelled.dtensors:
            return name
        return f"({name}.full_tensor() if hasattr({name}, 'full_tensor') else {name})"

    def _clip(self) -> Iterator[str]:
        scenario, clip = self.scenario, self.spelled.clip
        if scenario.clip_norm is not None:
            kind = "float('inf')" if scenario.clip_kind == float("inf") else scenario.clip_kind
            values = {"norm": scenario.clip_norm, "kind": kind}
            margin = ""
            if clip != _CLIP:
                yield "if rank is not None:"
                yield f"    {clip.format(**values)}"
                yield "else:"
                margin += "    "
            yield f"{margin}{_CLIP.format(**values)}"
        if scenario.clip_value is not None:
            yield f"torch.nn.utils.clip_grad_value_(model.parameters(), {scenario.clip_value})"

    def _backward(self) -> Iterator[str]:
        """The lines that compute the gradients of a step, and its loss."""
        spelled, count = self.spelled, self.scenario.micro_batches
        once = self.scenario.exchange_last_only
        margin, piece, share = "", "batch", ""
        wanted = self.kind == "loss"
        if wanted:
            yield f"{margin}loss = 0"
        if count > 1:
            yield f"{margin}for n, piece in enumerate(zip(*(t.chunk({count}) for t in batch))):"
            margin += "    "
            piece, share = "piece", " * len(piece[0]) / len(batch[0])"
            if once and spelled.sync:
                yield f"{margin}last = n == {count - 1}"
                yield f"{margin}if rank is not None:"
                yield f"{margin}    {spelled.sync}"
            elif once and spelled.no_sync:
                alike = f"rank is None or n == {count - 1}"
                yield f"{margin}with contextlib.nullcontext() if {alike} else {spelled.no_sync}:"
                margin += "    "
        if spelled.within:
            yield f"{margin}with {spelled.within}:"
            margin += "    "
        if self.terms == 1:
            yield f"{margin}(term,) = case.losses(model, {piece})"
            yield f"{margin}(term{share}).backward()"
        else:
            yield f"{margin}for m, term in enumerate(case.losses(model, {piece}), 1):"
            margin += "    "
            yield f"{margin}(term{share}).backward(retain_graph=m < {self.terms})"
        if wanted:
            yield f"{margin}loss = loss + {self._whole('term')}.detach(){share}"


def _where(context: RankContext) -> dict[str, str]:
    """The device of a rank, and the backend of its group."""
    kind = context.device.type
    if kind == "cpu":
        return {"device": '"cpu"', "take": "", "backend": "gloo", "start": "fork"}
    module = f"torch.{kind}"
    take = f"{module}.set_device(rank % {module}.device_count())\n    "
    # What has begun to use an accelerator cannot be forked.
    # If a process sees only its own device, that is device 0.
    where = {"device": f'"{kind}", {module}.current_device()', "take": take}
    return {**where, "backend": context.kind.backend(), "start": "spawn"}


def _merged(imports: list[str]) -> Iterator[str]:
    """The lines of imports, with one for all names of a module."""
    modules: dict[str, dict[str, None]] = {}
    for line in imports:
        module, _, names = line.partition(" import ")
        modules.setdefault(module, {})[names] = None
    for module, found in modules.items():
        yield f"{module} import {', '.join(found)}" if "" not in found else module


def _overridden(scenario: Scenario, method: str) -> bool:
    return getattr(type(scenario), method) is not getattr(Scenario, method)
