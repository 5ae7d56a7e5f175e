"""The toy models: known answers, the hand-written gradient, training, generation."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from minutia.core.access import Access
from minutia.core.answers import Status
from minutia.core.errors import FileError, ModelError, UsageError
from minutia.core.model import GradientModel, Model, Plan, TrainableModel
from minutia.core.probe import ProbeSet, numbered
from minutia.models.toy import NgramModel, ToyClassifier, open_model


def forward64(model, inputs):
    """The network in double precision: an oracle that shares no code with the model."""
    weights, x = {n: w.astype(np.float64) for n, w in model.tensors()}, inputs.reshape(len(inputs), -1)
    depth = len(weights) // 2
    for i in range(depth):
        x = x @ weights[f"w{i}"] + weights[f"b{i}"]
        x = x if i == depth - 1 else x * (x > 0)
    return x


@pytest.fixture(scope="module")
def digits():
    from sklearn.datasets import load_digits

    found = load_digits()
    return found.data.astype(np.float32) / 16, found.target


def test_a_network_written_down_by_hand():
    weights = {"w0": np.eye(2), "b0": np.array([0, -1]), "w1": np.array([[1, 0], [0, 10]]), "b1": np.zeros(2)}
    answers = ToyClassifier(weights).ask(numbered(np.array([[1.0, 0.5], [1.0, 1.2]]), {}))
    np.testing.assert_allclose(answers.logits, [[1, 0], [1, 2]], atol=1e-6)
    np.testing.assert_allclose(answers.scores[0], [np.e / (1 + np.e), 1 / (1 + np.e)], rtol=1e-6)
    assert answers.labels.tolist() == [0, 1]


def test_it_is_every_kind_of_model():
    model = ToyClassifier.fresh((4, 3, 2))
    assert isinstance(model, Model) and isinstance(model, GradientModel) and isinstance(model, TrainableModel)
    assert (Access.LABELS | Access.GRADIENTS | Access.WEIGHTS | Access.TRAIN) in model.access


@given(seed=st.integers(0, 1000), sizes=st.lists(st.integers(2, 6), min_size=2, max_size=4))
@settings(max_examples=40, deadline=None)
def test_pull_back_is_the_derivative(seed, sizes):
    rng, model = np.random.default_rng(seed), ToyClassifier.fresh(sizes, seed)
    inputs, slope = rng.normal(size=(3, sizes[0])), rng.normal(size=(3, sizes[-1]))
    logits, pull_back = model.linearise(inputs.astype(np.float32))
    inputs = inputs.astype(np.float32).astype(np.float64)
    np.testing.assert_allclose(logits, forward64(model, inputs), rtol=1e-3, atol=1e-4)
    step, found = 1e-7, pull_back(slope)
    for j in range(sizes[0]):
        shift = step * np.eye(sizes[0])[j]
        change = (forward64(model, inputs + shift) - forward64(model, inputs - shift)) / (2 * step)
        np.testing.assert_allclose(found[:, j], (change * slope).sum(axis=1), rtol=1e-3, atol=1e-3)


def test_pull_back_keeps_the_shape_of_the_inputs():
    logits, pull_back = ToyClassifier.fresh((12, 5, 3)).linearise(np.ones((2, 3, 2, 2), np.float32))
    assert logits.shape == (2, 3) and pull_back(np.ones((2, 3))).shape == (2, 3, 2, 2)


def test_training_learns_digits(digits):
    (x, y), order = digits, np.random.default_rng(0).permutation(1797)
    train, test = order[:1300], order[1300:]
    model = ToyClassifier.fresh((64, 32, 10), 1).trained(x[train], y[train], Plan(), 1)
    assert np.mean(model.ask(numbered(x[test], {})).labels == y[test]) > 0.9


def test_a_student_learns_from_probabilities_at_a_temperature(digits):
    x, y = digits
    teacher = ToyClassifier.fresh((64, 32, 10), 1).trained(x, y, Plan(), 1)
    hot = teacher.ask(numbered(x, {})).logits / 4
    soft = np.exp(hot) / np.exp(hot).sum(axis=1, keepdims=True)
    plan = Plan(reset="everything", temperature=4.0, epochs=15)
    student = teacher.trained(x, soft, plan, 2)
    assert np.mean(student.ask(numbered(x, {})).labels == teacher.ask(numbered(x, {})).labels) > 0.95


def test_one_step_of_training_is_adam_on_the_stated_loss():
    """The first Adam step moves every weight by the learning rate against the sign of its gradient."""
    model, rng = ToyClassifier.fresh((3, 4, 2), 5), np.random.default_rng(0)
    x, y, rate = rng.random((8, 3)).astype(np.float32), np.arange(8) % 2, 1e-3
    before = {n: w.astype(np.float64) for n, w in model.tensors()}
    after = dict(model.trained(x, y, Plan(epochs=1, batch_size=8, learning_rate=rate, temperature=2.0), 0).tensors())

    def loss(weights):
        z = forward64(ToyClassifier64(weights), x) / 2
        return 4 * np.mean(np.log(np.exp(z).sum(axis=1)) - z[np.arange(8), y])

    class ToyClassifier64:
        def __init__(self, weights):
            self.tensors = weights.items

    for name, value in before.items():
        for place in np.ndindex(value.shape):
            shift = np.zeros_like(value)
            shift[place] = 1e-6
            up, down = loss({**before, name: value + shift}), loss({**before, name: value - shift})
            if abs(up - down) / 2e-6 > 1e-3:
                assert after[name][place] - value[place] == pytest.approx(-rate * np.sign(up - down), rel=0.05)


def test_weight_decay_is_decoupled():
    model = ToyClassifier({"w0": np.ones((2, 2)), "b0": np.zeros(2)})
    plan = Plan(epochs=1, batch_size=4, learning_rate=0.1, weight_decay=0.5)
    # Inputs of zero give w0 no gradient, so only the decay moves it.
    after = dict(model.trained(np.zeros((4, 2)), np.array([0, 1, 0, 1]), plan, 0).tensors())
    np.testing.assert_allclose(after["w0"], 1 - 0.1 * 0.5, rtol=1e-6)


@pytest.mark.parametrize("layers", ["all", "last"])
@pytest.mark.parametrize("reset", ["nothing", "last", "everything"])
def test_roots_parents_and_frozen_layers(layers, reset):
    model = ToyClassifier.fresh((4, 5, 3), 1)
    before = dict(model.tensors())
    x, y = np.random.default_rng(0).random((30, 4)), np.arange(30) % 3
    plan = Plan(epochs=2, batch_size=8, layers=layers, reset=reset)
    copy, again, other = (model.trained(x, y, plan, seed) for seed in (7, 7, 8))
    assert copy.card == again.card and copy.card.id not in (model.card.id, other.card.id)
    if reset == "everything":
        assert copy.card.root == copy.card.id and copy.card.parents == ()
    else:
        assert copy.card.root == model.card.root and copy.card.parents == (model.card.id,)
        assert np.array_equal(dict(copy.tensors())["w0"], before["w0"]) == (layers == "last")
    assert all(np.array_equal(w, before[n]) for n, w in model.tensors()), "the original must not change"


def test_tensors_are_copies_and_rebuild_the_model():
    model = ToyClassifier.fresh((4, 5, 3), 1)
    twin = model.rebuilt(dict(model.tensors()))
    assert twin.card.id == model.card.id and twin.card.root == model.card.root
    next(model.tensors())[1][:] = 0
    assert model.rebuilt({}).card.id == twin.card.id
    changed = model.rebuilt({"b1": np.ones(3)})
    assert changed.card.id != model.card.id and changed.card.parents == (model.card.id,)


@pytest.mark.parametrize("wrong", [{"w9": np.ones(3)}, {"b1": np.ones(4)}])
def test_rebuilding_with_other_shapes_is_refused(wrong):
    with pytest.raises(ModelError, match="expected a weight of"):
        ToyClassifier.fresh((4, 5, 3)).rebuilt(wrong)


@pytest.mark.parametrize("shape", [(2, 5), (2, 2, 3), (4,)])
def test_inputs_of_another_size_are_refused(shape):
    probes = ProbeSet(tuple(map(str, range(shape[0]))), np.zeros(shape))
    with pytest.raises(ModelError, match=r"^expected inputs of 4 numbers each for toy:.*, got an array of shape"):
        ToyClassifier.fresh((4, 3)).ask(probes)


@pytest.mark.parametrize("targets", [np.array([0, 3]), np.array([-1, 0]), np.zeros((2, 4)), np.array([0.0, 1.0])])
def test_targets_of_other_classes_are_refused(targets):
    with pytest.raises(ModelError, match="expected labels"):
        ToyClassifier.fresh((4, 3)).trained(np.zeros((2, 4)), targets, Plan(), 0)


def test_inputs_without_meaning_give_invalid_answers():
    answers = ToyClassifier.fresh((2, 3, 2)).ask(numbered(np.array([[np.nan, 0], [np.inf, 0], [0, 0]]), {}))
    assert answers.status.tolist() == [Status.INVALID, Status.INVALID, Status.OK]


@pytest.mark.parametrize(
    "weights",
    [
        {},
        {"w0": np.ones((2, 2))},
        {"w0": np.ones((2, 2)), "b0": np.ones(3)},
        {"w0": np.ones(2), "b0": np.ones(2)},
        {"w0": np.ones((2, 3)), "b0": np.ones(3), "w1": np.ones((2, 2)), "b1": np.ones(2)},
        {"weight": np.ones((2, 2)), "bias": np.ones(2)},
    ],
)
def test_foreign_weights_are_refused(weights):
    with pytest.raises(ModelError, match="expected"):
        ToyClassifier(weights)


def test_specs_open_what_they_name(tmp_path):
    fresh = open_model("mlp?sizes=4-3-2&seed=5")
    assert fresh.card.id == ToyClassifier.fresh((4, 3, 2), 5).card.id
    path = tmp_path / "weights.safetensors"
    save_file(dict(fresh.tensors()), path)
    stored = open_model(str(path))
    assert stored.card.id == fresh.card.id and stored.spec == f"toy:{path}"
    (tmp_path / "text").write_text("abcabcabc" * 5)
    assert open_model(f"ngram?text={tmp_path / 'text'}&order=2").order == 2


@pytest.mark.parametrize(
    ("rest", "error", "words"),
    [
        ("mlp?sizes=4-x", UsageError, "expected sizes such as"),
        ("mlp?sizes=4", UsageError, "expected sizes such as"),
        ("mlp?sise=4-2", UsageError, r"\(sizes, seed, weights\)"),
        ("mlp?seed=-1", UsageError, "whole number"),
        ("mlp?seed=1&seed=2", UsageError, "each once"),
        ("ngram", UsageError, "name the file to learn from"),
        ("ngram?text=absent", FileError, "absent"),
        ("absent.safetensors", FileError, "absent"),
        ("?seed=1", UsageError, "expected a target"),
    ],
)
def test_wrong_specs_say_what_is_right(rest, error, words):
    with pytest.raises(error, match=words):
        open_model(rest)


def test_a_foreign_file_is_no_weights(tmp_path):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(b"\xff" * 100)
    with pytest.raises(FileError, match="truncated or foreign"):
        open_model(str(path))


TEXT = "the cat sat on the mat. the dog sat on the log. " * 4


def test_the_distribution_is_the_formula():
    model = NgramModel("aab", order=1, delta=0.5)
    uniform = np.array([0.5, 0.5])
    zero = (np.array([2, 1]) + 0.5 * 2 * uniform) / (3 + 0.5 * 2)
    one = (np.array([1, 1]) + 0.5 * 2 * zero) / (2 + 0.5 * 2)
    np.testing.assert_allclose(model.distribution(""), zero)
    np.testing.assert_allclose(model.distribution("a"), one)
    np.testing.assert_allclose(model.distribution("a?"), zero, err_msg="an unknown character ends the context")


@given(context=st.text(alphabet="the cat?\n", max_size=8), order=st.integers(0, 5), delta=st.floats(0.001, 10))
@settings(max_examples=50, deadline=None)
def test_distributions_are_positive_and_sum_to_one(context, order, delta):
    p = NgramModel(TEXT, order, delta).distribution(context)
    assert (p > 0).all() and p.sum() == pytest.approx(1)


def test_generation_depends_on_seed_id_and_repeat_only():
    model = NgramModel(TEXT, 3)

    def ask(ids=("a", "b"), repeat=0, **sampling):
        return model.ask(ProbeSet(ids, ("the ", "the "), {"sampling": {"max_tokens": 30, **sampling}}, repeat)).text

    assert ask() == ask() and ask()[0] != ask()[1]
    assert ask(("b", "a")) == ask()[::-1]
    assert ask(seed=1) != ask() and ask(repeat=1) != ask()
    assert len(set(ask(temperature=0))) == 1
    assert all(len(text) == 30 for text in ask())


def test_a_cold_model_repeats_its_text():
    probes = ProbeSet(("p",), ("the cat",), {"sampling": {"temperature": 0, "max_tokens": 11}})
    assert NgramModel(TEXT, 6).ask(probes).text == (" sat on the",)


def test_stop_usage_and_status():
    model = NgramModel(TEXT, 6)
    sampling = {"temperature": 0, "max_tokens": 30, "stop": "."}
    answers = model.ask(ProbeSet(("p",), ("the cat sat on the mat",), {"sampling": sampling}))
    assert answers.text == ("",) and answers.status.tolist() == [Status.OK] and answers.usage.tolist() == [22]
    short = model.ask(ProbeSet(("p",), ("the cat",), {"sampling": {**sampling, "max_tokens": 3}}))
    assert short.text == (" sa",) and short.status.tolist() == [Status.TRUNCATED]


def test_chats_are_prompts_and_arrays_are_not():
    model, sampling = NgramModel(TEXT, 6), {"sampling": {"temperature": 0, "max_tokens": 4}}
    chat = ({"role": "system", "content": "Hello"}, {"role": "user", "content": "the cat"})
    assert model.ask(ProbeSet(("p",), (chat,), sampling)).text == (" sat",)
    with pytest.raises(ModelError, match="expected text probes"):
        model.ask(ProbeSet(("p",), np.zeros((1, 2)), sampling))


@pytest.mark.parametrize("sampling", [{"temperature": -1}, {"max_tokens": 2**40}, {"temperature": float("nan")}])
def test_impossible_sampling_is_refused(sampling):
    with pytest.raises(UsageError, match="temperature"):
        NgramModel(TEXT).ask(ProbeSet(("p",), ("a",), {"sampling": sampling}))


@pytest.mark.parametrize(("text", "order", "delta"), [("", 0, 1), ("ab", 5, 1), (TEXT, 40, 1), (TEXT, 2, 0)])
def test_texts_that_are_too_short_or_orders_too_long_are_refused(text, order, delta):
    with pytest.raises(UsageError, match="choose a smaller order"):
        NgramModel(text, order, delta)


def test_identity_is_text_and_parameters():
    assert NgramModel(TEXT).card == NgramModel(TEXT).card
    assert len({NgramModel(TEXT).card.id, NgramModel(TEXT, 2).card.id, NgramModel(TEXT + "a").card.id}) == 3
