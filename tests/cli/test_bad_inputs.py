"""Every bad input gives one clear sentence and exit code 2, or a flagged verdict and 3; nothing is half-written."""

import json
import os
import pickle

import numpy as np
import pytest
from commands import BUILD, EXTRACT, LIKE, METHOD, files, minutia
from safetensors.numpy import load_file, save_file

from minutia.models.toy import ToyClassifier

ALPHA = ("--alpha", "0.05")


def verify(place, suspect="toy:copy.safetensors", *options, fp="fp.safetensors"):
    return minutia(place, "verify", fp, suspect, *ALPHA, *options)


def refused(done, *words):
    """Exit code 2, one sentence that holds these words, nothing written."""
    text = done.sentence
    assert not done.made, done.made
    for word in words:
        assert word in text, text
    return text


def flagged(done, *flags):
    """A verdict, inconclusive, with these flags."""
    assert done.code == 3 and done.err == "", done
    found = json.loads(done.out)
    assert found["outcome"] == "inconclusive" and set(flags) <= set(found["flags"]), found["flags"]
    return found


# --- files that are damaged or foreign


DAMAGE = {
    "truncated": lambda data: data[: len(data) // 2],
    "one byte short": lambda data: data[:-1],
    "flipped in the header": lambda data: data[:300] + bytes([data[300] ^ 1]) + data[301:],
    "flipped in the arrays": lambda data: data[:-9] + bytes([data[-9] ^ 1]) + data[-8:],
    "empty": lambda data: b"",
    "pickle": lambda data: pickle.dumps({"a": 1}),
    "text": lambda data: b"not a fingerprint\n",
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("which", ["fp.safetensors", "fp.null.safetensors"])
def test_damaged_files(place, which, damage):
    data = (place / which).read_bytes()
    (place / which).write_bytes(DAMAGE[damage](data))
    before = files(place)
    refused(verify(place, "toy:copy.safetensors", "--transcript", "t", "-o", "o"), which)
    if which == "fp.safetensors":
        refused(minutia(place, "fingerprint", "show", which), which)
        refused(minutia(place, "fingerprint", "diff", which, which), which)
        refused(minutia(place, "null", "observe", which, "--unrelated", "zoo"), which)
    assert files(place) == before


@pytest.mark.parametrize(
    ("fp", "words"),
    [
        ("owner.safetensors", "damaged"),
        ("fp.null.safetensors", "got a null"),
        ("points.npz", "damaged"),
        ("absent.safetensors", "found nothing"),
        ("zoo", "found nothing"),
    ],
)
def test_other_files_in_the_place_of_a_fingerprint(place, fp, words):
    refused(verify(place, fp=fp), words, fp)


def test_a_fingerprint_in_the_place_of_a_null(place):
    refused(verify(place, "toy:copy.safetensors", "--null", "fp.safetensors"), "got a fingerprint")
    refused(verify(place, "toy:copy.safetensors", "--null", "absent"), "found nothing")
    (place / "empty").mkdir()
    refused(verify(place, "toy:copy.safetensors", "--null", "empty"), "minutia null build")


# --- suspects: what they are


WRONG_WEIGHTS = {
    "other names": lambda own: {f"x{k}": v for k, v in own.items()},
    "one missing": lambda own: {k: v for k, v in own.items() if k != "b0"},
    "one more": lambda own: {**own, "w9": np.zeros((2, 2), np.float32)},
    "transposed": lambda own: {k: np.ascontiguousarray(v.T) for k, v in own.items()},
    "none": lambda own: {},
}


@pytest.mark.parametrize("wrong", WRONG_WEIGHTS)
def test_weights_that_do_not_fit_a_toy(place, wrong):
    save_file(WRONG_WEIGHTS[wrong](load_file(place / "copy.safetensors")), place / "wrong.safetensors")
    refused(verify(place, "toy:wrong.safetensors"))


FACTORIES = """
import torch
from torch import nn


class Calls(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.calls = nn.Linear(16, 5), 0
        with torch.no_grad():
            self.layer.weight.copy_(torch.arange(80).reshape(5, 16) % 7 - 3.0)
            self.layer.bias.zero_()

    def forward(self, x):
        return self.layer(x)


class Transient(Calls):
    def forward(self, x):
        self.calls += 1
        if self.calls % 2:
            raise ConnectionError("reset by peer")
        return self.layer(x)


class HalfPermanent(Calls):
    def forward(self, x):
        if len(x) % 2:
            raise OSError("no route to host")
        return self.layer(x)


class Always(Calls):
    def forward(self, x):
        raise RuntimeError("first line\\nsecond line")


class Odd(Calls):
    def forward(self, x):
        return self.layer(x)[:-1] if len(x) > 1 else self.layer(x)


class Flat(Calls):
    def forward(self, x):
        return self.layer(x)[:, 0]


def good():
    return Calls().layer


def smaller():
    return nn.Linear(9, 5)


def wider():
    return nn.Linear(16, 7)


def filled(weight, bias):
    layer = nn.Linear(16, 5)
    with torch.no_grad():
        layer.weight.fill_(weight)
        layer.bias.copy_(torch.arange(5.0) * bias)
    return layer


def nan():
    return filled(float("nan"), 0.0)


def half_nan():
    net = filled(0.0, 1.0)
    return nn.Sequential(Logarithm(), net)


class Logarithm(nn.Module):
    def forward(self, x):
        return torch.where(x[:, :1] > x[:, 1:2], torch.nan, x)


def constant():
    return filled(0.0, 1.0)


def raises():
    raise ValueError("no such size")


def no_module():
    return 7


number = 7
"""


@pytest.fixture
def torch_place(place):
    pytest.importorskip("torch")
    (place / "suspects.py").write_text(FACTORIES)
    return place


def factory(place, name):
    return f"torch:{place / 'suspects.py'}:{name}"


@pytest.mark.parametrize("wrong", ["other names", "one missing", "one more", "other shapes", "none", "no tensors"])
def test_weights_that_do_not_fit_a_module(torch_place, wrong):
    own = {"weight": np.zeros((5, 16), np.float32), "bias": np.zeros(5, np.float32)}
    weights = {
        "other names": {"w": own["weight"], "b": own["bias"]},
        "one missing": {"weight": own["weight"]},
        "one more": {**own, "scale": own["bias"]},
        "other shapes": {**own, "weight": np.zeros((5, 15), np.float32)},
        "none": {},
    }
    if wrong == "no tensors":
        (torch_place / "wrong.safetensors").write_bytes(b"garbage")
    else:
        save_file(weights[wrong], torch_place / "wrong.safetensors")
    refused(verify(torch_place, f"{factory(torch_place, 'good')}?weights={torch_place / 'wrong.safetensors'}"))


class Trap:
    """What a hostile checkpoint would do when it is loaded."""

    def __reduce__(self):
        return os.mkdir, ("trapped",)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"weight": 1, "bias": 2}, "tensors by name"),
        ({"state_dict": {}}, "tensors by name"),
        ({1: 2}, "tensors by name"),
        ({"weight": Trap()}, "never runs a file's code"),
        (Trap(), "never runs a file's code"),
        ([1, 2], "readable weights"),
        (None, "readable weights"),
    ],
    ids=["numbers", "nested", "other keys", "trap inside", "trap", "list", "nothing"],
)
def test_checkpoints_that_are_no_tensors(torch_place, content, words):
    import torch

    torch.save(content, torch_place / "wrong.pt")
    text = refused(verify(torch_place, f"{factory(torch_place, 'good')}?weights={torch_place / 'wrong.pt'}"), words)
    assert not (torch_place / "trapped").exists() and "weights_only" not in text


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("smaller", ["inputs of shape (16,)"]),
        ("wider", ["5 classes", "got 7"]),
        ("Always", ["first line"]),
        ("Odd", ["got"]),
        ("Flat", ["(batch, classes)"]),
        ("no_module", ["torch.nn.Module", "int"]),
        ("number", ["callable"]),
        ("absent", ["'absent'"]),
        ("raises", ["no such size"]),
    ],
)
def test_suspects_that_cannot_be_asked(torch_place, name, words):
    refused(verify(torch_place, factory(torch_place, name)), *words)


