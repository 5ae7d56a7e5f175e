"""minutia compare from the command line: exit codes, documents, files that are none."""

import json

import numpy as np
import pytest
from commands import minutia
from safetensors.numpy import save_file
from tests.weights_made import llama, noisy


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model, a tuned copy, a stranger, and a model whose training broke down."""
    place, one = tmp_path_factory.mktemp("checkpoints"), llama(1, units=96)
    broken = noisy(one, 2)
    broken["model.layers.1.mlp.up_proj.weight"][:] = np.nan
    files = {"one": one, "copy": noisy(one, 1), "stranger": llama(2, units=96), "broken": broken}
    for name, tensors in files.items():
        save_file(tensors, place / f"{name}.safetensors")
    (place / "text.txt").write_text("not a checkpoint")
    return place


@pytest.mark.parametrize(
    ("other", "code", "relation", "p"), [("copy", 0, "derived", 1e-12), ("stranger", 1, "unrelated", 1.0)]
)
def test_the_exit_code_says_it(folder, other, code, relation, p):
    done = minutia(folder, "compare", "one.safetensors", f"{other}.safetensors", "--json")
    found = json.loads(done.out)
    assert (done.code, found["relation"], found["schema"]) == (code, relation, "minutia.comparison/1")
    assert (found["null"], found["p_value"]) == ({"kind": "exact", "test": "unit order"}, p)
    assert found["first"]["spec"] == "one.safetensors"


def test_page_and_document_are_written(folder):
    done = minutia(
        folder, "compare", "one.safetensors", "copy.safetensors", "--weak", "--report", "page.html", "-o", "found.json"
    )
    assert done.code == 0
    assert "DERIVED" in done.out and "weak" in done.out
    assert json.loads((folder / "found.json").read_text())["baselines"]["cosine of weights"] > 0.5
    assert "<h1>Derived</h1>" in (folder / "page.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("one.safetensors", "absent.npz"), "expected a checkpoint at absent.npz"),
        (("one.safetensors", "text.txt"), "expected a checkpoint (safetensors"),
        (("one.safetensors", "broken.safetensors"), "got NaN or infinity in layer 1 of the second"),
        (("one.safetensors", "copy.safetensors", "--alpha", "2"), "expected an alpha between 0 and 1, got 2"),
        (("one.safetensors", "copy.safetensors", "-o", "one.safetensors"), "expected an output that is no input"),
        ((".", "copy.safetensors", "-o", "one.safetensors"), "expected an output that is no input"),
        (("one.safetensors", "copy.safetensors", "-o", "x", "--report", "x"), "expected two files for --report"),
        (("one.safetensors", "ftp://host/file"), "expected a path, hf://"),
    ],
)
def test_bad_input_is_one_sentence(folder, arguments, said):
    done = minutia(folder, "compare", *arguments)
    assert said in done.sentence
