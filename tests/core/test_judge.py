"""The judge: verdicts that can be counted on the fingers."""

import dataclasses

import numpy as np
import pytest

from handmade import (
    CLASSES,
    EVERY_KIND,
    Scripted,
    Share,
    fingerprint,
    judged,
    labels_with,
    matching,
    null,
    own_labels,
    seen,
)
from minutia.core.answers import Answers, Observation, Status
from minutia.core.errors import BudgetError, ModelError, NullError, ProtocolError, UsageError
from minutia.core.fingerprint import Null
from minutia.core.model import ModelCard
from minutia.core.verdict import EXIT_CODES, FLAGS

N = 12
INNOCENT = [0, 1, 2, 3, 1, 2, 3, 1, 2]
"""Nine innocents who match at most 3 of 12 probes: the smallest p is 1/10."""
ALL_KINDS = {kind: [9] * 9 for kind in EVERY_KIND}
"""Nine stored copies of every kind that match 9 of 12 probes."""


# --- p-values


@pytest.mark.parametrize(
    ("hits", "p"),
    [(12, 0.1), (4, 0.1), (3, 0.3), (2, 0.6), (1, 0.9), (0, 1.0)],
)
def test_p_counts_innocents_that_score_as_high(hits, p):
    """Of nine innocents 2, 5, 8 and 9 match at least 3, 2, 1 and 0 probes: ties count against the accuser."""
    verdict = judged(fingerprint(), matching(fingerprint(), "suspect", hits), null(fingerprint(), INNOCENT))
    assert verdict.p_value == pytest.approx(p)
    assert (verdict.p_floor, verdict.null_size, verdict.null_kind) == (0.1, 9, "rank")
    assert verdict.score == pytest.approx(hits / N)


@pytest.mark.parametrize("m", [1, 4, 9, 19, 99])
def test_the_floor_is_one_of_m_plus_one(m):
    fp = fingerprint()
    verdict = judged(fp, matching(fp, "suspect", N), null(fp, [1] * m), alpha=0.5)
    assert verdict.p_floor == verdict.p_value == 1 / (m + 1)


def test_models_of_one_root_count_once_and_the_highest_of_them_counts():
    fp = fingerprint()
    family = [matching(fp, f"child {i}", hits, root="parent") for i, hits in enumerate([1, 8, 2])]
    of = Null("unrelated", (*family, matching(fp, "stranger", 0)))
    assert of.m == 2
    assert judged(fp, matching(fp, "suspect", 7), of).p_value == pytest.approx(2 / 3)
    assert judged(fp, matching(fp, "suspect", 9), of).p_value == pytest.approx(1 / 3)


def test_the_path_test_counts_the_highest_look_of_every_innocent():
    """Looks after 6 and 12; both scales are those of the spent models, who match one of six throughout."""
    spent = [{0, 6}, {1, 7}, {2, 8}]
    fp = fingerprint(looks=(6, 12), spent=spent)
    early, late = set(range(5)), set(range(6, 12))
    of = null(fp, [early, late, {0}, {1}])
    suspect = matching(fp, "suspect", range(6))
    first = judged(fp, suspect.only(fp.probes.ids[:6]), of, alpha=0.2)
    # Six of six exceeds five of six at the first look; it must also exceed six of twelve at the second.
    assert first.p_value == pytest.approx(0.2)
    assert (first.look, first.asked, len(first.path)) == (6, 6, 1)
    both = judged(fp, suspect, of, alpha=0.2)
    assert both.p_value <= first.p_value
    assert both.path == ((6, 1.0), (12, 0.5))


# --- outcomes


def test_a_match_needs_no_controls_and_exits_with_0():
    fp = fingerprint(threats=("prune",))
    verdict = judged(fp, matching(fp, "suspect", 11), null(fp, INNOCENT))
    assert (verdict.outcome, verdict.exit_code, verdict.ruled_out) == ("match", 0, ())
    assert verdict.flags == ("no-controls",)
    assert verdict.untested == ("prune",)
    assert "probability at most 0.1" in verdict.reasons[0]