@pytest.mark.parametrize("options", [(), ("--ask-all",), ("--labels-only",)])
def test_not_a_number(torch_place, options):
    found = flagged(verify(torch_place, factory(torch_place, "nan"), "--json", *options), "invalid-answers")
    assert (found["answered"], found["score"], found["ruled_out"]) == (0, 0.0, [])
    half = flagged(verify(torch_place, factory(torch_place, "half_nan"), "--json", *options), "invalid-answers")
    assert 0 < half["answered"] < 30 and half["ruled_out"] == []


def test_the_same_answer_to_everything(torch_place):
    found = flagged(verify(torch_place, factory(torch_place, "constant"), "--json"), "constant-answers")
    assert found["ruled_out"] == [] and found["answered"] == 30


def test_transient_errors_are_retried_and_leave_no_trace(torch_place):
    good, flaky = (
        json.loads(verify(torch_place, factory(torch_place, name), "--json").out) for name in ("Calls", "Transient")
    )
    assert flaky["answered"] == 30 and flaky["flags"] == []
    assert (flaky["score"], flaky["p_value"]) == (good["score"], good["p_value"])


def test_batches_that_fail_for_good_are_left_out_and_said(torch_place):
    """Looks of odd size fail: 6, 8, 10, 13 (3 more) … ."""
    done = verify(torch_place, factory(torch_place, "HalfPermanent"), "--json")
    found = json.loads(done.out)
    assert done.code == 3 and done.err == ""
    assert "transport-failures" in found["flags"] and found["queries"] == 30 and 0 < found["answered"] < 30


