"""FIT-Print: bits fixed beforehand, pairs that spell them, and a null that is measured."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from minutia.checks import check_method, toy_bench
from minutia.core.answers import Answers, Observation, Status
from minutia.core.errors import ModelError, UsageError
from minutia.core.fingerprint import Null
from minutia.core.material import Material
from minutia.core.model import ModelCard
from minutia.methods.classifiers.crafting import lead_slope
from minutia.methods.classifiers.fit_print import FitPrint, chosen, spelt
from minutia.models.toy import ToyClassifier

SMALL = FitPrint(bits=20, oversample=8)


@pytest.fixture(scope="module")
def enrolled():
    bench = toy_bench()
    return bench, SMALL.extract(bench.owner, bench.material)


def observed(fp, answers):
    return Observation(ModelCard("suspect", "suspect"), fp.probes.ids, answers, fp.probes.digest)


# --- known answers


def test_bits_are_spelt_by_distance_and_by_labels():
    scores = np.array([[0.9, 0.1], [0.1, 0.9], [0.9, 0.1], [0.8, 0.2], [0.55, 0.45], [0.45, 0.55]])
    assert spelt(Answers.from_scores(scores)).tolist() == [1, 0, 0]
    assert spelt(Answers.from_scores(scores).showing(0)).tolist() == [1, 0, 1]


def test_the_score_is_the_share_of_equal_bits(enrolled):
    bench, fp = enrolled
    answers = bench.innocents[0].ask(fp.probes)
    flipped = (answers.labels[::2] != answers.labels[1::2]).astype(int)
    assert SMALL.score(fp, observed(fp, answers).showing(0)) == np.mean(flipped == fp.arrays["bits"])


def test_the_bits_are_fixed_by_the_seed_before_anything_is_seen(enrolled):
    """The first thing drawn, whoever the owner is and whatever his data are."""
    bench, fp = enrolled
    assert fp.arrays["bits"].tolist() == np.random.default_rng(0).integers(0, 2, 20).tolist()
    other = SMALL.extract(bench.innocents[0], replace(bench.material, controls={}, unrelated=(), derived=()))
    assert other.arrays["bits"].tolist() == fp.arrays["bits"].tolist()
    assert other.probes.digest != fp.probes.digest


def test_the_owner_spells_every_bit_at_every_access(enrolled):
    bench, fp = enrolled
    assert {0, 1} == set(fp.arrays["bits"].tolist())
    for answers in (bench.owner.ask(fp.probes), bench.owner.ask(fp.probes).showing(0)):
        assert spelt(answers).tolist() == fp.arrays["bits"].tolist()


def test_each_bit_gets_the_best_pair_that_spells_it():
    bits, wanted = np.array([1, 0, 1]), np.array([0, 1, 1, 0])
    strays = np.array([[1.0, 0.0, 1.0, 0.0]] * 4)  # innocents do not spell candidates 0 and 2
    rows = chosen(bits, wanted, [(strays, np.empty((0, 4)))], [np.arange(4)])
    assert rows.tolist() == [2, 0, 1]


def test_pairs_on_which_the_same_innocents_stray_add_little():
    """Candidate 1 parts the same innocents as 0 once more, candidate 2 the others, if less often: 2 comes second."""
    far = np.array([[1.0, 1.0, 0.0]] * 2 + [[0.0, 0.0, 0.9]] * 2)
    assert chosen(np.array([1, 1]), np.ones(3, int), [(far, np.empty((0, 3)))], [np.arange(4)]).tolist() == [0, 2]


# --- laws


@given(
    hnp.arrays(float, (5, 4), elements=st.integers(-20, 20).map(lambda i: i / 4)),
    st.lists(st.booleans(), min_size=5, max_size=5),
    st.integers(0, 99),
)
def test_the_slope_points_uphill_until_the_lead_is_there(logits, into, seed):
    """A small step against the slope brings the lead nearer to what is wanted; there is none once it is there."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 4, 5)
    logits = logits + rng.normal(0, 1e-3, logits.shape)
    slope = lead_slope(logits, label, np.array(into), np.full(5, 0.5))

    def lead(z):
        others = z.copy()
        others[np.arange(5), label] = -np.inf
        return np.where(into, 1, -1) * (z[np.arange(5), label] - others.max(axis=1))

    going = lead(logits) < 0.5
    assert (slope.any(axis=1) == going).all()
    assert (lead(logits - 1e-5 * slope)[going] > lead(logits)[going]).all()


