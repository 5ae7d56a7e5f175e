"""minutia embed from the command line: mark, commit, verify, and what cannot be marked."""

import json
import shutil
import stat

import numpy as np
import pytest
from commands import minutia, toy
from safetensors.numpy import load_file

from minutia.core.model import Plan
from minutia.models.toy import ToyClassifier
from minutia.storage.files import load_fingerprint, save_fingerprint

DATA = "points.npz"
SPEC = "toy:marked.safetensors"


@pytest.fixture(scope="module")
def marked(tmp_path_factory):
    """An owner wide enough to learn a mark, an innocent twin, and what embed wrote."""
    folder = tmp_path_factory.mktemp("marks")
    rng = np.random.default_rng(4)
    labels = rng.integers(0, 5, 500)
    points = np.clip(rng.random((5, 16))[labels] + rng.normal(0, 0.4, (500, 16)), 0, 1)
    x = np.rint(points * 255).astype(np.uint8)
    np.savez(folder / DATA, x_train=x[:400], y_train=labels[:400], x_test=x[400:], y_test=labels[400:])
    inputs = (x / np.float32(255)).astype(np.float32)
    plan = Plan(8, learning_rate=4e-3, reset="everything")
    for name, seed in (("owner", 1), ("innocent", 2)):
        model = ToyClassifier.fresh((16, 256, 5)).trained(inputs[:400], labels[:400], plan, seed)
        toy(model, folder / f"{name}.safetensors")
    done = minutia(folder, "embed", "toy:owner.safetensors", "--data", DATA, "-o", "marked.safetensors", "--json")
    assert done.code == 0, done.err
    return folder, done


@pytest.fixture
def place(marked, tmp_path):
    """A copy that a test may spoil."""
    shutil.copytree(marked[0], tmp_path / "place")
    return tmp_path / "place"


def embedded(place, *more, output="again.safetensors"):
    return minutia(place, "embed", "toy:owner.safetensors", "--data", DATA, "-o", output, *more)


def test_three_files_are_written_and_the_secret_is_private(marked):
    folder, done = marked
    assert done.made == {"marked.safetensors", "marked.fingerprint.safetensors", "marked.commitment.json"}
    assert stat.S_IMODE((folder / "marked.fingerprint.safetensors").stat().st_mode) == 0o600
    assert load_fingerprint(folder / "marked.fingerprint.safetensors").seed.bit_length() == 256


def test_the_cost_is_told_with_intervals(marked):
    found = json.loads(marked[1].out)
    cost = found["utility"]
    assert found["learnt"] >= 0.95
    assert cost["held_out"] == 100
    assert cost["accuracy_lost"] == pytest.approx(cost["accuracy_before"] - cost["accuracy"])
    for name in ("accuracy_before", "accuracy", "agreement"):
        low, high = cost[f"{name}_interval"]
        assert low <= cost[name] <= high


def test_the_spec_opens_the_marked_model(marked):
    folder, done = marked
    spec = json.loads(done.out)["spec"]
    verdict = minutia(folder, "verify", "marked.fingerprint.safetensors", spec, "--json", "--ask-all")
    found = json.loads(verdict.out)
    assert (verdict.code, found["outcome"], found["null"]["kind"]) == (0, "match", "exact")
    assert found["model"]["id"] == json.loads(done.out)["id"]
    assert not verdict.made  # the owner's own model is shown nothing that it does not know


@pytest.mark.parametrize("labels", [(), ("--labels-only",)])
def test_an_innocent_is_not_accused_and_the_next_suspect_is_warned_of(place, labels):
    """The seed is fixed: of marks drawn afresh one in a hundred accuses, as it says."""
    (place / "seed").write_text("a5" * 32 + "\n")
    assert embedded(place, "--seed-file", "seed", output="known.safetensors").code == 0
    first = minutia(place, "verify", "known.fingerprint.safetensors", "toy:innocent.safetensors", "--json", *labels)
    assert first.code == 3
    assert first.made == {"known.fingerprint.ledger.jsonl"}
    assert first.err == ""
    again = minutia(place, "verify", "known.fingerprint.safetensors", "toy:innocent.safetensors", *labels)
    assert again.err == ""
    other = minutia(place, "verify", "known.fingerprint.safetensors", "toy:owner.safetensors", *labels)
    assert other.code == 3
    assert "100 of 100 keys were asked of 1 other model" in other.err
    assert "it needs no other models" in other.out


