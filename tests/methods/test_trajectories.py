"""Trajectories: the ladder, the score of whole groups, owners without gradients."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from handmade import fingerprint, matching
from minutia.checks import check_method, toy_bench
from minutia.core.access import Access
from minutia.core.answers import Status
from minutia.core.errors import ModelError, UsageError
from minutia.core.method import Method
from minutia.core.model import ModelCard
from minutia.methods.classifiers.grouped import GROUP
from minutia.methods.classifiers.trajectories import SHRINK, Trajectories, ladder, slope, walked
from minutia.models.toy import ToyClassifier

LINEAR = ToyClassifier({"w0": np.eye(3), "b0": np.zeros(3)})
"""Three classes whose logits are the three inputs."""
STARTS = np.array([[0.9, 0.2, 0.1], [0.1, 0.7, 0.0], [0.3, 0.2, 0.8]], np.float32)
GOALS = np.array([1, 0, 0])
GRADED = Trajectories(score_by="graded")


@given(st.lists(st.floats(-5, 5), min_size=3, max_size=3), st.integers(0, 2))
def test_the_slope_is_a_derivative(logits, goal):
    z = np.array([logits])

    def value(z):
        return z[0, goal] - np.log(np.exp(z[0]).sum())

    found = slope(z, np.array([goal]))[0]
    numeric = [(value(z + e) - value(z - e)) / 2e-5 for e in 1e-5 * np.eye(3)]
    np.testing.assert_allclose(found, numeric, atol=1e-5)


def test_a_walk_takes_sign_steps_inside_the_box():
    points = walked(LINEAR, STARTS[:1], GOALS[:1], np.array([[0.1, 0.3]]), (0.0, 1.0))
    np.testing.assert_allclose(points[0], [[0.8, 0.3, 0.0], [0.5, 0.6, 0.0]], atol=1e-6)


@pytest.mark.parametrize("half", [1, 2, 5])
def test_only_the_last_step_before_the_middle_enters(half):
    rungs = ladder(LINEAR, STARTS, GOALS, half, (0.0, 1.0))
    labels = rungs.argmax(axis=2)
    assert rungs.shape == (3, 2 * half, 3)
    assert (labels[:, half - 1 :] == GOALS[:, None]).all()
    assert (labels[:, : half - 1] != GOALS[:, None]).all()


def test_step_sizes_shrink_towards_the_boundary_and_are_mirrored_beyond():
    rungs = ladder(LINEAR, STARTS[:1], GOALS[:1], 2, (-9.0, 9.0))
    way = np.concatenate([STARTS[:1], rungs[0]])[:, 0]
    sizes = -np.diff(way)
    np.testing.assert_allclose(sizes, sizes[0] * np.array([1, SHRINK, SHRINK, 1]), rtol=1e-4)
    assert sizes[:2].sum() == pytest.approx(0.35, abs=0.04), "the lead of 0.7 falls by two per unit"


@given(st.integers(1, 30), st.integers(0, 10**6))
def test_ladders_do_not_influence_one_another(count, seed):
    rng = np.random.default_rng(seed)
    model = ToyClassifier.fresh((6, 8, 4), seed=2)
    starts, goal = rng.random((count, 6), dtype=np.float32), rng.integers(0, 4, count)
    together = ladder(model, starts, goal, 2, (0.0, 1.0))
    row = seed % count
    alone = ladder(model, starts[[row]], goal[[row]], 2, (0.0, 1.0))
    np.testing.assert_allclose(alone[0], together[row], atol=1e-3)


# --- the score


def grouped(count=12, size=4):
    return replace(fingerprint(count), arrays={GROUP: np.repeat(np.arange(count // size), size)})


@pytest.mark.parametrize(
    ("asked", "hits", "graded", "detection"),
    [
        (12, {0, 1, 2, 3}, 1 / 3, 1 / 3),
        (12, {0, 1, 2, 4, 5, 8}, 0.5, 1 / 3),  # half of the points: the rate is not below one half
        (8, {0, 1, 2, 4}, 0.5, 0.5),
        (7, {0, 1, 2, 4, 5, 6}, 0.75, 1.0),  # the second is not finished
        (3, {0, 1}, 2 / 3, 1.0),  # nothing is finished
        (5, {4}, 0.0, 0.0),
    ],
)
def test_whole_trajectories_count(asked, hits, graded, detection):
    fp = grouped()
    seen = matching(fp, "s", hits).only(fp.probes.ids[:asked])
    assert GRADED.score(fp, seen) == pytest.approx(graded)
    assert Trajectories().score(fp, seen) == pytest.approx(detection)


@given(st.frozensets(st.integers(0, 11)), st.frozensets(st.integers(0, 11), min_size=1))
def test_the_path_is_the_score_of_every_prefix_whatever_was_lost(hits, arrived):
    fp, method = grouped(), GRADED
    ids = [fp.probes.ids[i] for i in sorted(arrived)]
    prefixes = [ids[: n + 1] for n in range(len(ids))]
    seen = matching(fp, "s", hits)
    np.testing.assert_allclose(method.path(fp, seen, prefixes), Method.path(method, fp, seen, prefixes))


@given(st.frozensets(st.integers(0, 11)), st.integers(0, 11))
def test_one_more_match_never_lowers_the_score(hits, more):
    fp = grouped()
    for method in (Trajectories(), GRADED):
        low, high = (method.score(fp, matching(fp, "s", some)) for some in (hits, hits | {more}))
        assert low <= high


def test_the_scale_counts_trajectories_not_points():
    spent = np.full((5, 2), 0.2)
    scale = Trajectories().scale(spent, np.array([4, 40]))
    q = (0.2 * 5 + 0.5) / 6
    wanted = [(q * (1 - q) * (1 / n + 0.05)) ** 0.5 for n in (1, 10)]
    np.testing.assert_allclose((scale.transform(np.array([1.0, 1.0])) ** -1) * (1 - q), wanted)


# --- enrolling


@pytest.fixture(scope="module")
def bench():
    return toy_bench()


@pytest.mark.parametrize("chain", [1, 2])
def test_the_owners_answers_climb_every_ladder(bench, chain):
    method = Trajectories(probes=48, chain=chain)
    fp = method.extract(bench.owner, bench.material, seed=1)
    labels = fp.answers.labels.reshape(-1, chain, 4)
    assert len(labels) == 48 // method.size and fp.arrays[GROUP].tolist() == sorted(fp.arrays[GROUP])
    assert (labels[:, :, -1] != labels[:, :, 0]).mean() > 0.8
    assert (labels[:, :, 1] == labels[:, :, -1]).mean() > 0.8, "the second of four steps enters"
    again = bench.owner.ask(fp.probes).labels
    assert np.array_equal(again, fp.answers.labels)


def test_a_copy_agrees_on_most_and_innocents_do_not(bench):
    method = Trajectories(probes=80)
    fp = method.extract(bench.owner, bench.material, seed=1)
    copy = bench.owner.rebuilt({n: w * np.float32(1.01) for n, w in bench.owner.tensors()})
    theirs = [method.score(fp, method.asked(m, fp.probes)) for m in bench.innocents]
    assert method.score(fp, method.asked(copy, fp.probes)) > 0.9 > max(theirs)


def test_hiding_answers_never_raises_the_score():
    fp = grouped()
    hits = matching(fp, "s", {0, 1, 2, 4, 5, 6, 7})
    status = hits.answers.status.copy()
    status[[0, 3, 9]] = Status.REFUSED
    hidden = replace(hits, answers=replace(hits.answers, status=status))
    assert GRADED.score(fp, hidden) < GRADED.score(fp, hits)


def test_an_owner_without_gradients_is_refused(bench):
    class Box:
        spec, card, access = "box", ModelCard("b", "b"), Access.LABELS | Access.SCORES

    with pytest.raises(UsageError, match="labels, gradients for trajectories, got box with"):
        Trajectories().extract(Box(), bench.material)


def test_too_few_trajectories_are_one_sentence(bench):
    flat = ToyClassifier({"w0": np.zeros((16, 5)), "b0": np.arange(5)})
    with pytest.raises(ModelError, match="trajectories that survive storage, got 0"):
        Trajectories(probes=16).extract(flat, replace(bench.material, controls={}))


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": 3},
        {"steps": 0},
        {"chain": 0},
        {"oversample": 0},
        {"score_by": "mean"},
        {"probes": 7},
        {"probes": 40, "chain": 9},
        {"innocent": 2.0},
    ],
)
def test_parameters_that_cannot_work_are_refused(wrong):
    with pytest.raises(UsageError, match="expected"):
        Trajectories(**wrong)


@pytest.mark.parametrize("method", [Trajectories(probes=24, score_by="graded"), Trajectories(probes=27, chain=3)])
def test_the_contract_is_kept_with_other_parameters(method):
    check_method(method)
