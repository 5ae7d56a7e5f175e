"""ONNX models: every kind of input and output, and files that a thief or a vandal would send."""

import hashlib
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minutia.core.access import Access
from minutia.core.answers import Status
from minutia.core.errors import FileError, MissingExtraError, ModelError, UsageError
from minutia.core.model import Model, WeightModel
from minutia.core.probe import numbered
from minutia.models.metered import Metered
from minutia.models.onnx import OnnxModel, open_model
from minutia.models.toy import ToyClassifier

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

TOY = ToyClassifier.fresh((4, 5, 3), 1)
INPUTS = np.random.default_rng(0).random((7, 4), np.float32)
PROBES = numbered(INPUTS, {})
EXPECTED = TOY.ask(PROBES)
LAYERS = [
    helper.make_node("Gemm", ["x", "w0", "b0"], ["z"]),
    helper.make_node("Relu", ["z"], ["h"]),
    helper.make_node("Gemm", ["h", "w1", "b1"], ["logits"]),
]
SOFTMAX = helper.make_node("Softmax", ["logits"], ["scores"], axis=1)
ARGMAX = helper.make_node("ArgMax", ["logits"], ["label"], axis=1, keepdims=0)
ZIPMAP = helper.make_node("ZipMap", ["scores"], ["maps"], domain="ai.onnx.ml", classlabels_int64s=[0, 1, 2])


def value(name, kind=TensorProto.FLOAT, shape=("n", 4)):
    return helper.make_tensor_value_info(name, kind, list(shape))


def model_of(nodes, inputs, outputs, initializers=None, functions=(), domains=("ai.onnx.ml",)):
    weights = dict(TOY.tensors()) if initializers is None else initializers
    tensors = [t if isinstance(t, TensorProto) else numpy_helper.from_array(t, n) for n, t in weights.items()]
    graph = helper.make_graph(nodes, "g", inputs, outputs, tensors)
    opsets = [helper.make_opsetid("", 17)] + [helper.make_opsetid(d, 1) for d in domains]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8, functions=list(functions))


def network(nodes=(), outputs=None, x=None):
    """The toy network as ONNX, with more nodes behind it."""
    outputs = [value("logits", shape=("n", 3))] if outputs is None else outputs
    return model_of([*LAYERS, *nodes], [x or value("x")], outputs)


def opened(proto, **options):
    return OnnxModel(proto.SerializeToString(), **options)


SCORES = value("scores", shape=("n", 3))
LABEL = value("label", TensorProto.INT64, ("n",))
MAPS = helper.make_value_info(
    "maps",
    helper.make_sequence_type_proto(
        helper.make_map_type_proto(TensorProto.INT64, helper.make_tensor_type_proto(TensorProto.FLOAT, []))
    ),
)


def test_logits_are_told_from_scores():
    model = opened(network())
    answers = model.ask(PROBES)
    np.testing.assert_allclose(answers.logits, EXPECTED.logits, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(answers.scores, EXPECTED.scores, rtol=1e-5)
    scores = Access.LABELS | Access.TOP_K | Access.SCORES
    assert model.access == scores | Access.LOGITS | Access.WEIGHTS
    model = opened(network([SOFTMAX], [SCORES]))
    answers = model.ask(PROBES)
    assert answers.logits is None and model.access == scores | Access.WEIGHTS
    np.testing.assert_allclose(answers.scores, EXPECTED.scores, rtol=1e-5)
    assert answers.labels.tolist() == EXPECTED.labels.tolist()


@pytest.mark.parametrize(
    ("nodes", "outputs", "gives_scores"),
    [
        ([ARGMAX], [LABEL], False),
        ([SOFTMAX, ARGMAX], [LABEL, SCORES], True),
        ([SOFTMAX, ARGMAX, ZIPMAP], [LABEL, MAPS], False),
    ],
    ids=["labels", "labels and probabilities", "labels and a list of maps"],
)
def test_outputs_of_scikit_learn_exports(nodes, outputs, gives_scores):
    model = opened(network(nodes, outputs))
    answers = model.ask(PROBES)
    assert answers.labels.tolist() == EXPECTED.labels.tolist()
    assert (answers.scores is not None) == gives_scores == (Access.SCORES in model.access)


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [(TensorProto.DOUBLE, "float64"), (TensorProto.FLOAT16, "float16"), (TensorProto.FLOAT, "float32")],
)
def test_float_inputs_of_every_width(kind, dtype):
    cast = helper.make_node("Cast", ["raw"], ["x"], to=TensorProto.FLOAT)
    model = opened(model_of([cast, *LAYERS], [value("raw", kind)], [value("logits", shape=("n", 3))]))
    wanted = TOY.ask(numbered(INPUTS.astype(dtype).astype(np.float32), {}))
    np.testing.assert_allclose(model.ask(PROBES).logits, wanted.logits, rtol=1e-4, atol=1e-5)


