"""The judge of the integrity question: deviations that can be counted on the fingers."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from minutia.core.access import Access
from minutia.core.answers import Answers, Observation, Status
from minutia.core.errors import ProtocolError, UsageError
from minutia.core.fingerprint import Fingerprint, Null
from minutia.core.integrity import FARTHEST, SAFETY, ULPS, Gauge, Reading, identical, outputs, reading_of, tolerances
from minutia.core.method import Enrolment, Method
from minutia.core.model import ModelCard
from minutia.core.probe import numbered
from minutia.core.verdict import FLAGS
from minutia.models.toy_training import softmax

LOGITS = np.array([[2.0, 1.0, 0.0], [0.0, 1.001, 1.0], [0.5, 0.0, 3.0]])
NOISE = 0.01
"""What one benign run adds to every first logit; the tolerance there is four times this."""
RUNS = 99


@dataclasses.dataclass(frozen=True)
class Still(Method):
    """A method that asks whether a model is unchanged, without a search for probes."""

    name = "still"
    question = "integrity"
    h0 = "the suspect is unchanged"
    source = "written by hand"
    owner_needs = Access.SCORES
    suspect_needs = Access.LABELS

    def enrol(self, model, material, rng):
        return Enrolment(PROBES, {})

    def score(self, fp, observation):
        return 0.0


PROBES = numbered(np.zeros((3, 2), np.float32) + np.arange(3, dtype=np.float32)[:, None], {"channel": "array"})


def answers(logits) -> Answers:
    logits = np.asarray(logits, dtype=np.float32)
    return Answers.from_scores(softmax(logits), logits)


def moved(row=0, column=0, by=0.0) -> np.ndarray:
    logits = LOGITS.copy()
    logits[row, column] += by
    return logits


def seen(shown, name="suspect") -> Observation:
    shown = shown if isinstance(shown, Answers) else answers(shown)
    return Observation(ModelCard(name, "owner"), PROBES.ids, shown, PROBES.digest)


def shifted(by) -> np.ndarray:
    return LOGITS + np.array([by, 0.0, 0.0])


def fingerprint(*, runs=RUNS, changes=None) -> Fingerprint:
    """Ninety-nine benign runs, one of which is off by NOISE in the first class; ten changes that all matter."""
    benign = [seen(shifted(NOISE if i == 7 else 0.0), f"run {i}") for i in range(runs - 1)]
    battery = {"one-weight": [moved(0, 0, 1.0)] * 10} if changes is None else changes
    return Fingerprint(
        method=Still().key,
        question="integrity",
        owner=ModelCard("owner", "owner"),
        probes=PROBES,
        answers=answers(LOGITS),
        arrays={},
        controls={
            "owner": (seen(LOGITS, "owner"),),
            "benign": tuple(benign),
            **{kind: tuple(seen(logits, f"{kind} {i}") for i, logits in enumerate(v)) for kind, v in battery.items()},
        },
        reference=(),
        spent=frozenset(),
        schedule=(3,),
        threats=("one-weight", "trojan"),
        binds=("content", "order"),
        seed=0,
    )


def judged(shown, fp=None, **more):
    return Still().judge(
        fp or fingerprint(), shown if isinstance(shown, Observation) else seen(shown), Null.none(), **more
    )


# --- what is compared


def test_the_tolerance_is_four_times_the_largest_benign_deviation_and_never_below_rounding():
    found = tolerances(answers(LOGITS), [answers(shifted(NOISE)), answers(shifted(-NOISE / 2))], Reading("logits"))
    assert found[:, 0] == pytest.approx(SAFETY * NOISE, rel=1e-4)
    scale = np.abs(LOGITS).max(axis=1).astype(np.float32)
    assert found[:, 1] == pytest.approx(ULPS * 2.0**-23 * scale)


def test_a_benign_run_without_a_number_tolerates_everything():
    overflowing = answers(moved(0, 0, np.inf))
    fp = dataclasses.replace(fingerprint(), controls={**fingerprint().controls, "benign": (seen(overflowing),)})
    gauge = Gauge(fp, Reading("logits"))
    assert gauge.deviations(seen(moved(0, 0, np.nan)))[0] == 0
    assert gauge.deviations(seen(moved(1, 0, np.nan)))[1] == FARTHEST


@pytest.mark.parametrize(
    ("shown", "reading"),
    [
        (answers(LOGITS), "logits"),
        (Answers.from_scores(softmax(LOGITS)), "scores"),
        (Answers.from_scores(softmax(LOGITS)).showing(2), "the 2 largest scores"),
        (Answers.from_scores(np.round(softmax(LOGITS), 3)), "scores rounded to 3 decimals"),
        (Answers.from_labels(LOGITS.argmax(axis=1)), "labels"),
    ],
)
def test_the_most_telling_column_that_is_shown_is_read(shown, reading):
    assert str(reading_of(answers(LOGITS), seen(shown))) == reading


@given(hnp.arrays(np.float32, (4, 5), elements=st.floats(-20, 20, width=32)))
def test_logarithms_of_scores_tell_what_logits_tell_up_to_a_shift(logits):
    told = outputs(Answers.from_scores(softmax(logits)), Reading("scores"))
    apart = (told - told[:, :1]) - (logits - logits[:, :1])
    assert np.abs(apart).max() < 1e-3


@given(st.floats(-0.3, 0.3))
def test_a_deviation_is_the_move_in_tolerances(by):
    gauge = Gauge(fingerprint(), Reading("logits"))
    assert gauge.deviations(seen(moved(2, 0, by)))[2] == pytest.approx(abs(by) / (SAFETY * NOISE), abs=1e-3)


def test_another_label_counts_by_the_lead_it_overcame():
    """In the second probe class 1 leads class 2 by 0.001: rounding may undo much less."""
    gauge = Gauge(fingerprint(), Reading("labels"))
    labels = LOGITS.argmax(axis=1)
    flipped = np.array([0, 2, 2])
    found = gauge.deviations(seen(Answers.from_labels(flipped)))
    assert list(np.flatnonzero(flipped != labels)) == [1]
    assert found[[0, 2]].tolist() == [0, 0]
    assert found[1] == pytest.approx(0.001 / (2 * ULPS * 2.0**-23 * 1.001), rel=1e-3)
    assert gauge.deviations(seen(Answers.from_labels(np.array([9, 1, 2]))))[0] == FARTHEST


def test_a_rounded_score_may_lie_half_a_decimal_away():
    """The second probe's scores do not change label; 0.004 off is more than half of 0.001, and less than of 0.01."""
    scores = softmax(LOGITS).astype(float)
    for decimals, outcome in ((2, 0), (3, 1)):
        gauge = Gauge(fingerprint(), Reading("scores", decimals=decimals))
        tolerance = gauge.tolerance[1, 1]
        assert tolerance >= 0.5 * 10.0**-decimals
        off = scores.copy()
        off[1, 1] += tolerance * 1.5
        assert gauge.deviations(seen(Answers.from_scores(np.round(off, decimals + 3))))[1] >= outcome