def test_retries_count_against_the_hard_stop(torch_place):
    """Every question is sent twice; what was judged before the stop is the verdict."""
    done = verify(torch_place, factory(torch_place, "Transient"), "--json", "--max-queries", 30)
    found = flagged(done, "budget-stop")
    assert found["queries"] < 20
    for labels in ((), ("--labels-only",)):
        done = verify(torch_place, factory(torch_place, "Transient"), "--max-queries", 7, *labels)
        refused(done, "at most 7 queries")


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("absent.onnx", ["nor an existing path"]),
        ("toy:absent.safetensors", ["absent.safetensors"]),
        ("onnx:absent.onnx", ["absent.onnx"]),
        ("replay:absent.jsonl", ["absent.jsonl"]),
        ("copy.safetensors", ["torch:module:factory?weights="]),
        ("points.npz", ["unknown content"]),
        ("zoo", ["unknown content"]),
        ("torhc:x:y", ["did you mean torch"]),
        ("toy:mlp?sizes=16-x", ["sizes such as"]),
        ("toy:mlp?seeds=1", ["options of mlp"]),
        ("toy:mlp?sizes=16-5&seed=-1", ["seed"]),
        ("toy:mlp?sizes=9-5", ["inputs of 9 numbers"]),
        ("toy:mlp?sizes=16-7", ["5 classes"]),
        ("toy:", ["target"]),
        ("", ["expected a model"]),
        ("nul\0byte", ["expected a model"]),
        ("torch:nowhere_to_be_found:net", ["importable module"]),
        ("torch:os:nothing", ["callable"]),
        ("torch:os", ["module:name"]),
        ("x" * 500, ["expected a model"]),
    ],
)
def test_specs_that_name_no_suspect(place, spec, words):
    refused(verify(place, spec), *words)


# --- ONNX


def onnx_file(path, nodes, weights=None, shape=("n", 16), out=("n", 5)):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    h = onnx.helper
    graph = h.make_graph(
        [h.make_node(*node) for node in nodes],
        "net",
        [h.make_tensor_value_info("x", onnx.TensorProto.FLOAT, shape)],
        [h.make_tensor_value_info("y", onnx.TensorProto.FLOAT, out)],
        [onnx.numpy_helper.from_array(np.asarray(v, np.float32), n) for n, v in (weights or {}).items()],
    )
    path.write_bytes(h.make_model(graph, opset_imports=[h.make_opsetid("", 13)], ir_version=8).SerializeToString())


LINEAR = [("MatMul", ["x", "w"], ["y"])]


@pytest.mark.parametrize(
    ("weights", "shape", "out", "words"),
    [
        (np.ones((9, 5)), ("n", 9), ("n", 5), ["input (9,)", "got (16,)"]),
        (np.ones((16, 7)), ("n", 16), ("n", 7), ["5 classes", "got 7"]),
        (np.ones((16, 1)), ("n", 16), ("n", 1), ["at least 2 classes"]),
    ],
    ids=["other inputs", "other classes", "one output"],
)
def test_onnx_of_other_sizes(place, weights, shape, out, words):
    onnx_file(place / "net.onnx", LINEAR, {"w": weights}, shape, out)
    refused(verify(place, "net.onnx"), *words)


def test_onnx_that_answers_nan_or_always_the_same(place):
    onnx_file(place / "nan.onnx", LINEAR, {"w": np.full((16, 5), np.nan)})
    flagged(verify(place, "nan.onnx", "--json"), "invalid-answers")
    onnx_file(place / "flat.onnx", LINEAR, {"w": np.tile(np.arange(5.0), (16, 1))})
    flagged(verify(place, "flat.onnx", "--json"), "constant-answers")


