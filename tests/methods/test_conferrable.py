"""Conferrable examples: the three loss terms by hand, then points crafted on toy models."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minutia import catalog
from minutia.checks import check_method, learning_bench
from minutia.core.access import Access
from minutia.core.errors import ModelError, NullError, UsageError
from minutia.core.fingerprint import Null
from minutia.methods.classifiers.conferrable import LEAST, Conferrable, slopes
from minutia.methods.classifiers.crafting import softmax
from minutia.models.toy import ToyClassifier

SMALL = Conferrable(probes=20, steps=40)


@cache
def enrolled(method=SMALL):
    bench = learning_bench()
    return method.extract(bench.owner, bench.material, seed=1)


def drawn(seed, rows=3, classes=4):
    rng = np.random.default_rng(seed)
    found = rng.random((4, rows, classes)) + 0.05
    return found / found.sum(axis=2, keepdims=True)


def loss(first, f, surrogate, reference):
    """-log max_t Surr_t (1 - Ref_t) - H(first, f) + H(f, Surr), row by row as the paper writes it."""
    conferred = (surrogate * (1 - reference)).max(axis=1)
    return -np.log(conferred) + (first * np.log(f)).sum(axis=1) - (f * np.log(surrogate)).sum(axis=1)


# --- the loss


@given(st.integers(0, 500))
def test_the_slopes_are_the_derivatives_of_the_loss(seed):
    first, *rest = drawn(seed)
    found = slopes(first, *rest)
    step = 1e-6
    for which, row, column in np.ndindex(3, 3, 4):
        ahead, behind = ([x.copy() for x in rest] for _ in range(2))
        ahead[which][row, column] += step
        behind[which][row, column] -= step
        numeric = (loss(first, *ahead) - loss(first, *behind))[row] / (2 * step)
        assert found[which][row, column] == pytest.approx(numeric, rel=1e-3, abs=1e-3)


def test_a_conferrable_point_costs_less_than_one_that_everybody_follows():
    first = np.array([[1.0, 0.0]]) * 0.98 + 0.01
    moved = np.array([[0.1, 0.9]])
    apart, together = (loss(first, moved, moved, reference)[0] for reference in (1 - moved, moved))
    assert apart < together


def test_the_direction_is_towards_copies_and_away_from_innocents():
    """Going down raises what copies give the best class, and lowers what innocent models give it."""
    first, f, surrogate, reference = drawn(1)
    _, for_surrogate, for_reference = slopes(first, f, surrogate, reference)
    best = (surrogate * (1 - reference)).argmax(axis=1)
    rows = np.arange(len(best))
    assert (for_surrogate[rows, best] < 0).all() and (for_reference[rows, best] > 0).all()
    others = np.ones_like(reference, bool)
    others[rows, best] = False
    assert not for_reference[others].any()


def test_certain_models_give_no_infinite_slope():
    sure = np.eye(3)
    assert all(np.isfinite(s).all() for s in slopes(sure, sure, sure[::-1], sure))


@given(st.integers(0, 99), st.floats(-300, 300))
def test_softmax_is_a_distribution_and_knows_no_shift(seed, shift):
    logits = np.random.default_rng(seed).normal(0, 30, (4, 5))
    found = softmax(logits)
    np.testing.assert_allclose(found.sum(axis=1), 1)
    np.testing.assert_allclose(softmax(logits + shift), found, atol=1e-9)
    assert found.argmax(axis=1).tolist() == logits.argmax(axis=1).tolist()


# --- whole models are left out


def test_dropout_leaves_whole_models_out_and_never_all():
    pool = learning_bench().material.unrelated[:5]
    rng = np.random.default_rng(0)
    sizes = [len(replace(SMALL, dropout=0.3).drawn(pool, rng)) for _ in range(200)]
    assert 0.6 < np.mean(sizes) / SMALL.ensemble < 0.8 and len(set(sizes)) > 3
    assert len(replace(SMALL, dropout=0.0).drawn(pool, rng)) == SMALL.ensemble
    assert {len(replace(SMALL, dropout=0.999).drawn(pool, rng)) for _ in range(20)} == {1}


def test_every_way_of_copying_is_drawn_alike_however_many_there_are():
    made = [ToyClassifier.fresh((3, 3), seed=i) for i in range(11)]
    for i, model in enumerate(made):
        model.card = replace(model.card, recipe="rare" if i == 0 else "common")
    rng = np.random.default_rng(0)
    found = [m is made[0] for _ in range(100) for m in SMALL.drawn(made, rng)]
    assert 0.45 < np.mean(found) < 0.55


# --- crafted


def test_the_contract_is_kept():
    check_method(SMALL, learning_bench())


def test_points_stay_near_their_inputs_and_inside_the_box():
    bench = learning_bench()
    for epsilon in (0.05, 0.25):
        fp = enrolled(replace(SMALL, epsilon=epsilon))
        natural = np.concatenate([bench.material.inputs, bench.material.held_out[0]]).reshape(-1, 16)
        far = np.abs(fp.probes.array.reshape(-1, 1, 16) - natural).max(axis=2).min(axis=1)
        assert far.max() <= epsilon + 0.5 / 255 + 1e-6
        assert fp.probes.array.min() >= 0 and fp.probes.array.max() <= 1


def test_probes_are_distinct_and_the_most_conferrable_comes_first():
    fp = enrolled()
    assert len(np.unique(fp.probes.array, axis=0)) == len(fp.probes) == 20
    conferred = fp.arrays["conferred"]
    assert (np.diff(conferred) <= 0).all() and conferred[0] > 0.5


def test_conferrability_is_measured_on_models_that_took_no_part():
    """By hand: how sure the screening copies are of the owner's label, times how unsure the screening innocents are."""
    bench, fp = learning_bench(), enrolled()
    _, screen = bench.material.parted()
    own = fp.answers.labels
    copies, strangers = (
        np.mean([m.ask(fp.probes).scores[np.arange(20), own] for m in some], axis=0)
        for some in ([*screen.derived, *screen.surrogates], screen.unrelated)
    )
    np.testing.assert_allclose(fp.arrays["conferred"], copies * (1 - strangers), rtol=1e-5)


