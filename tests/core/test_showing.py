"""How much a suspect shows: labels, the largest scores or all; classes in another order; nulls that see no more."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from handmade import CLASSES, Scripted, Share, fingerprint, labels_with, matching, null
from minutia.core import judge as sealed
from minutia.core.access import Access
from minutia.core.answers import Answers, Observation, Status
from minutia.core.fingerprint import Null
from minutia.core.method import ANCHOR_LABELS, ANCHORS
from minutia.core.model import ModelCard
from minutia.core.yardstick import yardstick
from minutia.models.metered import Metered
from minutia.models.replay import Recorded, ReplayModel, parsed_answer

scores = hnp.arrays(
    np.float32,
    st.tuples(st.integers(1, 6), st.integers(2, 5)),
    elements=st.sampled_from([0.0, 0.125, 0.25, 0.5, 1.0, float("nan")]),
)


def observed(answers: Answers, name: str = "suspect") -> Observation:
    return Observation(ModelCard(name, name), tuple(f"p{i}" for i in range(len(answers))), answers, "sha256:0")


# --- showing


def test_the_largest_scores_stay_and_the_others_are_not_told():
    shown = Answers.from_scores(np.array([[0.1, 0.6, 0.3], [0.5, 0.25, 0.25]])).showing(2)
    np.testing.assert_allclose(shown.scores, [[np.nan, 0.6, 0.3], [0.5, 0.25, np.nan]], rtol=1e-6)
    assert shown.labels.tolist() == [1, 0] and shown.logits is None


def test_labels_only_leave_no_scores():
    model = np.array([[2.0, 1.0]])
    shown = Answers.from_scores(model, model).showing(0)
    assert shown.scores is None and shown.logits is None and shown.labels.tolist() == [0]


@pytest.mark.parametrize("most", [3, 4, 100])
def test_who_shows_everything_loses_nothing(most):
    answers = Answers.from_scores(np.eye(3), np.eye(3))
    assert answers.showing(most) is answers


@given(scores, st.integers(0, 6))
def test_showing_twice_is_showing_once(table, most):
    once = Answers.from_scores(table).showing(most)
    twice = once.showing(most)
    assert twice.labels.tolist() == once.labels.tolist()
    assert (twice.scores is None) == (once.scores is None)
    if once.scores is not None:
        np.testing.assert_array_equal(twice.scores, once.scores)


@given(scores, st.integers(0, 6), st.integers(0, 6))
def test_showing_less_and_then_more_is_showing_less(table, first, second):
    answers = Answers.from_scores(table)
    both, least = answers.showing(first).showing(second), answers.showing(min(first, second))
    assert both.labels.tolist() == least.labels.tolist() == answers.labels.tolist()
    if least.scores is None:
        assert both.scores is None
    else:
        np.testing.assert_array_equal(both.scores, least.scores)


@given(scores, st.integers(1, 6))
def test_the_label_is_among_what_is_shown(table, most):
    shown = Answers.from_scores(table).showing(most)
    for row in np.flatnonzero(shown.labels >= 0):
        told = shown.scores[row]
        assert np.isfinite(told).sum() == min(most, table.shape[1])
        assert told[shown.labels[row]] == np.nanmax(told)


@given(scores, st.integers(0, 6))
def test_an_observation_says_how_much_it_shows(table, most):
    whole = observed(Answers.from_scores(table))
    assert whole.shows == table.shape[1]
    part = whole.showing(most)
    if (whole.answers.status == Status.OK).any():
        assert part.shows == min(most, table.shape[1])
    assert part.showing(part.shows) is part


def test_the_row_that_shows_least_counts():
    """A server that hides scores at times is treated as one that always hides them."""
    table = np.array([[0.5, 0.3, 0.2], [0.5, np.nan, np.nan]], np.float32)
    answers = Answers(np.zeros(2, np.uint8), np.array([0, 0]), table)
    assert observed(answers).shows == 1
    assert observed(answers).showing(2).shows == 1


def test_answers_that_never_came_do_not_count_as_silence_about_scores():
    answers = Answers.joined([Answers.from_scores(np.eye(3)), Answers.without(2, Status.FAILED)])
    assert observed(answers).shows == 3


def test_labels_show_nothing():
    assert observed(Answers.from_labels(np.array([0, 1]))).shows == 0


# --- probabilities


def test_what_was_not_told_shares_what_is_left():
    told = Answers.from_scores(np.array([[0.5, 0.2, 0.2, 0.1]])).showing(2)
    np.testing.assert_allclose(told.probabilities(4), [[0.5, 0.2, 0.15, 0.15]], rtol=1e-6)


def test_labels_are_certain_and_silence_is_uniform():
    answers = Answers.from_labels(np.array([2, -1]))
    np.testing.assert_allclose(answers.probabilities(3), [[0, 0, 1], [1 / 3] * 3])


def test_a_class_that_the_owner_does_not_have_is_no_opinion():
    assert Answers.from_labels(np.array([7])).probabilities(2).tolist() == [[0.5, 0.5]]


@given(scores, st.integers(0, 6))
def test_probabilities_of_a_softmax_sum_to_one(table, most):
    filled = np.nan_to_num(table) + 0.125
    answers = Answers.from_scores(filled / filled.sum(axis=1, keepdims=True)).showing(most)
    found = answers.probabilities(table.shape[1])
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-6)
    assert (found >= 0).all()
    assert (found[np.arange(len(found)), answers.labels] >= found.max(axis=1) - 1e-6).all()


def test_a_model_that_knows_fewer_classes_gives_the_others_nothing():
    found = Answers.from_scores(np.array([[0.75, 0.25]])).probabilities(3)
    assert found[0, :2].tolist() == [0.75, 0.25] and found[0, 2] == 0


# --- classes in another order


def test_scores_move_with_their_classes():
    seen_ = observed(Answers.from_scores(np.array([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6]])))
    named = seen_.renamed({0: 2, 1: 0, 2: 1}, "note")
    np.testing.assert_allclose(named.answers.scores, [[0.2, 0.1, 0.7], [0.3, 0.6, 0.1]], rtol=1e-6)
    assert named.answers.labels.tolist() == [2, 1] and named.notes == ("note",)


def test_a_class_without_a_name_has_no_label_and_takes_the_scores_with_it():
    seen_ = observed(Answers.from_scores(np.eye(3)))
    named = seen_.renamed({0: 1, 1: 0}, "note")
    assert named.answers.labels.tolist() == [1, 0, -1] and named.answers.scores is None


@given(scores, st.randoms(use_true_random=False))
def test_the_inverse_order_brings_everything_back(table, order):
    names = list(range(table.shape[1]))
    order.shuffle(names)
    there = dict(enumerate(names))
    back = {new: old for old, new in there.items()}
    whole = observed(Answers.from_scores(table))
    again = whole.renamed(there, "there").renamed(back, "back")
    assert again.answers.labels.tolist() == whole.answers.labels.tolist()
    np.testing.assert_array_equal(again.answers.scores, whole.answers.scores)
    assert again.answers.status.tolist() == whole.answers.status.tolist()


class Ordered(Scripted):
    """A model of known labels whose classes stand in another order; it answers anchors by their first number."""

    def __init__(self, ids, labels, names, anchors_right=1.0):
        super().__init__(ids, [names[label] for label in labels])
        self.names, self.right = names, anchors_right

    def ask(self, probes):
        if probes.ids and probes.array.max() <= 1 and set(probes.ids) <= set(self._labels):
            return super().ask(probes)
        self.asked += probes.ids
        true = np.rint(probes.array[:, 0] - ANCHOR).astype(int)
        wrong = np.arange(len(true)) >= self.right * len(true)
        return Answers.from_labels(np.array([self.names[t] for t in np.where(wrong, 0, true)]))


PER_CLASS = 5
ANCHOR = 100
"""Added to the inputs of anchors, so that the scripted model can tell them from probes."""
N = 60
OTHER = {0: 3, 1: 0, 2: 4, 3: 1, 4: 2}


@pytest.fixture
def anchored():
    return with_anchors(fingerprint(N, looks=(30, N), controls={"prune": [54] * 9}, threats=("prune",)))


def with_anchors(fp):
    labels = np.repeat(np.arange(CLASSES), PER_CLASS)
    inputs = np.zeros((len(labels), 4), np.float32)
    inputs[:, 0] = ANCHOR + labels
    return replace(fp, arrays={ANCHORS: inputs, ANCHOR_LABELS: labels})


INNOCENT = [10, 12, 14, 9, 13, 11, 12, 10, 8]


def verified(fp, suspect, **more):
    return Share(N).verify(fp, suspect, null(fp, INNOCENT), alpha=0.1, **more)


def test_a_copy_with_its_classes_in_another_order_is_found(anchored):
    verdict = verified(anchored, Ordered(anchored.probes.ids, labels_with(N, 54), OTHER))
    assert (verdict.outcome, verdict.score) == ("match", pytest.approx(54 / 60))
    assert "classes-renamed" in verdict.flags and "permuted-labels" not in verdict.flags


def test_in_the_owners_order_no_anchor_is_asked(anchored):
    suspect = Ordered(anchored.probes.ids, labels_with(N, 54), {c: c for c in range(CLASSES)})
    assert verified(anchored, suspect, early=False).outcome == "match"
    assert len(suspect.asked) == N


def test_an_innocent_model_in_another_order_stays_innocent(anchored):
    verdict = verified(anchored, Ordered(anchored.probes.ids, labels_with(N, 12), OTHER))
    assert verdict.outcome != "match" and verdict.p_value > 0.1


def test_anchors_that_no_order_explains_change_nothing(anchored):
    """A suspect that names natural inputs at random is not put in order: the flag stays, and rules nothing out."""
    verdict = verified(anchored, Ordered(anchored.probes.ids, labels_with(N, 54), OTHER, anchors_right=0.5))
    assert verdict.outcome == "inconclusive" and "permuted-labels" in verdict.flags
    assert "classes-renamed" not in verdict.flags and verdict.ruled_out == ()


def test_a_fingerprint_without_anchors_only_says_that_the_order_is_another(anchored):
    bare = replace(anchored, arrays={})
    verdict = verified(bare, Ordered(bare.probes.ids, labels_with(N, 54), OTHER))
    assert verdict.outcome == "inconclusive" and "permuted-labels" in verdict.flags


@given(st.permutations(range(CLASSES)), st.integers(0, 3))
def test_every_order_is_recovered(order, lost):
    fp = with_anchors(fingerprint(N, looks=(N,)))
    names = dict(enumerate(order))
    suspect = Ordered(fp.probes.ids, labels_with(N, N - lost), names)
    plain = Share(N).observe(fp, suspect)
    found = Share(N).in_order(fp, suspect, plain)
    if sealed.relabelled(fp, plain):
        assert found.answers.labels.tolist() == labels_with(N, N - lost).tolist()
    else:
        assert found is plain


def test_a_budget_that_leaves_nothing_for_anchors_still_gives_a_verdict(anchored):
    suspect = Metered(Ordered(anchored.probes.ids, labels_with(N, 54), OTHER), max_queries=N)
    verdict = verified(anchored, suspect, budget=N)
    assert verdict.outcome == "inconclusive" and "permuted-labels" in verdict.flags


def test_a_transcript_without_anchors_still_gives_a_verdict(anchored):
    probes, labels = anchored.probes, [OTHER[label] for label in labels_with(N, 54)]
    lines = [
        Recorded("m", "m", name, probes.content_id(i), 0, {}, parsed_answer({"response": int(labels[i])}))
        for i, name in enumerate(probes.ids)
    ]
    verdict = verified(anchored, ReplayModel(lines))
    assert verdict.outcome == "inconclusive" and "permuted-labels" in verdict.flags


# --- labels-only suspects are compared with labels-only nulls


@dataclass(frozen=True)
class Trusting(Share):
    """The mean score that is given to the owner's label; of labels alone the share of equal ones."""

    name = "trusting"
    suspect_needs = Access.LABELS

    def score(self, fp, observation):
        own = dict(zip(fp.probes.ids, fp.answers.labels.tolist(), strict=True))
        rows = np.array([own[i] for i in observation.asked])
        return float(observation.answers.probabilities(CLASSES)[np.arange(len(rows)), rows].mean())