def test_no_match_needs_every_kind_ruled_out():
    fp = fingerprint(controls=ALL_KINDS)
    verdict = judged(fp, matching(fp, "suspect", 2), null(fp, INNOCENT))
    assert (verdict.outcome, verdict.exit_code) == ("no-match", 1)
    assert verdict.ruled_out == EVERY_KIND
    assert not (verdict.untested or verdict.blind_to or verdict.flags)
    assert verdict.power == dict.fromkeys(EVERY_KIND, 1.0)


@pytest.mark.parametrize("left_out", EVERY_KIND)
def test_one_untested_kind_makes_it_inconclusive(left_out):
    fp = fingerprint(controls={k: v for k, v in ALL_KINDS.items() if k != left_out})
    verdict = judged(fp, matching(fp, "suspect", 2), null(fp, INNOCENT))
    assert (verdict.outcome, verdict.exit_code, verdict.untested) == ("inconclusive", 3, (left_out,))
    assert left_out not in verdict.ruled_out


def test_without_declared_threats_nobody_is_innocent():
    fp = fingerprint(controls=ALL_KINDS, threats=())
    verdict = judged(fp, matching(fp, "suspect", 2), null(fp, INNOCENT))
    assert verdict.outcome == "inconclusive"


@pytest.mark.parametrize(("copies", "ruled_out"), [(8, False), (9, True), (20, True)])
def test_ruling_out_needs_nine_copies(copies, ruled_out):
    """Below all stored copies of a kind, p_kind is 1/(copies + 1)."""
    fp = fingerprint(controls={"prune": [9] * copies}, threats=("prune",))
    verdict = judged(fp, matching(fp, "suspect", 2), null(fp, INNOCENT))
    assert (verdict.outcome == "no-match", verdict.ruled_out) == (ruled_out, ("prune",) * ruled_out)


@pytest.mark.parametrize(
    ("copies", "lower", "ruled_out"), [(19, 0, True), (19, 1, True), (19, 2, False), (18, 1, False)]
)
def test_a_copy_that_scores_as_low_counts_against_ruling_out(copies, lower, ruled_out):
    """With 19 copies one may score as low as the suspect: (1 + 1)/20 = 0.1; with 18 it is 2/19."""
    fp = fingerprint(controls={"prune": [3] * lower + [9] * (copies - lower)}, threats=("prune",))
    verdict = judged(fp, matching(fp, "suspect", 3), null(fp, INNOCENT))
    assert bool(verdict.ruled_out) == ruled_out


@pytest.mark.parametrize(("convicted", "blind"), [(0, True), (4, True), (5, False), (10, False)])
def test_a_kind_that_is_mostly_missed_is_never_ruled_out(convicted, blind):
    """Copies that match 3 of 12 are not convicted themselves; the suspect scores below all copies."""
    fp = fingerprint(controls={"distil": [9] * convicted + [3] * (10 - convicted)}, threats=("distil",))
    verdict = judged(fp, matching(fp, "suspect", 0), null(fp, INNOCENT))
    assert verdict.blind_to == (("distil",) if blind else ())
    assert verdict.power == {"distil": convicted / 10}
    assert verdict.outcome == ("inconclusive" if blind else "no-match")


def test_a_suspect_that_is_convicted_rules_nothing_out():
    fp = fingerprint(controls=ALL_KINDS)
    verdict = judged(fp, matching(fp, "suspect", 8), null(fp, INNOCENT))
    assert (verdict.outcome, verdict.ruled_out) == ("match", ())


# --- flags that forbid a decision


def test_without_a_null_nothing_is_decided():
    fp = fingerprint(controls=ALL_KINDS)
    verdict = judged(fp, matching(fp, "suspect", N), Null.none(), alpha=0.01)
    assert (verdict.outcome, verdict.p_value, verdict.p_floor) == ("inconclusive", None, None)
    assert verdict.score == 1.0 and verdict.ruled_out == ()
    assert "null-missing" in verdict.flags
    assert "99 unrelated models are needed" in verdict.reasons[0]