def uint8_model():
    """x = raw / 255, so that probes on the grey levels arrive as they are."""
    scale = [
        helper.make_node("Cast", ["raw"], ["grey"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["grey", "top"], ["x"]),
    ]
    weights = {**dict(TOY.tensors()), "top": np.array(255, np.float32)}
    return opened(
        model_of([*scale, *LAYERS], [value("raw", TensorProto.UINT8)], [value("logits", shape=("n", 3))], weights)
    )


def test_uint8_inputs_get_grey_levels():
    levels = np.round(INPUTS * 255)
    wanted = TOY.ask(numbered((levels / 255).astype(np.float32), {}))
    model = uint8_model()
    for inputs in (INPUTS, levels.astype(np.uint8), np.float64(INPUTS)):
        np.testing.assert_allclose(model.ask(numbered(inputs, {})).logits, wanted.logits, rtol=1e-4, atol=1e-5)
    outside = model.ask(numbered(np.array([[-3.0, 9, np.inf, 1]]), {}))
    np.testing.assert_allclose(outside.logits, model.ask(numbered(np.array([[0.0, 1, 1, 1]]), {})).logits, rtol=1e-6)


@given(count=st.integers(0, 9), size=st.integers(1, 5))
@settings(max_examples=20, deadline=None)
def test_a_fixed_batch_changes_no_answer(count, size):
    model = opened(network(x=value("x", shape=(size, 4)), outputs=[value("logits", shape=(size, 3))]))
    inputs = np.random.default_rng(count).random((count, 4), np.float32)
    found, wanted = model.ask(numbered(inputs, {})), TOY.ask(numbered(inputs, {}))
    assert found.labels.tolist() == wanted.labels.tolist()
    if count:
        np.testing.assert_allclose(found.logits, wanted.logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(7, 5), (7, 2, 2), (7,), (7, 4, 1)])
def test_another_shape_is_refused_before_asking(shape):
    model = opened(network())
    model._session = None  # asking would fail otherwise
    probes = numbered(np.zeros(shape), {})
    with pytest.raises(ModelError, match=r"^expected input \(4,\) per probe for onnx:bytes, got .*: give the suspect"):
        model.ask(probes)
    with pytest.raises(ModelError, match="expected input"):
        Metered(model).ask(probes)


@pytest.mark.parametrize("shape", [("n", "c", "h"), ("n", None, None), None])
def test_open_sizes_accept_what_runs(shape):
    """A mean over everything but two positions: sizes are known only at run time."""
    nodes = [helper.make_node("Flatten", ["x"], ["f"]), helper.make_node("Gemm", ["f", "w"], ["y"])]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, None if shape is None else list(shape))
    model = opened(model_of(nodes, [x], [value("y", shape=("n", 2))], {"w": np.array([[1, 0]] * 6, np.float32)}))
    answers = model.ask(numbered(np.ones((2, 2, 3)), {}))
    np.testing.assert_allclose(answers.logits, [[6, 0]] * 2)
    with pytest.raises(ModelError, match="check its input size"):
        model.ask(numbered(np.ones((2, 2, 9)), {}))


