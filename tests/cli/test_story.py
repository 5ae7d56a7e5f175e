"""The whole story from the command line: build a null, extract, verify, look, resume, replay."""

import json
import re

import numpy as np
import pytest
from commands import BUILD, EXTRACT, METHOD, files, minutia

from minutia.cli import run
from minutia.storage.files import load_fingerprint, load_null

ALPHA = ("--alpha", "0.05")
SUSPECTS = {"owner": 0, "copy": 0, "innocent": 3}


def verdict(place, suspect, *options):
    return minutia(place, "verify", "fp.safetensors", f"toy:{suspect}.safetensors", *ALPHA, *options)


# --- building and extracting


def test_a_null_of_trained_models(world):
    header = json.loads((world / "zoo" / "zoo.json").read_text())
    roles = [m["role"] for m in header["models"]]
    assert (roles.count("calibrator"), roles.count("spent"), len(roles)) == (19, 6, 25)
    assert header["rung"] == "same data and recipe, other seed" and header["schema"] == "minutia.zoo/1"


def test_building_again_makes_nothing_new(place):
    before = files(place)
    done = minutia(place, "null", "build", "-o", "zoo", "-n", 19, *BUILD)
    assert done.code == 0 and "19 calibrators and 6 spent models" in done.out and done.err == ""
    assert files(place) == before


def test_the_same_seed_gives_the_same_fingerprint(place):
    options = ("--derived", "copies", *EXTRACT, "--json")
    again = minutia(place, "extract", "toy:owner.safetensors", "-o", "again.safetensors", *options)
    assert again.code == 0 and again.made == {"again.safetensors", "again.null.safetensors"}
    assert json.loads(again.out)["digest"] == load_fingerprint(place / "fp.safetensors").digest
    assert files(place)["again.safetensors"] == files(place)["fp.safetensors"]
    other = minutia(place, "extract", "toy:owner.safetensors", "-o", "other.safetensors", *options, "--seed", 1)
    assert json.loads(other.out)["digest"] != json.loads(again.out)["digest"]


def test_a_fingerprint_is_private_and_says_what_it_holds(world):
    assert (world / "fp.safetensors").stat().st_mode & 0o777 == 0o600
    done = minutia(world, "fingerprint", "show", "fp.safetensors", "--json")
    found = json.loads(done.out)
    assert done.code == 0 and found["probes"] == 30 and found["shape"] == [16] and found["spent"] == 6
    assert found["controls"] == {"owner": 1} | dict.fromkeys(found["threats"], 9)
    assert found["looks"][-1] == 30
    assert found["digest"] in minutia(world, "fingerprint", "show", "fp.safetensors").out


def test_the_null_beside_is_what_null_observe_writes(place):
    done = minutia(place, "null", "observe", "fp.safetensors", "--unrelated", "zoo", "-o", "again.null", "--json")
    assert done.code == 0 and json.loads(done.out)["models"] == 19
    assert load_null(place / "again.null").digest == load_null(place / "fp.null.safetensors").digest


def test_two_fingerprints_are_compared_field_by_field(place):
    same = minutia(place, "fingerprint", "diff", "fp.safetensors", "fp.safetensors")
    assert (same.code, same.out.strip()) == (0, "same fingerprint")
    minutia(place, "extract", "toy:copy.safetensors", "-o", "other.safetensors", *EXTRACT, "--copies", 0)
    other = minutia(place, "fingerprint", "diff", "fp.safetensors", "other.safetensors", "--json")
    found = json.loads(other.out)
    assert other.code == 1 and not found["same"] and {"owner", "digest", "controls"} <= set(found["changed"])
    text = minutia(place, "fingerprint", "diff", "fp.safetensors", "other.safetensors")
    assert text.code == 1 and "owner: sha256:" in text.out


# --- verifying


