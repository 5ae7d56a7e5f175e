"""The small values of the vocabulary: access, probes, answers, observations, keys, material, cards, plans."""

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minutia.core import access as access_module
from minutia.core.access import Access, names, require
from minutia.core.answers import Answers, Observation, Status
from minutia.core.errors import MinutiaError, MissingExtraError, ModelError, ProtocolError, UsageError
from minutia.core.keys import configured, key_of, split_key
from minutia.core.material import Material
from minutia.core.model import ModelCard, Plan
from minutia.core.probe import ProbeSet, numbered
from minutia.models.toy import ToyClassifier

# --- access


def test_access_is_a_set_and_is_named_weakest_first():
    assert names(Access.WEIGHTS | Access.TOP_K | Access.LABELS) == ("labels", "top-k", "weights")
    assert names(Access(0)) == ()
    require("this", Access.LABELS, "spec", Access.LABELS | Access.TEXT)


@given(st.sets(st.sampled_from(list(Access))), st.sets(st.sampled_from(list(Access))))
def test_require_is_containment(needs, given_):
    wanted, have = (Access(sum(f.value for f in flags)) for flags in (needs, given_))
    if needs <= given_:
        require("x", wanted, "spec", have)
    else:
        with pytest.raises(UsageError, match="expected a model that gives"):
            require("x", wanted, "spec", have)


def test_every_capability_has_a_name():
    assert len(names(Access(sum(f.value for f in access_module.Access)))) == len(Access)


# --- probes


@pytest.mark.parametrize(
    ("ids", "content"), [(("a",), np.zeros((2, 1))), (("a", "a"), np.zeros((2, 1))), ((), ("text",))]
)
def test_probes_have_one_distinct_id_each(ids, content):
    with pytest.raises(UsageError):
        ProbeSet(ids, content)


def test_probes_are_numbered_with_room():
    assert numbered(np.zeros((1001, 1)), {}).ids[::1000] == ("p0000", "p1000")


def test_text_probes_are_no_arrays():
    probes = ProbeSet(("a", "b"), ("one", ({"role": "user", "content": "two"},)))
    with pytest.raises(UsageError, match="array probes"):
        _ = probes.array
    assert [p.content for p in probes] == ["one", ({"role": "user", "content": "two"},)]
    assert probes.take([1]).ids == ("b",)


def test_one_probe_asks_the_same_under_any_name():
    one = ProbeSet(("a",), np.ones((1, 2)), {"channel": "array"})
    other = ProbeSet(("z", "y"), np.array([[0.0, 0.0], [1.0, 1.0]]), {"channel": "array"})
    assert one.content_id(0) == other.content_id(1) != other.content_id(0)
    assert one.content_id(0) != ProbeSet(("a",), np.ones((1, 2)), {"channel": "jpeg"}).content_id(0)


@given(st.lists(st.integers(0, 4), max_size=6, unique=True))
def test_taking_rows_keeps_content_and_protocol(rows):
    probes = ProbeSet(tuple("abcde"), np.arange(10.0).reshape(5, 2), {"k": 1}, repeat=3)
    taken = probes.take(rows)
    assert [taken[i].content.tolist() for i in range(len(rows))] == [probes[r].content.tolist() for r in rows]
    assert (taken.protocol, taken.repeat) == (probes.protocol, 3)


# --- answers


def test_scores_with_nan_or_infinity_are_invalid():
    scores = np.array([[0.2, 0.8], [np.nan, 1.0], [np.inf, 0.0], [1.0, 0.0]])
    answers = Answers.from_scores(scores)
    assert answers.labels.tolist() == [1, -1, -1, 0]
    assert answers.status.tolist() == [Status.OK, Status.INVALID, Status.INVALID, Status.OK]
    assert answers[1].label is None and answers[0].label == 1


@pytest.mark.parametrize("shape", [(3,), (3, 1), (3, 2, 2), (0, 1)])
def test_scores_are_one_row_of_two_or_more_classes_per_probe(shape):
    with pytest.raises(ModelError, match="at least 2 classes"):
        Answers.from_scores(np.zeros(shape))


