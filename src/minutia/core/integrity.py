"""The sealed part of the integrity question: is the suspect unchanged? Decided once for every method that asks it.

H0: the suspect is the enrolled model, run in one of the ways in which its owner ran it. The null is his benign runs
(``Fingerprint.controls["owner"]`` and ``["benign"]``); every other kind of control is a change that should be seen.
Rejecting H0 is ``no-match``; ``match`` needs a measured power, because silence alone shows nothing.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Literal

import numpy as np

from minutia.core.answers import Answers, Observation, Status
from minutia.core.digest import Array, content_digest
from minutia.core.errors import ProtocolError, UsageError
from minutia.core.fingerprint import Fingerprint
from minutia.core.model import ModelCard
from minutia.core.verdict import Outcome, Verdict
from minutia.stats.nulls import rank_p

if TYPE_CHECKING:
    from minutia.core.method import Method

BENIGN = ("owner", "benign")
"""Kinds of control that are the unchanged model; the others are changed ones."""
SAFETY = 4.0
"""A tolerance is this many times the largest deviation among benign runs."""
ULPS = 32
"""A tolerance is never below this many float32 roundings of a probe's largest output."""
POWER_AT_LEAST = 0.9
"""Share of stored changes that must be caught at the suspect's access before it may be called intact."""
BLIND_BELOW = 0.5
SMALLEST = 1e-30
"""Scores below this are told apart by rounding alone."""
FARTHEST = 1e9
"""The deviation of an answer that cannot be compared at all, in tolerances."""
DECIMALS = 6
"""Most decimals at which scores are recognised as rounded; float32 holds no more of them."""
UNDECIDABLE = frozenset({"too-few-answers", "too-few-benign-runs", "positive-control-failed"})

Column = Literal["logits", "scores", "labels"]


@dataclass(frozen=True)
class Reading:
    """How much of an answer a suspect shows: which column, how many scores of each, to how many decimals."""

    column: Column
    most: int = 0
    decimals: int | None = None

    def __str__(self) -> str:
        largest = f"the {self.most} largest " if self.most else ""
        rounded = "" if self.decimals is None else f" rounded to {self.decimals} decimals"
        return f"{largest}{self.column}{rounded}"


def reading_of(own: Answers, seen: Observation) -> Reading:
    """The most that the suspect shows and that the owner's model was asked for as well.

    >>> own = Answers.from_scores(np.array([[0.123456789, 0.876543211]]))
    >>> told = Answers.from_scores(np.array([[0.12, 0.88]]))
    >>> str(reading_of(own, Observation(ModelCard("a", "a"), ("p",), told, "")))
    'scores rounded to 2 decimals'
    """
    answers = seen.answers
    if answers.logits is not None and own.logits is not None:
        return Reading("logits")
    if answers.scores is None or own.scores is None or not seen.shows:
        return Reading("labels")
    whole = seen.shows >= answers.scores.shape[1]
    return Reading("scores", 0 if whole else seen.shows, _decimals(answers))


def _decimals(answers: Answers) -> int | None:
    """To how many decimals all scores are rounded; None if they are not."""
    assert answers.scores is not None
    told = np.asarray(answers.scores[answers.status == Status.OK], dtype=float)
    told = told[np.isfinite(told)]
    for decimals in range(1, DECIMALS + 1):
        # Float32 holds a number between 0 and 1 to 6e-8.
        if len(told) and np.abs(told - np.round(told, decimals)).max() <= 6.1e-8:
            return decimals
    return None


def outputs(answers: Answers, reading: Reading) -> Array:
    """What is compared (n, classes): logits, logarithms of scores, or rounded scores.

    Logarithms of all scores are taken from their mean: they are then as good as logits, which scores fix up to a shift.

    >>> shown = Answers.from_scores(np.array([[0.25, 0.75]]))
    >>> outputs(shown, Reading("scores", decimals=1)).tolist(), outputs(shown, Reading("scores")).round(2).tolist()
    ([[0.25, 0.75]], [[-0.55, 0.55]])
    """
    if reading.column == "logits" or (reading.column == "labels" and answers.logits is not None):
        assert answers.logits is not None
        return np.asarray(answers.logits, dtype=float)
    if answers.scores is None:
        raise UsageError("expected an owner's model that gives scores, got labels only: no tolerance can be measured")
    scores = np.asarray(answers.scores, dtype=float)
    if reading.decimals is not None:
        return scores
    found = np.asarray(np.log(np.maximum(scores, SMALLEST)))
    return found if reading.most else found - found.mean(axis=1, keepdims=True)