@pytest.mark.parametrize(("alpha", "m", "needed"), [(0.01, 98, 99), (0.05, 18, 19), (0.1, 8, 9), (0.003, 99, 333)])
def test_a_null_too_small_says_how_many_are_needed(alpha, m, needed):
    fp = fingerprint()
    verdict = judged(fp, matching(fp, "suspect", N), null(fp, [1] * m), alpha=alpha)
    assert (verdict.outcome, verdict.exit_code) == ("inconclusive", 3)
    assert "null-too-small" in verdict.flags
    assert f"{needed} are needed" in verdict.reasons[0]
    assert "positive-control-failed" not in verdict.flags, "the owner is measured at the level that this null allows"
    enough = judged(fp, matching(fp, "suspect", N), null(fp, [1] * needed), alpha=alpha)
    assert enough.outcome == "match"


@pytest.mark.parametrize("again", [3, 2, 0])
def test_no_verdict_where_the_owner_is_not_recognised(again):
    fp = fingerprint(owner_again=again, controls=ALL_KINDS)
    for hits in (0, N):
        verdict = judged(fp, matching(fp, "suspect", hits), null(fp, INNOCENT))
        assert verdict.outcome == "inconclusive"
        assert "positive-control-failed" in verdict.flags
        assert verdict.ruled_out == ()


@pytest.mark.parametrize(("hits", "outcome"), [(4, "inconclusive"), (6, "inconclusive"), (7, "match"), (12, "match")])
def test_unlike_the_null_is_not_yet_like_the_owner(hits, outcome):
    """Halfway between the null's mean (1.67 of 12) and the owner (12 of 12) lie 6.8 matches."""
    fp = fingerprint(controls=ALL_KINDS)
    verdict = judged(fp, matching(fp, "suspect", hits), null(fp, INNOCENT))
    assert verdict.p_value == pytest.approx(0.1)
    assert verdict.outcome == outcome and verdict.ruled_out == ()
    assert ("weak-resemblance" in verdict.flags) == (outcome != "match")


def test_the_flags_that_forbid_and_warn_are_explained():
    for name, flag in FLAGS.items():
        assert name == name.lower() and all(len(text) > 10 for text in flag)
    assert EXIT_CODES == {"match": 0, "no-match": 1, "inconclusive": 3}


@pytest.mark.parametrize(
    ("flag", "of", "suspect"),
    [
        ("null-easier-rung", {"rung": "other architecture, same data"}, "suspect"),
        ("suspect-is-calibrator", {}, "null 3"),
        ("suspect-is-calibrator", {}, "spent 1"),
    ],
)
def test_what_weakens_the_null_is_said(flag, of, suspect):
    fp = fingerprint()
    assert flag in judged(fp, matching(fp, suspect, 6), null(fp, INNOCENT, **of)).flags


def test_a_fingerprint_without_spent_models_is_flagged():
    fp = fingerprint(spent=())
    verdict = judged(fp, matching(fp, "suspect", N), null(fp, INNOCENT))
    assert "unscreened" in verdict.flags and verdict.outcome == "match"


# --- answers


def status_of(rows, status):
    found = np.zeros(N, np.uint8)
    found[list(rows)] = status
    return found


@pytest.mark.parametrize(
    ("status", "flag"),
    [(Status.REFUSED, "refusals"), (Status.TRUNCATED, "refusals"), (Status.INVALID, "invalid-answers")],
)
def test_hidden_answers_count_as_no_match(status, flag):
    fp = fingerprint(controls=ALL_KINDS)
    hidden = matching(fp, "suspect", N, status=status_of([0, 1, 2], status))
    verdict = judged(fp, hidden, null(fp, INNOCENT))
    assert verdict.score == pytest.approx(9 / 12)
    assert (verdict.answered, verdict.asked) == (9, 12)
    assert flag in verdict.flags


