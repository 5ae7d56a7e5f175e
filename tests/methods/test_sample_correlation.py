"""Sample correlation: the score by hand, what it does not depend on, what refusing costs, and other label spaces."""

from dataclasses import replace

import numpy as np
import pytest

from minutia.checks import check_method, toy_bench
from minutia.core.answers import Answers, Observation, Status
from minutia.core.errors import ModelError, UsageError
from minutia.core.fingerprint import Null
from minutia.core.material import Material
from minutia.core.model import ModelCard, Plan
from minutia.core.probe import numbered
from minutia.methods.classifiers.natural_errors import NaturalErrors
from minutia.methods.classifiers.relations import apart, directions, recipes, told_alike
from minutia.methods.classifiers.sample_correlation import SampleCorrelation, _Distances, chosen, cut_mixed, strangers
from minutia.models.toy import ToyClassifier

SMALL = SampleCorrelation(probes=24, oversample=2)


@pytest.fixture(scope="module")
def enrolled():
    bench = toy_bench()
    return bench, SMALL.extract(bench.owner, bench.material)


def observed(fp, answers):
    return Observation(ModelCard("suspect", "suspect"), fp.probes.ids, answers, fp.probes.digest)


def by_hand(fp, answers):
    """-mean |C_g - C_f| over pairs, one pair at a time."""
    sides = [fp.answers.scores.astype(float), answers.scores.astype(float)]
    off = []
    for i in range(len(fp.probes)):
        for j in range(i):
            f, g = ((1 - p[i] @ p[j] / np.linalg.norm(p[i]) / np.linalg.norm(p[j])) / 2 for p in sides)
            off.append(abs(g - f))
    return -np.mean(off)


# --- known answers


def test_the_score_is_the_mean_over_pairs(enrolled):
    bench, fp = enrolled
    for model in bench.innocents[:4]:
        answers = model.ask(fp.probes)
        assert SMALL.score(fp, observed(fp, answers)) == pytest.approx(by_hand(fp, answers), abs=1e-7)


def test_three_labels_are_three_pairs(enrolled):
    """Owner a a b, suspect a b b: two of three pairs differ, each by one half."""
    fp = enrolled[1]
    labels = fp.answers.labels
    first = int(np.flatnonzero(labels == labels[0])[1])
    other = int(np.flatnonzero(labels != labels[0])[0])
    rows = [0, first, other]
    seen = observed(fp, fp.answers.showing(0)).only([fp.probes.ids[r] for r in rows])
    assert SMALL.score(fp, seen) == 0
    moved = replace(seen, answers=Answers.from_labels(labels[[0, other, other]]))
    assert SMALL.score(fp, moved) == pytest.approx(-1 / 3)


def test_one_answer_holds_no_relation(enrolled):
    fp = enrolled[1]
    seen = observed(fp, fp.answers)
    assert SMALL.path(fp, seen, [fp.probes.ids[:1], fp.probes.ids[:2]]).tolist() == [0, 0]


def test_a_box_comes_from_another_input():
    inputs = np.stack([np.zeros((1, 8, 8)), np.ones((1, 8, 8))])
    mixed = cut_mixed(inputs, 200, 0.25, np.random.default_rng(0))
    assert set(mixed.sum(axis=(1, 2, 3))) == {0, 4, 60, 64}  # a box of 2 x 2 out of 64
    flat = cut_mixed(inputs.reshape(2, 64), 200, 0.25, np.random.default_rng(0))
    assert set(flat.sum(axis=1)) == {0, 16, 48, 64}


# --- laws


def test_the_owner_scores_highest_at_every_access(enrolled):
    bench, fp = enrolled
    own, others = fp.controls["owner"][0], [observed(fp, m.ask(fp.probes)) for m in bench.innocents]
    for most in range(6):
        best = SMALL.score(fp, own.showing(most))
        assert best == pytest.approx(0, abs=1e-7)
        assert all(SMALL.score(fp, o.showing(most)) < best for o in others)


@pytest.mark.parametrize("most", [0, 1, 3, 5])
def test_renaming_the_classes_changes_nothing(enrolled, most):
    bench, fp = enrolled
    for number, model in enumerate(bench.innocents):
        answers = model.ask(fp.probes)
        renamed = Answers.from_scores(answers.scores[:, np.random.default_rng(number).permutation(5)])
        one, other = (SMALL.score(fp, observed(fp, a).showing(most)) for a in (answers, renamed))
        assert one == pytest.approx(other, abs=1e-6)


