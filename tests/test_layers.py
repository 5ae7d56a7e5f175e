"""Who may import whom, read from the source: the law of docs/design, without running anything."""

import ast
import re
import sys
from graphlib import CycleError, TopologicalSorter
from importlib.metadata import entry_points
from pathlib import Path

import pytest

import minutia

ROOT = Path(minutia.__file__).parent
PEERS = ("methods", "models", "attacks", "storage", "report")
BELOW = ("stats", "core", *PEERS)
DECIDERS = ("catalog", "api", "study", "checks")
MAY_IMPORT = {
    "stats": set(),
    "core": {"stats"},
    **{peer: {"stats", "core"} for peer in PEERS},
    **{room: {*BELOW, *DECIDERS} for room in DECIDERS},
    **{room: {*BELOW, *DECIDERS, ""} for room in ("cli", "web")},
    "": {*BELOW, *DECIDERS},  # the public names in minutia/__init__.py
    "__main__": {"cli"},
}
"""Room -> rooms it may import besides itself; the rooms in PEERS never import one another."""
LAZY = {"scipy", "torch", "onnx", "onnxruntime", "sklearn", "transformers", "ray", "psycopg", "obstore", "fastapi"}
"""Never imported at module level: slow, or an extra that may be absent."""
THIRD_PARTY = {"stats": {"numpy", "scipy"}, "core": {"numpy"}}
"""Rooms that are pure may use nothing else."""


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = {module_name(path): path for path in sorted(ROOT.rglob("*.py"))}
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in SOURCES.items()}


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def imports(tree: ast.AST, *, lazy: bool, typing: bool):
    """Line and full name of what is imported; inside functions if ``lazy``, for type checkers if ``typing``."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: relative import"
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)
        elif is_type_checking(node) and not typing:
            yield from (pair for part in node.orelse for pair in imports(part, lazy=lazy, typing=typing))
        elif lazy or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from imports(node, lazy=lazy, typing=typing)


def own_module(name: str) -> str | None:
    """The module of ours that an import touches: ``minutia.core.probe.ProbeSet`` is ``minutia.core.probe``."""
    while name and name not in SOURCES:
        name = name.rpartition(".")[0]
    return name or None


def room(module: str) -> str:
    return module.partition(".")[2].partition(".")[0]


@pytest.mark.parametrize("module", SOURCES)
def test_rooms_import_only_what_lies_below_them(module):
    allowed = MAY_IMPORT.get(room(module))
    assert allowed is not None, f"{module} is in no room of the design: give it one, or extend the table"
    wrong = [
        f"{SOURCES[module]}:{line} imports {name}"
        for line, name in imports(TREES[module], lazy=True, typing=True)
        if (target := own_module(name)) and room(target) not in {room(module), *allowed}
    ]
    assert not wrong


def test_no_module_imports_itself_in_a_circle():
    graph = {
        module: {t for _, name in imports(tree, lazy=False, typing=False) if (t := own_module(name)) and t != module}
        for module, tree in TREES.items()
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


@pytest.mark.parametrize("module", SOURCES)
def test_heavy_packages_are_imported_inside_functions(module):
    found = [(line, name) for line, name in imports(TREES[module], lazy=False, typing=False)]
    assert not [f"{SOURCES[module]}:{line} {name}" for line, name in found if name.split(".")[0] in LAZY]


@pytest.mark.parametrize("module", [name for name in SOURCES if room(name) in THIRD_PARTY])
def test_the_pure_rooms_need_nothing_but_numbers(module):
    known = THIRD_PARTY[room(module)] | sys.stdlib_module_names | {"minutia"}
    used = {name.split(".")[0] for _, name in imports(TREES[module], lazy=True, typing=True)}
    assert used <= known


@pytest.mark.parametrize("module", [name for name in SOURCES if room(name) == "core"])
def test_the_core_reads_and_writes_nothing(module):
    used = {name.split(".")[0] for _, name in imports(TREES[module], lazy=True, typing=True)}
    assert not used & {
        "os",
        "io",
        "pathlib",
        "sqlite3",
        "socket",
        "subprocess",
        "tempfile",
        "shutil",
        "urllib",
        "pickle",
    }
    calls = {n.func.id for n in ast.walk(TREES[module]) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)}
    assert not calls & {"open", "print", "exec", "eval"}


@pytest.mark.parametrize("module", [name for name in SOURCES if room(name) == "core"])
def test_nothing_in_the_core_names_a_method(module):
    names = {point.name for point in entry_points(group="minutia.methods")}
    classes = {point.value.rpartition(":")[2] for point in entry_points(group="minutia.methods")}
    text = SOURCES[module].read_text(encoding="utf-8")
    assert not {n for n in names | classes if re.search(rf"\b{n}\b", text)}


def test_the_table_is_that_of_the_design():
    """Peers are apart, and nothing below looks up."""
    for low, high in [("stats", "core"), *(("core", p) for p in PEERS), *((p, d) for p in PEERS for d in DECIDERS)]:
        assert low in MAY_IMPORT[high] and high not in MAY_IMPORT[low]
    assert not [(a, b) for a in PEERS for b in PEERS if a != b and b in MAY_IMPORT[a]]


BROKEN = {
    "stats": "from minutia.core import probe",
    "core": "def f():\n    from minutia.models.toy import ToyClassifier",
    "methods": "import minutia.models",
    "storage": "if True:\n    from minutia import catalog",
    "report": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from minutia.storage.files import load_null",
    "study": "from minutia.cli import console",
}


@pytest.mark.parametrize("where", BROKEN)
def test_a_forbidden_import_would_be_found(where):
    found = [own_module(name) for _, name in imports(ast.parse(BROKEN[where]), lazy=True, typing=True)]
    assert [t for t in found if t and room(t) not in {where, *MAY_IMPORT[where]}]