def confident(fp, name, hits, sure):
    """Answers that match so many probes, each with this much confidence."""
    labels = labels_with(len(fp.probes), hits)
    table = np.full((len(labels), CLASSES), (1 - sure) / (CLASSES - 1))
    table[np.arange(len(labels)), labels] = sure
    return Observation(ModelCard(name, name), fp.probes.ids, Answers.from_scores(table), fp.probes.digest)


@pytest.fixture
def scored():
    """Innocents that match 1 to 9 of 12 probes, all with the utmost confidence."""
    fp = fingerprint(12, spent=())
    own = confident(fp, "owner", 12, 0.9)
    spent = tuple(confident(fp, f"spent {i}", i + 1, 0.9) for i in range(3))
    fp = replace(
        fp, method=Trusting(12).key, answers=own.answers, controls={"owner": (own,)}, reference=spent, spent=frozenset()
    )
    of = Null(
        "unrelated", tuple(confident(fp, f"null {i}", h, 0.99) for i, h in zip(range(9), range(1, 10), strict=True))
    )
    return fp, of


def test_scores_are_ranked_among_scores_and_labels_among_labels(scored):
    """Ten matches at .6 are worth 6.2 of 12, less than 7, 8 and 9 matches at .99; by labels ten are more than nine."""
    fp, of = scored
    suspect = confident(fp, "suspect", 10, 0.6)
    whole = Trusting(12).judge(fp, suspect, of, alpha=0.1)
    labels = Trusting(12).judge(fp, suspect.showing(0), of, alpha=0.1)
    assert (whole.p_value, labels.p_value) == (pytest.approx(0.4), pytest.approx(0.1))
    assert labels.score == pytest.approx(10 / 12) and labels.outcome == "match"


