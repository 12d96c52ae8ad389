"""docs/architecture.md holds: who may import whom, downwards only, no circle anywhere, every file in a room."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ENTRANCES = {"__init__", "__main__"}
TEST_ROOTS = ("engine", "modules", "gui", "harness", "benchmarks", "campaigns")


@pytest.fixture(scope="module")
def document(repository: Path) -> str:
    return (repository / "docs" / "architecture.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def allowed(document: str) -> dict[str, set[str]]:
    """The engine's packages in the order of the table, each with those it may import."""
    table = document.split("## The engine")[1].split("\n## ")[0]
    rows = [line.split("|")[1:-1] for line in table.splitlines() if line.startswith("| `")]
    return {row[0].strip(" `"): set(re.findall(r"`(\w+)`", row[2])) for row in rows}


@pytest.fixture(scope="module")
def libraries(document: str) -> dict[str, set[str]]:
    table = document.split("## The Slicer modules")[1].split("\n## ")[0]
    rows = [line.split("|")[1:-1] for line in table.splitlines() if line.startswith("| `")]
    return {row[0].strip(" `"): set(re.findall(r"`(\w+)`", row[1])) for row in rows}


def modules_below(root: Path, names: tuple[str, ...] | None = None) -> dict[str, Path]:
    """Dotted name -> file of every module below ``root``."""
    found = {}
    for path in root.rglob("*.py"):
        parts = list(path.relative_to(root).with_suffix("").parts)
        if names is not None and parts[0] not in names:
            continue
        if parts[-1] == "__init__":
            parts.pop()
        found[".".join(parts)] = path
    return found


def imports(name: str, path: Path, known: dict[str, Path]) -> Iterator[str]:
    """Modules among ``known`` that a file imports, inside functions too, for type checking alone not."""
    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for_types = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in for_types:
            continue
        if isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            parent = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                target = f"{parent}.{alias.name}" if f"{parent}.{alias.name}" in known else parent
                if target in known:
                    yield target
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)


def arrows(known: dict[str, Path]) -> dict[str, set[str]]:
    return {name: set(imports(name, path, known)) - {name} for name, path in known.items()}


def circles(graph: dict[str, set[str]]) -> list[str]:
    """Every circle that a walk along the arrows closes, as text."""
    found: list[str] = []
    done: set[str] = set()

    def walk(name: str, path: tuple[str, ...]) -> None:
        if name in path:
            found.append(" -> ".join([*path[path.index(name) :], name]))
        elif name not in done:
            for target in sorted(graph.get(name, ())):
                walk(target, (*path, name))
            done.add(name)

    for name in graph:
        walk(name, ())
    return found


@pytest.fixture(scope="module")
def engine(repository: Path) -> dict[str, Path]:
    return modules_below(repository / "SAMConvexRegistration", ("samconvex",))


def room(name: str) -> str:
    return name.split(".")[1] if "." in name else "__init__"


def test_every_package_imports_only_what_the_table_allows(engine, allowed) -> None:
    assert len(allowed) > 15
    strangers = {
        f"{name} -> {target}"
        for name, targets in arrows(engine).items()
        for target in targets
        if room(name) != room(target) and room(name) not in ENTRANCES and room(target) not in allowed[room(name)]
    }
    assert strangers == set()


def test_the_table_allows_nothing_that_is_not_used(engine, allowed) -> None:
    used: dict[str, set[str]] = {name: set() for name in allowed}
    for name, targets in arrows(engine).items():
        if room(name) in used:
            used[room(name)] |= {room(target) for target in targets} - {room(name)}
    assert {name: rooms - used[name] for name, rooms in allowed.items() if rooms - used[name]} == {}


def test_arrows_point_to_rows_above_only(allowed) -> None:
    order = list(allowed)
    upward = {
        f"{name} -> {other}"
        for name, others in allowed.items()
        for other in others
        if other not in order[: order.index(name)]
    }
    assert upward == set()


def test_every_file_of_the_engine_belongs_to_a_package_of_the_table(engine, allowed) -> None:
    assert {name for name in engine if room(name) not in {*allowed, *ENTRANCES}} == set()
    assert {name for name in allowed if not any(room(module) == name for module in engine)} == set()


def test_there_is_no_circle_in_the_engine(engine) -> None:
    assert circles(arrows(engine)) == []


def test_there_is_no_circle_in_the_slicer_modules(repository, libraries) -> None:
    known = modules_below(repository / "SAMConvexRegistration", ("SAMConvexLib", "SAMConvexRegistrationLib"))
    known |= modules_below(repository / "SAMLandmark", ("SAMLandmarkLib",))
    graph = arrows(known)
    assert len(graph) > 30 and circles(graph) == []
    strangers = {
        f"{name} -> {target}"
        for name, targets in graph.items()
        for target in targets
        if name.split(".")[0] != target.split(".")[0] and target.split(".")[0] not in libraries[name.split(".")[0]]
    }
    assert strangers == set()


def test_there_is_no_circle_in_the_tests(repository) -> None:
    graph = arrows(modules_below(repository / "Testing", TEST_ROOTS))
    assert len(graph) > 100 and circles(graph) == []


def test_a_circle_and_an_upward_arrow_would_be_found(tmp_path) -> None:
    (tmp_path / "samconvex").mkdir()
    (tmp_path / "samconvex" / "low.py").write_text("def f():\n    from .high import g\n")
    (tmp_path / "samconvex" / "high.py").write_text("from .low import f\n")
    graph = arrows(modules_below(tmp_path))
    assert graph["samconvex.low"] == {"samconvex.high"}
    assert len(circles(graph)) == 1
