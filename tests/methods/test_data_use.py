"""Data use: exact p-values by hand and by simulation, pairs and views, the positive control, honest words."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from minutia.core.answers import Answers, Observation
from minutia.core.errors import UsageError
from minutia.core.fingerprint import Null
from minutia.core.material import Material
from minutia.core.model import ModelCard, Plan
from minutia.core.portfolio import Portfolio
from minutia.methods.classifiers.data_use import FLIPS, DataUse, swapped_p
from minutia.methods.classifiers.natural_errors import NaturalErrors
from minutia.models.toy import ToyClassifier
from minutia.report import words

METHOD = DataUse(pairs=60)


def drawn(seed, count=60, noisy=True):
    """Points of four classes that hardly differ, split by chance: a large network learns its own by heart."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, 2 * count)
    inputs = (rng.random((2 * count, 12)) if noisy else np.eye(4)[labels][:, [0, 1, 2, 3] * 3]).astype(np.float32)
    order = rng.permutation(2 * count)
    here, there = order[:count], order[count:]
    return Material(inputs[here], labels[here], held_out=(inputs[there], labels[there]))


def trained(inputs, labels, seed, epochs=150):
    plan = Plan(epochs, batch_size=16, learning_rate=1e-2, reset="everything")
    return ToyClassifier.fresh((12, 64, 4)).trained(inputs, labels, plan, seed)


@pytest.fixture(scope="module")
def learnt():
    """A model that learnt its inputs by heart, with its fingerprint."""
    material = drawn(0)
    owner = trained(material.inputs, material.labels, 0)
    return material, owner, METHOD.extract(owner, material, seed=3, threats=())


def judged(fp, model, alpha=0.01, method=METHOD, shows=99):
    return method.judge(fp, method.asked(model, fp.probes).showing(shows), Null.none(), alpha=alpha)


def told(fp, scores):
    return Observation(ModelCard("s", "s"), fp.probes.ids, Answers.from_scores(scores), fp.probes.digest)


# --- the p-value


@given(arrays(float, st.integers(1, 7), elements=st.floats(-5, 5).map(lambda x: round(x, 3))))
def test_p_is_the_share_of_relabellings_within_sampling(gaps):
    """All 2^n relabellings by brute force."""
    signs = np.array(list(product((1, -1), repeat=len(gaps))))
    exact = np.mean(signs @ gaps >= gaps.sum() - 1e-9)
    assert abs(swapped_p(gaps) - exact) <= 5 * np.sqrt(0.25 / FLIPS) + 1e-4


def test_p_of_extremes():
    assert swapped_p(np.ones(60)) == 1 / (1 + FLIPS)
    assert swapped_p(-np.ones(60)) == 1.0
    assert swapped_p(np.empty(0)) == swapped_p(np.zeros(9)) == 1.0


@given(arrays(float, 12, elements=st.floats(-3, 3)), st.integers(0, 11), st.floats(0, 3))
def test_a_smaller_gap_is_never_more_evidence(gaps, at, less):
    smaller = gaps.copy()
    smaller[at] -= less
    assert swapped_p(smaller) >= swapped_p(gaps)


def test_looks_share_alpha(learnt):
    *_, fp = learnt
    looks = np.array(fp.schedule)
    shares = looks**2 / np.sum(looks.astype(float) ** 2)
    path = np.full(len(looks), 2.0)
    found = METHOD.exact(fp, path, looks)
    assert found.kind == "exact" and found.p == pytest.approx(min(1, 0.01 / shares[-1]))
    early = METHOD.exact(fp, path[:2], looks[:2])
    assert early.p == pytest.approx(min(1, 0.01 / shares[1])) and early.p > found.p
    assert shares.sum() == pytest.approx(1)
    best = METHOD.exact(fp, np.full(len(looks), np.log10(1 + FLIPS)), looks)
    assert best.p == best.floor == pytest.approx(1 / (1 + FLIPS) / shares[-1])


