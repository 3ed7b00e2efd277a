"""Questions about syntax trees, and names put in them."""

from __future__ import annotations

import ast
import copy
from collections.abc import Mapping

__all__ = ["Replaced", "has_call", "is_named", "names_in"]


def names_in(*trees: ast.AST, how: type[ast.expr_context] = ast.expr_context) -> list[str]:
    """Every name in trees, as often as it is there: those that are loaded or stored, or all."""
    return [
        node.id
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.Name) and isinstance(node.ctx, how)
    ]


def is_named(node: ast.AST, name: str) -> bool:
    """Whether a node is a name."""
    return isinstance(node, ast.Name) and node.id == name


def has_call(node: ast.AST) -> bool:
    """Whether something is called in a tree, or handed to a caller."""
    return any(isinstance(one, (ast.Call, ast.Yield, ast.YieldFrom)) for one in ast.walk(node))


class Replaced(ast.NodeTransformer):
    """Expressions in the place of names that are loaded."""

    def __init__(self, given: Mapping[str, ast.expr]) -> None:
        self.given = given

    def visit_Name(self, node: ast.Name) -> ast.expr:
        if isinstance(node.ctx, ast.Store):
            return node
        return copy.deepcopy(self.given.get(node.id, node))