def tolerances(own: Answers, benign: Iterable[Answers], reading: Reading) -> Array:
    """How far each output (n, classes) of an unchanged model may lie from the owner's.

    ``SAFETY`` times the largest deviation among benign runs, and at least ``ULPS`` roundings of the probe's largest
    output. An output that some benign run does not give (half precision overflows) tolerates everything.
    """
    mine = outputs(own, reading)
    largest = np.zeros_like(mine)
    for run in benign:
        largest = np.maximum(largest, np.nan_to_num(np.abs(outputs(run, reading) - mine), nan=np.inf, posinf=np.inf))
    scale = np.abs(np.where(np.isfinite(mine), mine, 0)).max(axis=1, keepdims=True)
    least = ULPS * float(np.finfo(np.float32).eps) * np.maximum(scale, np.finfo(np.float32).tiny)
    return np.asarray(np.maximum(SAFETY * largest, least))


@dataclass(frozen=True, eq=False)
class Gauge:
    """One fingerprint at one reading: measures how far answers lie from the owner's, in tolerances."""

    fp: Fingerprint
    reading: Reading

    @cached_property
    def benign(self) -> tuple[Observation, ...]:
        """The owner's model asked again, in all ways in which he ran it."""
        return tuple(seen for kind in BENIGN for seen in self.fp.controls.get(kind, ()))

    @cached_property
    def tolerance(self) -> Array:
        """Tolerances (n, classes) of all probes; rounding moves a score by half of its last decimal."""
        found = tolerances(self.fp.answers, (seen.answers for seen in self.benign), self.reading)
        decimals = self.reading.decimals
        return found if decimals is None else found + 0.5 * 10.0**-decimals

    def deviations(self, seen: Observation) -> Array:
        """How far each asked probe (n,) lies from the owner's answer, in tolerances: above 1 the model is changed.

        An answer that is no number, or over other classes, is as far away as can be. What was not answered is NaN.
        """
        found = self._labels(seen) if self.reading.column == "labels" else self._numbers(seen)
        unanswered = np.isin(seen.answers.status, (Status.FAILED, Status.REFUSED, Status.TRUNCATED))
        invalid = seen.answers.status == Status.INVALID
        return np.asarray(np.where(unanswered, np.nan, np.where(invalid, self._worth(seen), found)))

    def _worth(self, seen: Observation) -> Array:
        """An invalid answer says that the model is changed, unless benign runs give invalid answers there too."""
        excused = np.isinf(self.tolerance[: len(seen.asked)]).any(axis=1)
        return np.asarray(np.where(excused, 0.0, FARTHEST))

    def _numbers(self, seen: Observation) -> Array:
        rows = len(seen.asked)
        mine, theirs = outputs(self.fp.answers, self.reading)[:rows], outputs(seen.answers, self.reading)
        if theirs.shape != mine.shape:
            return np.full(rows, FARTHEST)
        if self.reading.decimals is not None:
            theirs = np.round(theirs, self.reading.decimals)
        # Outputs that are not shown cannot be compared, and equal infinities do not differ.
        apart = np.nan_to_num(np.abs(theirs - mine), nan=0.0, posinf=FARTHEST)
        return np.asarray(np.minimum((apart / self.tolerance[:rows]).max(axis=1), FARTHEST))

    def _labels(self, seen: Observation) -> Array:
        """Another label counts by the lead of the owner's label over it: within the tolerance it may be rounding."""
        own, rows = self.fp.answers, np.arange(len(seen.asked))
        mine, theirs = own.labels[: len(rows)], seen.answers.labels
        values = outputs(own, self.reading)[: len(rows)]
        known = np.clip(theirs, 0, values.shape[1] - 1)
        lead = values[rows, mine] - values[rows, known]
        allowed = self.tolerance[rows, mine] + self.tolerance[rows, known]
        found = np.where(theirs == mine, 0.0, np.minimum(lead / allowed, FARTHEST))
        return np.asarray(np.where(theirs >= values.shape[1], FARTHEST, found))

    def seen_as(self, stored: Observation) -> Observation:
        """A stored observation as it would look if its model showed no more than the suspect does."""
        return stored.showing(self.reading.most) if self.reading.most else stored

    def farthest(self, seen: Observation, rows: Array) -> float:
        """The largest deviation on these rows; 0 without any."""
        found = self.deviations(self.seen_as(seen))[rows]
        return float(np.nanmax(found, initial=0.0))

    def power(self, rows: Array) -> dict[str, float]:
        """Share of the stored changes of each kind that these rows would catch."""
        kinds = [kind for kind in self.fp.controls if kind not in BENIGN and self.fp.controls[kind]]
        caught = {kind: [self.farthest(seen, rows) > 1 for seen in self.fp.controls[kind]] for kind in kinds}
        return {kind: float(np.mean(found)) for kind, found in caught.items()}