def test_onnx_of_a_copy_is_convicted(place):
    """The owner's network written as ONNX: another program, the same function."""
    own = load_file(place / "owner.safetensors")
    nodes = [
        ("Gemm", ["x", "w0", "b0"], ["h"]),
        ("Relu", ["h"], ["r"]),
        ("Gemm", ["r", "w1", "b1"], ["y"]),
    ]
    onnx_file(place / "copy.onnx", nodes, own)
    done = verify(place, "copy.onnx", "--json")
    assert done.code == 0 and json.loads(done.out)["score"] == 1.0


@pytest.mark.parametrize("cut", [0, 10, 100])
def test_a_truncated_onnx_file(place, cut):
    onnx_file(place / "net.onnx", LINEAR, {"w": np.ones((16, 5))})
    (place / "net.onnx").write_bytes((place / "net.onnx").read_bytes()[:cut])
    refused(verify(place, "onnx:net.onnx"), "net.onnx")


# --- transcripts


def transcript(place, suspect="toy:innocent.safetensors"):
    assert verify(place, suspect, "--ask-all", "--transcript", "said.jsonl").code in (0, 3)
    return [json.loads(line) for line in (place / "said.jsonl").read_text().splitlines()]


def written(place, lines):
    (place / "said.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.mark.parametrize("keeps_label", [False, True], ids=["silent", "with a label beside the refusal"])
def test_refusals_chosen_by_the_suspect(place, keeps_label):
    """He refuses what the owner's model answers as he does; neither that nor a label beside it helps."""
    lines = transcript(place, "toy:copy.safetensors")
    for line in lines[::2]:
        line["status"] = "refused"
        line["response"] = line["response"] if keeps_label else None
    written(place, lines)
    found = json.loads(verify(place, "said.jsonl", "--json", "--ask-all").out)
    assert "refusals" in found["flags"] and found["ruled_out"] == [] and found["answered"] == 15
    assert found["score"] <= 0.5
    silent = [line | {"status": "refused", "response": None} for line in lines]
    written(place, [silent[0], lines[1], *silent[2:]])
    flagged(verify(place, "said.jsonl", "--json"), "refusals")
    written(place, silent)
    refused(verify(place, "said.jsonl"), "gives labels", "with nothing")


@pytest.mark.parametrize(
    "change",
    [
        lambda lines: [*lines[:3], {"model": "m"}],
        lambda lines: [{**line, "response": [1, 2]} for line in lines],
        lambda lines: [{**line, "response": {"scores": [1]}} for line in lines],
        lambda lines: [{**line, "status": "happy"} for line in lines],
        lambda lines: [*lines, {**lines[0], "model": "another"}],
        lambda lines: [*lines, {**lines[0], "response": 4}],
        lambda lines: [{**line, "prompt": "sha256:" + 64 * "0"} for line in lines],
        lambda lines: [],
    ],
    ids=["missing fields", "list", "one score", "status", "two models", "two answers", "other prompts", "empty"],
)
def test_transcripts_that_make_no_sense(place, change):
    written(place, change(transcript(place)))
    refused(verify(place, "replay:said.jsonl"))


@pytest.mark.parametrize("text", ['{"model":', "[]", "7", '{"a":1}\nnot json', "{" * 5000, '{"model":"m"}'])
def test_what_is_no_transcript(place, text):
    (place / "said.jsonl").write_text(text)
    refused(verify(place, "replay:said.jsonl"), "said.jsonl")


def test_a_transcript_of_half_the_probes(place):
    written(place, transcript(place)[:13])
    found = flagged(verify(place, "said.jsonl", "--json", "--ask-all"), "too-few-answers", "transport-failures")
    assert found["answered"] == 13


def test_a_null_of_transcripts_that_lack_answers_is_refused(place):
    """Lost answers of null models would count as no match and make every p-value too small."""
    written(place, transcript(place)[:13])
    collect = ("--collect", "replay:said.jsonl", "--spent", 0, "--rung", "hearsay")
    assert minutia(place, "null", "build", "-o", "heard", *collect).code == 0
    refused(minutia(place, "null", "observe", "fp.safetensors", "--unrelated", "heard", "-o", "heard.null"), "lost")
    assert "lost" in verify(place, "toy:copy.safetensors", "--null", "heard").sentence


# --- nulls


def test_a_null_too_small_says_how_many_are_needed(place):
    done = minutia(place, "verify", "fp.safetensors", "toy:owner.safetensors", "--json")
    found = flagged(done, "null-too-small")
    assert found["alpha"] == 0.01 and "19 unrelated models, 99 are needed" in found["reasons"][0]
    table = minutia(place, "verify", "fp.safetensors", "toy:owner.safetensors")
    assert table.code == 3 and "99" in table.out


def test_a_missing_null_is_no_verdict(place):
    (place / "fp.null.safetensors").unlink()
    found = flagged(verify(place, "toy:owner.safetensors", "--json"), "null-missing")
    assert found["p_value"] is None and found["p_floor"] is None and found["null"]["size"] == 0
    assert "19 unrelated models are needed" in found["reasons"][0]


def test_a_null_of_another_fingerprint(place):
    other = minutia(
        place, "extract", "toy:owner.safetensors", "-o", "b.safetensors", *EXTRACT, "--copies", 0, "--seed", 5
    )
    assert other.code == 0
    for null in ("b.null.safetensors",):
        refused(verify(place, "toy:copy.safetensors", "--null", null), "minutia null observe")
    both = verify(place, "toy:copy.safetensors", "--null", "fp.null.safetensors", "--null", "b.null.safetensors")
    refused(both, "minutia null observe")


def test_two_populations_in_one_store_or_one_verdict(place):
    before = files(place)
    done = minutia(place, "null", "build", "-o", "zoo", "-n", 2, *BUILD, "--rung", "other data")
    refused(done, "one declared null population per store")
    assert files(place) == before
    assert (
        minutia(place, "null", "build", "-o", "other", "--collect", LIKE, "--spent", 0, "--rung", "untrained").code == 0
    )
    refused_ = verify(place, "toy:copy.safetensors", "--null", "zoo", "--null", "other")
    assert "one declared population" in refused_.sentence


@pytest.mark.parametrize("damage", ["manifest", "weights", "gone"])
def test_a_damaged_store(place, damage):
    weights = sorted((place / "zoo" / "models").glob("*.safetensors"))
    if damage == "manifest":
        (place / "zoo" / "zoo.json").write_text('{"models": [')
    for path in weights if damage != "manifest" else ():
        path.unlink() if damage == "gone" else path.write_bytes(path.read_bytes()[:-4])
    refused(verify(place, "toy:copy.safetensors", "--null", "zoo"), "build")
    refused(minutia(place, "null", "observe", "fp.safetensors", "--unrelated", "zoo", "-o", "n"), "build")


# --- wrong usage


@pytest.mark.parametrize("alpha", ["0", "1", "-0.1", "1.5", "nan", "inf"])
def test_alpha_out_of_range_is_noticed_before_anybody_is_asked(place, alpha):
    done = minutia(place, "verify", "fp.safetensors", "toy:copy.safetensors", "--alpha", alpha, "--transcript", "t")
    refused(done, "alpha between 0 and 1")


@pytest.mark.parametrize(
    ("method", "words"),
    [
        ("ipgaurd", ["did you mean ipguard"]),
        ("natural-errors", ["expected"]),
        ("ipguard(probs=3)", ["'probs'", "probes"]),
        ("ipguard(probes=x)", ["int"]),
        ("ipguard(probes=1)", ["probes >= 2"]),
        ("ipguard(probes=3,probes=4)", ["each once"]),
        ("ipguard@9", ["ipguard@1"]),
        ("", ["expected"]),
    ],
)
def test_unknown_methods_and_parameters(place, method, words):
    arguments = ("--data", "points.npz", "--method", method, "-o", "new.safetensors")
    refused(minutia(place, "extract", "toy:owner.safetensors", *arguments), *words)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ("absent.npz", "found nothing"),
        ("owner.safetensors", "readable"),
        ("points.npz?rows=9000:", "rows within"),
        ("points.npz?cols=1", "options (rows"),
        ("sklearn:iris", "did you mean digits"),
    ],
)
def test_data_that_is_none(place, data, words):
    refused(minutia(place, "extract", "toy:owner.safetensors", "--data", data, "-o", "new.safetensors"), words)
    assert words in minutia(place, "null", "build", "-o", "new", "--like", LIKE, "--data", data).sentence
    assert not (place / "new" / "zoo.json").exists()


