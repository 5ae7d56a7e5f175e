"""The public surface: sorted, complete, lazy; starting is cheap."""

import ast
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import minutia

HEAVY = {"torch", "numpy", "scipy", "sklearn", "onnx", "onnxruntime", "sqlalchemy", "transformers"}


def test_public_names_are_sorted_and_complete():
    assert minutia.__all__ == sorted(minutia.__all__)
    assert list(minutia._HOMES) == sorted(minutia._HOMES)
    assert set(minutia.__all__) == set(minutia._HOMES) | {"__version__"}
    assert dir(minutia) == minutia.__all__


@pytest.mark.parametrize("name", sorted(minutia._HOMES))
def test_every_name_is_what_its_home_defines(name):
    home = import_module(minutia._HOMES[name])
    found = getattr(minutia, name)
    assert found is getattr(home, name)
    assert found.__module__ == home.__name__, "a name lives where it is defined, so that pickles and docs agree"
    assert found.__doc__


def test_type_checkers_see_the_same_names():
    body = ast.parse(Path(minutia.__file__).read_text(encoding="utf-8")).body
    (block,) = (node for node in body if isinstance(node, ast.If))
    assert {alias.name: node.module for node in block.body for alias in node.names} == minutia._HOMES


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'extrakt'"):
        _ = minutia.extrakt
    with pytest.raises(ImportError):
        exec("from minutia import extrakt")


def test_the_version_is_that_of_the_package():
    from importlib.metadata import version

    assert minutia.__version__ == version("minutia")


LIGHT = {
    "import minutia": "",
    "minutia --help": "from minutia.cli import run\nassert run(['--help']) == 0",
    "minutia verify --help": "from minutia.cli import run\nassert run(['verify', '--help']) == 0",
    "minutia --version": "from minutia.cli import run\nassert run(['--version']) == 0",
}


@pytest.mark.parametrize("what", LIGHT)
def test_starting_is_light(what):
    code = f"import sys, minutia\n{LIGHT[what]}\nprint(sorted({HEAVY!r} & set(sys.modules)), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr.strip() == "[]"


def test_asking_a_toy_model_needs_no_torch():
    code = (
        "import sys, minutia\n"
        "import numpy as np\n"
        "model = minutia.model('toy:mlp?sizes=4-3-2')\n"
        "model.ask(minutia.ProbeSet(('a',), np.zeros((1, 4))))\n"
        "minutia.method('ipguard')\n"
        "sys.exit(len({'torch', 'sklearn', 'onnx', 'onnxruntime'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_command_is_installed():
    done = subprocess.run(
        [sys.executable, "-m", "minutia", "--version"],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"NO_COLOR": "1"},
    )
    assert (done.returncode, done.stdout.strip()) == (0, f"minutia {minutia.__version__}")
