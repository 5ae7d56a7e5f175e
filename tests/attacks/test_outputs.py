"""Query-time defences that change answers: known answers, rates, and the same answer however one asks."""

import pickle
from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from minutia import catalog
from minutia.attacks.outputs import (
    DetectQueries,
    Ensemble,
    FlipLabels,
    LabelsOnly,
    NoiseScores,
    PermuteClasses,
    Refuse,
    ReverseSigmoid,
    RoundScores,
    margins,
)
from minutia.attacks.served import Served, Setup, features
from minutia.checks import ContractError, check_attack, toy_bench
from minutia.core.access import Access
from minutia.core.answers import Answers, Status
from minutia.core.attack import destroyed
from minutia.core.errors import UsageError
from minutia.core.fingerprint import Null
from minutia.core.material import Material
from minutia.core.model import GradientModel, TrainableModel, WeightModel
from minutia.core.probe import ProbeSet, numbered
from minutia.methods.classifiers.ipguard import IPGuard
from minutia.models.metered import Metered
from minutia.models.toy import ToyClassifier

BENCH = toy_bench()
TOY = BENCH.owner
THIEF = replace(BENCH.thief, companion=BENCH.innocents[0])
PROBES = numbered(np.concatenate([BENCH.material.inputs, np.random.default_rng(5).random((60, 1, 4, 4))], axis=0), {})
LINEAR = ToyClassifier({"w0": 3 * np.eye(3), "b0": np.zeros(3)})
"""Three classes whose logits are three times the inputs."""
OUTPUTS = (
    RoundScores(),
    LabelsOnly(),
    NoiseScores(),
    FlipLabels(rate=0.3),
    Refuse(share=0.2),
    DetectQueries(),
    DetectQueries(answer="random"),
    DetectQueries(answer="companion"),
    Ensemble(),
    ReverseSigmoid(),
    PermuteClasses(),
)
DRAWN = ("noise_scores", "flip_labels", "detect_queries(answer='random'")


def rng(seed=0):
    return np.random.default_rng(seed)


def cloud(count, seed, shift=0.0):
    """Points of one Gaussian cloud with labels of three classes."""
    return rng(seed).normal(shift, 1, (count, 3)).astype(np.float32), np.arange(count) % 3


def data(count=1000, seed=0):
    return Material(*cloud(count, seed), bounds=(-9.0, 9.0))


def silent(model):
    """The same model, which names classes and nothing else."""
    return Metered(model, only=Access.LABELS, batch=10**6)


def equal(one, other):
    """Labels to the letter, scores up to the noise of a batch."""
    np.testing.assert_array_equal(one.status, other.status)
    np.testing.assert_array_equal(one.labels, other.labels)
    for mine, its in ((one.scores, other.scores), (one.logits, other.logits)):
        assert (mine is None) == (its is None)
        if mine is not None:
            np.testing.assert_allclose(mine, its, rtol=1e-4, atol=1e-5)


every_attack = pytest.mark.parametrize("attack", OUTPUTS, ids=lambda a: a.key)


# --- laws of all


@every_attack
def test_the_contract_holds(attack):
    check_attack(attack, replace(BENCH, thief=THIEF))
    assert attack.serving and attack.keeps_weights
    assert catalog.attack(attack.key) == attack


@every_attack
def test_an_answer_depends_on_the_probe_alone(attack):
    served = attack.apply(TOY, THIEF, rng())
    whole = served.ask(PROBES)
    turned = rng(1).permutation(len(PROBES))
    equal(served.ask(PROBES.take(turned)), whole.take(turned))
    for part in (*np.array_split(turned, 3), *([row] for row in turned[:21])):
        equal(served.ask(PROBES.take(part)), whole.take(part))
    renamed = ProbeSet(tuple(f"other {i}" for i in PROBES.ids), PROBES.array.astype(float), {"channel": "array"})
    equal(served.ask(renamed), whole)


@every_attack
def test_only_what_is_drawn_changes_with_the_repeat_and_with_the_seed(attack):
    served, again, other = (attack.apply(TOY, THIEF, rng(seed)) for seed in (0, 0, 1))
    first = served.ask(PROBES)
    equal(again.ask(PROBES), first)
    drawn = attack.key.startswith(DRAWN)
    repeated, reseeded = served.ask(replace(PROBES, repeat=1)), other.ask(PROBES)
    assert np.array_equal(repeated.labels, first.labels) != drawn
    if attack.key.startswith(("noise", "flip", "permute")):
        assert not np.array_equal(reseeded.labels, first.labels)


