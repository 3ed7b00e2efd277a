"""The statements that make order in torch's Python sources, and how to leave one out.

A module's functions are compiled anew, once, so that each statement asks whether it is the one that
is left out. The unfaulted run is then made of the same code as a run without a statement.
"""

from __future__ import annotations

import ast
import gc
import importlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

__all__ = ["MODULES", "Rewrite", "Statement", "Statements"]

_FSDP2 = "torch.distributed.fsdp._fully_shard."
_HOOKS = "torch.distributed.algorithms.ddp_comm_hooks."
#: Where statements are looked for, and the wrapper to which they belong. What a torch does not have
#: is left out.
MODULES = {
    f"{_FSDP2}_fsdp_collectives": "FSDP2",
    f"{_FSDP2}_fsdp_param_group": "FSDP2",
    f"{_FSDP2}_fsdp_state": "FSDP2",
    f"{_FSDP2}_fsdp_param": "FSDP2",
    f"{_FSDP2}_fully_shard": "FSDP2",
    "torch.distributed.fsdp._runtime_utils": "FSDP1",
    "torch.distributed.fsdp._flat_param": "FSDP1",
    "torch.distributed.fsdp._unshard_param_utils": "FSDP1",
    "torch.distributed.fsdp.fully_sharded_data_parallel": "FSDP1",
    "torch.distributed.fsdp.sharded_grad_scaler": "FSDP1",
    "torch.distributed.algorithms._comm_hooks.default_hooks": "FSDP1",
    "torch.nn.parallel.distributed": "DDP",
    f"{_HOOKS}mixed_precision_hooks": "DDP",
    f"{_HOOKS}optimizer_overlap_hooks": "DDP",
    f"{_HOOKS}powerSGD_hook": "DDP",
    f"{_HOOKS}ddp_zero_hook": "DDP",
    "torch.distributed.optim.zero_redundancy_optimizer": "DDP",
    "torch.distributed._functional_collectives": "functional collectives",
    "torch.distributed.tensor._redistribute": "functional collectives",
    "torch.distributed.tensor.parallel._data_parallel_utils": "functional collectives",
    "torch.distributed.tensor.experimental._attention": "functional collectives",
    "torch.distributed.tensor.experimental._context_parallel._attention": "functional collectives",
    "torch.distributed.pipelining.schedules": "pipelines",
    "torch.distributed.checkpoint.staging": "checkpoints",
    "torch.distributed.checkpoint.filesystem": "checkpoints",
}
_WAITS = ("wait_stream", "wait_event", "wait", "synchronize")
_RECORDS = ("record_stream", "_no_dispatch_record_stream")
_PASSED_ON = ("wait_tensor",)
#: The modules ask by these names.
_ASK = "_is_left_out"


@dataclass(frozen=True)
class Statement:
    """A wait or a keep-alive in torch's sources."""

    module: str
    function: str
    line: int
    #: ``wait``: what it waits for is used without. ``record``: ``record_stream``. ``keep``: a tensor
    #: in a record beside an event, which holds its memory.
    kind: str
    text: str
    #: Which one it is of those with the same text in a function.
    number: int = 0

    @property
    def name(self) -> str:
        """The same in all releases that have it: without its line."""
        which = f" ({self.number + 1})" if self.number else ""
        return f"{self.module.rpartition('.')[2]}.{self.function}: {self.text}{which}"

    @property
    def place(self) -> str:
        return f"{self.module.rpartition('.')[2]}:{self.line}"


