"""Put short methods and functions in the place of their calls: those that only return one expression."""

from __future__ import annotations

import ast
import copy
from collections import Counter
from collections.abc import Mapping

from distparity.training.program.trees import Replaced, has_call, names_in

__all__ = ["inline", "short", "unfold"]


def short(tree: ast.FunctionDef) -> ast.expr | None:
    """The one expression that a function returns, or yields; None if it does more."""
    if len(tree.body) != 1 or tree.args.kwonlyargs or tree.args.kwarg or tree.args.posonlyargs:
        return None
    (line,) = tree.body
    if isinstance(line, ast.Return):
        return line.value
    if isinstance(line, ast.Expr) and isinstance(line.value, ast.Yield):
        return line.value.value
    return None


def inline(tree: ast.FunctionDef, known: Mapping[str, ast.FunctionDef]) -> bool:
    """Put the short ones of ``known`` in the place of calls in a function; whether there was one.

    Their names are ``function`` and ``self.method``.
    """
    putting = _Inlining(known)
    for number, line in enumerate(tree.body):
        tree.body[number] = putting.visit(line)
    return putting.done


class _Inlining(ast.NodeTransformer):
    def __init__(self, known: Mapping[str, ast.FunctionDef]) -> None:
        self.known = known
        self.done = False

    def visit_Starred(self, node: ast.Starred) -> ast.expr:
        """``*self.generator()`` with one ``yield``."""
        if isinstance(node.value, ast.Call):
            tree = self._meant(node.value)
            if tree is not None and _is_generator(tree):
                found = _expression(tree, node.value)
                if found is not None:
                    self.done = True
                    return found
        return self.generic_visit(node)  # type: ignore[return-value]

    def visit_Call(self, node: ast.Call) -> ast.expr:
        self.generic_visit(node)
        tree = self._meant(node)
        if tree is None or _is_generator(tree):
            return node
        found = _expression(tree, node)
        if found is None:
            return node
        self.done = True
        return found

    def _meant(self, node: ast.Call) -> ast.FunctionDef | None:
        return self.known.get(ast.unparse(node.func))


def unfold(tree: ast.FunctionDef, known: Mapping[str, ast.FunctionDef]) -> bool:
    """Put the lines of those of ``known`` that are called in lines of their own; whether there was one."""
    done = False
    for owner in list(ast.walk(tree)):
        for field in ("body", "orelse"):
            block = getattr(owner, field, None)
            if not isinstance(block, list):
                continue
            lines: list[ast.stmt] = []
            for line in block:
                found = _lines(tree, line, known)
                done |= found is not None
                lines += [line] if found is None else found
            setattr(owner, field, lines)
    return done


def _lines(
    tree: ast.FunctionDef, line: ast.stmt, known: Mapping[str, ast.FunctionDef]
) -> list[ast.stmt] | None:
    """The lines of the function that a line calls and does nothing else with; None if it is none."""
    if not isinstance(line, (ast.Assign, ast.Expr)) or not isinstance(line.value, ast.Call):
        return None
    called = known.get(ast.unparse(line.value.func))
    call = line.value
    if called is None or call.keywords or _is_generator(called) or called.args.defaults:
        return None
    names = [one.arg for one in called.args.args if one.arg != "self"]
    simple = all(isinstance(one, (ast.Name, ast.Constant)) for one in call.args)
    if len(names) != len(call.args) or not simple or called.args.vararg is not None:
        return None
    *body, last = copy.deepcopy(called.body)
    returns = [node for node in ast.walk(called) if isinstance(node, ast.Return)]
    if len(returns) > 1 or (returns and not isinstance(last, ast.Return)):
        return None
    own = {*names_in(called, how=ast.Store)} - {*names}
    if own & _names_of(tree) or {*names_in(called, how=ast.Store)} & {*names}:
        return None
    given = Replaced({**dict(zip(names, call.args, strict=True)), **_whose(call)})
    body += [] if returns else [last]
    if isinstance(line, ast.Assign):
        if not returns or not isinstance(last, ast.Return) or last.value is None:
            return None
        body.append(ast.Assign(line.targets, last.value))
    return [given.visit(one) for one in body]


def _names_of(tree: ast.FunctionDef) -> set[str]:
    args = {one.arg for one in ast.walk(tree) if isinstance(one, ast.arg)}
    return args.union(names_in(tree))


def _is_generator(tree: ast.FunctionDef) -> bool:
    return any(isinstance(node, ast.Yield) for node in ast.walk(tree))


def _expression(tree: ast.FunctionDef, call: ast.Call) -> ast.expr | None:
    """What a call of a short function is, with its arguments put in; None where that is not plain."""
    value = short(tree)
    if value is None or call.keywords or tree.args.defaults:
        return None
    used = Counter(names_in(value))
    given = list(call.args)
    if tree.args.vararg is not None:
        if used[tree.args.vararg.arg]:
            return None
        given = [one for one in given if not isinstance(one, ast.Starred)]
    names = [one.arg for one in tree.args.args if one.arg != "self"]
    if len(given) != len(names) or any(isinstance(one, ast.Starred) for one in given):
        return None
    found = dict(zip(names, given, strict=True))
    # Of several arguments with calls, the order might be another.
    if sum(map(has_call, given)) > 1:
        return None
    if any(
        {*names_in(value, how=ast.Store)}.intersection(names_in(one)) or not _once(one, used[name])
        for name, one in found.items()
    ):
        return None
    return Replaced({**found, **_whose(call)}).visit(copy.deepcopy(value))  # type: ignore[no-any-return]


def _once(argument: ast.expr, times: int) -> bool:
    """Whether an argument may stand where it is used so many times."""
    if times == 1 or isinstance(argument, (ast.Name, ast.Constant, ast.Attribute)):
        return True
    return times == 0 and not has_call(argument)


def _whose(call: ast.Call) -> dict[str, ast.expr]:
    """What ``self`` is in the method that is called."""
    return {"self": call.func.value} if isinstance(call.func, ast.Attribute) else {}