@every_attack
def test_the_weights_stay_and_are_hidden(attack):
    before = {n: w.copy() for n, w in TOY.tensors()}
    served = attack.apply(TOY, THIEF, rng())
    assert not isinstance(served, WeightModel | GradientModel | TrainableModel)
    assert not (Access.WEIGHTS | Access.GRADIENTS | Access.TRAIN) & served.access
    assert served.spec == TOY.spec and served.card.parents == (TOY.card.id,) and served.card.root == TOY.card.root
    assert all(np.array_equal(w, before[n]) for n, w in TOY.tensors())
    assert "weights_changed" not in served.card.fidelity


@every_attack
def test_a_served_model_travels_to_another_process(attack):
    served = attack.apply(TOY, THIEF, rng())
    equal(pickle.loads(pickle.dumps(served)).ask(PROBES), served.ask(PROBES))


@every_attack
def test_where_the_model_had_no_answer_there_is_none(attack):
    shy = Refuse(share=0.5).apply(TOY, THIEF, rng())
    content = PROBES.array.copy()
    content[::5] = np.nan
    probes = replace(PROBES, content=content)
    before = shy.ask(probes)
    assert {Status.OK, Status.REFUSED, Status.INVALID} == set(before.status)
    after = attack.apply(shy, THIEF, rng()).ask(probes)
    gone = before.status != Status.OK
    np.testing.assert_array_equal(after.status[gone], before.status[gone])
    assert (after.labels[gone] == -1).all()
    if after.scores is not None:
        assert np.isfinite(after.scores[after.status == Status.OK]).all()


@every_attack
def test_a_model_of_labels_alone_stays_one_or_is_refused(attack):
    quiet = silent(TOY)
    if Access.SCORES in attack.needs:
        with pytest.raises(UsageError, match=f"scores for {attack.name}"):
            attack.apply(quiet, THIEF, rng())
        return
    served = attack.apply(quiet, THIEF, rng())
    answers = served.ask(PROBES)
    assert served.access == Access.LABELS and answers.scores is None and answers.logits is None
    np.testing.assert_array_equal(answers.labels, attack.apply(TOY, THIEF, rng()).ask(PROBES).labels)


@dataclass(frozen=True)
class Moody(FlipLabels):
    """A server whose answer depends on who else asks.

    Source: written by hand.

    >>> Moody().rate
    0.05
    """

    def serve(self, model, probes, setup):
        answers = model.ask(probes)
        return replace(answers, labels=np.roll(answers.labels, 1), scores=np.roll(answers.scores, 1, axis=0))


def test_a_server_that_looks_at_the_batch_is_found_out():
    with pytest.raises(ContractError, match="must answer in the order of the probes"):
        check_attack(Moody(), replace(BENCH, thief=THIEF))


# --- each by itself


@given(
    hnp.arrays(np.float32, (6, 4), elements=st.floats(0.125, 1, width=32)).map(lambda a: a / a.sum(1, keepdims=True)),
    st.integers(0, 6),
)
def test_rounding_moves_by_half_a_digit_at_most_and_keeps_the_label(scores, digits):
    before = Answers.from_scores(scores)
    after = RoundScores(digits).rounded(before)
    np.testing.assert_array_equal(after.labels, before.labels)
    assert np.abs(after.scores - before.scores).max() <= 0.5 * 10.0**-digits + 1e-6
    np.testing.assert_allclose(after.scores * 10**digits, np.round(after.scores * 10**digits), atol=0.07)
    assert (after.scores[np.arange(6), after.labels] == after.scores.max(axis=1)).all()


def test_a_label_survives_a_tie_that_rounding_makes():
    tied = RoundScores(digits=1).rounded(Answers.from_scores(np.array([[0.32, 0.34, 0.34001]])))
    assert tied.labels.tolist() == [2] and len(set(tied.scores[0].tolist())) == 1


def test_labels_only_leaves_the_labels_as_they_are():
    served = LabelsOnly().apply(TOY, THIEF, rng())
    np.testing.assert_array_equal(served.ask(PROBES).labels, TOY.ask(PROBES).labels)


