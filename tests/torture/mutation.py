"""The product's own functions with one protection less each: what mutants.py tries.

A mutant is one function of the product, compiled again from its changed source. Three kinds:

    without     a sync is left out
    weaker      a step that is whole or not at all, or never overwrites, or syncs, is replaced by
                one that does the same and does not; see weaker.py
    swapped     two statements of one block, of which one at least syncs or names something, stand
                in the other's place; only where no statement needs a name that comes later then

Which statements change a disk is not guessed but seen: see effects.py.
"""

import ast
import copy
import importlib
import inspect
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import CodeType, FunctionType
from typing import Any

from torture import weaker
from torture.effects import Effects

#: What is mutated.
MODULES = [
    "lpxfer.durable",
    *(
        f"lpxfer.stores.{name}"
        for name in "layout queue drafts finishing batch placing settling job_dir finished_log "
        "incoming archive instrument_dir instrument_log receipts watched claims".split()
    ),
    *(f"lpxfer.transports.{name}" for name in "order local deposit attempt".split()),
    *(f"lpxfer.steps.{name}" for name in ("sweep", "sweep_any", "watch")),
]

#: Verbs that make something durable, and those that give a name in one step.
SYNCS, NAMES = {"fsync", "syncfs"}, {"link", "rename"}


@dataclass(frozen=True)
class Mutant:
    """One protection less."""

    module: str
    function: str  # its name within the module
    line: int
    what: str
    code: CodeType
    scenarios: frozenset[str]  # that come by

    @property
    def name(self) -> str:
        """Its name, as long as the function stays what it is."""
        return f"{self.module.removeprefix('lpxfer.')} {self.function}: {self.what}"

    def __str__(self) -> str:
        return f"line {self.line} of {self.name}"

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Let it take the function's place for a block, for all who have imported it."""
        module = importlib.import_module(self.module)
        function = _find(module, self.function)
        before, function.__code__ = function.__code__, self.code
        added = {name: value for name, value in vars(weaker).items() if name.startswith("weaker_")}
        vars(module).update(added)
        try:
            yield
        finally:
            function.__code__ = before
            for name in added:
                del vars(module)[name]


def mutants(effects: Effects) -> Iterator[Mutant]:
    """Make every mutant of every module."""
    for name in MODULES:
        module = importlib.import_module(name)
        file, source = str(module.__file__), inspect.getsource(module)
        tree = ast.parse(source)
        for function, where in _functions(tree):
            changes = [*_left_out(where), *_weakened(where), *_swapped(file, where, effects)]
            seen = Counter[str]()
            for change in changes:
                code = _compile(tree, change, file, function)
                near = effects.runs(file, *change.places)
                line = change.places[-1].lineno
                seen[change.what] += 1
                which = f" ({seen[change.what]})" if seen[change.what] > 1 else ""
                yield Mutant(name, function, line, change.what + which, code, near)


@dataclass(frozen=True)
class Change:
    """What is done to one node of a tree."""

    node: ast.AST
    places: tuple[ast.stmt | ast.expr, ...]  # where, for a person and for the effects
    what: str
    do: Callable[[Any], None]  # to the same node of a copy


def _left_out(function: ast.FunctionDef) -> Iterator[Change]:
    for node in _outside_handlers(function):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            if _dotted(node.value.func).rpartition(".")[2] in weaker.SYNCS:
                yield Change(node, (node,), f"without {ast.unparse(node)}", _leave_out)
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call):
            if _dotted(node.value.func).rpartition(".")[2] in weaker.SYNCS:
                yield Change(node, (node,), f"without {ast.unparse(node)}", _unasked)
        if isinstance(node, ast.keyword) and node.arg == "sync":
            if isinstance(node.value, ast.Constant) and node.value.value is True:
                yield Change(node.value, (node.value,), "without sync=True", _not_true)


def _weakened(function: ast.FunctionDef) -> Iterator[Change]:
    for node in _outside_handlers(function):
        if isinstance(node, ast.Call):
            for name in weaker.FORMS.get(_dotted(node.func), ()):
                yield Change(node, (node,), f"{ast.unparse(node)} as {name}", _call(name))


def _swapped(file: str, function: ast.FunctionDef, effects: Effects) -> Iterator[Change]:
    for node in ast.walk(function):
        for field in ("body", "orelse", "finalbody"):
            block = getattr(node, field, None)
            if isinstance(block, list):
                verbs = [effects.verbs(file, statement) for statement in block]
                acting = [index for index, found in enumerate(verbs) if found]
                for place, first in enumerate(acting):
                    for second in acting[place + 1 : place + 3]:
                        pair = block[first], block[second]
                        if _matters(verbs[first] | verbs[second]) and effects.runs(file, *pair):
                            if swap := _swap(block, first, second):
                                what = f"{_line(pair[1])!r} before {_line(pair[0])!r}"
                                yield Change(node, pair, what, _reorder(field, swap))