@pytest.mark.parametrize(
    ("rows", "status", "outcome"),
    [
        ([0], Status.REFUSED, "inconclusive"),
        ([0], Status.TRUNCATED, "inconclusive"),
        ([0], Status.INVALID, "no-match"),
        ([0, 1], Status.INVALID, "inconclusive"),
        (range(6), Status.INVALID, "inconclusive"),
    ],
)
def test_silence_is_no_alibi(rows, status, outcome):
    """One refusal is enough to rule nothing out; of invalid answers up to a tenth is forgiven."""
    fp = fingerprint(controls=ALL_KINDS)
    verdict = judged(fp, matching(fp, "suspect", 2, status=status_of(rows, status)), null(fp, INNOCENT))
    assert verdict.outcome == outcome
    assert bool(verdict.ruled_out) == (outcome == "no-match")


def test_one_class_for_everything_is_no_alibi():
    fp = fingerprint(controls=ALL_KINDS)
    verdict = judged(fp, seen(fp, "suspect", np.full(N, 1)), null(fp, INNOCENT))
    assert "constant-answers" in verdict.flags
    assert (verdict.outcome, verdict.ruled_out) == ("inconclusive", ())


def test_one_class_for_everything_is_fine_where_the_owner_does_so_too():
    fp = dataclasses.replace(fingerprint(), answers=Answers.from_labels(np.zeros(N, int)))
    fp = dataclasses.replace(fp, controls={"owner": (seen(fp, "owner", np.zeros(N)),)})
    of = Null("unrelated", tuple(seen(fp, f"null {i}", np.ones(N)) for i in range(9)))
    assert "constant-answers" not in judged(fp, seen(fp, "suspect", np.zeros(N)), of).flags


def test_classes_the_owner_does_not_have_are_flagged():
    fp = fingerprint()
    labels = labels_with(N, 9)
    labels[0] = CLASSES
    verdict = judged(fp, seen(fp, "suspect", labels), null(fp, INNOCENT))
    assert "foreign-labels" in verdict.flags and verdict.outcome == "match"


def test_every_answer_invalid_is_inconclusive():
    fp = fingerprint(controls=ALL_KINDS)
    verdict = judged(fp, seen(fp, "suspect", np.full(N, -1)), null(fp, INNOCENT))
    assert (verdict.outcome, verdict.score, verdict.answered) == ("inconclusive", 0.0, 0)
    assert "invalid-answers" in verdict.flags and verdict.p_value == 1.0


# --- transport


def test_lost_probes_are_left_out_of_the_score_but_gain_nothing():
    """The suspect matches on 3 probes that arrived; the last six, where the innocents match, were lost (or trimmed)."""
    fp = fingerprint()
    lost = range(6, N)
    status = status_of(lost, Status.FAILED)
    suspect = matching(fp, "suspect", {0, 1, 2}, status=status)
    of = null(fp, [{6, 7, 8, 9}] * 9)
    whole = judged(fp, matching(fp, "suspect", {0, 1, 2}), of)
    assert whole.p_value == 1.0
    verdict = judged(fp, suspect, of)
    assert verdict.score == pytest.approx(3 / 6)
    assert verdict.p_value == 1.0, "as if the lost ones had not matched"
    assert "transport-failures" in verdict.flags
    assert (verdict.asked, verdict.answered) == (12, 6)
    copy = judged(fp, matching(fp, "copy", N, status=status), of)
    assert (copy.score, copy.p_value) == (1.0, pytest.approx(0.1)), "six of twelve are more than four"


