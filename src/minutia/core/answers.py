"""Answers as columns, and the observation: everything a judge may look at."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum
from functools import cached_property
from typing import Any

import numpy as np

from minutia.core.digest import Array, content_digest
from minutia.core.errors import ModelError, ProtocolError
from minutia.core.model import ModelCard


class Status(IntEnum):
    """What became of one question; only FAILED (transport) is nobody's answer, the others are the suspect's."""

    OK = 0
    REFUSED = 1
    FAILED = 2
    TRUNCATED = 3
    INVALID = 4


@dataclass(frozen=True)
class Response:
    """A view of one row of answers; what was not returned is None."""

    status: Status
    label: int | None
    scores: Array | None
    text: str | None


@dataclass(frozen=True, eq=False)
class Answers:
    """n answers as columns; a column that the model does not return is None, never zeros.

    status: (n,) uint8. labels: (n,) int64, -1 where there is none or the status is not OK.
    scores, logits: (n, classes) float32. text: n strings. usage: (n,) tokens or other billed units.

    >>> Answers.from_scores(np.array([[0.1, 0.9], [np.nan, 1.0]])).labels.tolist()
    [1, -1]
    """

    status: Array
    labels: Array
    scores: Array | None = None
    logits: Array | None = None
    text: tuple[str, ...] | None = None
    usage: Array | None = None

    def __post_init__(self) -> None:
        shapes = {name: column.shape for name, column in self.arrays().items()}
        rows = {shape[:1] for shape in shapes.values()} | ({(len(self.text),)} if self.text is not None else set())
        if len(rows) != 1 or len(shapes["status"]) != 1 or len(shapes["labels"]) != 1:
            raise ModelError(f"expected one status, one label and one row of scores per probe, got columns {shapes}")
        # A refused, truncated or invalid answer counts as none, whatever came with it.
        object.__setattr__(self, "labels", np.where(self.status == Status.OK, self.labels, -1))

    def __len__(self) -> int:
        return len(self.status)

    def __getitem__(self, row: int) -> Response:
        label = int(self.labels[row])
        return Response(
            Status(int(self.status[row])),
            None if label < 0 else label,
            None if self.scores is None else self.scores[row],
            None if self.text is None else self.text[row],
        )

    @classmethod
    def from_labels(cls, labels: Array, status: Array | None = None) -> "Answers":
        """Answers of a model that names a class and nothing else; negative labels are invalid."""
        labels = np.asarray(labels, dtype=np.int64)
        found = np.where(labels >= 0, Status.OK, Status.INVALID) if status is None else status
        return cls(np.asarray(found, dtype=np.uint8), np.where(labels >= 0, labels, -1))

    @classmethod
    def from_scores(cls, scores: Array, logits: Array | None = None) -> "Answers":
        """Answers of a model that scores all classes; rows with NaN or infinity are invalid and have no label."""
        scores = np.asarray(scores, dtype=np.float32)
        if scores.ndim != 2 or scores.shape[1] < 2:
            raise ModelError(
                f"expected outputs of shape (batch, classes) with at least 2 classes, got {scores.shape}: "
                "wrap the model so that it returns one score per class"
            )
        fine = np.isfinite(scores if logits is None else logits).all(axis=1)
        labels = np.where(fine, np.nan_to_num(scores).argmax(axis=1), -1)
        status = np.where(fine, Status.OK, Status.INVALID).astype(np.uint8)
        return cls(status, labels.astype(np.int64), scores, None if logits is None else logits.astype(np.float32))

    @classmethod
    def without(cls, count: int, status: Status) -> "Answers":
        """Placeholders for questions that brought no answer."""
        return cls(np.full(count, status, np.uint8), np.full(count, -1, np.int64))

    @classmethod
    def joined(cls, parts: Sequence["Answers"]) -> "Answers":
        """Concatenate; a column is kept only if every part that holds an answer has it.

        >>> both = Answers.joined([Answers.from_labels(np.array([1])), Answers.without(1, Status.FAILED)])
        >>> both.labels.tolist(), both.status.tolist()
        ([1, -1], [0, 2])
        """
        status = np.concatenate([p.status for p in parts]) if parts else np.empty(0, np.uint8)
        labels = np.concatenate([p.labels for p in parts]) if parts else np.empty(0, np.int64)
        columns = {name: _joined_column(parts, name) for name in ("scores", "logits", "usage", "text")}
        return cls(status, labels, **columns)

    def showing(self, most: int) -> "Answers":
        """The same answers with the ``most`` largest scores of each row; the others are NaN, 0 leaves labels only.

        >>> Answers.from_scores(np.array([[0.5, 0.3, 0.2]])).showing(1).scores.tolist()
        [[0.5, nan, nan]]
        """
        if self.scores is None or most >= self.scores.shape[1]:
            return self
        if most < 1:
            return replace(self, scores=None, logits=None)
        # Of equal scores the first classes are kept, as argmax does.
        ranks = np.argsort(np.argsort(-np.nan_to_num(self.scores, nan=-np.inf), axis=1, kind="stable"), axis=1)
        return replace(self, scores=np.where(ranks < most, self.scores, np.nan).astype(np.float32), logits=None)

    def probabilities(self, classes: int) -> Array:
        """Probabilities (n, classes): scores that were not told share what is left; of labels alone, one-hot.

        Rows without an answer are uniform.

        >>> Answers.from_scores(np.array([[0.6, 0.3, 0.1]])).showing(1).probabilities(3).round(2).tolist()
        [[0.6, 0.2, 0.2]]
        >>> Answers.from_labels(np.array([1, -1])).probabilities(2).tolist()
        [[0.0, 1.0], [0.5, 0.5]]
        """
        found = np.full((len(self), classes), 1 / classes)
        if self.scores is None:
            rows = np.flatnonzero((self.labels >= 0) & (self.labels < classes))
            found[rows] = 0.0
            found[rows, self.labels[rows]] = 1.0
            return found
        rows = np.flatnonzero(self.status == Status.OK)
        told = np.zeros((len(rows), classes))  # classes that a model does not know get nothing from it
        width = min(classes, self.scores.shape[1])
        told[:, :width] = self.scores[rows, :width]
        unknown = ~np.isfinite(told)
        left = np.clip(1 - np.nansum(told, axis=1), 0, None) / np.maximum(unknown.sum(axis=1), 1)
        found[rows] = np.where(unknown, left[:, None], told)
        return found

    def take(self, rows: Sequence[int] | Array) -> "Answers":
        """The answers at these rows, in this order."""
        rows = np.asarray(rows, dtype=int)
        numeric: dict[str, Any] = {name: column[rows] for name, column in self.arrays().items()}
        text = None if self.text is None else tuple(self.text[r] for r in rows)
        return replace(self, **numeric, text=text)

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Array]) -> "Answers":
        """The inverse of ``arrays``."""
        found = arrays.get
        return cls(arrays["status"], arrays["labels"], found("scores"), found("logits"), usage=found("usage"))

    def arrays(self) -> dict[str, Array]:
        """The numeric columns that exist, by name."""
        found = {n: getattr(self, n) for n in ("status", "labels", "scores", "logits", "usage")}
        return {name: column for name, column in found.items() if column is not None}


def _joined_column(parts: Sequence[Answers], name: str) -> Any:
    """One column of all parts; rows of parts without an answer are padded with NaN or empty text."""
    answered = [p for p in parts if (p.status == Status.OK).any() or getattr(p, name) is not None]
    columns = [getattr(p, name) for p in answered]
    if not columns or any(c is None for c in columns):
        return None
    if name == "text":
        return tuple(t for p in parts for t in (p.text if p.text is not None else ("",) * len(p)))
    tail, kind = columns[0].shape[1:], columns[0].dtype
    if any(c.shape[1:] != tail for c in columns):
        raise ModelError(
            f"expected one number of outputs for all probes, got {sorted({c.shape[1:] for c in columns})}: "
            "a model must score the same classes every time"
        )
    empty = [np.full((len(p), *tail), np.nan if kind.kind == "f" else 0, kind) for p in parts]
    return np.concatenate(
        [e if getattr(p, name) is None else getattr(p, name) for p, e in zip(parts, empty, strict=True)]
    )


@dataclass(frozen=True, eq=False)
class Observation:
    """What one model answered to which probes: everything a judge may look at.

    ``asked`` are probe ids in the order of asking, ``protocol`` is the digest of the whole probe set,
    ``queries`` the forward passes paid for, ``occasion`` a date, provider and round of asking. ``arrays`` is what a
    method read off the weights, where it looks at weights instead of asking.
    """

    subject: ModelCard
    asked: tuple[str, ...]
    answers: Answers
    protocol: str
    occasion: str = ""
    queries: int | None = None
    notes: tuple[str, ...] = field(default=())
    arrays: Mapping[str, Array] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.asked) != len(self.answers):
            raise ProtocolError(f"expected {len(self.asked)} answers, got {len(self.answers)}: ask again")

    @cached_property
    def _rows(self) -> dict[str, int]:
        return {name: row for row, name in enumerate(self.asked)}

    def only(self, ids: Iterable[str]) -> "Observation":
        """The same observation restricted to these probes, in this order."""
        ids = tuple(ids)
        missing = [i for i in ids if i not in self._rows]
        if missing:
            raise ProtocolError(
                f"expected answers to {len(ids)} probes, got none for {missing[0]!r}: observe {self.subject.id} again"
            )
        return replace(self, asked=ids, answers=self.answers.take([self._rows[i] for i in ids]))

    def renamed(self, names: Mapping[int, int], note: str) -> "Observation":
        """The same observation with its classes under other names; classes without a new name have no label."""
        known = np.array([names.get(int(label), -1) for label in self.answers.labels], dtype=np.int64)
        scores = self.answers.scores
        if scores is not None and sorted(names) == sorted(names.values()) == list(range(scores.shape[1])):
            scores = scores[:, np.argsort([names[c] for c in range(scores.shape[1])])]
        else:
            scores = None
        answers = replace(self.answers, labels=known, scores=scores, logits=None)
        return replace(self, answers=answers, notes=(*self.notes, note))

    def labels_of(self, ids: Sequence[str]) -> Array:
        """Labels (n,) for these probes, -1 where the model named none."""
        return self.answers.labels[[self._rows[i] for i in ids]]

    @property
    def transported(self) -> tuple[str, ...]:
        """Ids of the probes that were not lost on the way."""
        return tuple(i for i, s in zip(self.asked, self.answers.status, strict=True) if s != Status.FAILED)

    @cached_property
    def digest(self) -> str:
        """Digest of the subject's id and root, what was asked and every answer; the occasion is not part of it."""
        who = [self.subject.id, self.subject.root]
        header = [*who, list(self.asked), list(self.answers.text or ()), self.protocol]
        return content_digest(header, {**self.answers.arrays(), **{f"read.{k}": v for k, v in self.arrays.items()}})

    @property
    def shows(self) -> int:
        """Scores per answer that the subject tells: 0 labels only, k the largest k, the number of classes all."""
        scores = self.answers.scores
        if scores is None:
            return 0
        told = np.isfinite(scores[self.answers.status == Status.OK]).sum(axis=1)
        return int(told.min()) if len(told) else scores.shape[1]

    def showing(self, most: int) -> "Observation":
        """The same observation as seen by someone who is told at most so many scores per answer."""
        return self if self.shows <= most else replace(self, answers=self.answers.showing(most))