def _matters(verbs: set[str]) -> bool:
    """Tell whether the order of what does this may matter; two syncs side by side are as one."""
    return bool(verbs & (SYNCS | NAMES) and verbs - SYNCS)


def _swap(block: Sequence[ast.stmt], first: int, second: int) -> list[int] | None:
    """Return a new order of a block in which `second` comes before `first`, None if none works."""
    if any(_jumps(statement) for statement in block[first:second]):
        return None
    upwards = [*range(first), second, *range(first, second)]
    downwards = [*range(first), *range(first + 1, second + 1), first]
    for order in (upwards, downwards):
        order += range(second + 1, len(block))
        if _flows([block[index] for index in order], block, order):
            return order
    return None


def _flows(new: Sequence[ast.stmt], block: Sequence[ast.stmt], order: Sequence[int]) -> bool:
    """Tell whether every statement that moved up needs no name that comes later now."""
    for place, statement in enumerate(new):
        needs = _names(statement, ast.Load) | _names(statement, ast.Store)
        for later in range(place + 1, len(new)):
            if order[later] < order[place] and needs & _names(block[order[later]], ast.Store):
                return False
    return True


def _names(statement: ast.stmt, context: type[ast.expr_context]) -> set[str]:
    """Return the names, dotted ones included, that a statement loads or binds."""
    return {
        _dotted(node)
        for node in ast.walk(statement)
        if isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, context)
    }


def _jumps(statement: ast.stmt) -> bool:
    """Tell whether a statement may leave the block, other than by an exception."""
    jumps = ast.Return | ast.Raise | ast.Break | ast.Continue | ast.Yield | ast.YieldFrom
    return any(isinstance(node, jumps) for node in _outside_handlers(statement))


def _outside_handlers(node: ast.AST) -> Iterator[ast.AST]:
    """Walk through a tree but for its `except` parts: what a failed call leads to is not ours."""
    yield node
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.ExceptHandler):
            yield from _outside_handlers(child)


def _leave_out(node: ast.Expr) -> None:
    node.value = ast.copy_location(ast.Constant(None), node.value)


def _unasked(node: ast.Assign) -> None:
    node.value = ast.copy_location(ast.Name("weaker_synced", ast.Load()), node.value)


def _not_true(node: ast.Constant) -> None:
    node.value = False


def _call(name: str) -> Callable[[ast.Call], None]:
    def change(node: ast.Call) -> None:
        node.func = ast.copy_location(ast.Name(name, ast.Load()), node.func)

    return change


def _reorder(field: str, order: Sequence[int]) -> Callable[[ast.AST], None]:
    def change(node: ast.AST) -> None:
        block = getattr(node, field)
        setattr(node, field, [block[index] for index in order])

    return change


def _functions(tree: ast.Module) -> Iterator[tuple[str, ast.FunctionDef]]:
    """Yield the functions and methods of a module, with their names within it."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            yield node.name, node
        if isinstance(node, ast.ClassDef):
            for inner in node.body:
                if isinstance(inner, ast.FunctionDef):
                    yield f"{node.name}.{inner.name}", inner


def _compile(tree: ast.Module, change: Change, file: str, function: str) -> CodeType:
    """Compile a copy of a module in which one node is changed; return one function's code."""
    index = next(i for i, node in enumerate(ast.walk(tree)) if node is change.node)
    twin = copy.deepcopy(tree)
    change.do(next(node for i, node in enumerate(ast.walk(twin)) if i == index))
    codes = [compile(ast.fix_missing_locations(twin), file, "exec")]
    for part in function.split("."):
        codes = [c for c in codes[0].co_consts if isinstance(c, CodeType) and c.co_name == part]
    return codes[0]


def _find(module: object, function: str) -> FunctionType:
    """Return the function itself, from beneath what decorates it."""
    found: Any = module
    for part in function.split("."):
        found = inspect.getattr_static(found, part)
    found = getattr(found, "__func__", found)  # a static method
    found = getattr(found, "fget", found)  # a property
    while hasattr(found, "__wrapped__"):
        found = found.__wrapped__
    assert isinstance(found, FunctionType), function
    return found


def _dotted(node: ast.AST) -> str:
    if isinstance(node, ast.Name):
        return node.id
    return f"{_dotted(node.value)}.{node.attr}" if isinstance(node, ast.Attribute) else "?"


def _line(statement: ast.stmt) -> str:
    """Return what a person recognizes a statement by: of a `try`, what is tried."""
    while isinstance(statement, ast.Try):
        statement = statement.body[0]
    return ast.unparse(statement).partition("\n")[0]
