"""A model behind a meter: budget, batches, retries, a journal that resumes, and a transcript."""

import json
import logging
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from minutia.core.access import Access
from minutia.core.answers import Answers, Status
from minutia.core.digest import Array, canonical_json, sha256
from minutia.core.errors import AnswerError, BudgetError, FileError, MinutiaError, ModelError, UsageError
from minutia.core.journal import Journal
from minutia.core.model import Model
from minutia.core.probe import ProbeSet
from minutia.models import one_line
from minutia.models.replay import Transcript, answer_fields, answers_from, parsed_answer, readable

ANSWERING = Access.LABELS | Access.TOP_K | Access.SCORES | Access.LOGITS | Access.TEXT | Access.LOGPROBS | Access.USAGE
"""What can be seen by asking; gradients, weights and training are not handed through a meter."""
STRIPPED = {"scores": Access.SCORES | Access.TOP_K, "logits": Access.LOGITS, "text": Access.TEXT, "usage": Access.USAGE}
"""Columns of answers and the access that shows them."""
TOP = 5
"""Scores per answer that are left of a model which would show all, where only the largest are asked for."""

# Without a handler Python would print each retry to stderr; a program that wants them sets up logging.
logging.getLogger("stamina").addHandler(logging.NullHandler())


class Metered:
    """Wraps a suspect as a model that counts, retries and remembers.

    ``max_queries`` is a hard stop on forward passes sent, retries included. ``wait`` is the first pause in
    seconds before a retry; pauses double and jitter. ``only`` hides everything else the model would return.
    A batch that fails ``attempts`` times becomes FAILED rows, which are never journalled: the next run asks
    them again. ``sent`` counts passes, ``retried`` the repetitions among them, ``cached`` journalled rows. ``behind``
    is the model itself where its weights are open and not hidden: reading them is not asking.

    >>> from minutia.models.toy import ToyClassifier
    >>> model = Metered(ToyClassifier.fresh((2, 3)), only=Access.LABELS, max_queries=4)
    >>> answers = model.ask(ProbeSet(("a", "b"), np.zeros((2, 2))))
    >>> answers.scores is None, model.sent
    (True, 2)
    """

    def __init__(
        self,
        model: Model,
        *,
        only: Access | None = None,
        max_queries: int | None = None,
        journal: Journal | None = None,
        transcript: str | Path | None = None,
        attempts: int = 3,
        batch: int = 32,
        wait: float = 0.05,
    ) -> None:
        if attempts < 1 or batch < 1 or wait < 0 or (max_queries is not None and max_queries < 0):
            raise UsageError(
                f"expected positive attempts, batch, wait and max_queries, "
                f"got {attempts}, {batch}, {wait} and {max_queries}"
            )
        self.spec, self.card = model.spec, model.card
        self.access = model.access & ANSWERING & (ANSWERING if only is None else only)
        open_ = Access.WEIGHTS in model.access and (only is None or Access.WEIGHTS in only)
        self.behind = model if open_ else None
        self.sent = self.cached = self.retried = 0
        self._model, self._max_queries, self._journal = model, max_queries, journal
        self._transcript = None if transcript is None else Transcript(transcript)
        self._attempts, self._batch, self._wait = attempts, batch, wait
        self._named: dict[str, dict[str, int]] = {}
        self._answered = False

    def ask(self, probes: ProbeSet) -> Answers:
        """Answer all probes in order; ModelError if nothing ever arrives, BudgetError at the hard stop."""
        keys = self._keys(probes) if self._journal is not None else []
        known = self._recalled(keys)
        rows, parts = [np.array(sorted(known), int)], [answers_from([known[row] for row in sorted(known)])]
        missing, first_error = np.array([r for r in range(len(probes)) if r not in known], int), None
        self._record(probes.take(rows[0]), parts[0])
        for start in range(0, len(missing), self._batch):
            rows.append(missing[start : start + self._batch])
            part, error = self._sent_batch(probes.take(rows[-1]))
            first_error = first_error or error
            self._remember(keys, rows[-1], part)
            self._record(probes.take(rows[-1]), part)
            parts.append(part)
        if first_error is not None and not self._answered:
            if isinstance(first_error, ModelError):
                raise first_error
            raise AnswerError(
                f"expected answers from {self.spec}, got an error for every batch: {one_line(first_error)}; "
                "check that the model runs and takes these probes"
            ) from first_error
        return self._shown(Answers.joined(parts).take(np.argsort(np.concatenate(rows))))

    def _sent_batch(self, probes: ProbeSet) -> tuple[Answers, Exception | None]:
        """Ask one batch; after all attempts return FAILED rows and the last error."""
        try:
            answers = self._retried(probes)
        except Exception as error:
            if not _transient(error):
                raise
            return Answers.without(len(probes), Status.FAILED), error
        self._answered = self._answered or bool((answers.status != Status.FAILED).any())
        return answers, None

    def _retried(self, probes: ProbeSet) -> Answers:
        import stamina

        answers = Answers.without(0, Status.FAILED)
        for attempt in stamina.retry_context(
            on=_transient,
            attempts=self._attempts,
            timeout=None,
            wait_initial=self._wait,
            wait_max=64 * self._wait,
            wait_jitter=self._wait,
        ):
            with attempt:
                self._count(len(probes), again=attempt.num > 1)
                answers = self._model.ask(probes)
        if len(answers) != len(probes) or len(answers.labels) != len(probes):
            raise ModelError(
                f"expected {len(probes)} answers from {self.spec}, got {len(answers)}: "
                "the adapter must return one row per probe, in order"
            )
        return answers

    def _count(self, queries: int, *, again: bool) -> None:
        """Pay before asking, or stop."""
        if self._max_queries is not None and self.sent + queries > self._max_queries:
            raise BudgetError(
                f"expected at most {self._max_queries} queries, got {self.sent} and {queries} more to send: "
                "allow more, or ask fewer probes (with a journal, the next run continues here)"
            )
        self.sent += queries
        self.retried += queries if again else 0

    def _keys(self, probes: ProbeSet) -> list[str]:
        """Name every row for the journal: this model, this question, this repeat.

        One question under several names is several samples, not one: the second name has a key of its own.
        """
        keys = []
        for row, name in enumerate(probes.ids):
            question = canonical_json([self.spec, self.card.id, probes.content_id(row), probes.repeat])
            names = self._named.setdefault(question, {})
            keys.append(sha256(canonical_json([question, names.setdefault(name, len(names))]).encode()))
        return keys

    def _recalled(self, keys: list[str]) -> dict[int, Mapping[str, object]]:
        """Look up what the journal knows: parsed answers by row."""
        found = self._journal.get(keys) if self._journal is not None else {}
        known = {row: _unpacked(found[key]) for row, key in enumerate(keys) if key in found}
        self.cached += len(known)
        self._answered = self._answered or bool(known)
        return known

    def _remember(self, keys: list[str], rows: Array, part: Answers) -> None:
        """Journal what arrived before anything else is asked."""
        if self._journal is not None:
            arrived = np.flatnonzero(part.status != Status.FAILED)
            self._journal.put({keys[rows[i]]: _packed(part, int(i)) for i in arrived})

    def _record(self, probes: ProbeSet, part: Answers) -> None:
        if self._transcript is not None:
            self._transcript.add(self.card, probes, self._shown(part), datetime.now(UTC).isoformat(timespec="seconds"))

    def _shown(self, answers: Answers) -> Answers:
        """Hide the columns that the access does not grant, and bring the others to one form.

        A resumed or replayed run must have the digest of a run in one go, and NaN has many bit patterns.
        """
        hidden: dict[str, Any] = {name: None for name, needs in STRIPPED.items() if not needs & self.access}
        if Access.SCORES not in self.access and Access.SCORES in self._model.access:
            answers = answers.showing(TOP)
        floats = {n: getattr(answers, n) for n in ("scores", "logits") if getattr(answers, n) is not None}
        plain = {n: np.asarray(np.where(np.isnan(c), np.nan, c), np.float32) for n, c in floats.items()}
        text = None if answers.text is None else tuple(map(readable, answers.text))
        return replace(answers, **{"text": text, **plain, **hidden})


def _transient(error: BaseException) -> bool:
    """Whether asking again may help: not after most errors of ours, and never against the user's Ctrl-C."""
    return isinstance(error, AnswerError) or (isinstance(error, Exception) and not isinstance(error, MinutiaError))


def _packed(answers: Answers, row: int) -> bytes:
    return json.dumps(answer_fields(answers, row), allow_nan=False).encode()


def _unpacked(entry: bytes) -> Mapping[str, object]:
    """Parse an entry of the journal; the file may have been altered."""
    try:
        return parsed_answer(json.loads(entry))
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise FileError(
            f"expected answers in the journal, got {entry[:60]!r}: it holds other work; name a new journal"
        ) from error
