"""The room stands alone: numpy at import, scipy only where a distribution is asked for."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import minutia.stats

modules = sorted(Path(minutia.stats.__file__).parent.glob("*.py"))


def imported(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "absolute imports only"
            yield node.module


@pytest.mark.parametrize("path", modules, ids=lambda path: path.name)
def test_stats_knows_nothing_of_models(path):
    for name in imported(ast.parse(path.read_text())):
        if name.split(".")[0] not in sys.stdlib_module_names:
            assert name.startswith(("numpy", "scipy", "minutia.stats")), f"{path.name} imports {name}"


def test_scipy_is_not_loaded_with_the_package():
    code = "import sys, minutia.stats; sys.exit('scipy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_public_names_are_sorted_and_complete():
    names = minutia.stats.__all__
    assert names == sorted(names)
    imported_names = {
        alias.name
        for node in ast.parse(Path(minutia.stats.__file__).read_text()).body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert set(names) == imported_names