@lru_cache(maxsize=16)
def gauge_of(fp: Fingerprint, reading: Reading) -> Gauge:
    """One gauge for all suspects that show the same: its tolerances take longer than a verdict."""
    return Gauge(fp, reading)


@lru_cache(maxsize=16)
def measured(gauge: Gauge, rows: tuple[int, ...]) -> tuple[Array, Mapping[str, float]]:
    """What does not depend on the suspect: how far benign runs go on these rows (m,), and the power per kind."""
    places = np.array(rows, dtype=int)
    return np.array([gauge.farthest(run, places) for run in gauge.benign]), gauge.power(places)


def judge(method: "Method", fp: Fingerprint, observation: Observation, *, alpha: float) -> Verdict:
    """Decide whether the suspect is unchanged; see ``Method.judge``."""
    _check(method, fp, observation, alpha)
    gauge = gauge_of(fp, reading_of(fp.answers, observation))
    deviations = gauge.deviations(observation)
    rows = np.flatnonzero(np.isfinite(deviations))
    farthest = round(float(np.nanmax(deviations, initial=0.0)), 6)
    null, power = measured(gauge, tuple(rows.tolist()))
    p = rank_p(farthest, np.round(null, 6)).p
    floor = 1 / (1 + len(null))
    share = _share(power, fp)
    flags = _flags(gauge, observation, rows, floor, alpha, null, share)
    outcome: Outcome = "inconclusive"
    if not UNDECIDABLE & set(flags) and farthest > 1:
        outcome = "no-match"
    elif not (UNDECIDABLE | {"refusals", "transport-failures", "low-power", "no-controls"}) & set(flags):
        outcome = "match"
    return Verdict(
        outcome=outcome,
        question=method.question,
        h0=method.h0,
        method=fp.method,
        score=0.0 - farthest if len(rows) else None,
        p_value=p,
        p_floor=floor,
        null_kind="assumed",
        null_size=len(null),
        null_source=_source(fp),
        null_rung="benign runs of the owner's model",
        e_value=None,
        alpha=alpha,
        asked=len(observation.asked),
        answered=int(np.sum(observation.answers.status == Status.OK)),
        look=len(observation.asked),
        ruled_out=tuple(k for k, v in power.items() if v >= POWER_AT_LEAST) if outcome == "match" else (),
        blind_to=tuple(kind for kind, v in power.items() if v < BLIND_BELOW),
        untested=tuple(kind for kind in fp.threats if kind not in power),
        power=dict(power),
        flags=flags,
        reasons=(_reason(outcome, gauge, farthest, null, share, flags, observation),),
        fingerprint=fp.digest,
        observation=observation.digest,
        null_digest=content_digest(["benign", [run.digest for run in gauge.benign]], {}),
        suspect=observation.subject,
    )


def identical(method: "Method", fp: Fingerprint, suspect: ModelCard, *, alpha: float) -> Verdict:
    """The verdict on files that are those of the enrolled model to the last bit: intact, and nothing was asked."""
    nothing = Observation(suspect, (), Answers.without(0, Status.OK), fp.probes.digest)
    return Verdict(
        outcome="match",
        question=method.question,
        h0=method.h0,
        method=fp.method,
        score=None,
        p_value=None,
        p_floor=None,
        null_kind="none",
        null_size=0,
        null_source="no null is needed: the files are compared bit by bit",
        null_rung="",
        e_value=None,
        alpha=alpha,
        asked=0,
        answered=0,
        look=None,
        ruled_out=fp.threats,
        blind_to=(),
        untested=(),
        power={},
        flags=("files-identical",),
        reasons=("every file of the model has the SHA-256 digest that was recorded when it was enrolled",),
        fingerprint=fp.digest,
        observation=nothing.digest,
        null_digest=content_digest(["none"], {}),
        suspect=suspect,
    )


