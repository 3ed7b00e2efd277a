"""Fold a function: put in what is known before it runs, and leave out what is never reached.

It is partial evaluation of the usual kind (Jones, Gomard and Sestoft, "Partial Evaluation and Automatic
Program Generation", 1993), for the little of Python that scenarios use: attributes that are numbers,
branches that are never taken, loops over known values.
"""

from __future__ import annotations

import ast
import builtins
import copy
import inspect
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from types import FunctionType, ModuleType
from typing import Any, Protocol

from distparity.training.program.trees import names_in

__all__ = ["Folding", "Names", "NotWritable", "Stub"]

#: Builtins without effects, which may be called before the program runs.
_PURE = {
    "all",
    "any",
    "bool",
    "dict",
    "enumerate",
    "float",
    "int",
    "len",
    "list",
    "max",
    "min",
    "range",
}
_PURE |= {"set", "sorted", "str", "sum", "tuple", "zip", "frozenset", "abs"}
#: The longest loop that is written out.
_MOST_TURNS = 16
_UNKNOWN = object()


class NotWritable(Exception):
    """Something that has no source of its own: the message says what."""


class Names(Protocol):
    """The names that a program has for what its functions use."""

    def name_of(self, value: Any, wished: str) -> str:
        """The name of a module, a class or a function; raises :class:`NotWritable`."""

    def class_of(self, value: Any) -> type | None:
        """The class that is written with the program, if ``value`` is one."""

    def specialised(self, kind: type, args: Sequence[Any], keywords: Mapping[str, Any]) -> str:
        """The name of a class that is made with these arguments alone, which are known."""


class Stub:
    """An object of which only some attributes are known."""