@pytest.mark.parametrize(
    "columns",
    [
        {"labels": np.arange(3)},
        {"labels": np.zeros((2, 2), int)},
        {"status": np.zeros((), np.uint8)},
        {"scores": np.zeros((3, 2))},
        {"text": ("one",)},
        {"usage": np.zeros(())},
    ],
    ids=lambda c: next(iter(c)),
)
def test_columns_must_be_as_long_as_one_another(columns):
    whole = {"status": np.zeros(2, np.uint8), "labels": np.zeros(2, int), **columns}
    with pytest.raises(ModelError, match="one row of scores per probe"):
        Answers(**whole)


@pytest.mark.parametrize("status", [s for s in Status if s != Status.OK])
def test_an_answer_that_is_not_ok_has_no_label(status):
    assert Answers(np.array([status, Status.OK], np.uint8), np.array([3, 3])).labels.tolist() == [-1, 3]


@given(st.lists(st.integers(-3, 5), max_size=8), st.data())
def test_splitting_and_joining_gives_the_same_answers(labels, data):
    whole = Answers.from_labels(np.array(labels, int))
    cut = data.draw(st.integers(0, len(labels)))
    joined = Answers.joined([whole.take(range(cut)), whole.take(range(cut, len(labels)))])
    assert joined.labels.tolist() == whole.labels.tolist() and joined.status.tolist() == whole.status.tolist()


def test_joining_pads_what_brought_no_answer_and_drops_what_is_not_everywhere():
    scored = Answers.from_scores(np.array([[0.1, 0.9]]))
    lost = Answers.without(1, Status.FAILED)
    both = Answers.joined([scored, lost])
    assert np.isnan(both.scores[1]).all() and both.scores[0, 1] == np.float32(0.9)
    assert Answers.joined([scored, Answers.from_labels(np.array([1]))]).scores is None
    assert len(Answers.joined([])) == 0
    with pytest.raises(ModelError, match="one number of outputs"):
        Answers.joined([scored, Answers.from_scores(np.zeros((1, 3)))])


def test_an_observation_is_restricted_to_what_was_asked():
    answers = Answers.from_scores(np.array([[0.1, 0.9], [0.8, 0.2]]))
    seen = Observation(ModelCard("m", "m"), ("a", "b"), answers, "digest", "monday")
    turned = seen.only(["b", "a"])
    assert turned.answers.labels.tolist() == [0, 1] and turned.occasion == "monday"
    assert seen.only([]).asked == ()
    with pytest.raises(ProtocolError, match="none for 'c'"):
        seen.only(["a", "c"])


# --- keys


@dataclass(frozen=True)
class Plug:
    name = "plug"
    rate: float = 0.5
    count: int = 3
    kind: str = "random"
    fast: bool = False


@given(
    rate=st.floats(allow_nan=False, allow_infinity=False),
    count=st.integers(),
    kind=st.from_regex(r"[a-z][a-z0-9_-]{0,8}", fullmatch=True),
    fast=st.booleans(),
)
def test_a_key_comes_back(rate, count, kind, fast):
    plug = Plug(rate, count, kind, fast)
    name, parameters, version, preset = split_key(key_of(plug))
    again = configured(Plug, name, parameters)
    assert again == plug and key_of(again) == key_of(plug) and version == 1 and not preset


@pytest.mark.parametrize(
    ("one", "two"),
    [
        (Plug(rate=1), Plug(rate=1.0)),
        (Plug(rate=np.float32(0.5)), Plug()),
        (Plug(count=np.int64(3)), Plug()),
        (Plug(rate=-0.0), Plug(rate=-0.0)),
    ],
)
def test_equal_plug_ins_have_equal_keys(one, two):
    assert one == two and key_of(one) == key_of(two)


