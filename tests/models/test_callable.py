"""Python functions as suspects: every kind of output, and functions that return something else."""

import linecache
import sys

import numpy as np
import pytest

from minutia import catalog
from minutia.checks import check_model
from minutia.core.access import Access
from minutia.core.answers import Status
from minutia.core.code import own_code
from minutia.core.errors import AnswerError, FileError, ModelError, UsageError
from minutia.core.model import Model
from minutia.core.probe import numbered
from minutia.models.callable import CallableModel
from minutia.models.metered import Metered
from minutia.models.toy import ToyClassifier

TOY = ToyClassifier.fresh((4, 6, 3), 1)
PROBES = numbered(np.random.default_rng(0).random((12, 2, 2), dtype=np.float32), {})
ANSWERS = TOY.ask(PROBES)
NAMES = ("cat", "dog", "eel")


def probabilities(x):
    return TOY.ask(numbered(x, {})).scores


def logits(x):
    return TOY.ask(numbered(x, {})).logits


def labels(x):
    return TOY.ask(numbered(x, {})).labels


def names(x):
    return [NAMES[label] for label in labels(x)]


KINDS = [(probabilities, "probabilities", ()), (logits, "logits", ()), (labels, "labels", ()), (names, "labels", NAMES)]


@pytest.mark.parametrize(("function", "output", "classes"), KINDS)
def test_every_kind_of_output_names_the_same_classes(function, output, classes):
    model = CallableModel(function, output=output, classes=classes)
    answers = model.ask(PROBES)
    assert isinstance(model, Model)
    assert answers.labels.tolist() == ANSWERS.labels.tolist()
    assert (answers.scores is None) == (Access.SCORES not in model.access) == (output == "labels")
    if output != "labels":
        np.testing.assert_allclose(answers.scores, ANSWERS.scores, atol=1e-6)
    check_model(model, PROBES)


@pytest.mark.parametrize("kind", [list, tuple, lambda a: a.reshape(-1, 1), lambda a: a.astype(float)])
def test_labels_come_as_lists_columns_or_floats(kind):
    assert (
        CallableModel(lambda x: kind(labels(x)), output="labels").ask(PROBES).labels.tolist()
        == labels(PROBES.array).tolist()
    )


def test_tensors_are_read_wherever_they_live():
    torch = pytest.importorskip("torch")
    model = CallableModel(lambda x: torch.tensor(logits(x), requires_grad=True), output="logits")
    assert model.ask(PROBES).labels.tolist() == ANSWERS.labels.tolist()


def test_what_is_no_answer_is_invalid():
    found = CallableModel(lambda x: [np.nan, 1.5, -1, 1e12, 2, 0], output="labels").ask(PROBES.take(range(6)))
    assert found.labels.tolist() == [-1, -1, -1, -1, 2, 0]
    assert found.status.tolist() == [Status.INVALID] * 4 + [Status.OK] * 2
    found = CallableModel(lambda x: ["dog", "cow"], output="labels", classes=NAMES).ask(PROBES.take([0, 1]))
    assert found.labels.tolist() == [1, -1]
    scores = [[0.2, np.nan, 0.8], [0.1, 0.2, 0.7]]
    found = CallableModel(lambda x: scores).ask(PROBES.take([0, 1]))
    assert found.status.tolist() == [Status.INVALID, Status.OK]


WRONG = [
    (labels, "probabilities", r"got an array \(12,\).*say output=labels"),
    (probabilities, "labels", r"got an array \(12, 3\).*say output=probabilities or logits"),
    (logits, "probabilities", "that sum to 1.*say output=logits"),
    (names, "labels", "list the owner's classes in their order"),
    (lambda x: logits(x)[1:], "logits", r"expected logits \(12, classes\).*got an array \(11, 3\)"),
    (lambda x: logits(x)[:, :1], "logits", "at least 2 classes"),
    (lambda x: None, "logits", r"got an array \(\)"),
    (lambda x: [["a", "b"]] * 12, "probabilities", "return an array of floats"),
]


@pytest.mark.parametrize(("function", "output", "sentence"), WRONG)
def test_something_else_is_one_sentence(function, output, sentence):
    with pytest.raises(ModelError, match=sentence) as caught:
        CallableModel(function, output=output).ask(PROBES)
    assert "\n" not in str(caught.value) and not isinstance(caught.value, AnswerError)


def test_what_it_raises_may_pass_and_is_asked_again():
    calls = []

    def shaky(x):
        calls.append(len(x))
        if len(calls) == 1:
            raise OSError("the disk\nis slow")
        return labels(x)

    with pytest.raises(AnswerError, match=r"got OSError from callable:.*: the disk; check"):
        CallableModel(shaky, output="labels").ask(PROBES)
    calls.clear()
    assert Metered(CallableModel(shaky, output="labels"), wait=0).ask(PROBES).labels.tolist() == ANSWERS.labels.tolist()