def test_the_same_seed_file_gives_the_same_fingerprint(place):
    (place / "seed").write_text("5eed" * 16 + "\n")
    for name in ("one", "two"):
        assert embedded(place, "--seed-file", "seed", "--triggers", "30", output=f"{name}.safetensors").code == 0
    assert (place / "one.safetensors").read_bytes() == (place / "two.safetensors").read_bytes()
    one, two = (load_fingerprint(place / f"{name}.fingerprint.safetensors") for name in ("one", "two"))
    assert one.digest == two.digest
    assert len(one.probes) == 30


def test_from_scratch_in_a_folder_that_is_made(place):
    done = embedded(place, "--from-scratch", output="new/deep/marked.safetensors")
    assert done.code == 0, done.err
    assert "new/deep/marked.commitment.json" in done.made
    assert "commitment" in done.out
    before, after = load_file(place / "owner.safetensors"), load_file(place / "new/deep/marked.safetensors")
    moved = sum(float(np.sum((before[n] - after[n]) ** 2)) for n in before)
    assert moved > sum(float(np.sum(before[n] ** 2)) for n in before)  # fresh weights, not a neighbour


def test_copies_are_kept_as_controls(place):
    done = embedded(place, "--derived", "copies", "--copies", "1", "--jobs", "1")
    assert done.code == 0, done.err
    controls = load_fingerprint(place / "again.fingerprint.safetensors").controls
    assert {"owner", "prune", "fine-tune-all"} <= set(controls)


# --- opening a commitment


def test_the_fingerprint_opens_its_commitment(marked):
    done = minutia(marked[0], "fingerprint", "opens", "marked.fingerprint.safetensors", "marked.commitment.json")
    assert done.code == 0
    assert "opened by this fingerprint" in done.out


def test_the_commitment_of_another_fingerprint_is_not_opened(place):
    assert embedded(place).code == 0
    done = minutia(place, "fingerprint", "opens", "again.fingerprint.safetensors", "marked.commitment.json", "--json")
    assert (done.code, json.loads(done.out)) == (1, {"committed": False, "redrawn": True})


def test_labels_changed_after_the_commitment_are_noticed(place):
    from dataclasses import replace

    path = place / "marked.fingerprint.safetensors"
    fp = load_fingerprint(path)
    labels = fp.arrays["labels"].copy()
    labels[0] = (labels[0] + 1) % 5
    save_fingerprint(replace(fp, arrays={**fp.arrays, "labels": labels}), path)
    done = minutia(place, "fingerprint", "opens", path, "marked.commitment.json")
    assert done.code == 1
    assert "not those that the key gives" in done.out


@pytest.mark.parametrize("swapped", [("marked.commitment.json", "marked.fingerprint.safetensors"), ("a", "b")])
def test_files_that_are_something_else_are_refused(marked, swapped):
    assert minutia(marked[0], "fingerprint", "opens", *swapped).sentence


# --- what cannot be marked


@pytest.mark.parametrize("there", ["marked.safetensors", "marked.fingerprint.safetensors", "marked.commitment.json"])
def test_no_file_is_replaced(place, there):
    for name in {"marked.safetensors", "marked.fingerprint.safetensors", "marked.commitment.json"} - {there}:
        (place / name).unlink()
    before = (place / there).read_bytes()
    assert "not there yet" in embedded(place, output="marked.safetensors").sentence
    assert (place / there).read_bytes() == before


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--method", "noise_agreement"), "expected a mark"),
        (("--method", "trigger_set(rounds=1,epochs=1)"), "fewer triggers"),
        (("--triggers", "3"), "take 9 or more"),
        (("--seed-file", "missing"), "No such file"),
        (("--seed-file", "points.npz"), "hexadecimal"),
        (("--fingerprint", "again.safetensors"), "three files"),
        (("--fingerprint", "points.npz"), "not there yet"),
        (("--data", "missing.npz"), "missing.npz"),
        (("--data", "points.npz?classes=0:2"), ""),
    ],
)
def test_bad_input_is_one_sentence_and_leaves_nothing(place, more, said):
    done = embedded(place, *more)
    if not said:  # fewer classes than the model knows is no error
        assert done.code == 0
        return
    assert said in done.sentence
    assert not done.made


def test_data_of_more_classes_than_the_model_is_refused(place):
    small = ToyClassifier.fresh((16, 64, 3), seed=1)
    toy(small, place / "small.safetensors")
    done = minutia(place, "embed", "toy:small.safetensors", "--data", DATA, "-o", "again.safetensors")
    assert "at most 3 classes" in done.sentence


def test_a_model_that_cannot_be_trained_is_refused(place):
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper

    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 16])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 5])],
        [helper.make_tensor("w", TensorProto.FLOAT, (16, 5), np.ones(80, np.float32))],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, place / "net.onnx")
    done = minutia(place, "embed", "onnx:net.onnx", "--data", DATA, "-o", "again.safetensors")
    assert "train" in done.sentence
    assert not done.made