def test_the_verdict_on_what_arrived_is_that_of_a_fingerprint_without_the_rest():
    """The score is that of a fingerprint without the lost probes; the p-value is its or, if larger, that of misses."""
    rng = np.random.default_rng(5)
    rows = [rng.permutation(N)[: rng.integers(0, 7)] for _ in range(14)]
    fp = fingerprint(spent=rows[:3])
    kept = np.array([0, 2, 3, 5, 6, 7, 9, 11])
    status = status_of(set(range(N)) - set(kept.tolist()), Status.FAILED)
    full = judged(fp, matching(fp, "s", rows[3], status=status), null(fp, rows[4:]))

    def cut(observation):
        probes = fp.probes.take(kept)
        return dataclasses.replace(observation.only(probes.ids), protocol=probes.digest)

    small = dataclasses.replace(
        fp,
        method=Share(len(kept)).key,
        probes=fp.probes.take(kept),
        answers=fp.answers.take(kept),
        controls={k: tuple(map(cut, v)) for k, v in fp.controls.items()},
        reference=tuple(map(cut, fp.reference)),
        schedule=(len(kept),),
    )
    of = null(fp, rows[4:])
    of = dataclasses.replace(of, observations=tuple(map(cut, of.observations)))
    by_hand = judged(small, cut(matching(fp, "s", rows[3])), of)
    missed = judged(fp, matching(fp, "s", sorted(set(rows[3]) & set(kept))), null(fp, rows[4:]))
    assert full.score == pytest.approx(by_hand.score)
    assert full.p_value == max(by_hand.p_value, missed.p_value)


@pytest.mark.parametrize(("lost", "decided"), [(6, True), (7, False)])
def test_more_than_half_lost_is_undecidable(lost, decided):
    fp = fingerprint(controls=ALL_KINDS)
    for hits in (0, N):
        suspect = matching(fp, "suspect", hits, status=status_of(range(lost), Status.FAILED))
        verdict = judged(fp, suspect, null(fp, [0] * 9))
        assert ("too-few-answers" in verdict.flags) != decided
        assert (verdict.outcome == "match") == (decided and hits == N)
        assert not verdict.ruled_out, "who loses questions rules nothing out"


@pytest.mark.parametrize("turn", [0, 1, 2])
def test_renamed_classes_are_no_alibi(turn):
    """A copy that answers in another class order scores nothing, and is not taken for innocent."""
    fp = fingerprint(60, controls={kind: [50] * 9 for kind in EVERY_KIND})
    renamed = (own_labels(60) + turn) % CLASSES
    verdict = judged(fp, seen(fp, "suspect", renamed), null(fp, [10] * 9))
    assert ("permuted-labels" in verdict.flags) == (turn > 0)
    assert verdict.outcome == ("inconclusive" if turn else "match")
    shuffled = np.random.default_rng(0).permutation(own_labels(60))
    innocent = judged(fp, seen(fp, "suspect", shuffled), null(fp, [20] * 9))
    assert "permuted-labels" not in innocent.flags and innocent.outcome == "no-match"


def test_renaming_is_sought_only_where_the_owner_answered():
    fp = fingerprint(60)
    fp = dataclasses.replace(fp, answers=Answers.from_labels(np.where(np.arange(60) < 5, -1, own_labels(60))))
    assert "permuted-labels" in judged(fp, seen(fp, "s", (own_labels(60) + 1) % CLASSES), null(fp, [10] * 9)).flags


@pytest.mark.parametrize(
    ("owner", "unlike"),
    [
        ({"accuracy": 0.9, "confidence": 0.8}, False),
        ({"accuracy": 0.5}, True),
        ({"confidence": 0.2}, True),
        ({"other": 0.0}, False),
        ({}, False),
    ],
)
@pytest.mark.parametrize("rung", ["same data and recipe, other seed", "other architecture, same data"])
def test_a_null_that_was_trained_otherwise_cannot_decide(owner, unlike, rung):
    fp = dataclasses.replace(fingerprint(), owner=ModelCard("owner", "owner", fidelity=owner))
    figures = {"accuracy": 0.9, "confidence": 0.8}
    of = null(fp, INNOCENT, rung=rung)
    measured = [
        dataclasses.replace(o, subject=dataclasses.replace(o.subject, fidelity=figures)) for o in of.observations
    ]
    verdict = judged(fp, matching(fp, "suspect", N), dataclasses.replace(of, observations=tuple(measured)))
    flagged = unlike and rung.startswith("same data")
    assert ("null-unlike-owner" in verdict.flags) == flagged
    assert verdict.outcome == ("inconclusive" if flagged else "match")


def test_nothing_arrived_is_refused():
    fp = fingerprint()
    suspect = matching(fp, "suspect", N, status=status_of(range(N), Status.FAILED))
    with pytest.raises(ProtocolError, match="at least one answer that arrived"):
        judged(fp, suspect, null(fp, INNOCENT))


