"""Digests: the same value has the same digest, another value another one."""

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from handmade import fingerprint, matching, null
from minutia.core.answers import Answers, Observation
from minutia.core.digest import array_digest, canonical_json, content_digest, sha256
from minutia.core.fingerprint import Fingerprint, Null, Part
from minutia.core.model import ModelCard
from minutia.core.probe import ProbeSet

KINDS = (np.float32, np.float64, np.int64, np.uint8, np.bool_)
arrays = st.sampled_from(KINDS).flatmap(
    lambda kind: hnp.arrays(kind, hnp.array_shapes(min_dims=0, max_dims=3, max_side=4))
)
plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def test_known_digests():
    """Pinned, so that no refactoring changes the name of what is stored."""
    assert canonical_json({"b": [1, 2.5, "ü"], "a": None}) == r'{"a":null,"b":[1,2.5,"\u00fc"]}'
    assert sha256(b"abc") == "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert array_digest(np.array([[1, 2]], "<u1")) == sha256(b'["|u1",[1,2]]\0\x01\x02')
    assert content_digest([1], {"x": np.zeros(1, np.float32)}) == sha256(
        b'{"arrays":{"x":"' + array_digest(np.zeros(1, np.float32)).encode() + b'"},"header":[1]}'
    )


@given(plain)
def test_canonical_json_is_one_text_for_one_value(value):
    import json

    text = canonical_json(value)
    assert canonical_json(json.loads(text)) == text
    assert "\n" not in text


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_no_digest_for_what_is_no_number(value):
    with pytest.raises(ValueError, match="JSON"):
        canonical_json({"score": value})


@given(arrays)
def test_layout_and_byte_order_do_not_matter(array):
    digest = array_digest(array)
    assert array_digest(array.copy()) == digest
    assert array_digest(np.asarray(array, order="F")) == digest
    assert array_digest(array.astype(array.dtype.newbyteorder(">"))) == digest


@given(arrays, st.data())
def test_every_element_dtype_and_shape_matter(array, data):
    digest = array_digest(array)
    assert array_digest(array.reshape(1, *array.shape)) != digest
    assert array_digest(array.astype(np.complex128)) != digest
    if array.size:
        changed = array.copy().reshape(-1)
        row = data.draw(st.integers(0, array.size - 1))
        with np.errstate(over="ignore"):
            changed[row] = not changed[row] if array.dtype == bool else changed[row] + 1
        if not np.array_equal(changed, array.reshape(-1), equal_nan=array.dtype.kind == "f"):
            assert array_digest(changed.reshape(array.shape)) != digest


CARD = ModelCard("id", "root", "recipe", ("parent",), {"accuracy": 0.5})
PROBES = ProbeSet(("a", "b"), np.zeros((2, 3)), {"channel": "array"})
ANSWERS = Answers(
    np.zeros(2, np.uint8),
    np.array([1, 2]),
    np.zeros((2, 3), np.float32),
    np.ones((2, 3), np.float32),
    ("x", "y"),
    np.array([3, 4]),
)
OBSERVATION = Observation(CARD, ("a", "b"), ANSWERS, PROBES.digest, "monday", 2, ("note",))
FINGERPRINT = dataclasses.replace(
    fingerprint(controls={"prune": [9]}), arrays={"mine": np.arange(3)}, threats=("prune",)
)
NULL = null(FINGERPRINT, [1, 2])
OTHER = fingerprint(seed=1, controls={"noise": [9]})

