"""IPGuard: the loss, the descent, the screening, on networks small enough to follow."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from minutia.checks import toy_bench
from minutia.core.access import Access
from minutia.core.errors import ModelError, UsageError
from minutia.core.material import Material
from minutia.core.model import ModelCard
from minutia.core.probe import numbered
from minutia.methods.classifiers.boundary import margins
from minutia.methods.classifiers.ipguard import IPGuard, _targets, descend, facet_loss
from minutia.models.toy import ToyClassifier

LINEAR = ToyClassifier({"w0": np.eye(3), "b0": np.zeros(3)})
"""Three classes whose logits are the three inputs."""


def descended(starts, first, goal, gap=0.1, bounds=(0.0, 1.0), rate=0.01, steps=200, model=LINEAR):
    starts = np.asarray(starts, np.float32)
    return descend(model, starts, np.array(first), np.array(goal), gap, bounds, rate, steps)


@pytest.mark.parametrize(
    ("logits", "first", "goal", "gap", "loss"),
    [
        ([3.0, 1.0, 0.0], 0, 1, 0.5, 2.5),  # not across yet
        ([1.0, 1.5, 0.0], 0, 1, 0.5, 0.0),  # exactly across
        ([1.0, 2.0, 1.5], 0, 1, 0.5, 0.5),  # across, but a third class is the runner-up
        ([1.0, 0.0, 2.0], 0, 1, 0.0, 2.0),  # both terms
        ([1.0, 1.0], 0, 1, 0.25, 0.25),  # two classes: no third
    ],
)
def test_the_loss_is_that_of_the_paper(logits, first, goal, gap, loss):
    found, _ = facet_loss(np.array([logits]), np.array([first]), np.array([goal]), gap)
    assert found.tolist() == [pytest.approx(loss)]


@given(hnp.arrays(np.float64, (4, 5), elements=st.integers(-40, 40).map(lambda i: i / 8)), st.integers(0, 99))
def test_the_slope_is_the_derivative_of_the_loss(logits, seed):
    rng = np.random.default_rng(seed)
    first = rng.integers(0, 5, 4)
    goal = (first + rng.integers(1, 5, 4)) % 5
    logits = logits + rng.normal(0, 1e-3, logits.shape)  # off the kinks
    _, slope = facet_loss(logits, first, goal, 0.3)
    for column in range(5):
        step = 1e-6 * np.eye(5)[column]
        ahead, behind = (facet_loss(logits + sign * step, first, goal, 0.3)[0] for sign in (1, -1))
        np.testing.assert_allclose(slope[:, column], (ahead - behind) / 2e-6, atol=1e-6)


@pytest.mark.parametrize("rule", ["random", "least-likely"])
def test_the_goal_is_never_the_first_class(rule):
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(500, 3))
    goals = _targets(logits, logits.argmax(axis=1), rule, rng)
    assert (goals != logits.argmax(axis=1)).all() and set(goals) == {0, 1, 2}


def test_points_land_just_across_the_facet():
    points, reached = descended([[0.9, 0.2, 0.1], [0.1, 0.7, 0.0]], [0, 1], [1, 0])
    assert reached.all()
    lead = points[[0, 1], [1, 0]] - points[[0, 1], [0, 1]]
    assert ((lead >= 0.1 - 1e-6) & (lead < 0.15)).all()
    assert (points[:, 2] < points[:, :2].min(axis=1)).all()


def test_every_point_stays_inside_the_box_and_what_cannot_be_reached_is_said():
    points, reached = descended([[0.9, 0.2, 0.1]], [0], [1], gap=5.0, steps=300)
    assert not reached.any() and points.min() >= 0 and points.max() <= 1


@pytest.mark.parametrize("count", [1, 5, 300])
def test_rows_do_not_influence_one_another(count):
    """More rows than one batch holds, easy and hard ones mixed: each ends where it ends alone."""
    rng = np.random.default_rng(1)
    model = ToyClassifier.fresh((6, 8, 4), seed=2)
    starts = rng.random((count, 6), dtype=np.float32)
    first = model.linearise(starts)[0].argmax(axis=1)
    goal = (first + rng.integers(1, 4, count)) % 4
    together, reached = descended(starts, first, goal, model=model, steps=60)
    for row in range(0, count, max(1, count // 6)):
        alone, ok = descended(starts[[row]], first[[row]], goal[[row]], model=model, steps=60)
        np.testing.assert_allclose(alone[0], together[row], atol=2e-4)
        assert ok[0] == reached[row]


def test_margins_are_between_the_two_largest():
    assert margins(np.array([[1.0, 5.0, 3.5], [2.0, 2.0, 0.0]])).tolist() == [1.5, 0.0]


@pytest.fixture(scope="module")
def bench():
    return toy_bench()


@pytest.fixture(scope="module")
def enrolled(bench):
    return IPGuard(probes=40).extract(bench.owner, bench.material, seed=3)


@pytest.mark.parametrize("margin", [0.0, 0.1, 0.5])
def test_probes_lie_as_far_across_the_boundary_as_the_margin_says(bench, margin):
    fp = IPGuard(probes=40, margin=margin).extract(bench.owner, bench.material, seed=3)
    logits, _ = bench.owner.linearise(fp.probes.array)
    clean, _ = bench.owner.linearise(bench.material.inputs)
    assert abs(np.mean(margins(clean) < np.median(margins(logits))) - margin) < 0.1
    assert len(set(fp.answers.labels)) >= 4


def test_screening_drops_what_innocents_match(bench, enrolled):
    def matched(fp):
        return np.mean([m.ask(fp.probes).labels == fp.answers.labels for m in bench.innocents])

    blind = IPGuard(probes=40).extract(bench.owner, replace(bench.material, unrelated=[]), seed=3)
    assert matched(enrolled) < 0.7 * matched(blind)
    assert not blind.spent and len(enrolled.spent) == len(bench.material.unrelated)


def test_copies_keep_the_answers_and_innocents_do_not(bench, enrolled):
    copy = bench.owner.rebuilt({n: w * np.float32(1.01) for n, w in bench.owner.tensors()})
    mine = np.mean(copy.ask(enrolled.probes).labels == enrolled.answers.labels)
    theirs = [np.mean(m.ask(enrolled.probes).labels == enrolled.answers.labels) for m in bench.innocents]
    assert mine > 0.9 > max(theirs)


def test_probes_are_distinct(enrolled):
    assert len(np.unique(enrolled.probes.array, axis=0)) == len(enrolled.probes)


def test_probes_of_about_equal_evidence_take_turns_over_labels_and_facets():
    facets = np.array([[0, 1]] * 4 + [[0, 2]] * 2 + [[1, 0]] * 3 + [[2, 0]])
    bits = np.array([4.0, 3.9, 3.8, 3.7, 3.1, 3.0, 3.5, 3.4, 3.3, 0.5])
    order = IPGuard(probes=10)._order(bits, np.zeros((5, 10)), facets, np.random.default_rng(0))
    assert [tuple(facets[i]) for i in order[:4]] == [(0, 1), (1, 0), (1, 0), (0, 2)]
    assert order[-1] == 9, "little evidence comes last, however rare its label"


def test_probes_that_innocents_match_come_last_whatever_their_evidence():
    innocents = np.zeros((5, 3))
    innocents[:, 0] = 1
    facets = np.array([[0, 1], [0, 1], [1, 0]])
    order = IPGuard(probes=2)._order(np.array([9.0, 1.0, 1.0]), innocents, facets, np.random.default_rng(0))
    assert 0 not in order


def test_a_black_box_owner_is_refused(bench):
    class Box:
        spec, card, access = "box", ModelCard("b", "b"), Access.LABELS | Access.SCORES

        def ask(self, probes):
            return bench.owner.ask(probes)

    with pytest.raises(UsageError, match="labels, gradients for ipguard, got box with"):
        IPGuard().extract(Box(), bench.material)


def test_too_few_points_are_one_sentence(bench):
    flat = ToyClassifier({"w0": np.zeros((16, 5)), "b0": np.arange(5)})
    dull = replace(bench.material, inputs=np.zeros((3, 1, 4, 4), np.float32), labels=np.zeros(3, int), controls={})
    with pytest.raises(ModelError, match="boundary points that survive storage"):
        IPGuard(probes=10).extract(flat, dull)


@pytest.mark.parametrize(
    "wrong",
    [
        {"target": "nearest"},
        {"probes": 1},
        {"oversample": 0},
        {"margin": 1.5},
        {"margin": float("nan")},
        {"rate": 0.0},
        {"rate": float("nan")},
        {"steps": 0},
    ],
)
def test_parameters_that_cannot_work_are_refused(wrong):
    with pytest.raises(UsageError, match="expected"):
        IPGuard(**wrong)


def test_models_of_other_classes_can_screen(bench):
    """A spent model that knows fewer classes, or gives labels only, still says what innocents match."""
    fewer = ToyClassifier.fresh((16, 3), seed=5)
    material = replace(bench.material, unrelated=[fewer, *bench.material.unrelated[:2]])
    assert len(IPGuard(probes=20).extract(bench.owner, material).reference) == 3


def test_two_classes_are_enough():
    owner = ToyClassifier.fresh((4, 6, 2), seed=3)
    inputs = np.random.default_rng(0).normal(size=(200, 4)).astype(np.float32)
    keep = owner.ask(numbered(inputs, {})).labels
    assert set(keep) == {0, 1}
    fp = IPGuard(probes=10).extract(owner, Material(inputs, keep, bounds=(-4.0, 4.0)))
    assert set(fp.answers.labels) == {0, 1}
