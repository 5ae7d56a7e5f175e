"""The sealed part: from an observation and a null to a verdict, decided once for every method."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from minutia.core.answers import Observation, Status
from minutia.core.digest import Array
from minutia.core.errors import ProtocolError, UsageError
from minutia.core.fingerprint import HARDEST_RUNG, Fingerprint, Null
from minutia.core.model import ModelCard
from minutia.core.verdict import Member, Outcome, Verdict
from minutia.core.yardstick import Column, Yardstick, powers, rejects, yardstick
from minutia.stats.nulls import Significance, calibrators_needed, rank_p
from minutia.stats.relabelling import best_relabelling

if TYPE_CHECKING:
    from minutia.core.method import Method

RULED_OUT_AT = 0.1
"""Level at which one kind of copy is ruled out; with 9 stored copies the suspect must score below all of them."""
BLIND_BELOW = 0.5
"""A kind of which fewer stored copies than this share are convicted is one the fingerprint is blind to."""
ANSWERED_AT_LEAST = 0.9
"""Share of real answers below which silence is not innocence: nothing is ruled out."""
LOST_AT_MOST = 0.5
"""Share of questions lost in transport above which nothing is decided."""
OWNER_WITHIN = {"accuracy": 0.02, "confidence": 0.05}
"""How far at least the owner's held-out accuracy and mean confidence may lie outside the range of a null of his own
recipe; where the null itself ranges wider, as far again as it ranges."""
RENAMED_AT_LEAST = 0.6
"""Share of equal labels under the best renaming above which another class order is suspected."""
RENAMED = "classes renamed by anchors"
"""Note on an observation whose classes were put into the owner's order."""
LABELS_TO_COMPARE = 50
"""Answers needed before a renaming of classes can be told from luck."""
WITHOUT_MODELS = ("exact", "assumed")
"""Kinds of null that need no unrelated models."""
UNDECIDABLE = frozenset(
    {"null-missing", "null-too-small", "null-unlike-owner", "positive-control-failed", "too-few-answers"}
)
"""Flags under which the verdict is inconclusive, whatever the score."""
HIDING = frozenset(
    {
        "constant-answers",
        "null-missing",
        "permuted-labels",
        "positive-control-failed",
        "refusals",
        "too-few-answers",
        "transport-failures",
    }
)
"""Flags under which a low score is no sign of innocence."""


def judge(method: "Method", fp: Fingerprint, observation: Observation, null: Null, *, alpha: float) -> Verdict:
    """Decide on one observation; see ``Method.judge``."""
    _check(method, fp, observation, alpha)
    lost = frozenset(observation.asked) - frozenset(observation.transported)
    stick = yardstick_for(method, fp, null, observation, lost)
    path = stick.path(observation)
    significance = _careful(method, fp, null, stick, observation)
    power = powers(stick, fp, alpha)
    flags = _answer_flags(fp, observation, lost)
    flags += _calibration_flags(fp, stick, observation, null, significance, power, alpha)
    if relabelled(fp, observation):
        flags.append("permuted-labels")
    rejected = rejects(significance, alpha)
    convicted = rejected and stick.convicts(path, alpha)
    if rejected and not convicted:
        flags.append("weak-resemblance")
    sound = not UNDECIDABLE & set(flags)
    silent = rejected or method.question != "origin"
    ruled_out = () if silent else _ruled_out(stick, fp, observation, path, flags, power)
    outcome: Outcome = "inconclusive"
    if sound and convicted:
        outcome = "match"
    elif sound and fp.threats and set(fp.threats) <= set(ruled_out):
        outcome = "no-match"
    if outcome == "inconclusive" and len(observation.asked) < len(fp.probes):
        flags.append("budget-stop")
    copies = {kind: share for kind, share in power.items() if kind != "owner"}
    scores = tuple(round(float(s), 9) for s in stick.shown(path))
    return Verdict(
        outcome=outcome,
        question=method.question,
        h0=method.h0,
        method=fp.method,
        score=scores[-1] if scores else None,
        p_value=significance.p,
        p_floor=significance.floor,
        null_kind=significance.kind,
        null_size=null.m,
        null_source=null.source,
        null_rung=null.rung,
        e_value=significance.e_value,
        alpha=alpha,
        asked=len(observation.asked),
        answered=int(np.sum(observation.answers.status == Status.OK)),
        look=stick.looks[len(scores) - 1] if scores else None,
        ruled_out=ruled_out,
        blind_to=tuple(kind for kind, share in copies.items() if share < BLIND_BELOW),
        untested=tuple(kind for kind in fp.threats if kind not in copies),
        power=copies,
        flags=tuple(flags),
        reasons=tuple(_reasons(outcome, significance, stick, null, alpha, flags)),
        fingerprint=fp.digest,
        observation=observation.digest,
        null_digest=null.digest,
        suspect=observation.subject,
        path=tuple(zip(stick.looks, scores, strict=False)),
        members=_members(stick, path),
    )