def test_it_cannot_change_the_probes_and_no_probes_are_no_call():
    def greedy(x):
        x[:] = 0
        return np.zeros(len(x), int)

    before = PROBES.digest
    model = CallableModel(greedy, output="labels")
    model.ask(PROBES)
    assert numbered(PROBES.array, {}).digest == before
    assert len(CallableModel(lambda x: 1 / 0).ask(PROBES.take([]))) == 0


def test_the_card_tells_functions_apart_by_name_and_source():
    def made(factor, name):
        return CallableModel(lambda x: x * factor, name)

    ids = [made(factor, name).card.id for factor, name in ((1, "a"), (2, "b"), (3, "a"))]
    assert ids[0] == ids[2] != ids[1]
    assert CallableModel(labels).card.id == CallableModel(labels).card.id != CallableModel(logits).card.id
    assert CallableModel(labels).card.id != CallableModel(labels, output="labels").card.id
    assert CallableModel(max).spec == "callable:builtins:max"


@pytest.mark.parametrize("wrong", [{"output": "text"}, {"classes": ("a", "a")}])
def test_parameters_are_checked(wrong):
    with pytest.raises(UsageError, match="expected a function with an output"):
        CallableModel(labels, **wrong)


def test_a_function_is_named_on_the_command_line(tmp_path):
    path = tmp_path / "served.py"
    path.write_text("import numpy as np\ndef f(x):\n    return np.where(x.sum((1, 2)) > 2, 'dog', 'cat')\n")
    model = catalog.model(f"callable:{path}:f?output=labels&classes=cat,dog")
    assert model.spec.endswith(":f?output=labels&classes=cat,dog")
    np.testing.assert_array_equal(model.ask(PROBES).labels, PROBES.array.sum((1, 2)) > 2)
    check_model(model, PROBES)
    before = model.card.id
    path.write_text(path.read_text().replace("> 2", "> 3"))
    sys.modules.pop("served", None)
    linecache.clearcache()
    assert catalog.model(f"callable:{path}:f?output=labels&classes=cat,dog").card.id != before


@pytest.mark.parametrize(
    ("spec", "error", "sentence"),
    [
        ("callable:", UsageError, "expected a target"),
        ("callable:f", UsageError, "module:name or file.py:name after callable:"),
        ("callable:no_such_module:f", ModelError, "expected an importable module 'no_such_module'"),
        ("callable:math:nothing", ModelError, "expected a callable 'nothing' in math"),
        ("callable:math:pi", ModelError, "expected a callable 'pi' in math"),
        ("callable:math:sqrt?output=text", UsageError, "expected output=probabilities, logits, labels"),
        ("callable:math:sqrt?outputs=labels", UsageError, r"each once \(output, classes\)"),
    ],
)
def test_bad_specs_are_one_sentence(spec, error, sentence):
    with pytest.raises(error, match=sentence):
        catalog.model(spec)


def test_own_code_is_found_in_the_working_directory_and_fails_as_told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_own_code_1.py").write_text("def f():\n    return 7\n")
    (tmp_path / "broken.py").write_text("raise RuntimeError('first\\nsecond')")
    assert own_code("my_own_code_1:f", "torch")() == 7
    assert own_code("my_own_code_1.py:f", "torch")() == 7
    for target in ("broken.py:f", "absent.py:f"):
        with pytest.raises(FileError, match="expected an importable module") as caught:
            own_code(target, "torch", FileError)
        assert "\n" not in str(caught.value)
    sys.modules.pop("my_own_code_1")


def test_a_verdict_from_a_notebook():
    """The owner's own model behind a function is recognised."""
    from minutia import Material, Null, Observation, verify

    rng = np.random.default_rng(3)
    inputs = rng.random((60, 4), dtype=np.float32)
    method = catalog.method("noise_agreement(probes=40)")
    fp = method.extract(TOY, Material(inputs, np.zeros(60, int)))
    others = [ToyClassifier.fresh((4, 6, 3), seed) for seed in range(100, 200)]
    seen = [Observation(m.card, fp.probes.ids, m.ask(fp.probes), fp.probes.digest) for m in others[1:]]
    null = Null("unrelated", tuple(seen))
    stranger = CallableModel(lambda x: others[0].ask(numbered(x, {})).labels, output="labels")
    assert verify(fp, CallableModel(probabilities), null).outcome == "match"
    assert verify(fp, stranger, null).outcome != "match"
