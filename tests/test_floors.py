"""The package is a house of floors, and imports go down only: see ARCHITECTURE.md."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "lpxfer"
MODULES = sorted(PACKAGE.rglob("*.py"))

#: From the ground up. Modules of one floor may import each other, except steps.
FLOORS = ["", "formats", "stores", "transports", "sources", "steps", "cli"]

LINES = 400

each_module = pytest.mark.parametrize(
    "module", MODULES, ids=[str(path.relative_to(PACKAGE)) for path in MODULES]
)


def floor(module: Path) -> str:
    """Return the floor of a module; the modules beside __init__.py are the ground."""
    parent = module.relative_to(PACKAGE).parent
    return "" if parent == Path() else str(parent)


def imports(module: Path) -> Iterator[str]:
    """Yield what a module imports, in functions too, by full name: `lpxfer.stores.spool`."""
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} has a relative import"
            yield from (f"{node.module}.{name.name}" for name in node.names)


def own_imports(module: Path) -> Iterator[Path]:
    """Yield the files of this package that a module imports."""
    for name in imports(module):
        if name.split(".")[0] == PACKAGE.name:
            path = PACKAGE.parent.joinpath(*name.split("."))
            places = [path, path / "__init__", path.parent, path.parent / "__init__"]
            yield next(p for place in places if (p := place.with_suffix(".py")).exists())


def test_every_floor_is_known_and_flat() -> None:
    assert {floor(module) for module in MODULES} == set(FLOORS)


@each_module
def test_imports_go_down_only(module: Path) -> None:
    here = floor(module)
    for other in own_imports(module):
        there = floor(other)
        assert FLOORS.index(there) <= FLOORS.index(here), f"{module} imports {other}"
        assert (here, there) != ("steps", "steps"), f"{module} imports another step: {other}"


@each_module
def test_only_commands_meet_the_user(module: Path) -> None:
    if floor(module) != "cli":
        assert not {name for name in imports(module) if name.split(".")[0] == "click"}
        reads = [
            node.lineno
            for node in ast.walk(ast.parse(module.read_text()))
            if isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv", "argv")
        ]
        assert not reads, f"{module} reads the environment or the command line in lines {reads}"


@each_module
def test_only_the_durable_module_renames_and_syncs(module: Path) -> None:
    calls = {"rename", "renames", "replace", "fsync", "fdatasync", "sync", "link"}
    if module.name != "durable.py":
        for node in ast.walk(ast.parse(module.read_text())):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                assert (node.value.id, node.attr) not in {("os", call) for call in calls}, (
                    f"{module}:{node.lineno} calls os.{node.attr}"
                )


@pytest.mark.parametrize("init", [p for p in MODULES if p.name == "__init__.py"], ids=str)
def test_an_init_imports_nothing(init: Path) -> None:
    assert not list(imports(init))


@each_module
def test_no_module_is_longer_than_a_reader_can_hold(module: Path) -> None:
    assert len(module.read_text().splitlines()) <= LINES


def test_no_module_is_named_for_nothing() -> None:
    nothing = "utils helpers misc manager handler core base common engine".split()
    assert not [module for module in MODULES if module.stem in nothing]
