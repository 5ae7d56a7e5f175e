"""Read the answers of an HTTP suspect: whatever it says is untrusted, and what is no answer is INVALID."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from minutia.core.answers import Answers, Status
from minutia.core.digest import Array
from minutia.core.errors import ModelError
from minutia.models.http_mapping import Response
from minutia.models.toy import softmax

MAX_LABEL = 2**31
UNREADABLE = object()
"""Stands for an answer that is no JSON."""


def parsed(data: bytes) -> Any:
    """The JSON of an answer; UNREADABLE if it is none, or nested too deeply to be read.

    >>> parsed(b'{"label": 3}'), parsed(b'{"label": ') is UNREADABLE, parsed(b"[" * 10**6) is UNREADABLE
    ({'label': 3}, True, True)
    """
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return UNREADABLE


def found_at(value: Any, path: Sequence[str]) -> Any:
    """What stands at a path; None where there is nothing.

    >>> found_at({"rows": [{"p": 1}, {"q": 2}]}, ("rows", "*", "p"))
    [1, None]
    """
    for place, part in enumerate(path):
        if part == "*":
            return [found_at(entry, path[place + 1 :]) for entry in value] if isinstance(value, list) else None
        if isinstance(value, Mapping):
            value = value.get(part)
        elif isinstance(value, list) and part.isdecimal() and int(part[:9]) < len(value):
            value = value[int(part[:9])]
        else:
            return None
    return value


class Reader:
    """Turns answers into rows; it remembers how many classes were scored, which may never change.

    >>> Reader(Response(labels="label", classes=("cat", "dog"))).answers({"label": "dog"}, 1, one_by_one=True).labels
    array([1])
    """

    def __init__(self, response: Response) -> None:
        self._response = response
        self._places = {name: place for place, name in enumerate(response.classes)}
        self._width: int | None = len(response.classes) or None

    def answers(self, body: Any, count: int, *, one_by_one: bool) -> Answers:
        """One row per input; all of them are INVALID if the body does not hold so many."""
        found = None if body is UNREADABLE else found_at(body, self._response.path)
        rows = [found] if one_by_one else found
        if not isinstance(rows, list) or len(rows) != count:
            return Answers.without(count, Status.INVALID)
        if self._response.kind == "labels":
            return Answers.from_labels(np.array([self._label(row) for row in rows], np.int64))
        if self._response.kind == "top":
            return _best_told(self._table([self._pairs(row) for row in rows]))
        return self._scored([self._numbers(row) for row in rows])

    def _scored(self, rows: list[list[float] | None]) -> Answers:
        widths = {len(row) for row in rows if row is not None} | ({self._width} if self._width else set())
        if len(widths) > 1:
            raise ModelError(
                f"expected one number of scores in every answer, got {sorted(widths)}: "
                "a model must score the same classes every time"
            )
        if not widths:
            return Answers.without(len(rows), Status.INVALID)
        self._width = widths.pop()
        scores = _single([row or [math.nan] * self._width for row in rows])
        if self._response.kind == "logits":
            return Answers.from_scores(softmax(scores), scores)
        return Answers.from_scores(scores)

    def _label(self, value: Any) -> int:
        """The class that a label names; -1 for none."""
        if isinstance(value, float) and value.is_integer() and abs(value) < MAX_LABEL:
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int | str):
            return -1
        if isinstance(value, str) or (abs(value) < MAX_LABEL and str(value) in self._places):
            return self._places.get(str(value), -1)
        return value if 0 <= value < (len(self._places) or MAX_LABEL) else -1

    def _numbers(self, row: Any) -> list[float] | None:
        """A list of two or more numbers, or an object with a number for every class."""
        if isinstance(row, Mapping):
            told = {self._places.get(name, -1): _number(value) for name, value in row.items()}
            complete = bool(told) and -1 not in told and len(told) == len(self._places) == len(row)
            return [told[place] for place in range(len(told))] if complete else None
        return [_number(value) for value in row] if isinstance(row, list) and len(row) > 1 else None

    def _pairs(self, row: Any) -> dict[int, float]:
        """Class to score; nothing if a class is unknown or named twice, or a score is no finite number."""
        entries = row if isinstance(row, list) and all(isinstance(entry, Mapping) for entry in row) else []
        labels = [self._label(entry.get(self._response.top_label)) for entry in entries]
        scores = [_number(entry.get(self._response.top_score)) for entry in entries]
        fine = -1 not in labels and len(set(labels)) == len(labels) and bool(np.isfinite(_single(scores)).all())
        return dict(zip(labels, scores, strict=True)) if fine else {}

    def _table(self, rows: Sequence[Mapping[int, float]]) -> Array:
        """Scores (n, classes), NaN where they were not told."""
        return _single([[row.get(place, math.nan) for place in range(len(self._places))] for row in rows])


def _best_told(scores: Array) -> Answers:
    """Answers from the largest scores alone; a row without any is INVALID."""
    told = np.isfinite(scores).any(axis=1)
    labels = np.where(told, np.nan_to_num(scores, nan=-np.inf).argmax(axis=1), -1)
    return Answers(np.where(told, Status.OK, Status.INVALID).astype(np.uint8), labels.astype(np.int64), scores)


def _number(value: Any) -> float:
    """A number as a float, NaN for everything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return math.nan
    return float(value) if abs(value) < 1e300 else math.nan


def _single(rows: Sequence[Any]) -> Array:
    with np.errstate(over="ignore"):
        return np.asarray(rows, np.float64).astype(np.float32)