@pytest.mark.parametrize(
    ("key", "found"),
    [
        ("a", ("a", {}, 1, "")),
        (" a ", ("a", {}, 1, "")),
        ("a()@2", ("a", {}, 2, "")),
        ("a( b = 1 , c='x' )@3", ("a", {"b": "1", "c": "x"}, 3, "")),
        ("a/paper-1(b=2)", ("a", {"b": "2"}, 1, "paper-1")),
    ],
)
def test_keys_that_people_write(key, found):
    assert split_key(key) == found


@pytest.mark.parametrize(
    "key", ["", "a b", "A", "a(", "a(b)", "a(b=1,b=2)", "a(b=(1))", "a@x", "a;b", "../a", "a\n(b=1)"]
)
def test_keys_that_make_no_sense_are_refused(key):
    with pytest.raises(UsageError, match="expected"):
        split_key(key)


@pytest.mark.parametrize(
    "parameters", [{"rat": "1"}, {"rate": "fast"}, {"count": "1.5"}, {"fast": "maybe"}, {"rate": ""}]
)
def test_parameters_that_do_not_fit_are_refused(parameters):
    with pytest.raises(UsageError, match="expected"):
        configured(Plug, "plug", parameters)


# --- material, cards, plans, errors


def test_stored_inputs_are_in_the_box_and_on_a_level():
    material = Material(np.zeros((1, 1)), np.zeros(1), bounds=(-1.0, 1.0), levels=5)
    assert material.stored(np.array([-3.0, -0.6, 0.1, 0.3, 9.0])).tolist() == [-1.0, -0.5, 0.0, 0.5, 1.0]


@given(
    low=st.floats(-5, 5, width=32),
    width=st.floats(0.125, 9, width=32),
    levels=st.none() | st.integers(2, 300),
    values=st.lists(st.floats(-20, 20, width=32), max_size=5),
)
def test_storing_twice_is_storing_once(low, width, levels, values):
    material = Material(np.zeros((1, 1)), np.zeros(1), bounds=(low, low + width), levels=levels)
    once = material.stored(np.array(values, np.float32))
    assert once.dtype == np.float32
    np.testing.assert_array_equal(material.stored(once), once)


def test_material_is_consistent():
    with pytest.raises(UsageError, match="one label per input"):
        Material(np.zeros((2, 1)), np.zeros(1))
    copy = ToyClassifier.fresh((2, 2))
    with pytest.raises(UsageError, match="in both"):
        Material(np.zeros((1, 2)), np.zeros(1), derived=[copy], controls={"noise": [copy]})


@given(
    st.builds(
        ModelCard,
        st.text(min_size=1),
        st.text(min_size=1),
        st.text(),
        st.lists(st.text(), max_size=2).map(tuple),
        st.dictionaries(st.text(), st.floats(allow_nan=False), max_size=3),
    )
)
def test_a_card_comes_back(card):
    assert ModelCard.from_plain(card.plain()) == card


@pytest.mark.parametrize(
    "wrong",
    [{"epochs": -1}, {"batch_size": 0}, {"learning_rate": 0.0}, {"learning_rate": float("nan")}, {"temperature": 0.0}],
)
def test_a_plan_is_positive(wrong):
    with pytest.raises(UsageError, match="expected positive"):
        Plan(**wrong)


def test_every_error_is_one_tree_and_survives_a_worker():
    import pickle

    from minutia.core import errors

    kinds = [e for e in vars(errors).values() if isinstance(e, type) and issubclass(e, Exception)]
    assert all(issubclass(kind, MinutiaError) for kind in kinds) and len(kinds) > 8
    assert all(kind.__name__ in errors.__doc__ for kind in kinds)
    for kind in set(kinds) - {MissingExtraError}:
        assert str(pickle.loads(pickle.dumps(kind("expected this")))) == "expected this"
    missing = pickle.loads(pickle.dumps(MissingExtraError("onnx", "onnx", "an ONNX model")))
    assert "pip install 'minutia[onnx]'" in str(missing)