# --- other experiments


@pytest.mark.parametrize("alpha", [0.0, 1.0, -0.1, 2.0, float("nan")])
def test_alpha_is_a_rate_and_is_refused_before_anybody_is_asked(alpha):
    fp = fingerprint()
    suspect = Scripted(fp.probes.ids, labels_with(N, 3))
    with pytest.raises(UsageError, match="alpha between 0 and 1"):
        judged(fp, matching(fp, "suspect", N), null(fp, INNOCENT), alpha=alpha)
    with pytest.raises(UsageError, match="alpha between 0 and 1"):
        Share(N).verify(fp, suspect, null(fp, INNOCENT), alpha=alpha)
    assert suspect.asked == []


@pytest.mark.parametrize("order", ["reversed", "without the first", "too few"])
def test_an_order_of_asking_of_ones_own_is_refused(order):
    fp = fingerprint(looks=(6, 12))
    ids = {"reversed": fp.probes.ids[::-1], "without the first": fp.probes.ids[1:], "too few": fp.probes.ids[:5]}[order]
    with pytest.raises(ProtocolError, match="in their stored order"):
        judged(fp, matching(fp, "suspect", N).only(ids), null(fp, INNOCENT))


def test_other_probes_are_another_experiment():
    fp, other = fingerprint(), fingerprint(seed=1)
    with pytest.raises(ProtocolError, match="observe the suspect again"):
        judged(fp, matching(other, "suspect", N), null(fp, INNOCENT))
    with pytest.raises(ProtocolError, match="minutia null observe"):
        judged(fp, matching(fp, "suspect", N), null(other, INNOCENT))


def test_another_method_or_parameter_is_refused():
    fp = fingerprint()
    with pytest.raises(ProtocolError, match="judge with its own method"):
        Share(13).judge(fp, matching(fp, "suspect", N), null(fp, INNOCENT))


@pytest.mark.parametrize(("name", "root", "match"), [("a", "spent 0", "spent model"), ("a", "owner", "owner's root")])
def test_spent_models_and_relatives_cannot_calibrate(name, root, match):
    fp = fingerprint()
    of = Null("unrelated", (matching(fp, name, 1, root=root),))
    with pytest.raises(NullError, match=match):
        judged(fp, matching(fp, "suspect", N), of)


def test_two_populations_do_not_join():
    fp = fingerprint()
    one, two = null(fp, [1]), null(fp, [2], rung="other data")
    with pytest.raises(NullError, match="one declared population"):
        one.joined(two)
    assert one.joined(null(fp, [1, 2])).m == 2
    assert one.joined(Null.none()) is one and Null.none().joined(one) is one


# --- asking


def test_asking_stops_at_the_first_conviction():
    fp = fingerprint(40, looks=(6, 12, 40), spent=[{0, 9, 20}, {1, 10, 25}])
    suspect = Scripted(fp.probes.ids, own_labels(40))
    verdict = Share(40).verify(fp, suspect, null(fp, [{1, 7}] * 9), alpha=0.1)
    assert (verdict.outcome, verdict.asked, verdict.look) == ("match", 6, 6)
    assert suspect.asked == list(fp.probes.ids[:6])


def test_nobody_is_asked_twice_and_everybody_in_order():
    fp = fingerprint(40, looks=(6, 12, 40))
    suspect = Scripted(fp.probes.ids, labels_with(40, 3))
    verdict = Share(40).verify(fp, suspect, null(fp, [5] * 9), alpha=0.1)
    assert suspect.asked == list(fp.probes.ids)
    assert [n for n, _ in verdict.path] == [6, 12, 40]


@pytest.mark.parametrize("given", [True, False])
def test_all_is_asked_at_once_without_early_stopping_or_null(given):
    fp = fingerprint(40, looks=(6, 12, 40))
    suspect = Scripted(fp.probes.ids, own_labels(40))
    of = null(fp, [1] * 9) if given else Null.none()
    verdict = Share(40).verify(fp, suspect, of, alpha=0.1, early=not given)
    assert verdict.asked == len(suspect.asked) == 40