def test_p_is_valid_for_a_fixed_suspect_when_only_the_split_is_drawn_again():
    """E1: one suspect that used none of the points; 150 splits, and the smallest p over all looks."""
    right = np.random.default_rng(5).random(80)
    ps = []
    for seed in range(150):
        order = np.random.default_rng(seed).permutation(80)
        gaps = right[order[:40]] - right[order[40:]]
        looks = np.array([10, 20, 40])
        shares = looks**2 / np.sum(looks**2)
        ps.append(min(1.0, min(swapped_p(gaps[:n]) / share for n, share in zip(looks, shares, strict=True))))
    for alpha in (0.1, 0.05, 0.01):
        # 4 standard deviations of the share of 150.
        assert np.mean(np.array(ps) <= alpha) <= alpha + 4 * np.sqrt(alpha * (1 - alpha) / 150)


@pytest.mark.slow
@pytest.mark.parametrize("shows", [0, 99])
def test_false_alarms_over_redrawn_splits_of_a_model_that_saw_neither_side(shows):
    """The whole method: the owner draws his split anew, the suspect stays; levels hold at .1, .05 and .01."""
    rng = np.random.default_rng(7)
    inputs, labels = rng.random((120, 12)).astype(np.float32), rng.integers(0, 4, 120)
    suspect = trained(rng.random((60, 12)).astype(np.float32), rng.integers(0, 4, 60), 1)
    ps = []
    for seed in range(1000):
        order = np.random.default_rng(seed).permutation(120)
        here, there = order[:60], order[60:]
        material = Material(inputs[here], labels[here], held_out=(inputs[there], labels[there]))
        fp = METHOD.extract(suspect, material, seed=seed)
        ps.append(judged(fp, suspect, shows=shows).p_value)
    for alpha in (0.1, 0.05, 0.01):
        assert np.mean(np.array(ps) <= alpha) <= alpha + 4 * np.sqrt(alpha * (1 - alpha) / 1000)


# --- what is asked


def test_pairs_hold_one_training_and_one_held_out_input_of_a_class():
    material = drawn(1, 40)
    fp = DataUse(pairs=20, views=3).extract(ToyClassifier.fresh((12, 4)), material, seed=2)
    points = fp.probes.array.reshape(-1, 2, 3, 12)
    mine = {x.tobytes(): y for x, y in zip(material.inputs, material.labels, strict=True)}
    others = {x.tobytes(): y for x, y in zip(*material.held_out, strict=True)}
    truth = fp.arrays["truth"].reshape(-1, 6)
    for pair, labels in zip(points, truth, strict=True):
        assert mine[pair[0, 0].tobytes()] == others[pair[1, 0].tobytes()] == labels[0] and len(set(labels)) == 1
    assert len({p[0, 0].tobytes() for p in points}) == len({p[1, 0].tobytes() for p in points}) == len(points)
    # Each further view has more noise.
    moved = np.abs(points - points[:, :, :1]).mean(axis=(0, 1, 3))
    assert moved[0] == 0 < moved[1] < moved[2]


def test_the_owners_model_takes_no_part_in_choosing():
    """Probes that followed the owner's boundary would know who is in, and the test would not be exact."""
    material = drawn(1, 40)
    sets = [METHOD.extract(ToyClassifier.fresh((12, 4), seed=s), material, seed=2).probes.digest for s in (1, 2)]
    assert sets[0] == sets[1]


# --- verdicts


@pytest.mark.parametrize("shows", [0, 1, 99])
def test_the_owner_is_detected_and_so_is_an_honest_model_of_the_same_data(learnt, shows):
    """Not ownership: the second model never saw the first."""
    material, owner, fp = learnt
    honest = trained(material.inputs, material.labels, 9)
    for model in (owner, honest):
        found = judged(fp, model, shows=shows)
        assert found.outcome == "match" and found.p_value <= 0.01 and found.null_kind == "exact"


@pytest.mark.parametrize("shows", [0, 1, 99])
def test_models_of_other_data_are_not_accused(learnt, shows):
    *_, fp = learnt
    found = [judged(fp, trained(m.inputs, m.labels, s), shows=shows) for s in (1, 2, 3) for m in [drawn(50 + s)]]
    assert [v.outcome for v in found] == ["inconclusive"] * 3
    assert min(v.p_value for v in found) > 0.01


