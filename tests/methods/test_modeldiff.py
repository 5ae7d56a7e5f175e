"""ModelDiff: decision distances by hand, the worst a refusal can mean, whole pairs only, and other label spaces."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from minutia.checks import check_method, toy_bench
from minutia.core.access import Access
from minutia.core.answers import Answers, Observation, Status
from minutia.core.errors import ModelError, UsageError
from minutia.core.fingerprint import Null
from minutia.core.material import Material
from minutia.core.model import ModelCard, Plan
from minutia.methods.classifiers.crafting import descend
from minutia.methods.classifiers.modeldiff import ModelDiff, in_turn, least_cosine
from minutia.methods.classifiers.relations import distances, pairs
from minutia.models.toy import ToyClassifier

SMALL = ModelDiff(pairs=20, oversample=3, epsilon=0.3, steps=30)
LINEAR = ToyClassifier({"w0": np.eye(3), "b0": np.zeros(3)})
"""Three classes whose logits are the three inputs."""


@pytest.fixture(scope="module")
def enrolled():
    bench = toy_bench()
    return bench, SMALL.extract(bench.owner, bench.material)


def observed(fp, answers):
    return Observation(ModelCard("suspect", "suspect"), fp.probes.ids, answers, fp.probes.digest)


# --- known answers


def test_distances_by_hand():
    scores = np.array([[1.0, 0.0], [0.0, 1.0], [0.6, 0.4], [0.6, 0.4], [1.0, 0.0], [0.5, 0.5]])
    np.testing.assert_allclose(distances(Answers.from_scores(scores)), [1, 0, 1 - np.sqrt(0.5)], atol=1e-6)


def test_the_score_is_the_cosine_of_the_two_vectors(enrolled):
    bench, fp = enrolled
    for model in bench.innocents[:4]:
        answers = model.ask(fp.probes)
        vectors = []
        for scores in (fp.answers.scores.astype(float), answers.scores.astype(float)):
            unit = scores / np.linalg.norm(scores, axis=1, keepdims=True)
            vectors.append(np.array([1 - unit[2 * i] @ unit[2 * i + 1] for i in range(20)]))
        f, g = (v / np.linalg.norm(v) for v in vectors)
        assert SMALL.score(fp, observed(fp, answers)) == pytest.approx(f @ g, abs=1e-6)


def test_twins_go_where_the_mean_lies_and_no_further():
    """Logits are the inputs, so a twin moves up where the mean is above its seed, by epsilon in the end."""
    seeds = np.array([[0.9, 0.1, 0.1], [0.1, 0.9, 0.1], [0.1, 0.1, 0.9]], np.float32)
    method = ModelDiff(epsilon=0.2, rate=0.02, steps=60)
    twins = method.craft(LINEAR, seeds, (0.0, 1.0), np.random.default_rng(0))
    np.testing.assert_allclose(twins, np.where(seeds > 0.5, seeds - 0.2, seeds + 0.2), atol=1e-6)


def test_rows_without_slope_stay_where_they_are():
    starts = np.zeros((3, 3), np.float32)

    def slope(logits, rows):
        push = np.zeros_like(logits)
        push[:, 0] = np.where(logits[:, 0] < 0.1 * rows - 1e-4, -1, 0)
        return push

    moved = descend(LINEAR, starts, slope, lambda at, rows: at, 0.01, 100)
    np.testing.assert_allclose(moved[:, 0], [0, 0.1, 0.2], atol=0.011)
    assert not moved[:, 1:].any()


def test_far_and_near_take_turns():
    worth = np.array([5.0, 4.0, 3.0, 2.0, 1.0, -np.inf])
    far = np.array([True, True, True, False, False, False])
    assert in_turn(worth, far).tolist() == [0, 3, 1, 4, 2]


def test_pairs_count_once_both_were_asked(enrolled):
    bench, fp = enrolled
    answers = bench.innocents[0].ask(fp.probes)
    seen = observed(fp, answers)
    ids = fp.probes.ids
    path = SMALL.path(fp, seen, [ids[:1], ids[:6], ids[:7], ids[:8]])
    assert path[0] == 0 and path[1] == path[2]
    assert path[3] == SMALL.score(fp, seen.only(ids[:8]))
    lost = seen.only((*ids[:2], *ids[3:8]))  # the third question was lost, and its twin says nothing alone
    assert SMALL.score(fp, lost) == pytest.approx(SMALL.score(fp, seen.only((*ids[:2], *ids[4:8]))))
    found, number = pairs(fp, lost)
    assert number.tolist() == [0, 2, 3] and found.whole.tolist() == [2, 5, 7]


# --- laws


def test_the_owner_scores_highest_at_every_access(enrolled):
    bench, fp = enrolled
    own = fp.controls["owner"][0]
    for most in range(6):
        best = SMALL.score(fp, own.showing(most))
        assert best == pytest.approx(1, abs=1e-6)
        assert all(SMALL.score(fp, observed(fp, m.ask(fp.probes)).showing(most)) < best for m in bench.innocents)


@pytest.mark.parametrize("most", [0, 2, 5])
def test_renaming_the_classes_changes_nothing(enrolled, most):
    bench, fp = enrolled
    for number, model in enumerate(bench.innocents):
        answers = model.ask(fp.probes)
        renamed = Answers.from_scores(answers.scores[:, np.random.default_rng(number).permutation(5)])
        one, other = (SMALL.score(fp, observed(fp, a).showing(most)) for a in (answers, renamed))
        assert one == pytest.approx(other, abs=1e-6)


UNIT = st.integers(0, 8).map(lambda i: i / 8)


@given(hnp.arrays(float, 4, elements=UNIT), hnp.arrays(float, 4, elements=UNIT), hnp.arrays(bool, 4))
def test_a_hidden_entry_takes_its_worst_value(own, seen, known):
    """Against a search over a grid that holds every corner: nothing that could have been hidden is worse."""
    grid = product(*[[value] if told else [0.0, 0.5, 1.0] for value, told in zip(seen, known, strict=True)])
    everything = np.ones(4, bool)
    found = least_cosine(own, seen, known)
    assert found == pytest.approx(min(least_cosine(own, np.array(g), everything) for g in grid), abs=1e-12)


# --- degradation


def test_labels_alone_say_whether_a_twin_flipped(enrolled):
    bench, fp = enrolled
    answers = bench.innocents[1].ask(fp.probes)
    f, g = ((a.labels[::2] != a.labels[1::2]).astype(float) for a in (fp.answers, answers))
    assert f.sum() > 0 and g.sum() > 0
    expected = f @ g / np.sqrt(f.sum() * g.sum())
    assert SMALL.score(fp, observed(fp, answers).showing(0)) == pytest.approx(expected)


def test_refusing_everything_resembles_nothing(enrolled):
    fp = enrolled[1]
    silent = Answers.without(len(fp.probes), Status.REFUSED)
    assert SMALL.score(fp, observed(fp, silent)) == 0


def test_both_far_and_near_twins_are_kept(enrolled):
    fp = enrolled[1]
    far = distances(fp.answers) >= 0.5
    assert 0.3 <= far.mean() <= 0.7
    assert len(fp.probes) == 40


def test_twins_stay_within_reach(enrolled):
    fp = enrolled[1]
    seeds, twins = fp.probes.array[::2], fp.probes.array[1::2]
    assert np.abs(seeds - twins).max() <= 0.3 + 0.5 / 255 + 1e-6
    assert (seeds != twins).reshape(20, -1).any(axis=1).all()


# --- other label spaces


def test_a_suspect_with_other_classes_is_judged(enrolled):
    bench, fp = enrolled
    thief = bench.thief
    head = bench.owner.trained(thief.inputs, thief.labels // 2, Plan(2, layers="last", classes=3), 0)
    null = Null("unrelated", tuple(SMALL.asked(m, fp.probes) for m in bench.innocents))
    for suspect in (head, ToyClassifier.fresh((16, 12, 7), 5)):
        verdict = SMALL.verify(fp, suspect, null, alpha=0.1)
        assert 0 <= verdict.score <= 1 and verdict.p_value >= 1 / 13


# --- contract and bad input


@pytest.mark.slow
def test_it_keeps_the_contract():
    check_method(SMALL)


def test_an_owner_without_gradients_is_refused(enrolled):
    bench = enrolled[0]

    class Box:
        spec, card, access = "box", ModelCard("b", "b"), Access.LABELS | Access.SCORES

        def ask(self, probes):
            return bench.owner.ask(probes)

    with pytest.raises(UsageError, match="scores, gradients for model_diff, got box with"):
        SMALL.extract(Box(), bench.material)


@pytest.mark.parametrize(
    "wrong",
    [
        {"pairs": 1},
        {"oversample": 0},
        {"steps": 0},
        {"epsilon": 0.0},
        {"epsilon": 1.5},
        {"rate": 0.0},
        {"rate": float("nan")},
    ],
)
def test_parameters_that_cannot_work_are_refused(wrong):
    with pytest.raises(UsageError, match="expected"):
        ModelDiff(**wrong)


def test_too_few_seeds_are_one_sentence(enrolled):
    bench = enrolled[0]
    few = replace(bench.material, inputs=bench.material.inputs[:9], labels=bench.material.labels[:9], held_out=None)
    with pytest.raises(ModelError, match="expected 20 seeds with a twin that survives storage, got 9: give more data"):
        SMALL.extract(bench.owner, few)


def test_numbers_of_tokens_are_not_moved():
    tokens = Material(np.zeros((40, 16), np.float32), np.zeros(40, int), bounds=(0, 9), levels=10, content="text")
    with pytest.raises(UsageError, match="expected image or tabular data for model_diff, got text"):
        SMALL.extract(ToyClassifier.fresh((16, 5)), tokens)