def yardstick_for(
    method: "Method", fp: Fingerprint, null: Null, seen: Observation, lost: frozenset[str] = frozenset()
) -> Yardstick:
    """The yardstick for what one suspect shows: labels, some scores or all, with weights or without."""
    return yardstick(method, fp, null, lost, seen.shows, bool(seen.arrays))


def _careful(method: "Method", fp: Fingerprint, null: Null, stick: Yardstick, seen: Observation) -> Significance:
    """The larger of two p-values: lost probes left out for everybody, and lost probes counted as no match.

    Leaving out alone is fair only if the loss has nothing to do with the answers, which nobody can know: a transcript
    may have been trimmed. Counting a loss as no match needs no such trust, and costs a copy little.
    """
    left_out = stick.significance(stick.path(seen))
    if len(seen.transported) == len(seen.asked) or left_out.p is None:
        return left_out
    whole = yardstick_for(method, fp, null, seen)
    counted = whole.significance(whole.path(seen))
    return counted if counted.p is not None and counted.p > left_out.p else left_out


def _members(stick: Yardstick, path: Array) -> tuple[Member, ...]:
    """What each method of a portfolio says by itself: shown below the verdict, never the verdict."""
    if len(stick.columns) < 2 or not path.shape[1]:
        return ()
    return tuple(_member(column, row) for column, row in zip(stick.columns, path, strict=True))


def _member(column: Column, row: Array) -> Member:
    asked = len(column.prefixes[len(row) - 1])
    score = None if np.isnan(row[-1]) else round(float(row[-1]), 9)
    if column.exact:
        alone = column.significance(row)
        return Member(column.fp.method, asked, score, None, alone.p, alone.kind, column.counts)
    highest = column.standardised(row).max()
    if np.isneginf(highest) or not len(column.null):
        return Member(column.fp.method, asked, score, None, None, "none")
    p = rank_p(highest, column.null.max(axis=1)).p
    return Member(column.fp.method, asked, score, round(float(highest), 6), p, "rank", column.counts)


def relabelled(fp: Fingerprint, seen: Observation) -> bool:
    """Whether the answers would resemble the owner's far better if the suspect's classes were renamed."""
    own = fp.answers.labels[: len(seen.asked)]
    rows = np.flatnonzero((seen.answers.labels >= 0) & (own >= 0))
    if len(rows) < LABELS_TO_COMPARE:
        return False
    plain = float(np.mean(own[rows] == seen.answers.labels[rows]))
    return best_relabelling(own[rows], seen.answers.labels[rows]) >= max(RENAMED_AT_LEAST, plain + 0.25)


def _check(method: "Method", fp: Fingerprint, observation: Observation, alpha: float) -> None:
    """Refuse what is another experiment."""
    check_question(method, fp, alpha)
    if observation.protocol != fp.probes.digest:
        raise ProtocolError(
            f"expected an observation of probes {fp.probes.digest[:19]}…, got {observation.protocol[:19]}…: "
            "observe the suspect again with this fingerprint"
        )
    if observation.asked != fp.probes.ids[: len(observation.asked)] or len(observation.asked) < fp.schedule[0]:
        raise ProtocolError(
            f"expected answers to the first {fp.schedule[0]} or more probes in their stored order, got "
            f"{len(observation.asked)} in another order: a selection made afterwards voids the p-value"
        )


def check_question(method: "Method", fp: Fingerprint, alpha: float) -> None:
    """Refuse what cannot be judged whatever the answers are: before anybody is asked."""
    if not 0 < alpha < 1:
        raise UsageError(f"expected alpha between 0 and 1, got {alpha}: 0.01 is usual")
    if method.key != fp.method:
        raise ProtocolError(f"expected a fingerprint of {method.key}, got {fp.method}: judge with its own method")
    if method.question not in ("origin", "data-use"):
        raise UsageError(f"expected a method for the question 'origin' or 'data-use', got {method.question!r}")


def _answer_flags(fp: Fingerprint, seen: Observation, lost: frozenset[str]) -> list[str]:
    """Flags that the answers alone raise."""
    status, labels = seen.answers.status, seen.answers.labels
    named = labels[labels >= 0]
    own = fp.answers.labels
    classes = own.max(initial=-1) + 1 if fp.answers.scores is None else fp.answers.scores.shape[1]
    raised = {
        "too-few-answers": len(lost) > LOST_AT_MOST * len(seen.asked),
        "transport-failures": bool(lost),
        "refusals": bool(np.isin(status, (Status.REFUSED, Status.TRUNCATED)).any()),
        "invalid-answers": bool((status == Status.INVALID).any()),
        "constant-answers": len(named) > 1 and len(set(named)) == 1 and len(set(own[: len(seen.asked)])) > 1,
        "foreign-labels": bool((named >= classes).any()),
        "classes-renamed": RENAMED in seen.notes,
    }
    return [name for name, found in raised.items() if found]


