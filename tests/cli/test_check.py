"""minutia check from the command line: enrol, check what was downloaded, and what the exit code says."""

import json

import pytest
from commands import TRAINING, minutia, toy
from safetensors.numpy import load_file, save_file

from minutia.models.toy import ToyClassifier
from minutia.storage.manifest import manifest_of

METHOD = "sensitive_samples(pool=300,twins=60,rounds=6)"
ENROL = ("--data", TRAINING, "--method", METHOD)


@pytest.fixture(scope="module")
def released(world, tmp_path_factory):
    """The owner's model, enrolled, with a copy that was renamed, one that was changed, and one saved anew."""
    folder = tmp_path_factory.mktemp("release")
    for name in ("points.npz", "owner.safetensors", "copy.safetensors", "innocent.safetensors"):
        (folder / name).write_bytes((world / name).read_bytes())
    (folder / "renamed.safetensors").write_bytes((world / "owner.safetensors").read_bytes())
    weights = load_file(folder / "owner.safetensors")
    save_file(weights, folder / "again.safetensors", metadata={"saved": "anew"})
    weights["w0"][3, 4] += 0.01
    toy(ToyClassifier(weights), folder / "changed.safetensors")
    done = minutia(folder, "extract", "toy:owner.safetensors", "-o", "fp.safetensors", *ENROL, "--json")
    assert done.code == 0, done.err
    return folder, json.loads(done.out)


def checked(released, name, *more):
    folder, _ = released
    return minutia(folder, "check", f"toy:{name}.safetensors", "--against", "fp.safetensors", *more)


def test_enrolling_tells_what_is_kept(released):
    folder, told = released
    assert (told["question"], told["probes"]) == ("integrity", 10)
    assert told["controls"]["benign"] >= 99
    assert {"int8", "int4", "noise", "one-weight", "fine-tune"} <= set(told["controls"])
    digest = manifest_of([folder / "owner.safetensors"]).digests["owner.safetensors"]
    assert told["files"] == {"owner.safetensors": f"sha256:{digest}"}


@pytest.mark.parametrize("name", ["owner", "renamed"])
def test_the_same_bytes_are_intact_without_a_question(released, name):
    done = checked(released, name, "--json")
    found = json.loads(done.out)
    assert (done.code, found["outcome"], found["queries"]) == (0, "match", 0)
    assert found["files"]["recorded"] == "identical"


def test_the_same_weights_in_other_bytes_are_intact_after_ten_questions(released):
    done = checked(released, "again", "--json")
    found = json.loads(done.out)
    assert (done.code, found["outcome"], found["queries"]) == (0, "match", 10)
    assert found["flags"] == ["files-differ"]


LABELS = ("--labels-only",)
ALARMS = [("changed", ()), ("copy", ()), ("innocent", ()), ("copy", LABELS), ("innocent", LABELS)]
"""One weight that is changed by 0.01 need not turn a label, so ``changed`` is asked for all it shows."""


@pytest.mark.parametrize(("name", "more"), ALARMS)
def test_changed_weights_are_an_alarm(released, name, more):
    done = checked(released, name, "--json", *more)
    found = json.loads(done.out)
    assert (done.code, found["outcome"], found["question"]) == (1, "no-match", "integrity")
    assert found["queries"] <= 10


def test_people_read_intact_and_changed(released):
    intact, changed = checked(released, "again"), checked(released, "changed")
    assert intact.out.startswith("INTACT")
    assert changed.out.startswith("CHANGED")
    assert "benign runs" in changed.out
    assert "unrelated model" not in changed.out
    assert "recorded at enrolment: different" in changed.out


def test_a_manifest_of_the_publisher_is_compared_and_not_believed(released):
    folder, _ = released
    listed = manifest_of([folder / "owner.safetensors"]).statement()
    (folder / "model.sig").write_text(json.dumps(listed))
    same = checked(released, "renamed", "--manifest", "model.sig", "--json")
    files = json.loads(same.out)["files"]
    assert (same.code, files["manifest"], files["signature"]) == (0, "identical", "not verified")
    other = checked(released, "again", "--manifest", "model.sig", "--json")
    found = json.loads(other.out)
    assert (other.code, found["files"]["manifest"]) == (0, "different")
    assert "manifest-differs" in found["flags"]
    assert "not verified" in checked(released, "again", "--manifest", "model.sig").out


def test_a_verdict_is_written_where_it_is_wanted(released, tmp_path):
    done = checked(released, "changed", "-o", tmp_path / "verdict.json")
    assert done.code == 1
    assert json.loads((tmp_path / "verdict.json").read_text())["outcome"] == "no-match"


def test_a_budget_leaves_fewer_questions(released):
    found = json.loads(checked(released, "again", "--max-queries", "3", "--json").out)
    assert found["queries"] == 3
    assert "budget-stop" in found["flags"]


def test_questions_are_not_mixed(released, world):
    folder, _ = released
    assert "minutia check" in minutia(folder, "verify", "fp.safetensors", "toy:copy.safetensors").sentence
    wrong = minutia(world, "check", "toy:copy.safetensors", "--against", "fp.safetensors")
    assert "minutia verify" in wrong.sentence
    extract = ("extract", "toy:owner.safetensors", "--data", TRAINING, "-o", "x.safetensors", "--allow", "half")
    assert "leave it out" in minutia(folder, *extract).sentence


def test_what_is_wrong_is_never_intact(released, tmp_path):
    folder, _ = released
    assert minutia(folder, "check", "toy:none.safetensors", "--against", "fp.safetensors").code == 2
    assert minutia(folder, "check", "toy:copy.safetensors", "--against", "none.safetensors").code == 2
    (tmp_path / "bad.sig").write_text("{}")
    assert "model-signing manifest" in checked(released, "copy", "--manifest", tmp_path / "bad.sig").sentence
    enrol = minutia(folder, "extract", "toy:owner.safetensors", "-o", "y.safetensors", *ENROL, "--allow", "fp8")
    assert "expected number formats" in enrol.sentence


def test_allowed_formats_are_no_alarm(released):
    """Half precision is an alarm where the owner did not list it, and none where he did."""
    folder, _ = released
    weights = {
        name: w.astype("float16").astype("float32") for name, w in load_file(folder / "owner.safetensors").items()
    }
    save_file(weights, folder / "half.safetensors")
    done = minutia(folder, "extract", "toy:owner.safetensors", "-o", "half-fp.safetensors", *ENROL, "--allow", "half")
    assert done.code == 0, done.err
    assert checked(released, "half").code == 1
    assert minutia(folder, "check", "toy:half.safetensors", "--against", "half-fp.safetensors").code == 0
