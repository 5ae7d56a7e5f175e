"""Tiny values written by hand, so that every p-value can be counted on the fingers."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from minutia.core.access import Access
from minutia.core.answers import Answers, Observation, Status
from minutia.core.fingerprint import THREATS, Fingerprint, Null
from minutia.core.method import Enrolment, Method
from minutia.core.model import ModelCard
from minutia.core.probe import ProbeSet, numbered

CLASSES = 5
EVERY_KIND = THREATS


@dataclass(frozen=True)
class Share(Method):
    """Share of probes with the owner's label, written once more without the package's own shortcut."""

    name = "share"
    h0 = "the suspect was made without the owner's model"
    source = "written by hand"
    owner_needs = Access.LABELS
    suspect_needs = Access.LABELS

    probes: int = 12

    def enrol(self, model, material, rng):
        return Enrolment(numbered(rng.random((self.probes, 4)), {"channel": "array"}), {})

    def score(self, fp, observation):
        own = dict(zip(fp.probes.ids, fp.answers.labels.tolist(), strict=True))
        hits = [
            label == own[name] and label >= 0 and status == Status.OK
            for name, label, status in zip(
                observation.asked, observation.answers.labels.tolist(), observation.answers.status, strict=True
            )
        ]
        return sum(hits) / len(hits)


class Scripted:
    """A model that answers probe i with the i-th of the given labels, and keeps count of what it was asked."""

    spec, access = "scripted", Access.LABELS

    def __init__(self, ids: Sequence[str], labels: Sequence[int], name: str = "scripted", status=None) -> None:
        self.card = ModelCard(name, name)
        self._labels = dict(zip(ids, labels, strict=True))
        self._status = dict(zip(ids, [Status.OK] * len(ids) if status is None else status, strict=True))
        self.asked: list[str] = []

    def ask(self, probes: ProbeSet) -> Answers:
        self.asked += probes.ids
        labels = np.array([self._labels[i] for i in probes.ids], np.int64)
        return Answers(np.array([self._status[i] for i in probes.ids], np.uint8), labels)


def own_labels(n: int) -> np.ndarray:
    """What the owner answers: all classes in turn."""
    return np.arange(n) % CLASSES


def labels_with(n: int, hits: int | Iterable[int]) -> np.ndarray:
    """Labels that equal the owner's on these probes (or on the last so many) and nowhere else."""
    rows = list(range(n - hits, n)) if isinstance(hits, int) else sorted(hits)
    labels = (own_labels(n) + 1) % CLASSES
    labels[rows] = own_labels(n)[rows]
    return labels


def seen(fp_or_probes, name: str, labels, *, root: str = "", status=None) -> Observation:
    """One model's answers to all probes."""
    probes = getattr(fp_or_probes, "probes", fp_or_probes)
    answers = Answers.from_labels(np.asarray(labels))
    if status is not None:
        answers = Answers(np.asarray(status, np.uint8), answers.labels)
    return Observation(ModelCard(name, root or name), probes.ids, answers, probes.digest)


def matching(fp_or_probes, name: str, hits: int | Iterable[int], **more) -> Observation:
    """One model's answers, given by where it agrees with the owner."""
    probes = getattr(fp_or_probes, "probes", fp_or_probes)
    return seen(probes, name, labels_with(len(probes), hits), **more)


def fingerprint(
    n: int = 12,
    *,
    looks: Sequence[int] = (),
    spent: Sequence[int] = (1, 2),
    controls: Mapping[str, Sequence[int]] | None = None,
    owner_again: int | None = None,
    threats: Sequence[str] = EVERY_KIND,
    seed: int = 0,
) -> Fingerprint:
    """A fingerprint whose spent models and stored copies match so many probes each."""
    probes = numbered(np.random.default_rng(seed).random((n, 4), dtype=np.float32), {"channel": "array"})
    copies = {
        kind: tuple(matching(probes, f"{kind} {i}", hits, root="owner") for i, hits in enumerate(found))
        for kind, found in (controls or {}).items()
    }
    again = matching(probes, "owner", n if owner_again is None else owner_again)
    return Fingerprint(
        method=Share(n).key,
        question="origin",
        owner=ModelCard("owner", "owner"),
        probes=probes,
        answers=Answers.from_labels(own_labels(n)),
        arrays={},
        controls={"owner": (again,), **copies},
        reference=tuple(matching(probes, f"spent {i}", hits) for i, hits in enumerate(spent)),
        spent=frozenset(f"spent {i}" for i in range(len(spent))),
        schedule=tuple(looks) or (n,),
        threats=tuple(threats),
        binds=("content", "order"),
        seed=seed,
    )


def null(fp: Fingerprint, hits: Sequence[int | Iterable[int]], **more) -> Null:
    """A null whose models match so many probes each."""
    return Null("unrelated", tuple(matching(fp, f"null {i}", h) for i, h in enumerate(hits)), source="by hand", **more)


def judged(fp: Fingerprint, observation: Observation, of: Null, alpha: float = 0.1):
    """The verdict of the hand-made method."""
    return Share(len(fp.probes)).judge(fp, observation, of, alpha=alpha)