def test_an_owner_of_another_size(place):
    arguments = (*EXTRACT, "--copies", 0, "-o", "new.safetensors")
    refused(minutia(place, "extract", "toy:mlp?sizes=9-5", *arguments), "inputs of 9 numbers")


def test_an_owner_that_cannot_do_what_the_method_needs(place):
    written(place, transcript(place))
    options = ("--data", "points.npz", "-o", "new.safetensors", "--method", METHOD)
    done = minutia(place, "extract", "replay:said.jsonl", *options)
    assert done.code == 2 and "gradients" in done.err.splitlines()[-1] and "new.safetensors" not in done.made


@pytest.mark.parametrize("threats", ["theft", "prune,theft", ","])
def test_threats_that_nobody_can_make(place, threats):
    done = minutia(place, "extract", "toy:owner.safetensors", "-o", "new.safetensors", *EXTRACT, "--threats", threats)
    assert "kinds of theft" in done.sentence and not done.made


def test_a_store_that_is_none(place):
    arguments = ("--data", "points.npz", "--unrelated", "absent", "-o", "new.safetensors")
    refused(minutia(place, "extract", "toy:owner.safetensors", *arguments), "minutia null build")
    assert not (place / "absent").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ("null", "build", "-o", "new"),
        ("null", "build", "-o", "new", "--like", LIKE),
        ("null", "build", "-o", "new", *BUILD, "--collect", LIKE),
    ],
)
def test_train_or_collect_but_not_both_or_neither(place, arguments):
    assert "--like and --data to train, or --collect" in minutia(place, *arguments).sentence
    assert not (place / "new").exists()