def test_noise_has_its_strength_and_none_is_none():
    probes = numbered(np.zeros((4000, 3)) + rng().normal(0, 1e-6, (4000, 3)), {})  # three equal scores, nothing is cut
    noisy = NoiseScores(strength=0.01).apply(LINEAR, data(), rng()).ask(probes)
    # x_i / sum(x): noise that is common to the three scores leaves, two thirds of the variance stay.
    assert noisy.scores.std() == pytest.approx(0.01 * np.sqrt(2 / 3), rel=0.03)
    np.testing.assert_allclose(noisy.scores.sum(axis=1), 1, atol=1e-5)
    np.testing.assert_array_equal(noisy.labels, noisy.scores.argmax(axis=1))
    still = NoiseScores(strength=0.0).apply(TOY, THIEF, rng()).ask(PROBES)
    np.testing.assert_allclose(still.scores, TOY.ask(PROBES).scores, atol=1e-6)


@pytest.mark.parametrize("rate", [0.0, 0.05, 0.5, 1.0])
def test_labels_are_flipped_at_the_rate_and_evenly(rate):
    probes = numbered(cloud(6000, 1)[0], {})
    before, after = LINEAR.ask(probes), FlipLabels(rate=rate).apply(LINEAR, data(), rng(3)).ask(probes)
    flipped = before.labels != after.labels
    assert abs(flipped.sum() - 6000 * rate) <= 4 * np.sqrt(6000 * rate * (1 - rate))
    step = (after.labels - before.labels)[flipped] % 3
    assert abs(np.sum(step == 1) - len(step) / 2) <= 4 * np.sqrt(len(step) / 4)
    np.testing.assert_array_equal(after.labels, after.scores.argmax(axis=1))
    np.testing.assert_array_equal(np.sort(after.scores, axis=1), np.sort(before.scores, axis=1))
    np.testing.assert_array_equal(after.labels, after.logits.argmax(axis=1))


def test_what_is_refused_is_the_least_sure_share():
    material, fresh = data(), numbered(cloud(4000, 1)[0], {})
    served = Refuse(share=0.1).apply(LINEAR, material, rng())
    own = served.ask(numbered(material.inputs, {}))
    assert np.sum(own.status == Status.REFUSED) == 100
    before, after = LINEAR.ask(fresh), served.ask(fresh)
    gone = after.status == Status.REFUSED
    assert margins(before)[gone].max() < margins(before)[~gone].min()
    # Two sources of chance: a thousand inputs to measure on, four thousand to ask.
    assert abs(gone.mean() - 0.1) <= 4 * np.sqrt(0.09 / 1000 + 0.09 / 4000)
    assert np.isnan(after.scores[gone]).all() and (after.labels[gone] == -1).all()


def test_the_detector_lets_nature_pass_and_stops_the_rest():
    served = DetectQueries(share=0.1).apply(LINEAR, data(), rng())
    natural, far = (served.ask(numbered(cloud(3000, 1, shift)[0], {})) for shift in (0.0, 30.0))
    stopped = np.mean(natural.status == Status.REFUSED)
    assert abs(stopped - 0.1) <= 4 * np.sqrt(0.09 / 1000 + 0.09 / 3000)
    assert (far.status == Status.REFUSED).all()


def test_detected_probes_get_any_class_and_the_others_the_true_answer():
    probes = numbered(cloud(6000, 1, 30.0)[0], {})
    served = DetectQueries(answer="random").apply(LINEAR, data(), rng())
    answers = served.ask(probes)
    assert np.abs(np.bincount(answers.labels, minlength=3) - 2000).max() <= 4 * np.sqrt(6000 * 2 / 9)
    np.testing.assert_array_equal(answers.labels, answers.scores.argmax(axis=1))
    known = numbered(data().inputs, {})
    np.testing.assert_array_equal(served.ask(known).labels, LINEAR.ask(known).labels)


def test_detected_probes_are_routed_to_the_companion():
    other = ToyClassifier({"w0": -3 * np.eye(3), "b0": np.zeros(3)})
    served = DetectQueries(answer="companion").apply(LINEAR, replace(data(), companion=other), rng())
    near, far = cloud(20, 2)[0] * 0.1, cloud(20, 3, 30.0)[0]
    answers = served.ask(numbered(np.concatenate([near, far]), {}))
    np.testing.assert_array_equal(answers.labels[:20], near.argmax(axis=1))
    np.testing.assert_array_equal(answers.labels[20:], far.argmin(axis=1))
    np.testing.assert_allclose(answers.scores[20:], other.ask(numbered(far, {})).scores, atol=1e-6)


