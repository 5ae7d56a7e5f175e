"""DeepJudge: attacks and metrics by hand, what they promise, what degrades and what is refused."""

from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from minutia.checks import toy_bench
from minutia.core.answers import Answers
from minutia.core.errors import ModelError, UsageError
from minutia.core.material import Material
from minutia.core.method import Method
from minutia.methods.classifiers.crafting import lead_slope
from minutia.methods.classifiers.deepjudge import DeepJudge, alike, certain, divergence, loss_slope
from minutia.models.toy import ToyClassifier

SMALL = DeepJudge(probes=40, epsilon=0.2)
LINE = ToyClassifier({"w0": np.array([[4.0, 0.0], [0.0, 4.0]]), "b0": np.zeros(2)})
"""Names the larger of two coordinates."""


@lru_cache(maxsize=1)
def enrolled():
    bench = toy_bench()
    return bench, SMALL.extract(bench.owner, bench.material, seed=1)


# --- attacks


def test_fgsm_is_one_step_along_the_sign():
    seeds = np.array([[0.6, 0.4]], np.float32)
    found = DeepJudge(epsilon=0.1).fgsm(LINE, seeds, np.array([0]), Material(seeds, np.array([0])))
    np.testing.assert_allclose(found, [[0.5, 0.5]], atol=1e-6)


def test_pgd_stays_within_epsilon_of_the_seed_and_in_the_box():
    bench, _ = enrolled()
    seeds, truth = certain(bench.owner, bench.material, 30)
    made = DeepJudge(epsilon=0.07).pgd(bench.owner, seeds, truth, bench.material)
    assert np.abs(made - seeds).max() <= 0.07 + 1e-6 and made.min() >= 0 and made.max() <= 1
    before, after = (bench.owner.linearise(x)[0][np.arange(30), truth].mean() for x in (seeds, made))
    assert after < before


def test_the_nearest_example_crosses_the_boundary_by_the_confidence_and_no_further():
    """The boundary of the line is the diagonal: 1 logit beyond it is a quarter apart."""
    seeds = np.array([[0.6, 0.5]], np.float32)
    made = DeepJudge(confidence=1.0, steps=30).cw(LINE, seeds, np.array([0]), Material(seeds, np.array([0])))
    lead = LINE.linearise(made)[0][0] @ [-1, 1]
    assert lead == pytest.approx(1.0, abs=0.3)
    np.testing.assert_allclose(made - seeds, [[-0.175, 0.175]], atol=0.05)


def test_slopes_are_derivatives():
    rng = np.random.default_rng(0)
    logits, truth = rng.normal(size=(5, 4)), np.array([0, 1, 2, 3, 0])
    rows = np.arange(5)

    def loss(z):
        return np.log(np.exp(z).sum(axis=1)) - z[rows, truth]

    step = np.zeros_like(logits)
    step[:, 1] = 1e-5
    numeric = (loss(logits + step) - loss(logits - step)) / 2e-5
    np.testing.assert_allclose(loss_slope(truth)(logits)[:, 1], numeric, atol=1e-6)
    first, out = np.array([0]), {"into": False, "gap": 1.0}
    assert lead_slope(np.array([[2.0, 1.0, 0.0]]), first, **out).tolist() == [[1, -1, 0]]
    assert lead_slope(np.array([[-2.0, 1.0, 0.0]]), first, **out).tolist() == [[0, 0, 0]]


def test_seeds_are_answered_correctly_and_the_most_certain_come_first():
    inputs = np.array([[0.6, 0.5], [1.0, 0.0], [0.0, 0.8], [0.2, 0.9]], np.float32)
    material = Material(inputs, np.array([0, 0, 1, 0]))
    seeds, truth = certain(LINE, material, 9)
    assert seeds.tolist() == inputs[[1, 2, 0]].tolist() and truth.tolist() == [0, 1, 0]
    held = replace(material, held_out=(inputs[2:3], np.array([1])))
    assert certain(LINE, held, 9)[0].tolist() == inputs[2:3].tolist()


def test_only_what_fools_the_owner_is_asked():
    bench, fp = enrolled()
    assert (fp.answers.labels != fp.arrays["truth"]).all() and len(fp.probes) >= 20
    assert len(np.unique(fp.probes.array, axis=0)) == len(fp.probes)
    assert (bench.owner.ask(fp.probes).labels == fp.answers.labels).all()