def test_a_null_that_shows_labels_only_is_compared_with_labels_only(scored):
    fp, of = scored
    poor = replace(of, observations=(*of.observations[:-1], of.observations[-1].showing(0)))
    whole, shown = (Trusting(12).judge(fp, confident(fp, "suspect", 10, 0.6), n, alpha=0.1) for n in (poor, of))
    assert (whole.p_value, shown.p_value) == (pytest.approx(0.1), pytest.approx(0.4))


@given(st.integers(0, CLASSES))
def test_nobody_is_looked_at_more_closely_than_the_suspect(most):
    fp = fingerprint(12, spent=())
    own = confident(fp, "owner", 12, 0.9)
    fp = replace(fp, method=Trusting(12).key, answers=own.answers, controls={"owner": (own,)})
    of = Null("unrelated", tuple(confident(fp, f"null {i}", i, 0.5 + i / 20) for i in range(9)))
    suspect = confident(fp, "suspect", 10, 0.6).showing(most)
    stick = sealed.yardstick_for(Trusting(12), fp, of, suspect)
    assert stick.shows == suspect.shows == most
    by_hand = [Trusting(12).score(fp, o.showing(most)) for o in of.observations]
    np.testing.assert_allclose(stick.columns[0].raw[:, -1], by_hand)
    # With everything shown from the start or cut by hand before judging, the verdict is the same.
    cut = Null("unrelated", tuple(o.showing(most) for o in of.observations))
    one, two = (Trusting(12).judge(fp, suspect, n, alpha=0.1) for n in (of, cut))
    assert (one.p_value, one.score, one.outcome) == (two.p_value, two.score, two.outcome)


def test_the_same_labels_with_and_without_scores_are_judged_alike_by_a_method_that_reads_labels():
    fp = fingerprint(12)
    of = null(fp, [1, 2, 3, 1, 2, 3, 1, 2, 3])
    with_scores = confident(fp, "suspect", 9, 0.4)
    with_labels = matching(fp, "suspect", 9)
    one, two = (Share(12).judge(fp, o, of, alpha=0.1) for o in (with_scores, with_labels))
    assert (one.p_value, one.score, one.outcome) == (two.p_value, two.score, two.outcome)


def test_a_yardstick_is_kept_for_each_way_of_showing(scored):
    fp, of = scored
    assert yardstick(Trusting(12), fp, of, frozenset(), 0) is yardstick(Trusting(12), fp, of, frozenset(), 0)
    assert yardstick(Trusting(12), fp, of, frozenset(), 0) is not yardstick(Trusting(12), fp, of, frozenset(), 2)
