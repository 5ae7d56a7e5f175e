"""Sensitive samples: what they catch on small networks, and that choosing them is sound."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from minutia.checks import check_method, toy_bench
from minutia.core.errors import ModelError, UsageError
from minutia.core.fingerprint import Null
from minutia.core.probe import numbered
from minutia.methods.classifiers import sensitive_samples
from minutia.methods.classifiers.sensitive_samples import SensitiveSamples, cover, on_boundary
from minutia.models.reruns import reruns
from minutia.models.toy import ToyClassifier

SMALL = SensitiveSamples(pool=300, twins=60, rounds=6)


@pytest.fixture(scope="module")
def enrolled():
    """The toy owner with 110 benign runs and a few noisy copies as changes."""
    bench = toy_bench()
    benign = reruns(bench.owner, bench.material.inputs[:64], np.random.default_rng(0), count=110)
    material = dataclasses.replace(bench.material, controls={"benign": benign, **bench.material.controls}, unrelated=())
    return bench.owner, material, SMALL.extract(bench.owner, material)


def tampered(owner, name, row, by):
    weights = dict(owner.tensors())
    weights[name].reshape(-1)[row] += by
    return owner.rebuilt(weights)


def test_every_weight_is_watched(enrolled):
    """Each of the 257 weights and biases changed by itself: what moves some natural input is seen."""
    owner, material, fp = enrolled
    natural = numbered(material.held_out[0], {})
    before, missed, tried = owner.ask(natural).logits, [], 0
    for name, weights in owner.tensors():
        for row in range(weights.size):
            changed = tampered(owner, name, row, 0.01)
            if np.abs(changed.ask(natural).logits - before).max() > 1e-3:
                tried += 1
                missed += [(name, row)] if SMALL.verify(fp, changed, Null.none()).outcome != "no-match" else []
    assert tried > 150
    assert not missed


def test_the_owner_is_intact_at_every_access(enrolled):
    owner, _, fp = enrolled
    answers = owner.ask(fp.probes)
    for shown in (answers, dataclasses.replace(answers, logits=None), answers.showing(2), answers.showing(1)):
        seen = dataclasses.replace(SMALL.observe(fp, owner), answers=shown)
        assert SMALL.judge(fp, seen, Null.none()).outcome == "match"


def test_ten_probes_at_most_in_the_box_and_on_grey_levels(enrolled):
    _, material, fp = enrolled
    assert len(fp.probes) == 10
    assert np.array_equal(material.stored(fp.probes.array), fp.probes.array)
    with pytest.raises(UsageError, match="expected 1 to 10 probes, got 11"):
        SensitiveSamples(probes=11)
    with pytest.raises(UsageError, match="expected a pool of 10 or more"):
        SensitiveSamples(pool=5)


def test_probes_lie_just_off_the_boundary(enrolled):
    """The two largest outputs are nearly equal, and yet no benign run may swap them."""
    owner, material, fp = enrolled
    top = np.sort(fp.answers.logits, axis=1)
    lead = top[:, -1] - top[:, -2]
    natural = np.sort(owner.ask(numbered(material.inputs, {})).logits, axis=1)
    assert np.median(lead) < np.median(natural[:, -1] - natural[:, -2]) / 100
    for run in fp.controls["benign"]:
        assert (run.answers.labels == fp.answers.labels).all()


def test_points_between_two_labels_are_brought_to_where_the_label_ends():
    """A network that names the larger of two inputs: its boundary is the diagonal."""
    model, material = ToyClassifier({"w0": np.eye(2), "b0": np.zeros(2)}), toy_bench().material
    material = dataclasses.replace(material, inputs=np.zeros((1, 2), np.float32), labels=np.zeros(1), levels=None)
    first, second = np.array([[0.9, 0.1], [0.2, 0.8]], np.float32), np.array([[0.3, 0.7], [0.6, 0.2]], np.float32)
    points = on_boundary(model, material, first, second)
    assert len(points) == 2
    assert np.abs(points[:, 0] - points[:, 1]).max() < 1e-3


def test_where_all_labels_are_equal_points_stay():
    model, material = ToyClassifier({"w0": np.eye(2), "b0": np.array([9.0, 0.0])}), toy_bench().material
    first = np.array([[0.25, 0.5]], np.float32)
    material = dataclasses.replace(material, levels=None)
    assert np.array_equal(on_boundary(model, material, first, first[::-1]), first)


@given(
    hnp.arrays(float, st.tuples(st.integers(1, 8), st.integers(1, 12)), elements=st.floats(0, 2)), st.integers(1, 10)
)
def test_choosing_is_sound(worth, count):
    chosen = cover(worth, count)
    assert len(chosen) == len(set(chosen)) == min(count, worth.shape[1])
    if count >= worth.shape[1]:
        return
    # The exchange never ends worse than the best single point.
    gain = worth / (worth + sensitive_samples.ENOUGH)
    assert gain[:, chosen].max(axis=1).sum() >= gain.sum(axis=0).max() - 1e-9


def test_a_point_that_alone_feels_a_change_is_chosen():
    worth = np.array([[1.0, 0.9, 0.8, 0.0], [1.0, 0.9, 0.8, 0.0], [0.0, 0.0, 0.0, 0.3]])
    assert set(cover(worth, 2)) == {0, 3}


def test_the_same_seed_gives_the_same_fingerprint(enrolled):
    owner, material, fp = enrolled
    assert SMALL.extract(owner, material).probes.digest == fp.probes.digest
    assert SMALL.extract(owner, material, seed=1).probes.digest != fp.probes.digest


def test_a_table_keeps_the_ranges_of_its_columns():
    rng = np.random.default_rng(3)
    table = (rng.random((80, 4)) * [1, 100, 0.01, 5]).astype(np.float32)
    owner = ToyClassifier.fresh((4, 8, 3), seed=2)
    bounds = (float(table.min()), float(table.max()))
    material = dataclasses.replace(
        toy_bench().material,
        inputs=table,
        labels=np.zeros(80, int),
        levels=None,
        content="tabular",
        bounds=bounds,
        unrelated=(),
        derived=(),
        controls={},
        held_out=None,
    )
    probes = SMALL.extract(owner, material).probes.array
    reach = table.max(axis=0) - table.min(axis=0)
    assert (probes <= table.max(axis=0) + 0.13 * reach).all()


def test_what_cannot_work_is_refused():
    bench = toy_bench()
    with pytest.raises(UsageError, match="expected image or tabular data for sensitive_samples, got text"):
        SMALL.extract(bench.owner, dataclasses.replace(bench.material, content="text"))
    dead = ToyClassifier({"w0": np.zeros((16, 3)), "b0": np.zeros(3), "w1": np.zeros((3, 2)), "b1": np.full(2, np.nan)})
    with pytest.raises(ModelError, match="got none that does"):
        SMALL.extract(dead, dataclasses.replace(bench.material, derived=()))


def test_it_keeps_the_contract():
    check_method(SMALL)