# --- metrics


@given(arrays(float, (3, 4), elements=st.floats(0.01, 1)), arrays(float, (3, 4), elements=st.floats(0.01, 1)))
def test_divergence_is_symmetric_bounded_and_zero_for_equals(p, q):
    p, q = p / p.sum(axis=1, keepdims=True), q / q.sum(axis=1, keepdims=True)
    there, back = divergence(p, q), divergence(q, p)
    np.testing.assert_allclose(there, back, atol=1e-12)
    assert (there >= 0).all() and (there <= 1).all() and (divergence(p, p) < 1e-12).all()
    scipy = pytest.importorskip("scipy.spatial.distance")
    np.testing.assert_allclose(there, scipy.jensenshannon(p, q, base=2, axis=1) ** 2, atol=1e-9)


def test_the_score_is_the_mean_of_both_metrics_by_hand():
    own = Answers.from_scores(np.array([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]))
    seen = Answers.from_scores(np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]))
    truth = np.array([0, 0])
    assert alike(own, seen, truth).tolist() == [0.0, 1.0]
    # Fooled into a third class: half a point for RobD, none for JSD.
    assert alike(own, Answers.from_scores(np.array([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0]])), truth).tolist() == [0.5, 0.5]


def test_models_with_more_classes_are_compared_all_the_same():
    own = Answers.from_scores(np.array([[0.0, 1.0]]))
    more = Answers.from_scores(np.array([[0.0, 1.0, 0.0]]))
    assert alike(own, more, np.array([0])).tolist() == [1.0]


@pytest.mark.parametrize("shows", [0, 99])
def test_copies_score_high_and_innocents_lower(shows):
    bench, fp = enrolled()

    def score(model):
        return SMALL.score(fp, SMALL.asked(model, fp.probes).showing(shows))

    assert score(bench.owner) == pytest.approx(1.0)
    innocents = [score(m) for m in bench.innocents]
    assert max(innocents) < 1.0 and min(score(m) for m in bench.material.derived) > np.mean(innocents)


@given(st.lists(st.integers(1, 20), min_size=1, max_size=4, unique=True), st.sampled_from([0, 1, 99]))
def test_the_path_is_the_score_of_prefixes(ends, shows):
    bench, fp = enrolled()
    seen = SMALL.asked(bench.innocents[0], fp.probes).showing(shows)
    prefixes = [fp.probes.ids[:n] for n in sorted(ends)]
    np.testing.assert_allclose(SMALL.path(fp, seen, prefixes), Method.path(SMALL, fp, seen, prefixes), atol=1e-12)


@given(st.sets(st.integers(0, 19)), st.sampled_from([0, 99]))
def test_refused_examples_count_as_robust_and_unlike(rows, shows):
    bench, fp = enrolled()
    seen = SMALL.asked(bench.owner, fp.probes).showing(shows)
    status = seen.answers.status.copy()
    status[sorted(rows)] = 1
    silent = replace(seen, answers=replace(seen.answers, status=status))
    assert SMALL.score(fp, silent) == pytest.approx(1 - len(rows) / len(fp.probes))


# --- bad input


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"probes": 1}, "2 or more probes"),
        ({"steps": 0}, "1 or more steps"),
        ({"epsilon": 0.0}, r"epsilon in \(0, 1\]"),
        ({"epsilon": float("nan")}, r"epsilon in \(0, 1\]"),
        ({"confidence": -1.0}, "a confidence from 0"),
    ],
)
def test_parameters_that_make_no_sense_are_one_sentence(wrong, message):
    with pytest.raises(UsageError, match=message):
        DeepJudge(**wrong)


def test_an_owner_that_cannot_be_fooled_is_one_sentence():
    flat = ToyClassifier({"w0": np.zeros((2, 2)), "b0": np.array([9.0, 0.0])})
    inputs = np.random.default_rng(0).random((20, 2), dtype=np.float32)
    with pytest.raises(ModelError, match="got 0 from 20 inputs: choose a larger epsilon"):
        DeepJudge(epsilon=0.01).extract(flat, Material(inputs, np.zeros(20, int)))