# --- what is decided


def test_the_owners_own_answers_are_intact():
    verdict = judged(LOGITS)
    assert (verdict.outcome, verdict.exit_code, verdict.score, verdict.p_value) == ("match", 0, 0.0, 1.0)
    assert (verdict.null_kind, verdict.null_size, verdict.p_floor) == ("assumed", RUNS, 1 / (RUNS + 1))
    assert verdict.question == "integrity"
    assert verdict.ruled_out == ("one-weight",)
    assert verdict.untested == ("trojan",)


def test_within_the_tolerance_is_intact_and_beyond_it_is_changed():
    """The largest benign deviation is NOISE, the tolerance SAFETY times that."""
    inside, outside = judged(shifted(SAFETY * NOISE * 0.99)), judged(shifted(SAFETY * NOISE * 1.01))
    assert (inside.outcome, outside.outcome) == ("match", "no-match")
    assert (outside.exit_code, outside.p_value) == (1, 1 / (RUNS + 1))
    # A run as far as the farthest benign one ties with it.
    assert judged(shifted(NOISE)).p_value == pytest.approx(2 / (RUNS + 1))


def test_one_probe_is_enough():
    assert judged(moved(1, 2, 0.5)).outcome == "no-match"


def test_other_classes_are_a_change():
    verdict = judged(np.c_[LOGITS, LOGITS[:, :1]])
    assert verdict.outcome == "no-match"
    assert "over 4 classes" in verdict.reasons[0]


def test_answers_that_are_no_numbers_are_a_change():
    verdict = judged(moved(0, 0, np.nan))
    assert (verdict.outcome, verdict.flags) == ("no-match", ("invalid-answers",))