class Folding(ast.NodeTransformer):
    """Fold one function."""

    def __init__(
        self,
        names: Names,
        scope: Mapping[str, Any],
        env: dict[str, Any],
        learns: Stub | None,
    ) -> None:
        self.names, self.scope, self.env = names, scope, env
        #: Where attributes that are known go, in a constructor.
        self.learns = learns
        #: Other names of modules.
        self.same: dict[str, ast.expr] = {}
        self.often: Counter[str] = Counter()
        self.local: set[str] = set()

    def function(self, tree: ast.FunctionDef, *, keeps: bool = False) -> ast.FunctionDef:
        """Fold a function in place; what is known is no longer an argument, unless it ``keeps`` all."""
        _plain(tree)
        args = tree.args
        every = [*args.posonlyargs, *args.args, *args.kwonlyargs]
        names = [one.arg for one in every]
        names += [one.arg for one in (args.vararg, args.kwarg) if one is not None]
        stored = names_in(tree, how=ast.Store)
        inner = [
            one.arg
            for node in ast.walk(tree)
            if isinstance(node, (ast.Lambda, ast.FunctionDef)) and node is not tree
            for one in node.args.args
        ]
        self.often = Counter([*stored, *names])
        self.local = {*stored, *names, *inner}
        known = [name for name in self.env if name != "self"]
        args.args = [one for one in args.args if keeps or one.arg not in known]
        args.defaults = [self.visit(one) for one in args.defaults]
        args.kw_defaults = [None if one is None else self.visit(one) for one in args.kw_defaults]
        tree.body = self.block(tree.body) or [ast.Pass()]
        return tree

    def block(self, statements: Sequence[ast.stmt]) -> list[ast.stmt]:
        found: list[ast.stmt] = []
        for statement in statements:
            found += self.statement(statement)
            if found and isinstance(found[-1], (ast.Return, ast.Raise)):
                break
        return found

    def statement(self, node: ast.stmt) -> list[ast.stmt]:
        if isinstance(node, ast.If):
            test = self.value(node.test)
            if test is not _UNKNOWN:
                return self.block(node.body if test else node.orelse)
            body, other = self.block(node.body), self.block(node.orelse)
            if not body and not other:
                return []
            return [ast.If(self.visit(node.test), body or [ast.Pass()], other)]
        if isinstance(node, ast.For):
            return self.loop(node)
        if isinstance(node, ast.With):
            items = [self.visit(item) for item in node.items]
            return [ast.With(items, self.block(node.body) or [ast.Pass()])]
        if isinstance(node, ast.Assign) and len(node.targets) == 1:
            return self.assign(node.targets[0], node.value)
        if isinstance(node, ast.FunctionDef):
            node.body = self.block(node.body) or [ast.Pass()]
            return [node]
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            return []
        return [self.visit(node)]

    def assign(self, target: ast.expr, value: ast.expr) -> list[ast.stmt]:
        parts = self._parts(target, value)
        if parts:
            return [line for one, part in parts for line in self.assign(one, part)]
        if isinstance(target, ast.Name) and self.often[target.id] == 1 and self._imported(value):
            self.same[target.id] = value
            return []
        known = self.value(value)
        if known is not _UNKNOWN and _fixed(known):
            if isinstance(target, ast.Name) and self.often[target.id] == 1:
                self.env[target.id] = known
                return []
            # What could be written may be written to, by anybody.
            if self.learns is not None and _of_self(target) and not _literal(known):
                setattr(self.learns, target.attr, known)  # type: ignore[attr-defined]
                return []
        return [ast.Assign([self.visit(target)], self.visit(value))]

    def _parts(self, target: ast.expr, value: ast.expr) -> list[tuple[ast.expr, ast.expr]]:
        """The assignments of ``one, two = 1, x`` one by one, if something of it is known."""
        if not isinstance(target, ast.Tuple):
            return []
        known = self.value(value)
        parts: list[ast.expr] = []
        if isinstance(value, ast.Tuple):
            parts = value.elts
        elif isinstance(known, tuple):
            parts = [_Known(one) for one in known]
        starred = any(isinstance(one, ast.Starred) for one in (*target.elts, *parts))
        if starred or len(parts) != len(target.elts):
            return []
        if all(self.value(part) is _UNKNOWN for part in parts):
            return []
        return list(zip(target.elts, parts, strict=True))

    def loop(self, node: ast.For) -> list[ast.stmt]:
        """Write a loop out over what is known, if it is short and its targets are only its own."""
        targets = [one for one in ast.walk(node.target) if isinstance(one, ast.Name)]
        turns = self.value(node.iter)
        if (
            turns is not _UNKNOWN
            and not node.orelse
            and all(self.often[t.id] == 1 for t in targets)
        ):
            values = list(turns)
            jumps = any(isinstance(one, (ast.Break, ast.Continue)) for one in ast.walk(node))
            if len(values) <= _MOST_TURNS and all(map(_fixed, values)) and not jumps:
                found: list[ast.stmt] = []
                for one in values:
                    self._bind(node.target, one)
                    found += self.block(copy.deepcopy(node.body))
                for target in targets:
                    del self.env[target.id]
                return found
        return [
            ast.For(
                self.visit(node.target), self.visit(node.iter), self.block(node.body), node.orelse
            )
        ]

    def _imported(self, node: ast.expr) -> bool:
        """Whether an expression is a module, or a part of one."""
        while isinstance(node, ast.Attribute):
            node = node.value
        if not isinstance(node, ast.Name) or node.id in self.local:
            return False
        return isinstance(self.scope.get(node.id), ModuleType)

    def _bind(self, target: ast.expr, value: Any) -> None:
        if isinstance(target, ast.Name):
            self.env[target.id] = value
            return
        assert isinstance(target, ast.Tuple)
        for one, part in zip(target.elts, value, strict=True):
            self._bind(one, part)

    # -- expressions -------------------------------------------------------------------------------

    def value(self, node: ast.expr) -> Any:
        """What an expression is, if that is known before the program runs."""
        if isinstance(node, _Known):
            return node.known
        if isinstance(node, ast.Constant):
            return node.value
        if isinstance(node, ast.BoolOp):
            return self._short(node)
        bound = names_in(node, how=ast.Store)
        scope: dict[str, Any] = {}
        for name in {*names_in(node)}.difference(bound):
            found = self._known(name)
            if found is _UNKNOWN:
                return _UNKNOWN
            scope[name] = found
        try:
            code = compile(
                ast.fix_missing_locations(ast.Expression(copy.deepcopy(node))), "", "eval"
            )
            # Attributes of a stub that are not known raise AttributeError.
            return eval(code, {"__builtins__": {}, **scope})  # noqa: S307  it is the package's own source
        except Exception:
            return _UNKNOWN

    def _short(self, node: ast.BoolOp) -> Any:
        """The value of ``and`` or ``or``, for which one operand may be enough."""
        ends = isinstance(node.op, ast.Or)
        values = [self.value(one) for one in node.values]
        for value in values:
            if value is _UNKNOWN:
                return _UNKNOWN
            if bool(value) is ends:
                return value
        return values[-1]

    def _known(self, name: str) -> Any:
        if name in self.env:
            return self.env[name]
        if name in self.local:
            return _UNKNOWN
        if name in self.scope:
            found = self.scope[name]
            return (
                found if isinstance(found, (str, int, float, tuple, frozenset, dict)) else _UNKNOWN
            )
        return getattr(builtins, name) if name in _PURE else _UNKNOWN

    def visit(self, node: Any) -> Any:
        if isinstance(node, ast.expr) and not isinstance(getattr(node, "ctx", None), ast.Store):
            known = self.value(node)
            if known is not _UNKNOWN:
                if _literal(known):
                    return _written(known)
                if isinstance(known, (type, FunctionType)):
                    return _load(self.names.name_of(known, known.__name__))
        return super().visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> Any:
        """Leave out the operands that decide nothing."""
        ends = isinstance(node.op, ast.Or)
        left: list[ast.expr] = []
        for one in node.values:
            value = self.value(one)
            if value is not _UNKNOWN and bool(value) is not ends:
                continue
            left.append(self.visit(one))
            if value is not _UNKNOWN:
                break
        return left[0] if len(left) == 1 else ast.BoolOp(node.op, left)

    def visit_IfExp(self, node: ast.IfExp) -> Any:
        test = self.value(node.test)
        if test is not _UNKNOWN:
            return self.visit(node.body if test else node.orelse)
        return self.generic_visit(node)

    def visit_Name(self, node: ast.Name) -> Any:
        if node.id in self.same and isinstance(node.ctx, ast.Load):
            return self.visit(copy.deepcopy(self.same[node.id]))
        if isinstance(node.ctx, ast.Store) or node.id in self.local or node.id == "super":
            return node
        if node.id in self.scope:
            found = self.scope[node.id]
            if isinstance(found, (ModuleType, type)) or callable(found):
                return _load(self.names.name_of(found, node.id))
            raise NotWritable(f"it uses {node.id}, which cannot be written")
        return node

    def visit_Call(self, node: ast.Call) -> Any:
        kind = self._ours(node.func)
        if kind is not None:
            args = [self.value(one) for one in node.args]
            keywords = {one.arg or "": self.value(one.value) for one in node.keywords}
            every = [*args, *keywords.values()]
            if every and _UNKNOWN not in every and not all(map(_literal, every)):
                return ast.Call(_load(self.names.specialised(kind, args, keywords)), [], [])
        made = self.generic_visit(node)
        assert isinstance(made, ast.Call)
        if isinstance(made.func, ast.Name) and made.func.id == "getattr" and len(made.args) == 2:
            whose, what = made.args
            if isinstance(what, ast.Constant) and str(what.value).isidentifier():
                return ast.Attribute(whose, str(what.value), ast.Load())
        return made

    def _ours(self, function: ast.expr) -> type | None:
        """The class of the package that an expression calls, if it is one."""
        found = self.value(function)
        if isinstance(function, ast.Name) and function.id not in self.local:
            found = self.scope.get(function.id)
        return self.names.class_of(found)


