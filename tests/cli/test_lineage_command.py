"""minutia lineage from the command line."""

import json

import pytest
from commands import minutia
from safetensors.numpy import save_file
from tests.methods.test_weights_forest import family
from tests.weights_made import llama


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A family and a stranger in one folder, two strangers in another."""
    place = tmp_path_factory.mktemp("lineage")
    made, _ = family(1, {"width": 32, "units": 64, "tokens": 300})
    for name, kept in (("zoo", made | {"stranger": llama(9, width=32)}), ("apart", {"a": llama(3), "b": llama(4)})):
        (place / name).mkdir()
        for model, tensors in kept.items():
            save_file(tensors, place / name / f"{model}.safetensors")
    (place / "empty").mkdir()
    return place


def test_trees_are_printed_and_written(folder):
    done = minutia(folder, "lineage", "zoo", "--report", "page.html", "-o", "found.json")
    assert done.code == 0, done.err
    assert "─ int8.safetensors  quantised" in done.out
    assert "stranger.safetensors" in done.out
    found = json.loads((folder / "found.json").read_text())
    assert len(found["trees"]) == 2
    page = (folder / "page.html").read_text()
    assert page.count("<circle") == 8 and "Lineage of checkpoints" in page


def test_strangers_are_exit_code_1(folder):
    done = minutia(folder, "lineage", "apart", "--json")
    assert (done.code, json.loads(done.out)["edges"]) == (1, [])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("empty",), "expected checkpoints in the folder empty"),
        (("apart/a.safetensors",), "expected 2 to 200 checkpoints, got 1"),
        (("absent", "apart"), "expected a checkpoint at absent"),
        (("apart", "--alpha", "0"), "expected an alpha between 0 and 1"),
        (("apart", "-o", "apart/a.safetensors"), "expected an output that is no input"),
    ],
)
def test_bad_input_is_one_sentence(folder, arguments, said):
    assert said in minutia(folder, "lineage", *arguments).sentence