def test_answers_without_meaning_are_invalid():
    answers = opened(network()).ask(numbered(np.array([[np.nan] * 4, [0.5] * 4]), {}))
    assert answers.status.tolist() == [Status.INVALID, Status.OK]


def test_identity_is_the_file(tmp_path):
    path = tmp_path / "m.onnx"
    path.write_bytes(network().SerializeToString())
    model = open_model(f"{path}?threads=2")
    assert model.card.id == model.card.root == "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()
    assert model.spec == f"onnx:{path}?threads=2" and isinstance(model, Model)
    for wrong in ("threads=0", "threads=x", "fast=1"):
        with pytest.raises(UsageError):
            open_model(f"{path}?{wrong}")


def test_weights_are_read_and_rebuilt():
    model = uint8_model()
    weights = dict(model.tensors())
    assert isinstance(model, WeightModel) and list(weights) == ["w0", "b0", "w1", "b1"], "lone numbers are no weights"
    for name, own in TOY.tensors():
        np.testing.assert_array_equal(weights[name], own)
    pruned = model.rebuilt({"w1": np.zeros((5, 3)), "b1": np.array([0, 0, 1.0])})
    assert set(pruned.ask(PROBES).labels) == {2}
    assert pruned.card.parents == (model.card.id,) and pruned.card.root == model.card.root != pruned.card.id
    assert model.ask(PROBES).labels.tolist() != pruned.ask(PROBES).labels.tolist()
    for wrong in ({"w1": np.zeros((3, 5))}, {"w7": np.zeros(3)}):
        with pytest.raises(ModelError, match="expected an initialiser"):
            model.rebuilt(wrong)


def test_half_precision_weights_keep_their_type():
    half = {n: w.astype(np.float16) for n, w in TOY.tensors()}
    ends = [helper.make_node("Cast", ["raw"], ["x"], to=TensorProto.FLOAT16)]
    model = opened(model_of([*ends, *LAYERS], [value("raw")], [value("logits", TensorProto.FLOAT16, ("n", 3))], half))
    np.testing.assert_allclose(model.ask(PROBES).logits, EXPECTED.logits, atol=1e-2)
    again = model.rebuilt(dict(model.tensors()))
    np.testing.assert_array_equal(again.ask(PROBES).logits, model.ask(PROBES).logits)


# Hostile and broken files


def test_every_truncation_is_one_sentence():
    data = model_of(LAYERS, [value("x")], [value("logits", shape=("n", 3))], domains=()).SerializeToString()
    for size in [*range(0, len(data), 7), len(data) - 1]:
        with pytest.raises(ModelError) as caught:
            OnnxModel(data[:size])
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 500


@given(st.binary(max_size=300))
@settings(max_examples=60, deadline=None)
def test_any_bytes_are_refused(data):
    with pytest.raises(ModelError, match="expected"):
        OnnxModel(data)


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_a_changed_byte_gives_a_model_or_one_of_our_errors(data):
    content = bytearray(network().SerializeToString())
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        model = OnnxModel(bytes(content))
        list(model.tensors())
        model.ask(PROBES)
    except ModelError as error:
        assert "\n" not in str(error)


def test_names_that_are_no_text_are_refused_in_silence(capfd):
    with pytest.raises(ModelError, match="no UTF-8"):
        OnnxModel(network().SerializeToString().replace(b"logits", b"logit\xe2"))
    assert capfd.readouterr() == ("", "")


def test_files_that_are_not_there_or_not_onnx(tmp_path):
    with pytest.raises(FileError, match="No such file"):
        open_model(str(tmp_path / "absent.onnx"))
    with pytest.raises(FileError, match="directory"):
        open_model(str(tmp_path))
    (tmp_path / "weights.onnx").write_bytes(b"PK\x03\x04 this is a zip")
    with pytest.raises(ModelError, match="truncated or foreign"):
        open_model(str(tmp_path / "weights.onnx"))