@pytest.mark.parametrize("most", [0, 5])
def test_renaming_the_classes_changes_nothing(enrolled, most):
    bench, fp = enrolled
    for number, model in enumerate(bench.innocents):
        answers = model.ask(fp.probes)
        renamed = Answers.from_scores(answers.scores[:, np.random.default_rng(number).permutation(5)])
        one, other = (SMALL.score(fp, observed(fp, a).showing(most)) for a in (answers, renamed))
        assert one == other


def test_a_refused_answer_spoils_its_pair(enrolled):
    bench, fp = enrolled
    answers = bench.owner.ask(fp.probes)
    hidden = answers.status.copy()
    hidden[[1, 2, 3]] = Status.REFUSED
    assert SMALL.score(fp, observed(fp, replace(answers, status=hidden))) == pytest.approx(18 / 20)


def test_innocents_are_no_coins():
    """The same bits, spelt by pairs that go less or more far: innocents miss them, or follow, but do not toss coins.

    So Binomial(bits, 1/2) is wrong on either side, although the bits are fair and secret.
    """
    bench = toy_bench()
    alone = replace(bench.material, unrelated=(), derived=(), controls={})
    means = []
    for method in (FitPrint(bits=40, oversample=2, margin=0.0), FitPrint(bits=40, oversample=2, margin=0.9)):
        fp = method.extract(bench.owner, alone)
        means.append(np.mean([method.score(fp, method.asked(m, fp.probes).showing(0)) for m in bench.innocents]))
    # Of 12 shares of 40 fair and independent bits the mean has deviation 0.5/sqrt(480) = 0.023.
    assert means[0] < 0.5 - 3 * 0.023
    assert means[1] > 0.5 + 3 * 0.023


# --- other label spaces, contract, bad input


def test_a_suspect_with_other_classes_is_judged(enrolled):
    bench, fp = enrolled
    null = Null("unrelated", tuple(SMALL.asked(m, fp.probes) for m in bench.innocents))
    for classes in (2, 9):
        verdict = SMALL.verify(fp, ToyClassifier.fresh((16, 12, classes), 5), null, alpha=0.1)
        assert 0 <= verdict.score <= 1 and verdict.p_value >= 1 / 13


@pytest.mark.slow
def test_it_keeps_the_contract():
    check_method(SMALL)


@pytest.mark.parametrize(
    "wrong",
    [
        {"bits": 1},
        {"oversample": 0},
        {"steps": 0},
        {"margin": -0.1},
        {"margin": float("nan")},
        {"rate": 0.0},
        {"rate": float("inf")},
    ],
)
def test_parameters_that_cannot_work_are_refused(wrong):
    with pytest.raises(UsageError, match="expected"):
        FitPrint(**wrong)


def test_a_model_of_one_answer_spells_no_ones():
    flat = ToyClassifier({"w0": np.zeros((16, 5)), "b0": np.arange(5)})
    inputs = np.random.default_rng(0).random((60, 16), np.float32)
    with pytest.raises(ModelError, match=r"expected \d+ pairs that spell a 1 after storage, got 0: give more data"):
        SMALL.extract(flat, Material(inputs, np.zeros(60, int)))


def test_numbers_of_tokens_are_not_moved():
    tokens = Material(np.zeros((40, 16), np.float32), np.zeros(40, int), bounds=(0, 9), levels=10, content="text")
    with pytest.raises(UsageError, match="expected image or tabular data for fit_print, got text"):
        SMALL.extract(ToyClassifier.fresh((16, 5)), tokens)