@pytest.mark.parametrize("suspect", SUSPECTS)
def test_owner_copy_and_innocent_are_told_apart(world, suspect):
    done = verdict(world, suspect, "--json")
    found = json.loads(done.out)
    assert done.code == SUSPECTS[suspect] and done.err == ""
    assert (found["outcome"] == "match") == (suspect != "innocent")
    assert found["p_value"] >= found["p_floor"] == 0.05


def test_the_verdict_has_the_documented_schema(world):
    found = json.loads(verdict(world, "copy", "--json").out)
    kinds = {
        "schema": str,
        "outcome": str,
        "question": str,
        "h0": str,
        "method": str,
        "score": float,
        "p_value": float,
        "p_floor": float,
        "null": dict,
        "e_value": float,
        "alpha": float,
        "queries": int,
        "answered": int,
        "look": int,
        "ruled_out": list,
        "blind_to": list,
        "untested": list,
        "power": dict,
        "flags": list,
        "reasons": list,
        "fingerprint": str,
        "observation": str,
        "model": dict,
        "path": list,
        "members": list,
    }
    assert {name: type(value) for name, value in found.items()} == kinds
    assert found["schema"] == "minutia.verdict/1" and found["question"] == "origin"
    assert set(found["null"]) == {"kind", "size", "source", "rung", "digest"} and found["null"]["size"] == 19
    for name in ("fingerprint", "observation"):
        assert re.fullmatch(r"sha256:[0-9a-f]{64}", found[name])
    assert found["path"][-1] == {"asked": found["look"], "score": found["score"]}


def test_no_match_exits_with_1(place):
    """With threats of which the fingerprint is not blind every one can be ruled out."""
    options = (*EXTRACT, "--derived", "copies", "--threats", "prune,noise,quantise")
    assert minutia(place, "extract", "toy:owner.safetensors", "-o", "few.safetensors", *options).code == 0
    done = minutia(place, "verify", "few.safetensors", "toy:innocent.safetensors", *ALPHA, "--json")
    found = json.loads(done.out)
    assert (done.code, found["outcome"]) == (1, "no-match")
    assert set(found["ruled_out"]) == {"prune", "noise", "quantise"}


def test_the_table_for_people_says_the_same(world):
    done = verdict(world, "innocent")
    assert done.code == 3 and "INCONCLUSIVE" in done.out and "19 unrelated models" in done.out
    assert verdict(world, "owner").out.startswith("MATCH")


def test_labels_are_enough(world):
    whole, labels = (json.loads(verdict(world, "copy", "--json", *o).out) for o in ((), ("--labels-only",)))
    assert labels["outcome"] == whole["outcome"] == "match" and labels["score"] == whole["score"]
    assert labels["observation"] != whole["observation"]


def test_asking_all_convicts_the_same(world):
    for suspect in SUSPECTS:
        early, late = (json.loads(verdict(world, suspect, "--json", o).out) for o in ("--early-stop", "--ask-all"))
        assert (early["outcome"] == "match") == (late["outcome"] == "match")
        assert late["queries"] == 30 >= early["queries"] and late["p_value"] <= early["p_value"]


def test_a_budget_is_a_hard_stop(world):
    found = json.loads(verdict(world, "innocent", "--json", "--max-queries", 12).out)
    assert found["queries"] == 10 and "budget-stop" in found["flags"]


def test_a_file_gets_what_json_prints(place):
    done = verdict(place, "copy", "--json", "-o", "out/verdict.json")
    assert done.made == {"out/verdict.json"}
    assert json.loads((place / "out/verdict.json").read_text()) == json.loads(done.out)
    table = verdict(place, "copy", "-o", "again.json")
    assert (
        table.out.startswith("MATCH") and (place / "again.json").read_text() == (place / "out/verdict.json").read_text()
    )