@pytest.mark.parametrize(("budget", "asked"), [(6, 6), (11, 6), (12, 12), (39, 12), (40, 40), (500, 40), (0, 40)])
def test_a_budget_ends_at_the_last_look_that_fits(budget, asked):
    fp = fingerprint(40, looks=(6, 12, 40), controls={k: [30] * 9 for k in EVERY_KIND})
    suspect = Scripted(fp.probes.ids, labels_with(40, [0, 3, 5, 20, 21]))
    verdict = Share(40).verify(fp, suspect, null(fp, [[0, 3, 8]] * 9), alpha=0.1, budget=budget)
    assert verdict.asked == len(suspect.asked) == asked
    assert ("budget-stop" in verdict.flags) == (asked < 40 and verdict.outcome == "inconclusive")


def test_a_budget_below_the_first_look_is_refused_before_asking():
    fp = fingerprint(40, looks=(6, 12, 40))
    suspect = Scripted(fp.probes.ids, own_labels(40))
    with pytest.raises(UsageError, match="at least 6 queries"):
        Share(40).verify(fp, suspect, null(fp, [1] * 9), budget=5)
    assert suspect.asked == []


@pytest.mark.parametrize(("allowed", "asked"), [(5, None), (6, 6), (20, 12)])
def test_a_hard_stop_of_the_model_itself_keeps_the_looks_that_were_paid_for(allowed, asked):
    class Metered(Scripted):
        def ask(self, probes):
            if len(self.asked) + len(probes) > allowed:
                raise BudgetError("expected no more")
            return super().ask(probes)

    fp = fingerprint(40, looks=(6, 12, 40))
    suspect = Metered(fp.probes.ids, labels_with(40, 3))
    if asked is None:
        with pytest.raises(BudgetError):
            Share(40).verify(fp, suspect, null(fp, [5] * 9), alpha=0.1)
    else:
        verdict = Share(40).verify(fp, suspect, null(fp, [5] * 9), alpha=0.1)
        assert (verdict.asked, verdict.outcome) == (asked, "inconclusive")
        assert "budget-stop" in verdict.flags


def test_a_suspect_of_other_classes_is_refused():
    fp = dataclasses.replace(fingerprint(), answers=Answers.from_scores(np.eye(CLASSES)[own_labels(N)]))

    class Wider(Scripted):
        def ask(self, probes):
            return Answers.from_scores(np.eye(CLASSES + 2)[own_labels(len(probes))])

    with pytest.raises(ModelError, match="a suspect with 5 classes"):
        Share(N).verify(fp, Wider(fp.probes.ids, own_labels(N)), null(fp, INNOCENT))


def test_a_model_without_the_access_is_refused():
    fp = fingerprint()
    blind = Scripted(fp.probes.ids, own_labels(N))
    blind.access = type(blind.access)(0)
    with pytest.raises(UsageError, match="a model that gives labels for share, got scripted with nothing"):
        Share(N).verify(fp, blind, null(fp, INNOCENT))


def test_answers_and_questions_must_be_as_many():
    fp = fingerprint()
    with pytest.raises(ProtocolError, match="expected 12 answers, got 3"):
        Observation(ModelCard("a", "a"), fp.probes.ids, Answers.from_labels(np.arange(3)), fp.probes.digest)


def test_a_verdict_as_plain_data_has_every_field_of_the_schema():
    fp = fingerprint(controls=ALL_KINDS)
    plain = judged(fp, matching(fp, "suspect", 11), null(fp, INNOCENT)).plain()
    assert plain["schema"] == "minutia.verdict/1"
    named = "outcome question h0 method score p_value p_floor null e_value alpha queries answered ruled_out flags"
    assert {*named.split(), "fingerprint", "observation", "model", "path", "power", "reasons"} <= set(plain)
    assert {"kind", "size", "source"} <= set(plain["null"])
    assert plain["fingerprint"] == fp.digest