def _calibration_flags(
    fp: Fingerprint,
    stick: Yardstick,
    seen: Observation,
    null: Null,
    significance: Significance,
    power: Mapping[str, float],
    alpha: float,
) -> list[str]:
    """Flags that the null, the controls and the fingerprint raise."""
    floor = significance.floor
    known = {o.subject.id for o in (*null.observations, *fp.reference)}
    raised = {
        "null-missing": null.m == 0 and bool(stick.ranked) and significance.kind not in WITHOUT_MODELS,
        "null-unlike-owner": bool(stick.ranked)
        and null.rung == HARDEST_RUNG
        and unlike_owner(fp.owner, [o.subject for o in null.observations]),
        "null-too-small": floor is not None and floor > alpha + 1e-12,
        "null-easier-rung": null.m > 0 and null.rung != HARDEST_RUNG,
        "suspect-is-calibrator": seen.subject.id in known,
        "positive-control-failed": floor is not None and power.get("owner", 0.0) < 1.0,
        "null-shares-weights": any(c.exact and not c.counts for c in stick.columns),
        "unscreened": not fp.reference and bool(stick.ranked),
        "no-controls": len(fp.controls) < 2,
    }
    return [name for name, found in raised.items() if found]


def unlike_owner(owner: ModelCard, innocents: Sequence[ModelCard]) -> bool:
    """Whether models said to be of the owner's recipe are plainly trained otherwise: held-out figures tell."""
    for name, least in OWNER_WITHIN.items():
        seen = [card.fidelity[name] for card in innocents if name in card.fidelity]
        if name not in owner.fidelity or not seen:
            continue
        slack = max(least, max(seen) - min(seen))
        if not min(seen) - slack <= owner.fidelity[name] <= max(seen) + slack:
            return True
    return False


def _ruled_out(
    stick: Yardstick, fp: Fingerprint, seen: Observation, path: Array, flags: Sequence[str], power: Mapping[str, float]
) -> tuple[str, ...]:
    """Kinds of copy that would score higher than this suspect; never kinds the fingerprint is blind to."""
    asked = int(np.sum(seen.answers.status != Status.FAILED))
    if HIDING & set(flags) or not path.shape[1] or np.sum(seen.answers.status == Status.OK) < ANSWERED_AT_LEAST * asked:
        return ()
    asked_ids, mine = seen.asked, stick.shown(path)[-1]
    found = []
    for kind, share in power.items():
        if kind == "owner" or share < BLIND_BELOW:
            continue
        scores = np.array([stick.shown(stick.path(o.only(asked_ids)))[-1] for o in fp.controls[kind]])
        if (1 + np.sum(np.round(scores, 9) <= np.round(mine, 9))) / (1 + len(scores)) <= RULED_OUT_AT + 1e-12:
            found.append(kind)
    return tuple(found)


def _reasons(
    outcome: Outcome, significance: Significance, stick: Yardstick, null: Null, alpha: float, flags: Sequence[str]
) -> list[str]:
    """Why the verdict reads as it does, in sentences."""
    needed = calibrators_needed(alpha, "portfolio" if stick.ranked and stick.exact else "path")
    if "null-missing" in flags:
        return [f"no null was given: {needed} unrelated models are needed to decide at alpha {alpha:g}"]
    if significance.p is None:
        return ["nothing is left to decide with: what this compares, unrelated models have in common as well"]
    if "null-too-small" in flags:
        return [f"the null holds {null.m} unrelated models, {needed} are needed to decide at alpha {alpha:g}"]
    if "null-unlike-owner" in flags:
        return ["the null models were not trained like the owner's: their held-out accuracy or confidence is another"]
    if "positive-control-failed" in flags:
        return ["the owner's own model is not recognised, so the fingerprint cannot judge"]
    if "too-few-answers" in flags:
        return ["more than half of the questions were lost in transport"]
    if outcome == "match" and significance.kind in WITHOUT_MODELS:
        return [f"a suspect for which H0 holds would show this with probability at most {significance.p:.4g}"]
    if outcome == "match":
        return [
            f"an independent model ({null.rung}) would look this similar with probability at most {significance.p:.4g}"
        ]
    if outcome == "no-match":
        return ["every kind of copy in the threat list would score higher than this suspect"]
    if "weak-resemblance" in flags:
        return [
            f"the answers are unlike those of unrelated models (p = {significance.p:.4g}), "
            "yet nearer to them than to the owner's own model"
        ]
    if significance.kind in WITHOUT_MODELS:
        return [f"nothing was seen that H0 does not explain (p = {significance.p:.4g} > alpha {alpha:g})"]
    return [f"the answers are not unlike those of unrelated models (p = {significance.p:.4g} > alpha {alpha:g})"]
