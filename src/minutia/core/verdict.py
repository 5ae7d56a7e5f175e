"""The verdict, and the flags that tell the reader when not to believe it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from minutia.core.model import ModelCard

SCHEMA = "minutia.verdict/1"
Outcome = Literal["match", "no-match", "inconclusive"]
EXIT_CODES: Mapping[str, int] = {"match": 0, "no-match": 1, "inconclusive": 3}


class Flag(NamedTuple):
    """When a flag is raised, what it means, and what to do about it."""

    raised_if: str
    meaning: str
    remedy: str


FLAGS: Mapping[str, Flag] = {
    "null-missing": Flag(
        "no unrelated models were given",
        "a similarity without innocent models to compare with is no evidence",
        "minutia null build, then pass it with --null",
    ),
    "null-too-small": Flag(
        "the smallest p-value this null can give is above alpha",
        "no suspect could be convicted, not even the owner's own model",
        "add unrelated models (1/alpha - 1 of them) or choose a larger alpha",
    ),
    "null-easier-rung": Flag(
        "the null is not of the hardest rung (same data and recipe, other seed)",
        "models that differ more from the owner's than the suspect does make the p-value too small",
        "calibrate on models of the same data and recipe",
    ),
    "null-unlike-owner": Flag(
        "held-out accuracy or confidence of the owner's model lies outside the range of the null of its own recipe",
        "the null was trained otherwise, and p-values against it can be far too small",
        "build the null with the owner's own training plan, or name the training function with train=",
    ),
    "null-shares-weights": Flag(
        "unrelated models of the null have weights in common with the owner's model",
        "they descend from one public ancestor, and so may the suspect: what weights have in common is left out",
        "nothing, if that is so; if these models were trained from scratch, look for a copy among them",
    ),
    "permuted-labels": Flag(
        "after renaming the suspect's classes its answers resemble the owner's",
        "a copy may answer in another class order; nothing is ruled out",
        "map the suspect's classes to the owner's and verify again",
    ),
    "classes-renamed": Flag(
        "the suspect's classes stood in another order, which natural inputs of known class gave away",
        "its answers were judged in the owner's order; an innocent model would have been put in order the same way",
        "nothing: the inputs that gave the order are no probes",
    ),
    "suspect-is-calibrator": Flag(
        "the suspect is itself one of the null or spent models",
        "its p-value is not that of a fresh model",
        "judge a model that took no part in the calibration",
    ),
    "positive-control-failed": Flag(
        "the owner's own model, asked again, is not recognised",
        "the fingerprint does not work, so silence about the suspect means nothing",
        "extract again with more probes or another method",
    ),
    "weak-resemblance": Flag(
        "H0 is rejected, but the score is nearer to the null's mean than to the owner's own model",
        "the suspect is unlike the null models, which is not the same as being made from the owner's model",
        "observe a null of the suspect's own rung (its data, its architecture), or ask more probes",
    ),
    "too-few-answers": Flag(
        "more than half of the questions were lost in transport",
        "what is left could have been selected",
        "ask again, with --journal to keep what was already answered",
    ),
    "transport-failures": Flag(
        "some questions were lost in transport after all retries",
        "they are left out, for the suspect and every null model alike",
        "ask again if the share is large",
    ),
    "refusals": Flag(
        "the suspect refused or truncated answers",
        "they count as no match; a suspect that chooses what to refuse can hide, so nothing is ruled out",
        "ask through another account or channel",
    ),
    "invalid-answers": Flag(
        "answers were NaN, infinite or no class at all",
        "they count as no match; with more than a tenth of them nothing is ruled out",
        "check preprocessing and the output layer of the suspect",
    ),
    "constant-answers": Flag(
        "every answer names the same class",
        "the suspect gives no information about its boundary, so nothing is ruled out",
        "check that the suspect is wired up and receives inputs in the right range",
    ),
    "foreign-labels": Flag(
        "the suspect named classes that the owner's model does not have",
        "they count as no match; another label space hides a copy from label methods",
        "map the classes, or use a method for other label spaces",
    ),
    "budget-stop": Flag(
        "the query budget ended the questions before the last look",
        "less was asked than the fingerprint holds; the p-value is valid, the power is lower",
        "raise --max-queries",
    ),
    "unscreened": Flag(
        "no spent models screened the probes",
        "innocent models may agree with many of them: valid but weak",
        "extract with --unrelated",
    ),
    "no-controls": Flag(
        "the fingerprint holds no copies of any kind of theft",
        "nothing can be ruled out, so the verdict can never be no-match",
        "extract with --copies 9 or more",
    ),
    "low-power": Flag(
        "fewer than nine in ten stored changes are caught by what the suspect shows",
        "a change might go unseen, so unchanged answers are no proof of an unchanged model",
        "ask where scores are shown, or unrounded ones",
    ),
    "too-few-benign-runs": Flag(
        "the smallest p-value that the owner's benign runs can give is above alpha",
        "no change could be reported, whatever the answers are",
        "enrol again with minutia extract, or choose a larger alpha",
    ),
    "files-identical": Flag(
        "every file has the SHA-256 digest that was recorded at enrolment",
        "what lies in these files is unchanged to the last bit",
        "nothing to do; where the architecture is code, review that code",
    ),
    "files-differ": Flag(
        "a file's SHA-256 digest is not the one that was recorded at enrolment",
        "it was converted, saved anew or changed: the answers tell whether its behaviour changed",
        "compare with the publisher's signed manifest, --manifest",
    ),
    "manifest-differs": Flag(
        "the publisher's manifest lists another SHA-256 digest for a file, or does not list it",
        "this is not the file that the publisher signed",
        "download it again from the publisher",
    ),
}


class Member(NamedTuple):
    """What one method of a portfolio says by itself: its score and p-value are shown, the joint p-value decides.

    ``standardised`` is its largest score over the looks in units of what innocent models vary by; ``kind`` is that of
    its p-value: rank, exact, or none where it could not be measured. One that ``counts`` not is no part of the joint
    p-value: it sees far fewer of the stored copies than the others do, or convicts unrelated models.
    """

    method: str
    asked: int
    score: float | None
    standardised: float | None
    p_value: float | None
    kind: str
    counts: bool = True

    def plain(self) -> dict[str, Any]:
        """As plain data for JSON."""
        return self._asdict()


@dataclass(frozen=True)
class Verdict:
    """What was decided, against which null, and how far to trust it; not measured is None."""

    outcome: Outcome
    question: str
    h0: str
    method: str
    score: float | None
    p_value: float | None
    p_floor: float | None
    null_kind: str
    null_size: int
    null_source: str
    null_rung: str
    e_value: float | None
    alpha: float
    asked: int
    answered: int
    look: int | None
    ruled_out: tuple[str, ...]
    blind_to: tuple[str, ...]
    untested: tuple[str, ...]
    power: Mapping[str, float]
    flags: tuple[str, ...]
    reasons: tuple[str, ...]
    fingerprint: str
    observation: str
    null_digest: str
    suspect: ModelCard
    path: tuple[tuple[int, float], ...] = ()
    members: tuple[Member, ...] = ()

    @property
    def exit_code(self) -> int:
        """0 match, 1 no-match, 3 inconclusive."""
        return EXIT_CODES[self.outcome]

    def plain(self) -> dict[str, Any]:
        """The verdict as one JSON-ready mapping with a schema version."""
        return {
            "schema": SCHEMA,
            "outcome": self.outcome,
            "question": self.question,
            "h0": self.h0,
            "method": self.method,
            "score": self.score,
            "p_value": self.p_value,
            "p_floor": self.p_floor,
            "null": {
                "kind": self.null_kind,
                "size": self.null_size,
                "source": self.null_source,
                "rung": self.null_rung,
                "digest": self.null_digest,
            },
            "e_value": self.e_value,
            "alpha": self.alpha,
            "queries": self.asked,
            "answered": self.answered,
            "look": self.look,
            "ruled_out": list(self.ruled_out),
            "blind_to": list(self.blind_to),
            "untested": list(self.untested),
            "power": dict(self.power),
            "flags": list(self.flags),
            "reasons": list(self.reasons),
            "fingerprint": self.fingerprint,
            "observation": self.observation,
            "model": self.suspect.plain(),
            "path": [{"asked": n, "score": s} for n, s in self.path],
            "members": [member.plain() for member in self.members],
        }