@pytest.mark.parametrize("plan", [("--learning-rate", "0"), ("--learning-rate", "nan")])
def test_a_plan_that_cannot_work(place, plan):
    done = minutia(place, "null", "build", "-o", "new", "-n", 1, *BUILD, *plan)
    assert "expected positive epochs" in done.sentence and not (place / "new").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("verify",),
        ("verify", "fp.safetensors"),
        ("verify", "fp.safetensors", "toy:x", "--alpha", "small"),
        ("verify", "fp.safetensors", "toy:x", "--max-queries", "-1"),
        ("verify", "fp.safetensors", "toy:x", "--no-such-option"),
        ("extract", "toy:x"),
        ("null",),
        ("null", "build", "-o", "x", "-n", "-3"),
        ("fingerprint", "shwo"),
        ("verfy",),
    ],
)
def test_wrong_usage_is_never_0_or_1_and_never_a_traceback(place, arguments):
    before = files(place)
    done = minutia(place, *arguments)
    assert done.code == 2 and "Traceback" not in done.err, done
    assert files(place) == before


# --- places that cannot be written


@pytest.mark.parametrize("where", ["folder", "points.npz/below"])
def test_unwritable_outputs(place, where):
    (place / "folder").mkdir()
    before = files(place)
    extract = ("extract", "toy:owner.safetensors", *EXTRACT, "--copies", 0, "-o", where)
    null = ("null", "observe", "fp.safetensors", "--unrelated", "zoo", "-o", where)
    for arguments in (extract, null, ("verify", "fp.safetensors", "toy:copy.safetensors", *ALPHA, "-o", where)):
        refused(minutia(place, *arguments), "expected a file that can be written", where)
    assert files(place) == before


@pytest.mark.parametrize("option", ["--journal", "--transcript"])
@pytest.mark.parametrize("where", ["folder", "points.npz/below", "absent/below", "fp.safetensors"])
def test_unwritable_journals_and_transcripts(place, option, where):
    (place / "folder").mkdir()
    before = files(place)
    refused(verify(place, "toy:copy.safetensors", option, where), where)
    assert files(place) == before


@pytest.mark.parametrize("where", ["points.npz", "points.npz/below"])
def test_unwritable_stores(place, where):
    before = files(place)
    refused(minutia(place, "null", "build", "-o", where, "-n", 1, *BUILD), where)
    refused(minutia(place, "extract", "toy:owner.safetensors", *EXTRACT, "--derived", where, "-o", "new"), where)
    assert files(place) == before


def test_a_failed_extraction_leaves_the_old_fingerprint(place):
    before = files(place)
    save_file(dict(ToyClassifier.fresh((9, 5)).tensors()), place / "other.safetensors")
    done = minutia(place, "extract", "toy:other.safetensors", "-o", "fp.safetensors", *EXTRACT)
    assert done.code == 2
    after = files(place)
    assert {n: after[n] for n in before} == before


def test_debugging_shows_the_traceback(place, monkeypatch):
    monkeypatch.setenv("MINUTIA_DEBUG", "1")
    done = verify(place, "toy:absent.safetensors")
    assert done.code == 2 and "Traceback" in done.err and os.environ["MINUTIA_DEBUG"] == "1"