def test_crafting_beats_what_it_starts_from():
    crafted, plain = enrolled(), enrolled(replace(SMALL, steps=1, rate=1e-9))
    assert crafted.arrays["conferred"].mean() > plain.arrays["conferred"].mean() + 0.1


def test_fresh_copies_follow_the_owner_and_fresh_innocents_do_not():
    bench, fp = learning_bench(), enrolled()
    copies = [SMALL.score(fp, SMALL.observe(fp, m)) for m in bench.material.controls["noise"]]
    strangers = [SMALL.score(fp, SMALL.observe(fp, m)) for m in bench.innocents]
    assert min(copies) > max(strangers)


@pytest.mark.parametrize("part", [0, 1], ids=["crafted on", "screened with"])
def test_models_that_helped_cannot_calibrate(part):
    bench, fp = learning_bench(), enrolled()
    leak = bench.material.parted()[part].unrelated[0]
    of = Null("unrelated", tuple(SMALL.observe(fp, m) for m in (*bench.innocents, leak)))
    with pytest.raises(NullError, match="took no part in crafting"):
        SMALL.verify(fp, bench.owner, of, alpha=0.1)
    if part == 0:
        assert leak.card.root not in {o.subject.root for o in fp.reference}


# --- what it cannot do


class Box:
    access = Access.LABELS | Access.SCORES

    def __init__(self, model):
        self._model, self.card, self.spec = model, model.card, "box"

    def ask(self, probes):
        return self._model.ask(probes)


def test_an_owner_without_gradients_is_refused_in_one_sentence():
    bench = learning_bench()
    with pytest.raises(UsageError, match="expected a model that gives labels, gradients for conferrable, got box with"):
        SMALL.extract(Box(bench.owner), bench.material)


def test_in_a_portfolio_an_owner_without_gradients_does_without_it():
    bench = learning_bench()
    chosen = catalog.method("metaclassifier(probes=12,pool=200,crafted=0)+conferrable(probes=20,steps=5)")
    fp = chosen.extract(Box(bench.owner), bench.material)
    assert [part.why for part in fp.members] == ["", "the owner's model does not give gradients"]


@pytest.mark.parametrize("role", ["copies", "unrelated models"])
def test_too_few_models_of_either_side_say_how_many_are_needed(role):
    bench, few = learning_bench(), LEAST + 1
    some = replace(bench.material, derived=bench.material.derived[:few], surrogates=())
    if role != "copies":
        some = replace(bench.material, unrelated=bench.material.unrelated[:few])
    with pytest.raises(UsageError, match=f"expected 8 or more {role} with gradients to craft on, got 7"):
        SMALL.extract(bench.owner, some)


def test_models_without_gradients_do_not_count():
    bench = learning_bench()
    boxes = replace(bench.material, unrelated=[Box(m) for m in bench.material.unrelated])
    with pytest.raises(UsageError, match="unrelated models with gradients to craft on, got 0"):
        SMALL.extract(bench.owner, boxes)


def test_too_little_data_is_one_sentence():
    bench = learning_bench()
    few = replace(bench.material, inputs=bench.material.inputs[:10], labels=bench.material.labels[:10], held_out=None)
    with pytest.raises(ModelError, match=r"expected 20 points that survive storage, got 10 from 10 inputs"):
        SMALL.extract(bench.owner, few)


def test_models_of_fewer_classes_can_take_part():
    bench = learning_bench()
    unrelated = [ToyClassifier.fresh((16, 3), seed=5), *bench.material.unrelated]
    assert len(SMALL.extract(bench.owner, replace(bench.material, unrelated=unrelated)).probes) == 20


@pytest.mark.parametrize(
    "wrong",
    [
        {"probes": 1},
        {"epsilon": 0.0},
        {"epsilon": 1.5},
        {"rate": 0.0},
        {"rate": float("inf")},
        {"steps": 0},
        {"dropout": 1.0},
        {"dropout": -0.1},
        {"ensemble": 0},
        {"oversample": 0},
    ],
)
def test_parameters_that_cannot_work_are_refused(wrong):
    with pytest.raises(UsageError, match="expected"):
        Conferrable(**wrong)