class Statements:
    """All statements of the torch that is here; its functions ask which of them is left out."""

    def __init__(self) -> None:
        self.all: list[Statement] = []
        #: The one that is left out, by its place in :attr:`all`.
        self.left_out: int | None = None
        #: How often each was reached.
        self.reached: Counter[int] = Counter()
        for name in MODULES:
            try:
                module = importlib.import_module(name)
            except ImportError:
                continue
            if module.__name__ == name and module.__file__ is not None:
                self._enter(module, Path(module.__file__))

    def names(self) -> dict[str, int]:
        return {statement.name: number for number, statement in enumerate(self.all)}

    def _ask(self, number: int) -> bool:
        self.reached[number] += 1
        return number == self.left_out

    def _enter(self, module: Any, file: Path) -> None:
        rewrite = Rewrite(module.__name__, self.all)
        before = len(self.all)
        tree = ast.fix_missing_locations(rewrite.visit(ast.parse(file.read_text())))
        if len(self.all) == before:
            return
        vars(module)[_ASK] = self._ask
        vars(module)[_UNWAITED] = _unwaited
        code = compile(tree, str(module.__file__), "exec", dont_inherit=True)
        anew = {_key(one): one for one in _codes(code)}
        for thing in gc.get_objects():
            if type(thing) is FunctionType and thing.__code__.co_filename == code.co_filename:
                found = anew.get(_key(thing.__code__))
                if found is not None and found.co_freevars == thing.__code__.co_freevars:
                    thing.__code__ = found


_UNWAITED = "_unwaited"


def _unwaited(thing: Any) -> Any:
    """What ``thing.wait()`` returns, without the wait."""
    if hasattr(thing, "elem"):
        return thing.elem
    if hasattr(thing, "value"):
        return thing.value()
    return None


def _key(code: CodeType) -> tuple[str, int]:
    return code.co_name, code.co_firstlineno


def _codes(code: CodeType) -> Iterator[CodeType]:
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            yield inner
            yield from _codes(inner)


class Rewrite(ast.NodeTransformer):
    """Has each statement ask; notes them in order."""

    def __init__(self, module: str, noted: list[Statement]) -> None:
        self._module = module
        self._noted = noted
        self._functions: list[str] = []
        self._seen: Counter[tuple[str, str]] = Counter()

    def _note(self, node: ast.AST, kind: str, text: str) -> ast.expr:
        """A call that asks whether this one is left out."""
        function = ".".join(self._functions)
        number = self._seen[function, text]
        self._seen[function, text] += 1
        line = int(getattr(node, "lineno", 0))
        self._noted.append(Statement(self._module, function, line, kind, text, number))
        return _call(_ASK, ast.Constant(len(self._noted) - 1))

    # -- where one is --------------------------------------------------------------------------

    def _within(self, node: Any) -> Any:
        self._functions.append(node.name)
        try:
            return self.generic_visit(node)
        finally:
            self._functions.pop()

    visit_FunctionDef = visit_AsyncFunctionDef = visit_ClassDef = _within  # noqa: N815  ast's names

    # -- what is found -------------------------------------------------------------------------

    def visit_Call(self, node: ast.Call) -> ast.AST:
        text = ast.unparse(node)
        self.generic_visit(node)
        name = _name(node.func)
        if not self._functions:
            return node
        instead: ast.expr | None = None
        kind = "wait"
        if name in _WAITS and isinstance(node.func, ast.Attribute):
            waits = name == "wait" and not node.args and not node.keywords
            instead = _call(_UNWAITED, node.func.value) if waits else ast.Constant(None)
        elif name in _PASSED_ON and len(node.args) == 1:
            instead = node.args[0]
        elif name in _RECORDS:
            kind, instead = "record", ast.Constant(None)
        elif name.endswith("State") and name[0].isupper() and _holds_an_event(node):
            asked = self._note(node, "keep", text)
            node.args[0] = ast.IfExp(asked, ast.Constant(None), node.args[0])
        if instead is None:
            return node
        return ast.copy_location(ast.IfExp(self._note(node, kind, text), instead, node), node)


def _holds_an_event(call: ast.Call) -> bool:
    return len(call.args) == 2 and "event" in ast.unparse(call.args[1])


def _name(called: ast.expr) -> str:
    return str(getattr(called, "attr", getattr(called, "id", "")))


def _call(name: str, argument: ast.expr) -> ast.Call:
    return ast.Call(ast.Name(name, ast.Load()), [argument], [])