def test_texts_are_compared_by_their_tokens_in_any_order():
    texts = rng().integers(0, 20, (300, 12)).astype(np.float32)
    np.testing.assert_array_equal(features(texts, True), features(texts[:, ::-1], True))
    material = Material(texts, np.arange(300) % 5, bounds=(0.0, 99.0), content="text")
    attack, model = DetectQueries(), ToyClassifier.fresh((12, 5))
    setup = attack.setup(model, material, rng())
    foreign = numbered(rng(1).integers(60, 99, (50, 12)).astype(np.float32), {})
    assert attack.detected(foreign, setup).all()
    assert attack.detected(numbered(texts[:, ::-1].copy(), {}), setup).sum() == 0


def test_an_ensemble_is_the_weighted_mean():
    probes = numbered(cloud(50, 1)[0], {})
    other = ToyClassifier({"w0": -3 * np.eye(3), "b0": np.zeros(3)})
    material = replace(data(), companion=other)
    found = Ensemble(weight=0.75).apply(LINEAR, material, rng()).ask(probes)
    mean = 0.75 * LINEAR.ask(probes).scores + 0.25 * other.ask(probes).scores
    np.testing.assert_allclose(found.scores, mean, atol=1e-6)
    np.testing.assert_array_equal(found.labels, mean.argmax(axis=1))
    alone = Ensemble(weight=1.0).apply(LINEAR, material, rng()).ask(probes)
    np.testing.assert_array_equal(alone.labels, LINEAR.ask(probes).labels)


def test_where_the_companion_is_silent_the_model_answers():
    shy = Refuse(share=0.5).apply(BENCH.innocents[0], THIEF, rng())
    found = Ensemble().apply(TOY, replace(THIEF, companion=shy), rng()).ask(PROBES)
    gone = shy.ask(PROBES).status != Status.OK
    assert gone.any() and (found.status == Status.OK).all()
    np.testing.assert_allclose(found.scores[gone], TOY.ask(PROBES).scores[gone], atol=1e-6)


@given(hnp.arrays(np.float64, (5, 4), elements=st.floats(1e-3, 1)), st.floats(0, 1), st.floats(0, 1))
def test_the_reverse_sigmoid_gives_distributions_and_flattens_them(raw, beta, gamma):
    scores = raw / raw.sum(axis=1, keepdims=True)
    found = ReverseSigmoid(beta=beta, gamma=gamma).deceptive(scores)
    np.testing.assert_allclose(found.sum(axis=1), 1)
    assert (found >= 0).all()
    sure = scores.max(axis=1) > 0.5
    assert (found.max(axis=1)[sure] <= scores.max(axis=1)[sure] + 1e-12).all()


def test_the_reverse_sigmoid_is_that_of_the_paper():
    y = np.array([0.9, 0.1])
    logistic = 1 / (1 + np.exp(-0.3 * np.log(y / (1 - y))))
    moved = y - 0.7 * (logistic - 0.5)
    found = ReverseSigmoid(beta=0.7, gamma=0.3).deceptive(y[None])
    np.testing.assert_allclose(found[0], moved / moved.sum())
    certain = ReverseSigmoid().deceptive(np.array([[1.0, 0.0]]))
    assert np.isfinite(certain).all() and certain[0, 0] > certain[0, 1] > 0.3


def test_classes_get_new_names_everywhere_and_nothing_else():
    before, after = TOY.ask(PROBES), PermuteClasses().apply(TOY, THIEF, rng()).ask(PROBES)
    pairs = set(zip(before.labels.tolist(), after.labels.tolist(), strict=True))
    assert len(pairs) == len(set(before.labels)) == 5 and any(a != b for a, b in pairs)
    for old, new in pairs:
        np.testing.assert_array_equal(after.scores[:, new], before.scores[:, old])
        np.testing.assert_array_equal(after.logits[:, new], before.logits[:, old])