def test_an_unused_class_changes_nothing(enrolled):
    bench, fp = enrolled
    answers = bench.innocents[0].ask(fp.probes)
    wider = Answers.from_scores(np.pad(answers.scores, ((0, 0), (2, 1))))
    assert SMALL.score(fp, observed(fp, wider)) == pytest.approx(SMALL.score(fp, observed(fp, answers)), abs=1e-6)


def test_the_choice_is_greedy_by_separation():
    """By hand: of the pairs with the first choice, the one that parts innocents from copies most comes next."""
    rng = np.random.default_rng(3)
    own, *seen = (Answers.from_scores(rng.dirichlet(np.ones(3), 6)) for _ in range(9))
    side = _Distances.of(own, seen)
    rows = chosen([side], 6, [np.arange(6)], 3)

    def off(model, pairs):
        a, b = directions(own), directions(seen[model])
        return np.mean([abs(b[i] @ b[j] - a[i] @ a[j]) / 2 for i, j in pairs])

    def worth(pairs):
        values = np.array([[off(m, pairs)] for m in range(8)])
        return float(apart(values[:6], values[6:], [np.arange(6)], 0.02)[0])

    left = [r for r in range(6) if r not in rows[:2]]
    best = max(left, key=lambda r: worth([(rows[0], rows[1]), (rows[0], r), (rows[1], r)]))
    assert rows[2] == best
    assert len(set(rows)) == 3


def test_the_recipe_that_is_nearest_counts():
    """Four innocents far from the owner and four as near as copies: nothing parts them all."""
    innocents = np.array([[1.0]] * 4 + [[0.0]] * 4)
    assert apart(innocents, np.zeros((2, 1)), [np.arange(4), np.arange(4, 8)], 0.1) == 0
    assert apart(innocents, np.zeros((2, 1)), [np.arange(4)], 0.1) == pytest.approx(10)
    cards = [ModelCard(str(i), str(i), "a" if i < 4 else "b") for i in range(6)]
    models = [type("M", (), {"card": card})() for card in cards]
    assert [rows.tolist() for rows in recipes(models)] == [[0, 1, 2, 3]]
    assert [rows.tolist() for rows in recipes(models[4:])] == [[0, 1]]


def test_answers_that_say_nothing_stand_for_other_tasks():
    answers = Answers.from_scores(np.random.default_rng(0).dirichlet(np.ones(3), 50))
    *turned, same = strangers([(answers, answers.showing(0))] * 2, np.random.default_rng(1))
    assert len(turned) == 2 and set(same[1].labels) == {0}
    for told, labels in turned:
        assert sorted(told.scores[:, 0]) == sorted(answers.scores[:, 0])
        assert (told.labels == labels.labels).all() and (told.labels != answers.labels).any()


def test_a_model_of_one_answer_resembles_nobody_at_any_look(enrolled):
    """The first probes are not of one class to the owner, so that naming one class throughout is no likeness."""
    bench, fp = enrolled
    same = observed(fp, Answers.from_labels(np.zeros(24, int)))
    looks = [fp.probes.ids[:n] for n in fp.schedule]
    found = SMALL.path(fp, same, looks)
    innocents = np.array([SMALL.path(fp, observed(fp, m.ask(fp.probes).showing(0)), looks) for m in bench.innocents])
    assert (found < innocents.mean(axis=0)).all()


# --- degradation and refusals


def test_the_owner_is_told_as_much_as_the_suspect_row_by_row():
    own = Answers.from_scores(np.array([[0.5, 0.3, 0.2]] * 3))
    seen = Answers.from_scores(np.array([[0.2, 0.3, 0.5]] * 3))
    seen = replace(seen, scores=np.array([[0.2, 0.3, 0.5], [np.nan, 0.3, 0.5], [np.nan, np.nan, 0.5]]))
    told = told_alike(own, seen)[0].scores
    assert np.isnan(told).tolist() == [[False] * 3, [False, False, True], [False, True, True]]


