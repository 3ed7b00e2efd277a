"""The source of classes, written again for one object: what is known of it becomes a constant.

A scenario is written for all its uses; a program shows one. So each method is read as a syntax tree and
folded (:mod:`distparity.training.program.folding`). What is left needs no import of distparity.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import FunctionType, ModuleType
from typing import Any

from distparity.training.program.folding import Folding, NotWritable, Stub
from distparity.training.program.inlining import inline, short, unfold
from distparity.training.program.tidying import does_nothing, tidy
from distparity.training.program.trees import names_in

__all__ = ["Sources"]

#: What a program may not import; nor the package of a scenario, which may be somebody's own.
_OURS = "distparity"


@dataclass
class _Class:
    name: str
    base: str
    methods: list[ast.FunctionDef]
    constants: list[str] = field(default_factory=list)

    def text(self) -> str:
        lines = [f"class {self.name}({self.base}):" if self.base else f"class {self.name}:"]
        body = [*self.constants, *map(_text, self.methods)] or ["pass"]
        lines += [textwrap.indent(one, "    ") for one in body]
        return "\n".join(lines)


class Sources:
    """The classes and functions of a program, with all that they use, in the order they need."""

    def __init__(self) -> None:
        self._imports: dict[str, str] = {}
        self._functions: dict[str, ast.FunctionDef] = {}
        self._classes: dict[str, _Class] = {}
        #: The methods that are called from elsewhere, and the functions.
        self._entries = {"forward"}
        self._called: set[str] = set()
        #: By the name of a function, the name in it of an object, and the object's class.
        self._cases: dict[str, str] = {}
        self._case = ""
        self._wanted: set[str] = set()
        #: The attributes of objects that are known, and written nowhere.
        self._learned: set[str] = set()
        self._ours = {_OURS}
        self._names: dict[Any, str] = {}

    def instance(self, name: str, one: Any, methods: Sequence[str], base: type) -> set[str]:
        """Write the class of an object, with ``methods`` and those that they call.

        The object's attributes are constants in it. Where a method calls that of a parent, the classes
        up to ``base`` are written in a chain. Returns the names of those of ``methods`` that do
        something. Raises :class:`NotWritable`.
        """
        self._ours.add(_package(type(one)))
        order = type(one).__mro__
        line = order[: order.index(base) + 1]
        found: dict[type, dict[str, ast.FunctionDef]] = {kind: {} for kind in line}
        wanted = [(0, method) for method in methods]
        idle = set()
        while wanted:
            start, method = wanted.pop()
            place = next((n for n in range(start, len(line)) if method in vars(line[n])), None)
            if place is None:
                raise NotWritable(f"{type(one).__name__} has no {method}")
            kind = line[place]
            function = vars(kind)[method]
            if method in found[kind]:
                continue
            if not isinstance(function, FunctionType):
                raise NotWritable(f"{method} of {kind.__name__} is not a plain method")
            tree = self._function(function, {"self": one})
            if start == 0 and method in methods and does_nothing(tree):
                idle.add(method)
                continue
            found[kind][method] = tree
            wanted += [(0, called) for called in _called(tree, "self")]
            wanted += [(place + 1, called) for called in _called_of_super(tree)]
        chained = any(
            True for own in found.values() for t in own.values() for _ in _called_of_super(t)
        )
        trees = [
            [found[kind][each] for each in vars(kind) if each in found[kind]]
            for kind in reversed(line)
        ]
        if not chained:
            trees = [[each for body in trees for each in body]]
        trees, above = [body for body in trees if body], ""
        for number, body in enumerate(trees, 1):
            own = name if number == len(trees) else self._free(f"{name}{number}")
            self._classes[own] = _Class(own, above, body)
            above = own
        self._case, self._wanted = own, {*methods} - idle
        return {*methods} - idle

    def function(self, text: str, case: str = "") -> None:
        """Add a function, which calls methods of the object :meth:`instance` wrote by the name ``case``."""
        tree = ast.parse(text).body[0]
        assert isinstance(tree, ast.FunctionDef)
        self._add(tree.name, tree)
        if case:
            self._cases[tree.name] = case

    def plain(self, name: str, value: Any) -> None:
        """Add a function, or a lambda, by a name; what it is a closure of is known.

        Raises :class:`NotWritable`.
        """
        if not isinstance(value, FunctionType) or _package(value) == "torch":
            self._called.add(self.name_of(value, name))
            return
        self._ours.add(_package(value))
        closed = inspect.getclosurevars(value).nonlocals
        given = inspect.signature(value).parameters.values()
        defaults = {one.name: one.default for one in given if one.default is not one.empty}
        tree = self._lambda(value) if value.__name__ == "<lambda>" else _parsed(value)
        env = {**closed, **defaults}
        tree.args.defaults, tree.args.kw_defaults = [], []
        self._add(name, Folding(self, value.__globals__, env, None).function(tree))

    def method(self, name: str, one: Any, method: str, **known: Any) -> None:
        """Add a method of an object as a function of its other arguments.

        ``known`` are arguments of which something is known; they stay arguments. Raises
        :class:`NotWritable` if it uses the object in another way than by what is known of it.
        """
        self._ours.add(_package(type(one)))
        function = getattr(type(one), method)
        tree = _parsed(function)
        del tree.args.args[0]
        folded = Folding(self, function.__globals__, {"self": one, **known}, None)
        tree = folded.function(tree, keeps=True)
        if "self" in names_in(tree):
            raise NotWritable(f"{method} of {type(one).__name__} uses the object")
        self._add(name, tree)

    def _add(self, name: str, tree: ast.FunctionDef) -> None:
        """Add a folded function that the program itself calls."""
        tree.name = name
        tidy(tree)
        self._functions[name] = tree
        self._called.add(name)

    def _lambda(self, value: FunctionType) -> ast.FunctionDef:
        """A lambda as a function: the only one that begins in its line of its file."""
        module = inspect.getmodule(value)
        text = "" if module is None else inspect.getsource(module)
        found = [
            node
            for node in ast.walk(ast.parse(text))
            if isinstance(node, ast.Lambda) and node.lineno == value.__code__.co_firstlineno
        ]
        if len(found) != 1:
            raise NotWritable("a lambda that is not alone in its line")
        (tree,) = ast.parse("def function(): pass").body
        assert isinstance(tree, ast.FunctionDef)
        tree.args, tree.body = found[0].args, [ast.Return(found[0].body)]
        return tree

    def texts(self) -> tuple[list[str], list[str]]:
        """The lines of imports, and the text of each function and class, without what nothing uses."""
        self._check_stores()
        if not self._cases:
            # Nobody but the reader calls the object.
            self._entries |= self._wanted
        while self._shorter():
            pass
        used = self._called.union(names_in(*self._trees()))
        used |= {one.base.partition(".")[0] for one in self._classes.values()}
        imports = [line for name, line in self._imports.items() if name in used]
        classes = [one for one in self._classes.values() if self._used(one, used)]
        # The functions that were added last call the classes.
        functions = {name: _text(tree) for name, tree in self._functions.items()}
        first = [text for name, text in functions.items() if name not in self._called]
        last = [text for name, text in functions.items() if name in self._called]
        made = [f"{case} = {self._case}()" for case in sorted({*self._cases.values()} & used)]
        return imports, [*first, *(one.text() for one in classes), *made, *last]

    def _used(self, kind: _Class, used: set[str]) -> bool:
        return (
            kind.name in used
            or (kind.name == self._case and used.issuperset(self._cases.values()))
            or any(one.base == kind.name for one in self._classes.values())
        )

    def _check_stores(self) -> None:
        """Refuse what changes an attribute that was taken for known. Raises :class:`NotWritable`."""
        for tree in self._trees():
            for node in ast.walk(tree):
                stored = isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)
                if stored and node.attr in self._learned:  # type: ignore[attr-defined]
                    raise NotWritable(f"it changes {ast.unparse(node)}")

    def _shorter(self) -> bool:
        """Put short functions and methods in the place of their calls, and drop those nobody calls."""
        done = False
        own = {name: tree for name, tree in self._functions.items() if short(tree) is not None}
        for name, tree in self._functions.items():
            others = {one: other for one, other in own.items() if other is not tree}
            case = self._cases.get(name)
            if case is not None and not self._chained(self._classes[self._case]):
                methods = {f"{case}.{one.name}": one for one in self._classes[self._case].methods}
                done |= unfold(tree, methods)
                others |= methods
            done |= inline(tree, others)
        for kind in self._classes.values():
            for tree in kind.methods:
                mine = {f"self.{one.name}": one for one in kind.methods if one is not tree}
                done |= inline(tree, own if self._chained(kind) else {**own, **mine})
        trees = self._trees()
        for tree in trees:
            tidy(tree)
        names = self._called.union(names_in(*trees))
        wanted = self._entries | {
            node.attr
            for tree in trees
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute)
        }
        self._functions = {name: one for name, one in self._functions.items() if name in names}
        for kind in self._classes.values():
            kind.methods = [
                one for one in kind.methods if one.name in wanted or one.name.startswith("__")
            ]
        return done or len(self._trees()) < len(trees)

    def _trees(self) -> list[ast.FunctionDef]:
        methods = (tree for kind in self._classes.values() for tree in kind.methods)
        return [*self._functions.values(), *methods]

    def _chained(self, kind: _Class) -> bool:
        """Whether a class has a parent or a child in the program."""
        return kind.base in self._classes or any(
            one.base == kind.name for one in self._classes.values()
        )

    def _free(self, name: str) -> str:
        while name in self._functions or name in self._classes or name in self._imports:
            name += "_"
        return name

    # -- what a text uses --------------------------------------------------------------------------

    def name_of(self, value: Any, wished: str) -> str:
        """The name of a module, class or function in the program, which is written or imported."""
        if isinstance(value, ModuleType):
            parent, _, own = value.__name__.rpartition(".")
            if value.__name__.partition(".")[0] in self._ours:
                raise NotWritable(f"it uses {value.__name__}")
            as_ = "" if own == wished else f" as {wished}"
            self._imports[wished] = (
                f"from {parent} import {own}{as_}" if parent else f"import {own}{as_}"
            )
            return wished
        module = getattr(value, "__module__", "") or ""
        if _package(value) not in self._ours:
            own = getattr(value, "__name__", "")
            if not module or not own or own == "<lambda>":
                raise NotWritable(f"{wished} has no source")
            if module != "builtins":
                as_ = "" if own == wished else f" as {wished}"
                self._imports[wished] = f"from {module} import {own}{as_}"
            return wished
        if value in self._names:
            return self._names[value]
        name = self._names[value] = self._free(value.__name__)
        if isinstance(value, type):
            self._classes[name] = self._class_of(value, name)
        else:
            tree = self._function(value, {})
            tree.name = name
            self._functions[name] = tree
        return name

    def class_of(self, value: Any) -> type | None:
        """A class of the package, which is written with the program."""
        return value if isinstance(value, type) and _package(value) in self._ours else None

    def _class_of(self, kind: type, name: str, known: Mapping[str, Any] | None = None) -> _Class:
        """A class with all its methods; ``known`` are arguments of its constructor."""
        bases = [self.name_of(one, one.__name__) for one in kind.__bases__ if one is not object]
        if kind.__bases__[0].__module__.startswith("torch.nn"):
            self._imports.setdefault("nn", "from torch import nn")
            bases = [f"nn.{kind.__bases__[0].__name__}"]
            self._imports.pop(kind.__bases__[0].__name__, None)
        stub = Stub()
        body: list[ast.FunctionDef] = []
        constants: list[str] = []
        for each, value in vars(kind).items():
            if isinstance(value, FunctionType):
                env = {"self": stub, **(known or {} if each == "__init__" else {})}
                body.append(self._function(value, env, stub))
            elif isinstance(value, (bool, int, float, str)) and not each.startswith("__"):
                constants.append(
                    ast.unparse(ast.Assign([ast.Name(each)], ast.Constant(value), lineno=1))
                )
            elif not each.startswith("__"):
                raise NotWritable(f"{kind.__name__}.{each} is no method")
        self._learned |= {*vars(stub)}
        return _Class(name, ", ".join(bases), body, constants)

    def specialised(self, kind: type, args: Sequence[Any], keywords: Mapping[str, Any]) -> str:
        """The name of a class that is made with these arguments alone, which are known."""
        bound = inspect.signature(kind.__init__).bind(None, *args, **keywords)  # type: ignore[misc]
        known = dict(list(bound.arguments.items())[1:])
        key = (kind, repr(known))
        if key not in self._names:
            name = self._names[key] = self._free(kind.__name__)
            self._classes[name] = self._class_of(kind, name, known)
        return self._names[key]

    def _function(
        self, function: FunctionType, env: Mapping[str, Any], stub: Stub | None = None
    ) -> ast.FunctionDef:
        """A function's tree, folded; ``env`` has the values of arguments that are known."""
        tree = _parsed(function)
        closed = inspect.getclosurevars(function).nonlocals
        if set(closed) - {"__class__"}:
            raise NotWritable(f"{function.__name__} is a closure")
        own = function.__name__ == "__init__"
        folded = Folding(self, function.__globals__, dict(env), stub if own else None).function(
            tree
        )
        tidy(folded)
        return folded


def _parsed(function: FunctionType) -> ast.FunctionDef:
    tree = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]
    if not isinstance(tree, ast.FunctionDef) or tree.decorator_list:
        raise NotWritable(f"{function.__name__} is not a plain function")
    return tree


def _package(value: Any) -> str:
    return (getattr(value, "__module__", "") or "").partition(".")[0]


def _text(tree: ast.stmt) -> str:
    return ast.unparse(ast.fix_missing_locations(tree))


def _called(tree: ast.AST, whose: str) -> Iterator[str]:
    """The names of the methods that a method uses of its own object."""
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and node.value.id == whose
        ):
            yield node.attr


def _called_of_super(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Call):
            function = node.value.func
            if isinstance(function, ast.Name) and function.id == "super":
                yield node.attr