def test_without_a_positive_control_there_is_no_verdict():
    """An owner who generalises leaves no trace of what he trained on, so not even a firing suspect is accused."""
    material = drawn(2, noisy=False)
    owner = trained(material.inputs, material.labels, 0, epochs=5)
    fp = METHOD.extract(owner, material)
    own = judged(fp, owner)
    assert own.outcome == "inconclusive" and "positive-control-failed" in own.flags
    member = np.arange(len(fp.probes)) % 2 == 0
    right = np.eye(4)[fp.arrays["truth"]]
    firing = METHOD.judge(fp, told(fp, np.where(member[:, None], right, right[:, ::-1])), Null.none(), alpha=0.01)
    assert firing.p_value <= 0.01 and firing.outcome == "inconclusive"


def test_a_match_never_reads_as_derived(learnt):
    _, owner, fp = learnt
    found = judged(fp, owner)
    assert found.question == fp.question == "data-use"
    assert found.h0 == "the suspect was trained without my training inputs"
    assert words.outcome(found) == "data used"
    text = f"{words.outcome(found)} {words.sentence(found)} {words.QUESTIONS['data-use']} {found.h0}"
    assert all(word not in text for word in ("made from", "derived", "stolen", "copy", "independent model"))


def test_not_used_is_never_claimed(learnt):
    """Copies that score higher are no sign that data was not used."""
    material, owner, _ = learnt
    controls = {"same": [owner.rebuilt({"b1": np.full(4, i, np.float32)}) for i in range(10)]}
    fp = METHOD.extract(owner, replace(material, controls=controls), threats=("same",))
    other = drawn(77)
    found = judged(fp, trained(other.inputs, other.labels, 4))
    assert found.outcome == "inconclusive" and found.ruled_out == ()


def test_it_is_no_member_of_a_portfolio():
    with pytest.raises(UsageError, match="for the question 'origin'"):
        Portfolio((NaturalErrors(), METHOD))


# --- what is missing


def test_whole_pairs_count_and_nothing_else(learnt):
    _, owner, fp = learnt
    seen = METHOD.asked(owner, fp.probes)
    ids = fp.probes.ids
    assert METHOD.score(fp, seen.only(ids[:7])) == METHOD.score(fp, seen.only(ids[:6]))
    assert METHOD.score(fp, seen.only(ids[:1])) == 0
    without = [i for i in ids if i != ids[2]]
    assert METHOD.score(fp, seen.only(without)) == METHOD.score(fp, seen.only([i for i in without if i != ids[3]]))


@given(st.sets(st.integers(0, 39)), st.sampled_from([0, 99]), st.sampled_from([1, 3, 4]))
def test_refusing_is_no_evidence_of_use(learnt, rows, shows, status):
    _, owner, fp = learnt
    seen = METHOD.asked(owner, fp.probes).showing(shows)
    now = seen.answers.status.copy()
    now[sorted(rows)] = status
    silent = replace(seen, answers=replace(seen.answers, status=now))
    assert METHOD.score(fp, silent) <= METHOD.score(fp, seen) + 1e-12


# --- bad input


def test_held_out_inputs_of_the_same_classes_are_needed():
    material = drawn(1, 40)
    model = ToyClassifier.fresh((12, 4))
    with pytest.raises(UsageError, match="expected held-out inputs"):
        METHOD.extract(model, replace(material, held_out=None))
    with pytest.raises(UsageError, match="8 or more pairs of a training and a held-out input of one class, got 0"):
        METHOD.extract(model, replace(material, held_out=(material.held_out[0], material.held_out[1] + 9)))


@pytest.mark.parametrize("wrong", [{"pairs": 7}, {"views": 0}, {"views": 21}])
def test_parameters_that_make_no_sense_are_one_sentence(wrong):
    with pytest.raises(UsageError, match="8 or more pairs and 1 to 20 views"):
        DataUse(**wrong)
