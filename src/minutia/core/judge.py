"""The sealed part: from an observation and a null to a verdict, decided once for every method."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from minutia.core.answers import Observation, Status
from minutia.core.digest import Array
from minutia.core.errors import ProtocolError, UsageError
from minutia.core.fingerprint import HARDEST_RUNG, Fingerprint, Null
from minutia.core.model import ModelCard
from minutia.core.verdict import Outcome, Verdict
from minutia.stats.nulls import Significance, calibrators_needed, rank_p
from minutia.stats.relabelling import best_relabelling
from minutia.stats.sequential import Standardiser, path_p

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
LABELS_TO_COMPARE = 50
"""Answers needed before a renaming of classes can be told from luck."""
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


@dataclass(frozen=True, eq=False)
class Yardstick:
    """Everything about one set of usable probes that does not depend on the suspect."""

    method: "Method"
    fp: Fingerprint
    looks: tuple[int, ...]
    prefixes: tuple[tuple[str, ...], ...]
    scale: Standardiser
    raw: Array  # (m, looks) scores of the null, one row per root
    null: Array  # (m, looks) the same, standardised
    halfway: Array  # (looks,) scores halfway between the null's mean and the owner's own model

    def path(self, observation: Observation) -> Array:
        """Scores of one observation at the looks it reached."""
        reached = sum(look <= len(observation.asked) for look in self.looks)
        return self.method.path(self.fp, observation, self.prefixes[:reached])

    def significance(self, path: Array) -> Significance:
        """Path test of one model's scores; H0: it is one more model of the null's population."""
        if not len(self.null):
            return Significance(None, None, "none")
        if not len(path):
            return Significance(1.0, 1 / (1 + len(self.null)), "rank")
        return path_p(self.scale.transform(path), self.null)

    def convicts(self, path: Array, alpha: float) -> bool:
        """Whether some look rejects H0 with a score nearer to the owner's own than to the null's mean.

        The second condition only makes the test more careful: a suspect may be unlike the null because it comes
        from another rung of the ladder, and still be nowhere near the owner's model.
        """
        if not len(self.null) or not len(path):
            return False
        seen, highest = self.scale.transform(path), self.null.max(axis=1)
        near = path >= self.halfway[: len(path)]
        return any(_rejects(rank_p(u, highest), alpha) for u in seen[near])


@lru_cache(maxsize=16)
def yardstick(method: "Method", fp: Fingerprint, null: Null, lost: frozenset[str]) -> Yardstick:
    """Score spent models and calibrators at every look on the probes that were not lost.

    Kept between calls, because a verdict that looks early asks for the same one at every look.
    """
    looks, prefixes = [], list[tuple[str, ...]]()
    for look in fp.schedule:
        usable = tuple(i for i in fp.probes.ids[:look] if i not in lost)
        if usable and (not prefixes or len(usable) > len(prefixes[-1])):
            looks.append(look)
            prefixes.append(usable)
    if not prefixes:
        raise ProtocolError("expected at least one answer that arrived, got none: ask the suspect again")
    sizes = np.array([len(p) for p in prefixes])
    scale = method.scale(_paths(method, fp, fp.reference, prefixes), sizes)
    raw = _strongest_per_root(null, _paths(method, fp, null.observations, prefixes))
    own = _paths(method, fp, fp.controls["owner"], prefixes)[0]
    halfway = (own + raw.mean(axis=0)) / 2 if len(raw) else own
    return Yardstick(method, fp, tuple(looks), tuple(prefixes), scale, raw, scale.transform(raw), halfway)


@lru_cache(maxsize=16)
def powers(stick: Yardstick, alpha: float) -> Mapping[str, float]:
    """Share of the stored copies of each kind that would be convicted at this level."""
    kinds = sorted(stick.fp.controls, key=lambda kind: (_place(stick.fp.threats, kind), kind))
    return {kind: _power(stick, stick.fp.controls[kind], alpha) for kind in kinds}


def _place(threats: Sequence[str], kind: str) -> int:
    """Kinds are told in the order of the threat list, whatever file the fingerprint came from."""
    return threats.index(kind) if kind in threats else len(threats)


def _paths(
    method: "Method", fp: Fingerprint, observations: Sequence[Observation], prefixes: Sequence[Sequence[str]]
) -> Array:
    """Scores (models, looks); an empty set of models gives an empty array of that width."""
    rows = [method.path(fp, o, prefixes) for o in observations]
    return np.array(rows, dtype=float).reshape(len(rows), len(prefixes))


def _strongest_per_root(null: Null, paths: Array) -> Array:
    """One row per independent training: of several models with one root the highest score counts at each look."""
    rows: dict[str, Array] = {}
    for seen, path in zip(null.observations, paths, strict=True):
        root = seen.subject.root
        rows[root] = np.maximum(rows[root], path) if root in rows else path
    return np.array(list(rows.values())).reshape(len(rows), paths.shape[1])


def judge(method: "Method", fp: Fingerprint, observation: Observation, null: Null, *, alpha: float) -> Verdict:
    """Decide on one observation; see ``Method.judge``."""
    _check(method, fp, observation, alpha)
    lost = frozenset(observation.asked) - frozenset(observation.transported)
    stick = yardstick(method, fp, null, lost)
    path = stick.path(observation)
    significance = _careful(stick, observation, null)
    power = powers(stick, alpha)
    flags = _answer_flags(fp, observation, lost)
    flags += _calibration_flags(fp, observation, null, significance, power, alpha)
    if _relabelled(stick, observation, path):
        flags.append("permuted-labels")
    rejected = _rejects(significance, alpha)
    convicted = rejected and stick.convicts(path, alpha)
    if rejected and not convicted:
        flags.append("weak-resemblance")
    sound = not UNDECIDABLE & set(flags)
    ruled_out = () if rejected else _ruled_out(stick, observation, path, flags, power)
    outcome: Outcome = "inconclusive"
    if sound and convicted:
        outcome = "match"
    elif sound and fp.threats and set(fp.threats) <= set(ruled_out):
        outcome = "no-match"
    if outcome == "inconclusive" and len(observation.asked) < len(fp.probes):
        flags.append("budget-stop")
    copies = {kind: share for kind, share in power.items() if kind != "owner"}
    scores = tuple(round(float(s), 9) for s in path)
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
        reasons=tuple(_reasons(outcome, significance, null, alpha, flags)),
        fingerprint=fp.digest,
        observation=observation.digest,
        null_digest=null.digest,
        suspect=observation.subject,
        path=tuple(zip(stick.looks, scores, strict=False)),
    )


def _careful(stick: Yardstick, seen: Observation, null: Null) -> Significance:
    """The larger of two p-values: lost probes left out for everybody, and lost probes counted as no match.

    Leaving out alone is fair only if the loss has nothing to do with the answers, which nobody can know: a transcript
    may have been trimmed. Counting a loss as no match needs no such trust, and costs a copy little.
    """
    left_out = stick.significance(stick.path(seen))
    if len(seen.transported) == len(seen.asked) or left_out.p is None:
        return left_out
    whole = yardstick(stick.method, stick.fp, null, frozenset())
    counted = whole.significance(whole.path(seen))
    return counted if counted.p is not None and counted.p > left_out.p else left_out


def _relabelled(stick: Yardstick, seen: Observation, path: Array) -> bool:
    """Whether the answers would resemble the owner's if the suspect's classes were renamed."""
    own = stick.fp.answers.labels[: len(seen.asked)]
    rows = np.flatnonzero((seen.answers.labels >= 0) & (own >= 0))
    if not len(path) or len(rows) < LABELS_TO_COMPARE:
        return False
    rate = best_relabelling(own[rows], seen.answers.labels[rows])
    return bool(rate >= stick.halfway[len(path) - 1] > path[-1])


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
    if method.question != "origin":
        raise UsageError(f"expected a method for the question 'origin', got {method.question!r}")


def _answer_flags(fp: Fingerprint, seen: Observation, lost: frozenset[str]) -> list[str]:
    """Flags that the answers alone raise."""
    status, labels = seen.answers.status, seen.answers.labels
    named = labels[labels >= 0]
    own = fp.answers.labels
    classes = own.max() + 1 if fp.answers.scores is None else fp.answers.scores.shape[1]
    raised = {
        "too-few-answers": len(lost) > LOST_AT_MOST * len(seen.asked),
        "transport-failures": bool(lost),
        "refusals": bool(np.isin(status, (Status.REFUSED, Status.TRUNCATED)).any()),
        "invalid-answers": bool((status == Status.INVALID).any()),
        "constant-answers": len(named) > 1 and len(set(named)) == 1 and len(set(own[: len(seen.asked)])) > 1,
        "foreign-labels": bool((named >= classes).any()),
    }
    return [name for name, found in raised.items() if found]


def _calibration_flags(
    fp: Fingerprint,
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
        "null-missing": null.m == 0,
        "null-unlike-owner": null.rung == HARDEST_RUNG
        and unlike_owner(fp.owner, [o.subject for o in null.observations]),
        "null-too-small": floor is not None and floor > alpha + 1e-12,
        "null-easier-rung": null.m > 0 and null.rung != HARDEST_RUNG,
        "suspect-is-calibrator": seen.subject.id in known,
        "positive-control-failed": floor is not None and power.get("owner", 0.0) < 1.0,
        "unscreened": not fp.reference,
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


def _rejects(significance: Significance, alpha: float) -> bool:
    """Whether H0 is rejected; a little slack for the rounding of k/(m+1)."""
    return significance.decides and significance.p is not None and significance.p <= alpha + 1e-12


def _power(stick: Yardstick, copies: Sequence[Observation], alpha: float) -> float:
    """Share of stored copies that would be convicted; with a null too small, at the smallest level it allows."""
    level = alpha if not len(stick.null) else max(alpha, 1 / (1 + len(stick.null)))
    return float(np.mean([stick.convicts(stick.path(o), level) for o in copies])) if copies else 0.0


def _ruled_out(
    stick: Yardstick, seen: Observation, path: Array, flags: Sequence[str], power: Mapping[str, float]
) -> tuple[str, ...]:
    """Kinds of copy that would score higher than this suspect; never kinds the fingerprint is blind to."""
    asked = int(np.sum(seen.answers.status != Status.FAILED))
    if HIDING & set(flags) or not len(path) or np.sum(seen.answers.status == Status.OK) < ANSWERED_AT_LEAST * asked:
        return ()
    last, mine = len(path) - 1, path[-1]
    found = []
    for kind, share in power.items():
        if kind == "owner" or share < BLIND_BELOW:
            continue
        scores = _paths(stick.method, stick.fp, stick.fp.controls[kind], stick.prefixes[last : last + 1])[:, 0]
        if (1 + np.sum(np.round(scores, 9) <= np.round(mine, 9))) / (1 + len(scores)) <= RULED_OUT_AT + 1e-12:
            found.append(kind)
    return tuple(found)


def _reasons(outcome: Outcome, significance: Significance, null: Null, alpha: float, flags: Sequence[str]) -> list[str]:
    """Why the verdict reads as it does, in sentences."""
    needed = calibrators_needed(alpha)
    if "null-missing" in flags:
        return [f"no null was given: {needed} unrelated models are needed to decide at alpha {alpha:g}"]
    if "null-too-small" in flags:
        return [f"the null holds {null.m} unrelated models, {needed} are needed to decide at alpha {alpha:g}"]
    if "null-unlike-owner" in flags:
        return ["the null models were not trained like the owner's: their held-out accuracy or confidence is another"]
    if "positive-control-failed" in flags:
        return ["the owner's own model is not recognised, so the fingerprint cannot judge"]
    if "too-few-answers" in flags:
        return ["more than half of the questions were lost in transport"]
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
    return [f"the answers are not unlike those of unrelated models (p = {significance.p:.4g} > alpha {alpha:g})"]