class _Known(ast.expr):
    """An expression that is only known, and has no text."""

    _fields = ()

    def __init__(self, known: Any) -> None:
        super().__init__()
        self.known = known


# -- values ----------------------------------------------------------------------------------------


def _literal(value: Any) -> bool:
    """Whether a value can be written as it is."""
    if isinstance(value, (list, tuple, set)):
        return bool(value or not isinstance(value, set)) and all(map(_literal, value))
    if isinstance(value, dict):
        return all(map(_literal, [*value, *value.values()]))
    return value is None or isinstance(value, (bool, int, float, str))


def _fixed(value: Any) -> bool:
    """Whether a value never changes, so that a name for it can be left out."""
    return not isinstance(value, (list, dict, set)) and not inspect.isgenerator(value)


def _written(value: Any) -> ast.expr:
    if isinstance(value, float) and not math.isfinite(value):
        return ast.Call(_load("float"), [ast.Constant(str(value))], [])
    if isinstance(value, (list, tuple)):
        made = ast.List if isinstance(value, list) else ast.Tuple
        return made([_written(one) for one in value], ast.Load())
    if isinstance(value, dict):
        return ast.Dict([*map(_written, value)], [*map(_written, value.values())])
    if isinstance(value, set):
        return ast.Set([_written(one) for one in sorted(value, key=repr)])
    return ast.Constant(value)


# -- trees ---------------------------------------------------------------------------------------


def _load(name: str) -> ast.Name:
    return ast.Name(name, ast.Load())


def _of_self(target: ast.expr) -> bool:
    return (
        isinstance(target, ast.Attribute)
        and isinstance(target.value, ast.Name)
        and target.value.id == "self"
    )


def _plain(tree: ast.FunctionDef) -> None:
    """Take annotations and docstrings away."""
    for node in ast.walk(tree):
        if isinstance(node, ast.arg):
            node.annotation = None
        elif isinstance(node, ast.FunctionDef):
            node.returns = None
            if ast.get_docstring(node, clean=False) is not None:
                node.body = node.body[1:] or [ast.Pass()]
        for field, value in ast.iter_fields(node):
            if isinstance(value, list):
                setattr(node, field, [_without_type(one) for one in value])


def _without_type(node: Any) -> Any:
    if isinstance(node, ast.AnnAssign):
        if node.value is None:
            return ast.Pass()
        return ast.copy_location(ast.Assign([node.target], node.value), node)
    return node