def test_a_file_that_is_too_large_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr("minutia.models.onnx.MAX_FILE_BYTES", 100)
    (tmp_path / "m.onnx").write_bytes(network().SerializeToString())
    with pytest.raises(FileError, match="at most"):
        open_model(str(tmp_path / "m.onnx"))


def with_external(location, length=80):
    """The network with its first weights in another file."""
    proto = network()
    tensor = proto.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, entry in {"location": location, "length": str(length)}.items():
        tensor.external_data.add(key=key, value=entry)
    return proto


@pytest.mark.parametrize(
    "location",
    [
        "../secret",
        "/etc/passwd",
        "a/../../secret",
        "..\\secret",
        "C:\\secret",
        "\\\\host\\secret",
        "",
        "link/secret",
        ".",
        "loop/x",
        "x" * 5000,
    ],
)
def test_external_weights_outside_the_folder_are_refused(tmp_path, location):
    (tmp_path / "secret").write_bytes(bytes(80))
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "link").symlink_to(tmp_path)
    (folder / "loop").symlink_to(folder / "loop")
    (folder / "m.onnx").write_bytes(with_external(location).SerializeToString())
    with pytest.raises(ModelError, match="points outside its folder"):
        open_model(str(folder / "m.onnx"))


def test_external_weights_hidden_in_a_subgraph_are_found(tmp_path):
    secret = helper.make_tensor("v", TensorProto.FLOAT, [3], np.zeros(3, np.float32).tobytes(), raw=True)
    secret.ClearField("raw_data")
    secret.data_location = TensorProto.EXTERNAL
    secret.external_data.add(key="location", value="../secret")
    branch = helper.make_graph(
        [helper.make_node("Constant", [], ["c"], value=secret)], "b", [], [value("c", shape=(3,))]
    )
    node = helper.make_node("If", ["yes"], ["c3"], then_branch=branch, else_branch=branch)
    tail = helper.make_node("Add", ["logits", "c3"], ["y"])
    weights = {**dict(TOY.tensors()), "yes": np.array(True)}
    proto = model_of([*LAYERS, node, tail], [value("x")], [value("y", shape=("n", 3))], weights)
    with pytest.raises(ModelError, match="points outside its folder"):
        opened(proto)


