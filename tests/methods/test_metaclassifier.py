"""The meta-classifier: features, discriminants and elimination by hand, then learnt on toy models."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minutia.checks import check_method, learning_bench
from minutia.core.access import Access
from minutia.core.answers import Answers, Status
from minutia.core.errors import NullError, UsageError
from minutia.core.fingerprint import Null
from minutia.methods.classifiers.metaclassifier import (
    LEAST_COPIES,
    LEAST_INNOCENTS,
    MetaClassifier,
    _margin,
    discriminant,
    eliminate,
    features,
    separation,
)
from minutia.models.toy import ToyClassifier

SMALL = MetaClassifier(probes=24, pool=400, crafted=60, steps=40)


@cache
def enrolled(method=SMALL):
    bench = learning_bench()
    return method.extract(bench.owner, bench.material, seed=1)


@cache
def innocents():
    fp = enrolled()
    return tuple(SMALL.observe(fp, m) for m in learning_bench().innocents)


# --- features


def test_a_label_is_a_match_or_none():
    answers = Answers.from_labels(np.array([1, 2, -1]))
    for scored in (True, False):
        assert features(answers, np.array([1, 1, 1]), scored).tolist() == [1, 0, 0]


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ([0.5, 0.5], 0.75),  # even odds: half of the second half
        ([1.0, 0.0], 1.0),
        ([0.0, 1.0], 0.0),
        ([0.9, 0.1], 0.5 + (np.log(9) / 4 + 1) / 4),
        ([0.1, 0.9], (1 - np.log(9) / 4) / 4),
    ],
)
def test_scores_add_how_sure_the_suspect_is(row, told):
    assert features(Answers.from_scores(np.array([row])), np.array([0]), scored=True) == pytest.approx(told, abs=1e-6)


@given(st.lists(st.floats(0.01, 0.99), min_size=1, max_size=9), st.integers(0, 3))
def test_features_lie_between_0_and_1_and_grow_with_confidence(shares, most):
    table = np.array([[s, (1 - s) * 0.6, (1 - s) * 0.4] for s in sorted(shares)])
    found = features(Answers.from_scores(table).showing(most), np.zeros(len(table), int), scored=True)
    assert ((found >= 0) & (found <= 1)).all()
    if most == 3:
        assert (np.diff(found) >= 0).all()


@pytest.mark.parametrize("status", [Status.REFUSED, Status.TRUNCATED, Status.INVALID, Status.FAILED])
def test_silence_is_the_farthest_from_a_match(status):
    table = np.array([[1.0, 0.0]], np.float32)
    answers = Answers(np.array([status], np.uint8), np.array([0]), table)
    assert features(answers, np.array([0]), scored=True).tolist() == [0.0]


# --- the discriminant

SIDES = st.tuples(st.integers(2, 7), st.integers(2, 7), st.integers(1, 12), st.integers(0, 999))


def drawn(a, b, n, seed):
    rng = np.random.default_rng(seed)
    return (rng.random((a, n)) < 0.8).astype(np.float32), (rng.random((b, n)) < 0.3).astype(np.float32)


@given(SIDES, st.sampled_from([0.05, 0.6, 1.0]))
def test_the_discriminant_is_that_of_the_shrunk_covariance(sizes, shrinkage):
    """By hand: covariances of both sides averaged, and pulled towards a multiple of the identity."""
    copies, innocents_ = drawn(*sizes)
    pooled = (np.cov(copies.T, bias=True) + np.cov(innocents_.T, bias=True)) / 2
    pooled = pooled.reshape(copies.shape[1], -1)
    target = max(np.trace(pooled) / len(pooled), 1e-9) * np.eye(len(pooled))
    gap = (copies.mean(axis=0) - innocents_.mean(axis=0)).astype(float)
    by_hand = np.linalg.solve(shrinkage * target + (1 - shrinkage) * pooled, gap)
    found = discriminant(copies, innocents_, shrinkage)
    np.testing.assert_allclose(found, by_hand, rtol=1e-3, atol=1e-3 * max(1.0, np.abs(by_hand).max()))


@given(SIDES)
def test_the_discriminant_separates(sizes):
    copies, innocents_ = drawn(*sizes)
    weights = discriminant(copies, innocents_, 0.6)
    gap = copies.mean(axis=0) - innocents_.mean(axis=0)
    assert gap @ weights > 0 or not gap.any()


@given(SIDES)
def test_repeating_every_model_changes_nothing(sizes):
    """Each side counts half, however many models it has."""
    copies, innocents_ = drawn(*sizes)
    once = discriminant(copies, innocents_, 0.6)
    more = discriminant(np.repeat(copies, 3, axis=0), innocents_, 0.6)
    np.testing.assert_allclose(more, once, rtol=1e-4, atol=1e-4)


def test_a_feature_that_tells_nothing_weighs_nothing():
    copies, innocents_ = np.array([[1.0, 0], [1, 1]]), np.array([[0.0, 0], [0, 1]])
    weights = discriminant(copies, innocents_, 0.6)
    assert weights[0] > 0 and weights[1] == pytest.approx(0)


def test_separation_is_counted_in_deviations():
    copies, innocents_ = np.array([[1.0, 1, 0], [1, 0, 1]]), np.array([[0.0, 1, 1], [0, 0, 0]])
    found = separation(copies, innocents_)
    assert found[0] == pytest.approx(1 / np.sqrt(0.02)) and found[1:].tolist() == [0, 0]


# --- elimination


@given(SIDES, st.integers(1, 15))
def test_elimination_returns_distinct_rows_as_many_as_asked_for(sizes, count):
    copies, innocents_ = drawn(*sizes)
    order = eliminate(copies, innocents_, count, 0.6)
    assert len(order) == min(count, sizes[2]) and len(set(order.tolist())) == len(order)
    assert set(order.tolist()) <= set(range(sizes[2]))


def test_the_best_feature_survives_to_the_end_and_comes_first():
    rng = np.random.default_rng(0)
    copies, innocents_ = rng.random((12, 40)), rng.random((20, 40))
    copies[:, 17], innocents_[:, 17] = 1, 0
    order = eliminate(copies, innocents_, 8, 0.6)
    assert order[0] == 17 and len(order) == 8


def test_the_discriminant_shares_a_weight_among_repeats():
    """Six repeats of one feature weigh less, each, than a feature of its own that tells as much."""
    rng = np.random.default_rng(1)
    copies, strangers = (np.repeat((rng.random((500, 2)) < rate).astype(float), [6, 1], 1) for rate in (0.9, 0.3))
    weights = discriminant(copies, strangers, 0.05)
    assert weights[6] > 3 * weights[:6].max() > 0


@pytest.mark.parametrize("sign", [1, -1])
def test_the_hinge_pushes_the_owners_label_up_or_down(sign):
    logits, own = np.array([[3.0, 0.0, 1.0], [0.0, 4.0, 1.0]]), np.array([0, 0])
    loss, slope = _margin(logits, own, sign)
    lead = sign * np.array([2.0, -4.0])
    assert loss.tolist() == np.maximum(2 - lead, 0).tolist()
    step = 1e-6
    for row, column in np.ndindex(2, 3):
        moved = logits.copy()
        moved[row, column] += step
        ahead = _margin(moved, own, sign)[0].sum()
        moved[row, column] -= 2 * step
        if abs(2 - lead[row]) > 1e-3:  # on the kink there is no slope
            assert slope[row, column] == pytest.approx((ahead - _margin(moved, own, sign)[0].sum()) / (2 * step))


# --- learnt


def test_the_contract_is_kept():
    check_method(SMALL, learning_bench())


def test_every_prefix_puts_fitted_innocents_at_0_and_fitted_copies_at_1():
    fp, (fit, _) = enrolled(), learning_bench().material.parted()
    prefixes = [fp.probes.ids[:n] for n in range(1, len(fp.probes) + 1)]
    for shows in (0, 5):
        sides = [[*fit.derived, *fit.surrogates], fit.unrelated]
        copies, strangers = (
            np.mean([SMALL.path(fp, SMALL.observe(fp, m).showing(shows), prefixes) for m in some], axis=0)
            for some in sides
        )
        np.testing.assert_allclose(strangers, 0, atol=1e-4)
        # Where no fitted copy differs from any innocent one, the sides cannot be told apart: both lie at 0.
        assert np.all((np.abs(copies - 1) < 1e-4) | (np.abs(copies) < 1e-4)) and abs(copies[-1] - 1) < 1e-4


def test_models_it_was_fitted_on_set_no_scale_and_cannot_calibrate():
    bench, fp = learning_bench(), enrolled()
    fit, screen = bench.material.parted()
    assert {o.subject.root for o in fp.reference} == {m.card.root for m in screen.unrelated}
    for leak in (fit.unrelated[0], screen.unrelated[0]):
        with pytest.raises(NullError, match="took no part in crafting"):
            SMALL.verify(fp, bench.owner, Null("unrelated", (*innocents(), SMALL.observe(fp, leak))), alpha=0.1)


def test_fresh_copies_score_above_fresh_innocents():
    """Copies and strangers of seeds on which nothing was fitted, by labels and by scores."""
    bench, fp = learning_bench(), enrolled()
    for shows in (0, 5):
        copies = [SMALL.score(fp, SMALL.observe(fp, m).showing(shows)) for m in bench.material.controls["noise"]]
        strangers = [SMALL.score(fp, o.showing(shows)) for o in innocents()]
        assert min(copies) > max(strangers)


def test_probes_are_distinct():
    fp = enrolled()
    assert len(np.unique(fp.probes.array, axis=0)) == len(fp.probes) == 24


@pytest.mark.parametrize("lost", [(), (3,), (0, 5, 23)])
def test_lost_probes_count_as_halfway(lost):
    """By hand: the discriminant of the prefix that ends with the last arrival, without the terms that were lost."""
    fp, seen = enrolled(), innocents()[0].showing(0)
    arrived = [i for i in range(24) if i not in lost]
    line = fp.arrays["labels"][arrived[-1]]
    match = (seen.answers.labels == fp.answers.labels).astype(float)
    by_hand = line[-1] + sum(line[i] * (match[i] - 0.5) for i in arrived)
    ids = [fp.probes.ids[i] for i in arrived]
    assert SMALL.path(fp, seen, [ids]) == pytest.approx([by_hand], abs=1e-5)


def test_labels_are_judged_by_the_verifier_of_labels():
    fp, seen = enrolled(), innocents()[0]
    spoiled = replace(fp, arrays={**fp.arrays, "scores": np.zeros_like(fp.arrays["scores"])})
    assert SMALL.score(spoiled, seen.showing(0)) == SMALL.score(fp, seen.showing(0))
    assert SMALL.score(spoiled, seen) == 0


class Box:
    access = Access.LABELS

    def __init__(self, model):
        self._model, self.card, self.spec = model, model.card, "box"

    def ask(self, probes):
        return self._model.ask(probes).showing(0)


def test_an_owner_behind_an_api_learns_from_what_models_answer():
    """Without his gradients nothing is crafted: the probes are chosen among candidates."""
    bench = learning_bench()
    boxes = replace(
        bench.material,
        unrelated=[Box(m) for m in bench.material.unrelated],
        derived=[Box(m) for m in bench.material.derived],
        surrogates=[Box(m) for m in bench.material.surrogates],
        controls={"noise": [Box(m) for m in bench.material.controls["noise"]]},
    )
    fp = SMALL.extract(Box(bench.owner), boxes, seed=1)
    of = Null("unrelated", tuple(SMALL.observe(fp, Box(m)) for m in bench.innocents))
    assert len(fp.probes) == 24 and fp.digest != enrolled().digest
    assert SMALL.verify(fp, boxes.controls["noise"][0], of, alpha=0.1).outcome == "match"


def test_without_crafting_all_probes_are_candidates():
    bench = learning_bench()
    found = SMALL.extract(Box(bench.owner), bench.material, seed=1)
    plain = replace(SMALL, crafted=0).extract(bench.owner, bench.material, seed=1)
    np.testing.assert_array_equal(found.probes.array, plain.probes.array)


def test_crafted_points_are_told_apart_better_than_candidates():
    bench = learning_bench()
    fit, screen = bench.material.parted()

    def told(method):
        fp = enrolled(method)
        copies, strangers = (
            np.mean([m.ask(fp.probes).labels == fp.answers.labels for m in some])
            for some in ([*screen.derived, *screen.surrogates], screen.unrelated)
        )
        return copies - strangers

    assert told(SMALL) > told(replace(SMALL, crafted=0)) > 0.1 and len(fit.unrelated) == 30


@pytest.mark.parametrize("copies", [0, 4, 15])
def test_too_few_copies_say_how_many_are_needed(copies):
    """Every fourth is kept to screen with: 15 leave 12 to learn from, 14 leave 11."""
    bench = learning_bench()
    some = replace(bench.material, derived=bench.material.derived[: copies and copies - 3], surrogates=())
    some = replace(some, surrogates=bench.material.surrogates[: min(copies, 3)])
    fit, _ = some.parted()
    if len([*fit.derived, *fit.surrogates]) >= LEAST_COPIES:
        SMALL.extract(bench.owner, some)
        return
    with pytest.raises(UsageError, match=r"expected 12 or more copies to learn from, got \d+: .*--copies"):
        SMALL.extract(bench.owner, some)


@pytest.mark.parametrize(("spent", "left"), [(4, 3), (25, 19)])
def test_too_few_innocents_say_how_many_are_needed(spent, left):
    bench = learning_bench()
    few = replace(bench.material, unrelated=bench.material.unrelated[:spent])
    words = rf"expected 20 or more unrelated models to learn from .* got {left}: 'minutia null build --spent 80'"
    with pytest.raises(UsageError, match=words):
        SMALL.extract(bench.owner, few)
    assert LEAST_INNOCENTS == 20
    assert len(SMALL.extract(bench.owner, replace(few, unrelated=bench.material.unrelated[:26])).reference) == 6


@pytest.mark.parametrize("place", [0, 3], ids=["fitted on", "screened with"])
def test_models_of_fewer_classes_can_be_learnt_from(place):
    bench = learning_bench()
    unrelated = list(bench.material.unrelated)
    unrelated[place] = ToyClassifier.fresh((16, 3), seed=5)
    fp = SMALL.extract(bench.owner, replace(bench.material, unrelated=unrelated))
    assert np.isfinite([SMALL.score(fp, o) for o in fp.reference]).all()


@pytest.mark.parametrize(
    "wrong",
    [
        {"probes": 1},
        {"pool": 20, "probes": 30},
        {"crafted": -1},
        {"steps": -1},
        {"ensemble": 0},
        {"shrinkage": 0.0},
        {"shrinkage": 1.5},
    ],
)
def test_parameters_that_cannot_work_are_refused(wrong):
    with pytest.raises(UsageError, match="expected"):
        MetaClassifier(**wrong)