CHANGED = {
    ProbeSet: (
        PROBES,
        {"ids": ("a", "c"), "content": np.ones((2, 3)), "protocol": {"channel": "jpeg"}, "repeat": 1},
        set(),
    ),
    Observation: (
        OBSERVATION,
        {
            "subject": ModelCard("other", "root"),
            "asked": ("b", "a"),
            "answers": dataclasses.replace(ANSWERS, labels=np.array([1, 0])),
            "protocol": "sha256:other",
            "occasion": "tuesday",
            "queries": 3,
            "notes": ("other",),
            "arrays": {"units": np.ones(2)},
        },
        {"occasion", "queries", "notes"},
    ),
    Null: (
        NULL,
        {"kind": "benign", "observations": NULL.observations[:1], "rung": "other", "source": "elsewhere"},
        {"source"},
    ),
    Fingerprint: (
        FINGERPRINT,
        {
            "method": "share(probes=13)@1",
            "question": "same",
            "owner": ModelCard("another", "owner"),
            "probes": None,
            "answers": Answers.from_labels(np.zeros(12, int)),
            "arrays": {"mine": np.arange(4)},
            "controls": {"owner": FINGERPRINT.controls["owner"]},
            "reference": FINGERPRINT.reference[:1],
            "spent": frozenset({"spent 0"}),
            "schedule": (6, 12),
            "threats": ("noise",),
            "binds": ("content",),
            "seed": 7,
            "format": 2,
            "members": (Part("share(probes=3)@1", (0, 1, 2)),),
        },
        set(),
    ),
}
"""Per value: an example, another value for every field, and the fields that the digest leaves out on purpose."""
CASES = [(cls, name) for cls, (_, changes, _) in CHANGED.items() for name in changes]


@pytest.mark.parametrize("cls", CHANGED, ids=lambda c: c.__name__)
def test_every_field_is_tried(cls):
    assert {f.name for f in dataclasses.fields(cls)} == set(CHANGED[cls][1])


@pytest.mark.parametrize(("cls", "name"), CASES, ids=[f"{c.__name__}.{n}" for c, n in CASES])
def test_another_value_has_another_digest(cls, name):
    value, changes, left_out = CHANGED[cls]
    again = dataclasses.replace(value)
    assert again is not value and again.digest == value.digest
    if (cls, name) == (Fingerprint, "probes"):  # every observation in it must be of the same probes
        value, other = dataclasses.replace(OTHER, seed=0), fingerprint(controls={"noise": [9]})
    else:
        other = dataclasses.replace(value, **{name: changes[name]})
    assert (other.digest == value.digest) == (name in left_out)


@pytest.mark.parametrize("column", ["status", "labels", "scores", "logits", "text", "usage"])
def test_every_column_of_the_answers_matters(column):
    def digest(answers):
        return dataclasses.replace(OBSERVATION, answers=answers).digest

    value = getattr(ANSWERS, column)
    changed = ("x", "z") if column == "text" else value.copy()
    if column != "text":
        changed[0] = 1
        if column in ("labels", "logits"):
            changed[0] = 0
    assert digest(dataclasses.replace(ANSWERS, **{column: changed})) != digest(ANSWERS)
    if column not in ("status", "labels"):
        assert digest(dataclasses.replace(ANSWERS, **{column: None})) != digest(ANSWERS)


def test_a_root_is_part_of_an_observation_because_nulls_are_counted_by_it():
    one, two = (matching(FINGERPRINT, "model", 3, root=root) for root in ("a", "b"))
    assert one.digest != two.digest


def test_a_claim_about_the_card_is_not_part_of_an_observation():
    other = dataclasses.replace(OBSERVATION, subject=dataclasses.replace(CARD, recipe="other", fidelity={}, parents=()))
    assert other.digest == OBSERVATION.digest


@pytest.mark.parametrize("swap", ["protocol keys", "spent", "controls"], ids=lambda s: s.replace(" ", "_"))
def test_what_has_no_order_has_one_digest(swap):
    if swap == "protocol keys":
        one, two = ({"a": 1, "b": 2}, {"b": 2, "a": 1})
        assert dataclasses.replace(PROBES, protocol=one).digest == dataclasses.replace(PROBES, protocol=two).digest
    elif swap == "spent":
        turned = frozenset(sorted(FINGERPRINT.spent, reverse=True))
        assert dataclasses.replace(FINGERPRINT, spent=turned).digest == FINGERPRINT.digest
    else:
        turned = dict(reversed(FINGERPRINT.controls.items()))
        assert dataclasses.replace(FINGERPRINT, controls=turned).digest == FINGERPRINT.digest