def test_external_weights_beside_the_file_are_part_of_its_identity(tmp_path):
    path, weights = tmp_path / "m.onnx", dict(TOY.tensors())
    path.write_bytes(with_external("m.data").SerializeToString())
    with pytest.raises(ModelError, match="copy them beside it"):
        open_model(str(path))
    (tmp_path / "m.data").write_bytes(weights["w0"].tobytes())
    model = open_model(str(path))
    np.testing.assert_allclose(model.ask(PROBES).logits, EXPECTED.logits, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(dict(model.tensors())["w0"], weights["w0"])
    rebuilt = model.rebuilt({"b1": np.zeros(3)})
    np.testing.assert_array_equal(dict(rebuilt.tensors())["w0"], weights["w0"])
    (tmp_path / "m.data").write_bytes((2 * weights["w0"]).tobytes())
    assert open_model(str(path)).card.id != model.card.id
    (tmp_path / "m.data").write_bytes(b"short")
    with pytest.raises(ModelError, match="onnxruntime can load"):
        open_model(str(path))


def test_bytes_have_no_folder():
    with pytest.raises(ModelError, match="points outside its folder"):
        opened(with_external("pyproject.toml"))


def test_custom_operators_are_refused():
    node = helper.make_node("Evil", ["logits"], ["y"], domain="com.evil")
    proto = model_of([*LAYERS, node], [value("x")], [value("y", shape=("n", 3))], domains=("com.evil",))
    with pytest.raises(ModelError, match=r"got 'Evil' of the custom domain 'com.evil': it would need foreign code"):
        opened(proto)


def test_functions_inside_the_file_are_not_custom_operators():
    double = helper.make_function(
        "local", "Twice", ["a"], ["b"], [helper.make_node("Add", ["a", "a"], ["b"])], [helper.make_opsetid("", 17)]
    )
    node = helper.make_node("Twice", ["logits"], ["y"], domain="local")
    proto = model_of(
        [*LAYERS, node], [value("x")], [value("y", shape=("n", 3))], functions=[double], domains=("local",)
    )
    np.testing.assert_allclose(opened(proto).ask(PROBES).logits, 2 * EXPECTED.logits, rtol=1e-4, atol=1e-5)
    proto.functions[0].node[0].domain = "com.evil"
    with pytest.raises(ModelError, match="custom domain"):
        opened(proto)


@pytest.mark.parametrize(
    ("proto", "words"),
    [
        (
            model_of([helper.make_node("Add", ["x", "y"], ["z"])], [value("x"), value("y")], [value("z")], {}),
            "one input",
        ),
        (
            model_of(
                [helper.make_node("Neg", ["x"], ["y"])],
                [value("x", TensorProto.INT64)],
                [value("y", TensorProto.INT64)],
                {},
            ),
            "one input",
        ),
        (
            network(
                [helper.make_node("Cast", ["logits"], ["s"], to=TensorProto.STRING)],
                [value("s", TensorProto.STRING, ("n", 3))],
            ),
            "float scores or integer labels",
        ),
    ],
    ids=["two inputs", "token inputs", "string outputs"],
)
def test_models_that_are_no_classifiers_of_arrays(proto, words):
    with pytest.raises(ModelError, match=words):
        opened(proto)


@pytest.mark.parametrize("axis", [0, 1])
def test_outputs_that_are_not_one_row_of_classes_per_input(axis):
    reduce = helper.make_node("ReduceMax", ["logits"], ["y"], axes=[axis], keepdims=1)
    model = opened(network([reduce], [value("y", shape=("a", "b"))]))
    with pytest.raises(ModelError, match=r"expected (one output row per input row|outputs of shape)"):
        model.ask(PROBES)


def test_several_labels_per_input_are_refused():
    cast = helper.make_node("Cast", ["logits"], ["label"], to=TensorProto.INT64)
    model = opened(network([cast], [value("label", TensorProto.INT64, ("n", 3))]))
    with pytest.raises(ModelError, match="expected one label"):
        model.ask(PROBES)


def test_labels_may_stand_in_a_column():
    column = helper.make_node("ArgMax", ["logits"], ["label"], axis=1, keepdims=1)
    model = opened(network([column], [value("label", TensorProto.INT64, ("n", 1))]))
    assert model.ask(PROBES).labels.tolist() == EXPECTED.labels.tolist() and Access.SCORES not in model.access


def test_a_model_that_always_fails_is_one_clear_sentence_behind_a_meter():
    shape = {**dict(TOY.tensors()), "shape": np.array([5, 77], np.int64)}
    nodes = [helper.make_node("Reshape", ["x", "shape"], ["r"]), helper.make_node("Gemm", ["r", "w0"], ["y"])]
    with pytest.raises(ModelError) as caught:
        Metered(opened(model_of(nodes, [value("x")], [value("y", shape=("a", "b"))], shape))).ask(PROBES)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500


@pytest.mark.parametrize("package", ["onnx", "onnxruntime"])
def test_a_missing_package_names_the_pip_line(monkeypatch, package):
    data = network().SerializeToString()
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=rf"needs {package}, .*: pip install 'minutia\[onnx\]'"):
        OnnxModel(data)


def test_a_hostile_file_writes_nothing_to_the_terminal(capfd):
    with pytest.raises(ModelError):
        opened(model_of([helper.make_node("Gemm", ["x", "w9"], ["y"])], [value("x")], [value("y")]))
    weights = {**dict(TOY.tensors()), "shape": np.array([5, 77], np.int64)}
    reshape = helper.make_node("Reshape", ["logits", "shape"], ["y"])
    broken = opened(model_of([*LAYERS, reshape], [value("x")], [value("y", shape=("a", "b"))], weights))
    with pytest.raises(ModelError):
        broken.ask(PROBES)
    assert capfd.readouterr().err == ""