@pytest.mark.parametrize("status", [Status.REFUSED, Status.TRUNCATED, Status.FAILED])
def test_silence_is_neither_intact_nor_changed(status):
    shown = answers(LOGITS)
    partly = dataclasses.replace(shown, status=np.array([Status.OK, Status.OK, status], np.uint8))
    assert judged(seen(partly)).outcome == "inconclusive"
    assert judged(seen(Answers.without(3, status))).outcome == "inconclusive"
    # What was answered still convicts.
    worse = dataclasses.replace(answers(moved(0, 0, 1.0)), status=partly.status)
    assert judged(seen(worse)).outcome == "no-match"


def test_without_measured_power_nothing_is_intact():
    unseen = {"one-weight": [moved(0, 0, 1.0)] * 8 + [LOGITS] * 2}
    verdict = judged(LOGITS, fingerprint(changes=unseen))
    assert (verdict.outcome, verdict.flags) == ("inconclusive", ("low-power",))
    assert verdict.power == {"one-weight": 0.8}
    assert judged(LOGITS, fingerprint(changes={})).outcome == "inconclusive"


def test_power_is_measured_at_the_access_of_the_suspect():
    """A change of logits that no label tells: intact by logits, undecided by labels."""
    fp = fingerprint(changes={"one-weight": [moved(0, 0, 0.5)] * 10})
    assert judged(LOGITS, fp).outcome == "match"
    by_labels = judged(seen(Answers.from_labels(LOGITS.argmax(axis=1))), fp)
    assert (by_labels.outcome, by_labels.power, by_labels.blind_to) == (
        "inconclusive",
        {"one-weight": 0.0},
        ("one-weight",),
    )


def test_power_is_that_of_the_probes_that_were_answered():
    """The changes show in the first probe; a suspect that loses it on the way cannot be called intact."""
    partly = dataclasses.replace(answers(LOGITS), status=np.array([Status.FAILED, Status.OK, Status.OK], np.uint8))
    assert judged(seen(partly)).power == {"one-weight": 0.0}
    assert judged(seen(LOGITS).only(PROBES.ids[:1])).flags == ("budget-stop",)


def test_too_few_benign_runs_decide_nothing():
    fp = fingerprint(runs=50)
    assert judged(moved(0, 0, 1.0), fp).outcome == "inconclusive"
    assert judged(moved(0, 0, 1.0), fp, alpha=0.05).outcome == "no-match"


@given(st.lists(st.floats(-0.2, 0.2), min_size=3, max_size=3), st.integers(0, 2))
def test_hiding_answers_never_makes_a_changed_model_intact(by, hidden):
    logits = LOGITS + np.array(by)[:, None] * np.array([1.0, 0, 0])
    told = judged(logits)
    status = np.array([Status.OK] * 3, np.uint8)
    status[hidden] = Status.REFUSED
    assert judged(seen(dataclasses.replace(answers(logits), status=status))).outcome in ("inconclusive", told.outcome)


def test_judging_twice_gives_the_same_verdict():
    assert judged(moved(1, 2, 0.5)) == judged(moved(1, 2, 0.5))


def test_identical_files_are_intact_without_a_question():
    verdict = identical(Still(), fingerprint(), ModelCard("a", "a"), alpha=0.01)
    assert (verdict.outcome, verdict.asked, verdict.p_value, verdict.score) == ("match", 0, None, None)


def test_every_flag_is_explained():
    some = [judged(LOGITS, fingerprint(changes={})), judged(moved(0, 0, np.nan), fingerprint(runs=9))]
    assert {flag for verdict in some for flag in verdict.flags} <= set(FLAGS)
    assert {"files-identical", "files-differ", "manifest-differs"} <= set(FLAGS)


# --- what is refused


def test_other_experiments_are_refused():
    fp = fingerprint()
    with pytest.raises(ProtocolError, match="expected an observation of probes"):
        judged(dataclasses.replace(seen(LOGITS), protocol="sha256:0"), fp)
    with pytest.raises(ProtocolError, match="first probes in their stored order"):
        judged(seen(LOGITS).only(PROBES.ids[::-1]), fp)
    with pytest.raises(ProtocolError, match="for the question 'integrity'"):
        judged(LOGITS, dataclasses.replace(fp, question="origin"))
    with pytest.raises(UsageError, match="alpha between 0 and 1"):
        judged(LOGITS, fp, alpha=0.0)
    with pytest.raises(UsageError, match="gives scores"):
        tolerances(Answers.from_labels(np.array([0])), [], Reading("labels"))
