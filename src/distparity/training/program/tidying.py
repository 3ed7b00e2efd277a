"""Make a folded function shorter, without another meaning: names that are used once, lines that do nothing."""

from __future__ import annotations

import ast
import itertools
from collections import Counter
from collections.abc import Iterator

from distparity.training.program.trees import Replaced, has_call, is_named, names_in

__all__ = ["does_nothing", "tidy"]


def tidy(tree: ast.FunctionDef) -> None:
    """Put values in the place of names that are used once, at once; leave out those that nothing uses."""
    while True:
        before = ast.dump(tree)
        for owner in list(ast.walk(tree)):
            for field in ("body", "orelse"):
                block = getattr(owner, field, None)
                if isinstance(block, list):
                    setattr(owner, field, _block(tree, block))
        _Calls().visit(tree)
        _Items().visit(tree)
        _Lambdas().visit(tree)
        if ast.dump(tree) == before:
            return


def does_nothing(tree: ast.FunctionDef) -> bool:
    """Whether a function has no effect and returns None."""
    return all(
        isinstance(line, ast.Pass)
        or (
            isinstance(line, ast.Return)
            and (line.value is None or ast.unparse(line.value) == "None")
        )
        for line in tree.body
    )


def _block(tree: ast.FunctionDef, block: list[ast.stmt]) -> list[ast.stmt]:
    stored = Counter(names_in(tree, how=ast.Store))
    loaded = Counter(names_in(tree, how=ast.Load))
    params = {one.arg for one in ast.walk(tree) if isinstance(one, ast.arg)}
    found: list[ast.stmt] = []
    rest = list(block)
    while rest:
        line = rest.pop(0)
        name = _assigned(line)
        if name is not None and stored[name] == 1 and name not in params:
            assert isinstance(line, ast.Assign)
            if not loaded[name] and not has_call(line.value):
                continue
            if loaded[name] == 1 and rest and _put(rest[0], name, line.value):
                continue
        found.append(line)
    lasting = [line for line in found if not isinstance(line, ast.Pass)]
    return lasting or found[:1]


def _assigned(line: ast.stmt) -> str | None:
    """The one name that a line assigns, if that is all that it does."""
    if isinstance(line, ast.Assign) and len(line.targets) == 1:
        target = line.targets[0]
        return target.id if isinstance(target, ast.Name) else None
    return None


def _put(line: ast.stmt, name: str, value: ast.expr) -> bool:
    """Put a value in the place of a name, if it is computed there at the same time; whether it was."""
    field = "iter" if isinstance(line, ast.For) else "value"
    whole = getattr(line, field, None)
    if not isinstance(line, (ast.Return, ast.Assign, ast.Expr, ast.For)) or whole is None:
        return False
    inside = list(_around(whole, name))
    if not inside:
        return False
    if any(isinstance(one, (*_LATER, ast.BoolOp, ast.IfExp)) for one in inside):
        return False
    # Nothing else may be called before.
    before = itertools.takewhile(lambda one: not is_named(one, name), _in_order(whole))
    if has_call(value) and any(isinstance(one, ast.Call) and one not in inside for one in before):
        return False
    setattr(line, field, Replaced({name: value}).visit(whole))
    return True


_LATER = (ast.Lambda, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


def _in_order(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes of an expression, from left to right."""
    yield node
    for child in ast.iter_child_nodes(node):
        yield from _in_order(child)


def _around(node: ast.AST, name: str) -> Iterator[ast.AST]:
    """The expressions that have a name in them, from the outermost to the name itself."""
    if any(is_named(one, name) for one in ast.walk(node)):
        yield node
        for child in ast.iter_child_nodes(node):
            yield from _around(child, name)


class _Calls(ast.NodeTransformer):
    """Arguments that are given as they are: not ``*[]``, nor ``**{"lr": 0.1}``."""

    def visit_Call(self, node: ast.Call) -> ast.Call:
        self.generic_visit(node)
        node.args = [one for one in node.args if not _is_empty(one)]
        node.keywords = [each for one in node.keywords for each in _spread(one)]
        return node


class _Lambdas(ast.NodeTransformer):
    """``lambda: f()`` is ``f``."""

    def visit_Lambda(self, node: ast.Lambda) -> ast.expr:
        body = node.body
        plain = isinstance(body, ast.Call) and not body.args and not body.keywords
        if plain and not ast.unparse(node.args) and isinstance(body.func, ast.Name):  # type: ignore[attr-defined]
            return body.func  # type: ignore[attr-defined]
        return node


class _Items(ast.NodeTransformer):
    """``(x,) = [y]`` is ``x = y``."""

    def visit_Assign(self, node: ast.Assign) -> ast.Assign:
        target, value = node.targets[0], node.value
        both = isinstance(target, ast.Tuple) and isinstance(value, (ast.List, ast.Tuple))
        if both and len(target.elts) == len(value.elts) == 1:  # type: ignore[attr-defined]
            return ast.Assign([target.elts[0]], value.elts[0])  # type: ignore[attr-defined]
        return node


def _is_empty(argument: ast.expr) -> bool:
    return (
        isinstance(argument, ast.Starred)
        and isinstance(argument.value, (ast.List, ast.Tuple))
        and not argument.value.elts
    )


def _spread(keyword: ast.keyword) -> Iterator[ast.keyword]:
    pairs = keyword.value if isinstance(keyword.value, ast.Dict) else None
    if keyword.arg is not None or pairs is None:
        yield keyword
        return
    for key, value in zip(pairs.keys, pairs.values, strict=True):
        assert isinstance(key, ast.Constant)
        yield ast.keyword(str(key.value), value)