def test_a_store_is_as_good_as_a_null_file_and_remembers_what_it_asked(place):
    (place / "fp.null.safetensors").rename(place / "moved.null")
    by_file = json.loads(verdict(place, "copy", "--json", "--null", "moved.null").out)
    first = verdict(place, "copy", "--json", "--null", "zoo")
    assert json.loads(first.out) == by_file and any("observations" in name for name in first.made)
    second = verdict(place, "copy", "--json", "--null", "zoo")
    assert second.out == first.out and not second.made
    both = json.loads(verdict(place, "copy", "--json", "--null", "zoo", "--null", "moved.null").out)
    assert both["null"]["size"] == 19, "a model that is in both counts once"


# --- dry runs


def test_a_dry_run_prints_the_plan_and_writes_nothing(place):
    before = files(place)
    for arguments in (
        ("null", "build", "-o", "new", "-n", 9, *BUILD),
        ("extract", "toy:owner.safetensors", "-o", "new.safetensors", "--derived", "new", *EXTRACT),
        ("verify", "fp.safetensors", "toy:absent.safetensors", "--journal", "j", "--transcript", "t", "-o", "o"),
    ):
        done = minutia(place, *arguments, "--dry-run")
        assert done.code == 0 and json.loads(done.out) and done.err == "", done
    assert files(place) == before
    plan = json.loads(minutia(place, "verify", "fp.safetensors", "x", "--dry-run", "--max-queries", 12).out)
    assert plan["queries at most"] == 10 and plan["null models"] == 19 and plan["smallest p-value"] == 0.05


# --- transcripts and journals


def test_a_transcript_gives_the_same_verdict_offline(place):
    asked = verdict(place, "copy", "--json", "--transcript", "said.jsonl")
    assert asked.made == {"said.jsonl"} and (place / "said.jsonl").stat().st_mode & 0o777 == 0o600
    for spec in ("replay:said.jsonl", "said.jsonl"):
        replayed = minutia(place, "verify", "fp.safetensors", spec, *ALPHA, "--json")
        one, two = (json.loads(d.out) for d in (asked, replayed))
        assert one["model"].pop("recipe") != two["model"].pop("recipe")
        assert one == two and replayed.code == 0


def test_a_transcript_of_everything_convicts_at_the_same_look(place):
    verdict(place, "copy", "--ask-all", "--transcript", "said.jsonl")
    replayed = minutia(place, "verify", "fp.safetensors", "said.jsonl", *ALPHA, "--json")
    assert json.loads(replayed.out)["queries"] == json.loads(verdict(place, "copy", "--json").out)["queries"]


COUNTED = """
from pathlib import Path
from torch import nn
import torch

class Counted(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(16, 5)
        with torch.no_grad():
            self.layer.weight.copy_(torch.arange(80).reshape(5, 16) % 7 - 3.0)
            self.layer.bias.zero_()

    def forward(self, x):
        with Path(__file__).with_name("count").open("a") as file:
            file.write("." * len(x))
        return self.layer(x)
"""


def test_a_journal_pays_for_every_answer_once(place):
    pytest.importorskip("torch")
    (place / "counted.py").write_text(COUNTED)
    suspect = ("verify", "fp.safetensors", f"torch:{place / 'counted.py'}:Counted", *ALPHA, "--json")
    first = minutia(place, *suspect, "--journal", "work.journal", "--max-queries", 13)
    assert json.loads(first.out)["queries"] == 13
    second = minutia(place, *suspect, "--journal", "work.journal")
    found = json.loads(second.out)
    assert found["queries"] == 30 and len((place / "count").read_text()) == 30
    assert json.loads(minutia(place, *suspect, "--journal", "work.journal").out) == found
    assert len((place / "count").read_text()) == 30
    assert json.loads(minutia(place, *suspect).out) == found


# --- a null of finished models


