"""How steady a suspect is: the same questions asked several times."""

from dataclasses import dataclass

import numpy as np

from minutia.core.answers import Answers, Status
from minutia.core.digest import Array
from minutia.core.errors import ModelError, UsageError
from minutia.core.model import Model
from minutia.core.probe import ProbeSet


@dataclass(frozen=True)
class RepeatNoise:
    """What repeating the same questions changed; not measured is None.

    ``flip_rate`` is the chance that two askings of one probe name different classes (an answer without a label is a
    class of its own). ``score_deviation`` is the standard deviation of a score around its probe's mean, over all
    scores that were told every time. ``queries`` were sent in all.
    """

    flip_rate: float | None
    score_deviation: float | None
    queries: int


def repeat_noise(model: Model, probes: ProbeSet, repeats: int = 3, *, few: int = 10) -> RepeatNoise:
    """Ask the first ``few`` probes ``repeats`` times, each time as another repeat of the protocol.

    Answers of a noisy suspect cannot be replayed exactly, and a null of steady models is then no null for it. Behind a
    meter the repeats are paid for, and have places of their own in its journal. Lost questions are left out.

    >>> from minutia.models.toy import ToyClassifier
    >>> repeat_noise(ToyClassifier.fresh((2, 3)), ProbeSet(("a", "b"), np.eye(2)))
    RepeatNoise(flip_rate=0.0, score_deviation=0.0, queries=6)
    """
    if repeats < 2 or few < 1 or not len(probes):
        raise UsageError(f"expected 2 or more repeats of some probes, got {repeats} of {min(few, len(probes))}")
    asked = probes.take(range(min(few, len(probes))))
    # Repeats are counted on from the one that judges, so that a journal keeps them apart from it.
    seen = [
        model.ask(ProbeSet(asked.ids, asked.content, asked.protocol, asked.repeat + 1 + again))
        for again in range(repeats)
    ]
    labels = np.stack([np.where(answers.status == Status.FAILED, -2, answers.labels) for answers in seen])
    return RepeatNoise(_flip_rate(labels), _score_deviation(seen, model.spec), repeats * len(asked))


def _flip_rate(labels: Array) -> float | None:
    """Share of differing pairs among labels (repeats, n); -2 was lost."""
    first, second = np.triu_indices(len(labels), k=1)
    told = (labels[first] > -2) & (labels[second] > -2)
    return float((labels[first] != labels[second])[told].mean()) if told.any() else None


def _score_deviation(seen: list[Answers], spec: str) -> float | None:
    """Within-probe standard deviation, pooled over probes and classes."""
    columns = [answers.scores for answers in seen if answers.scores is not None]
    if len(columns) < len(seen):
        return None
    if len({column.shape for column in columns}) > 1:
        raise ModelError(
            f"expected one number of scores for all repeats of {spec}, got {sorted({c.shape for c in columns})}: "
            "a model must score the same classes every time"
        )
    scores = np.stack(columns).astype(float)
    told = np.isfinite(scores).all(axis=0)
    return float(np.sqrt(scores[:, told].var(axis=0, ddof=1).mean())) if told.any() else None