def flagged(verdict: Verdict, *flags: str) -> Verdict:
    """The same verdict with further flags, such as what a comparison of files found."""
    return replace(verdict, flags=(*verdict.flags, *flags))


def _check(method: "Method", fp: Fingerprint, observation: Observation, alpha: float) -> None:
    """Refuse what is another experiment."""
    if not 0 < alpha < 1:
        raise UsageError(f"expected alpha between 0 and 1, got {alpha}: 0.01 is usual")
    if method.key != fp.method or method.question != "integrity" or fp.question != "integrity":
        raise ProtocolError(
            f"expected a fingerprint of {method.key} for the question 'integrity', got {fp.method} for "
            f"{fp.question!r}: judge with its own method"
        )
    if observation.protocol != fp.probes.digest:
        raise ProtocolError(
            f"expected an observation of probes {fp.probes.digest[:19]}…, got {observation.protocol[:19]}…: "
            "observe the suspect again with this fingerprint"
        )
    if not observation.asked or observation.asked != fp.probes.ids[: len(observation.asked)]:
        raise ProtocolError(
            f"expected answers to the first probes in their stored order, got {len(observation.asked)} in another "
            "order: observe the suspect again"
        )


def _share(power: Mapping[str, float], fp: Fingerprint) -> float:
    """Share of all stored changes that are caught; not measured is 0."""
    counts = {kind: len(fp.controls[kind]) for kind in power}
    return sum(power[kind] * count for kind, count in counts.items()) / max(sum(counts.values()), 1)


def _flags(
    gauge: Gauge, seen: Observation, rows: Array, floor: float, alpha: float, null: Array, share: float
) -> tuple[str, ...]:
    status = seen.answers.status
    raised = {
        "too-few-answers": not len(rows),
        "transport-failures": bool((status == Status.FAILED).any()),
        "refusals": bool(np.isin(status, (Status.REFUSED, Status.TRUNCATED)).any()),
        "invalid-answers": bool((status == Status.INVALID).any()),
        "too-few-benign-runs": floor > alpha + 1e-12,
        "positive-control-failed": bool((null > 1).any()),
        "no-controls": not set(gauge.fp.controls) - set(BENIGN),
        "low-power": share < POWER_AT_LEAST,
        "budget-stop": len(seen.asked) < len(gauge.fp.probes),
    }
    return tuple(name for name, found in raised.items() if found)


def _source(fp: Fingerprint) -> str:
    """Where the benign runs come from: how often each way of running was tried."""
    ways = Counter(seen.subject.recipe for seen in fp.controls.get("benign", ()))
    again = [f"{len(fp.controls['owner'])} as it is", *(f"{count} {way}" for way, count in ways.items())]
    return f"the owner's model run again: {', '.join(again)}"


def _reason(
    outcome: Outcome,
    gauge: Gauge,
    farthest: float,
    null: Array,
    share: float,
    flags: Sequence[str],
    seen: Observation,
) -> str:
    """Why the verdict reads as it does, in one sentence."""
    caught = f"{share:.0%} of the stored changes are caught by what it shows ({gauge.reading})"
    theirs, mine = seen.answers.scores, gauge.fp.answers.scores
    if outcome == "no-match" and theirs is not None and mine is not None and theirs.shape[1] != mine.shape[1]:
        return f"the suspect answers over {theirs.shape[1]} classes, the released model over {mine.shape[1]}"
    if outcome == "no-match":
        return (
            f"an answer lies {farthest:.3g} tolerances from the released model's ({gauge.reading}), "
            f"and {len(null)} benign runs at most {null.max():.2g}"
        )
    if outcome == "match":
        return f"every answer lies within the tolerance of benign runs ({farthest:.2g} of it), and {caught}"
    if "too-few-answers" in flags:
        return "none of the questions was answered"
    if "too-few-benign-runs" in flags:
        return f"the fingerprint holds {len(null)} benign runs, too few to decide at this alpha"
    if "positive-control-failed" in flags:
        return "the owner's own model, run again, lies beyond its tolerance"
    if "refusals" in flags or "transport-failures" in flags:
        return "what was answered is within the tolerance, but not every question was answered"
    return f"every answer lies within the tolerance of benign runs, but only {caught}"