def test_two_classes_are_always_exchanged():
    model = ToyClassifier({"w0": np.eye(2), "b0": np.zeros(2)})
    material = Material(np.eye(2, dtype=np.float32), np.arange(2))
    for seed in range(6):
        served = PermuteClasses().apply(model, material, rng(seed))
        assert served.ask(numbered(material.inputs, {})).labels.tolist() == [1, 0]


def test_a_renamed_copy_is_not_called_destroyed_and_the_judge_notices():
    tried = replace(THIEF, held_out=BENCH.material.held_out)
    served = PermuteClasses().apply(TOY, tried, rng())
    assert "accuracy" not in served.card.fidelity and not destroyed(served.card.fidelity)
    chained = catalog.attack("noise+permute_classes").apply(TOY, tried, rng())
    assert "accuracy" not in chained.card.fidelity and chained.card.fidelity["answered"] == 1.0
    method = IPGuard(probes=60)
    fp = method.extract(TOY, BENCH.material)
    null = Null("unrelated", tuple(method.observe(fp, m) for m in BENCH.innocents))
    verdict = method.verify(fp, served, null, alpha=0.1)
    assert verdict.outcome == "match" and "classes-renamed" in verdict.flags


# --- chains and refusals


def test_labels_with_random_flips_as_a_chain():
    attack = catalog.attack("labels_only+flip_labels(rate=0.2)")
    served = attack.apply(TOY, replace(THIEF, held_out=BENCH.material.held_out), rng())
    answers = served.ask(PROBES)
    assert attack.serving and isinstance(served, Served) and served.access == Access.LABELS and answers.scores is None
    assert 0.1 < np.mean(answers.labels != TOY.ask(PROBES).labels) < 0.3
    assert served.card.parents == (TOY.card.id,) and served.card.recipe == attack.key
    assert 0.6 < served.card.fidelity["agreement"] < 1


def test_seeds_are_drawn_only_where_they_are_used():
    for attack in OUTPUTS:
        draw = rng()
        before = str(draw.bit_generator.state)
        attack.apply(TOY, THIEF, draw)
        used = str(draw.bit_generator.state) != before
        assert used == attack.key.startswith(("noise", "flip", "detect", "permute")), attack.key


def test_generators_know_no_batch():
    probes = numbered(np.eye(4), {})
    alone = [Setup(7).generators(probes.take([i]))[0].random() for i in range(4)]
    assert [g.random() for g in Setup(7).generators(probes)] == alone
    assert len({*alone, *(g.random() for g in Setup(8).generators(probes))}) == 8


@pytest.mark.parametrize(
    "key",
    [
        "round_scores(digits=-1)",
        "round_scores(digits=7)",
        "noise_scores(strength=-1)",
        "noise_scores(strength=nan)",
        "flip_labels(rate=1.5)",
        "refuse(share=1.0)",
        "detect_queries(answer=ignore)",
        "detect_queries(references=1)",
        "detect_queries(share=-0.1)",
        "ensemble(weight=2)",
        "reverse_sigmoid(beta=-1)",
        "reverse_sigmoid(gamma=inf)",
    ],
)
def test_parameters_that_cannot_work_are_refused(key):
    with pytest.raises(UsageError, match="expected"):
        catalog.attack(key)


@pytest.mark.parametrize("attack", [Ensemble(), DetectQueries(answer="companion")], ids=lambda a: a.name)
def test_a_companion_must_be_there_and_fit(attack):
    for other, why in (
        (None, "got none"),
        (ToyClassifier.fresh((16, 4)), "of 5 classes"),
        (silent(BENCH.innocents[0]), "that gives labels, scores"),
    ):
        with pytest.raises(UsageError, match=why):
            attack.apply(TOY, replace(THIEF, companion=other), rng())


@pytest.mark.parametrize("attack", [Refuse(), DetectQueries()], ids=lambda a: a.name)
def test_a_thief_without_data_cannot_measure(attack):
    with pytest.raises(UsageError, match="give the thief data"):
        attack.apply(TOY, Material(THIEF.inputs[:0], THIEF.labels[:0]), rng())


def test_classes_are_counted_from_scores_or_labels_or_not_at_all():
    with pytest.raises(UsageError, match="give labelled data"):
        FlipLabels().apply(silent(TOY), Material(THIEF.inputs[:0], THIEF.labels[:0]), rng())