def test_finished_models_make_a_null_too(place):
    suspects = [a for i in range(7) for a in ("--collect", f"toy:mlp?sizes=16-9-5&seed={i}")]
    done = minutia(place, "null", "build", "-o", "found", *suspects, "--spent", 1, "--rung", "untrained", "--json")
    assert json.loads(done.out) == {
        "store": "found",
        "calibrators": 6,
        "spent": 1,
        "rung": "untrained",
        "p_floor": pytest.approx(1 / 7),
    }
    found = json.loads(
        minutia(
            place, "verify", "fp.safetensors", "toy:copy.safetensors", "--null", "found", "--alpha", 0.2, "--json"
        ).out
    )
    assert found["null"]["size"] == 6 and "null-easier-rung" in found["flags"]


def test_repeats_tell_how_noisy_the_answers_are(world):
    """Asked after the verdict, which stays what it was; a budget that is too small leaves them out, and says so."""
    plain = json.loads(verdict(world, "copy", "--json").out)
    found = json.loads(verdict(world, "copy", "--json", "--repeats", 3).out)
    assert found.pop("repeat_noise") == {"flip_rate": 0.0, "score_deviation": 0.0, "queries": 30}
    assert found == plain
    text = verdict(world, "copy", "--repeats", 2, "--labels-only").out
    assert "another label on 0 % of repeated questions; scores: not told (20 further queries)" in text
    short = verdict(world, "copy", "--repeats", 2, "--max-queries", 15)
    assert "no repeats: they take 20 queries" in short.err and "noise  " not in short.out
    assert "expected --repeats 2 or more, got 1" in verdict(world, "copy", "--repeats", 1).sentence


def test_models_that_give_labels_only_stand_beside_others(place):
    """A collected null of one label-only model and one with scores is written, read and judged with."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    h = onnx.helper
    graph = h.make_graph(
        [h.make_node("ArgMax", ["x"], ["y"], axis=1, keepdims=0)],
        "net",
        [h.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", 16])],
        [h.make_tensor_value_info("y", onnx.TensorProto.INT64, ["n"])],
    )
    proto = h.make_model(graph, opset_imports=[h.make_opsetid("", 13)], ir_version=8)
    (place / "labels.onnx").write_bytes(proto.SerializeToString())
    collected = (
        "--collect",
        "onnx:labels.onnx",
        "--collect",
        "toy:mlp?sizes=16-5&seed=1",
        "--spent",
        0,
        "--rung",
        "mixed",
    )
    assert minutia(place, "null", "build", "-o", "mixed", *collected).code == 0
    assert minutia(place, "null", "observe", "fp.safetensors", "--unrelated", "mixed", "-o", "mixed.null").code == 0
    done = minutia(
        place, "verify", "fp.safetensors", "toy:copy.safetensors", "--null", "mixed.null", "--alpha", 0.5, "--json"
    )
    assert json.loads(done.out)["null"]["size"] == 2


# --- lists


@pytest.mark.parametrize("what", ["methods", "models", "attacks"])
def test_what_is_installed_is_listed(what):
    import io
    from contextlib import redirect_stdout

    out, table = io.StringIO(), io.StringIO()
    with redirect_stdout(out):
        assert run([what, "--json"]) == 0
    rows = json.loads(out.getvalue())
    names = {row.get("name", row.get("kind")) for row in rows}
    assert names >= {"methods": {"ipguard", "natural_errors"}, "models": {"toy", "onnx"}, "attacks": {"prune"}}[what]
    assert all(all(isinstance(v, str) and v for v in row.values()) for row in rows)
    with redirect_stdout(table):
        assert run([what]) == 0
    assert all(name in table.getvalue() for name in names)


def test_the_doctor_finds_a_sound_installation(world):
    done = minutia(world, "doctor", "--json")
    rows = json.loads(done.out)
    assert done.code == 0 and {r["state"] for r in rows} <= {"fine", "absent"}


def test_method_parameters_are_what_the_fingerprint_records(world):
    fp = load_fingerprint(world / "fp.safetensors")
    assert METHOD.split("(")[0] in fp.method and "probes=30" in fp.method and "oversample=6" in fp.method
    assert np.array_equal(fp.probes.array, np.rint(fp.probes.array * 255).astype(np.float32) / np.float32(255))