@pytest.mark.parametrize("status", [Status.REFUSED, Status.INVALID, Status.TRUNCATED])
def test_a_refused_answer_is_as_far_off_as_it_could_be(enrolled, status):
    bench, fp = enrolled
    answers = bench.owner.ask(fp.probes)
    hidden = answers.status.copy()
    hidden[3] = status
    seen = observed(fp, replace(answers, status=hidden))
    c = (1 - directions(fp.answers) @ directions(fp.answers)[3]) / 2
    worst = np.delete(np.maximum(c, 0.5 - c), 3).sum()
    assert SMALL.score(fp, seen) == pytest.approx(-worst / (24 * 23 / 2), abs=1e-6)


def test_without_unrelated_models_inputs_stay_as_they_are_drawn():
    bench = toy_bench()
    alone = replace(bench.material, unrelated=(), derived=(), controls={})
    fp = SMALL.extract(bench.owner, alone)
    assert len(fp.probes) == 24 and fp.reference == ()
    verdict = SMALL.verify(
        fp, bench.owner, Null("unrelated", tuple(SMALL.asked(m, fp.probes) for m in bench.innocents))
    )
    assert verdict.p_value == pytest.approx(1 / 13)


def test_models_that_chose_the_inputs_never_set_the_scale(enrolled):
    bench, fp = enrolled
    assert len(fp.reference) == 1 and len(bench.material.unrelated) == 6


# --- other label spaces


def test_a_suspect_with_other_classes_is_judged(enrolled):
    """Classes merged two by two: relations are left, labels are none; a method that compares labels still refuses."""
    bench, fp = enrolled
    thief = bench.thief
    head = bench.owner.trained(thief.inputs, thief.labels // 2, Plan(2, layers="last", classes=3), 0)
    stranger = ToyClassifier.fresh((16, 12, 3), 5)
    null = Null("unrelated", tuple(SMALL.asked(m, fp.probes) for m in bench.innocents))
    for suspect in (head, stranger):
        verdict = SMALL.verify(fp, suspect, null, alpha=0.1)
        assert verdict.score < 0 and verdict.p_value >= 1 / 13
        assert SMALL.score(fp, SMALL.observe(fp, suspect).showing(0)) < 0
    errors = NaturalErrors()
    with pytest.raises(ModelError, match="expected a suspect with 5 classes"):
        errors.observe(errors.extract(bench.owner, bench.material), stranger)


def test_a_copy_whose_classes_are_renamed_is_recognised(enrolled):
    bench, fp = enrolled
    weights = dict(bench.owner.tensors())
    order = [3, 0, 4, 1, 2]
    turned = bench.owner.rebuilt({"w1": weights["w1"][:, order], "b1": weights["b1"][order]})
    null = Null("unrelated", tuple(SMALL.asked(m, fp.probes) for m in bench.innocents))
    assert SMALL.verify(fp, turned, null, alpha=0.1).outcome == "match"


# --- contract and bad input


@pytest.mark.slow
def test_it_keeps_the_contract():
    check_method(SMALL)


def test_texts_stay_texts():
    tokens = np.random.default_rng(0).integers(0, 30, (80, 16)).astype(np.float32)
    material = Material(tokens, np.zeros(80, int), bounds=(0.0, 63.0), levels=64, content="text")
    probes = SMALL.extract(ToyClassifier.fresh((16, 8, 4)), material).probes.array
    assert set(np.unique(probes)) <= set(range(30))


@pytest.mark.parametrize(
    "wrong", [{"probes": 1}, {"oversample": 0}, {"side": 0.0}, {"side": 1.0}, {"side": float("nan")}]
)
def test_parameters_that_cannot_work_are_refused(wrong):
    with pytest.raises(UsageError, match="expected"):
        SampleCorrelation(**wrong)


def test_too_few_inputs_are_one_sentence():
    same = Material(np.ones((9, 1, 4, 4), np.float32), np.zeros(9, int))
    with pytest.raises(ModelError, match="expected 24 different inputs that the model answers, got 1: give more data"):
        SMALL.extract(ToyClassifier.fresh((16, 5)), same)


def test_probes_are_asked_in_the_box(enrolled):
    bench, fp = enrolled
    assert np.array_equal(bench.material.stored(fp.probes.array), fp.probes.array)
    assert len(np.unique(fp.probes.array, axis=0)) == 24
    assert (numbered(fp.probes.array, {"channel": "array"}).digest) == fp.probes.digest
