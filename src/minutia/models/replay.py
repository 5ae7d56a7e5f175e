"""A transcript is a model: answers recorded once, in a neutral JSONL, are asked again offline.

One line per answer: ``{"model","prompt_id","prompt","response","repeat","sampling","collected"}``. For a
classifier ``prompt`` is the probe's content digest. ``response`` is a text, a label, an object of ``label``,
``scores``, ``logits``, ``text`` (what there is), or null beside a ``status``. ``status``, ``usage`` and
``root`` are optional.
"""

import json
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np

from minutia.core.access import Access
from minutia.core.answers import Answers, Status
from minutia.core.digest import canonical_json, sha256
from minutia.core.errors import FileError, ModelError, ProtocolError, UsageError
from minutia.core.model import ModelCard
from minutia.core.probe import Probe, ProbeSet
from minutia.models import split_spec

MAX_LINE_BYTES = 2**20
MAX_LABEL = 2**31
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
COLUMNS = {
    "text": Access.TEXT,
    "scores": Access.SCORES | Access.TOP_K,
    "logits": Access.LOGITS,
    "usage": Access.USAGE,
}

Plain = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Recorded:
    """One line of a transcript; ``prompt`` is a digest, a text, or the canonical JSON of chat messages."""

    model: str
    root: str
    prompt_id: str
    prompt: str
    repeat: int
    sampling: Plain
    answer: Plain


class ReplayModel:
    """Answers of a transcript, found by what was asked, else by the prompt's id; what is missing has FAILED.

    >>> lines = [Recorded("m", "m", "p", "Hi", 0, {}, parsed_answer({"response": "Hello"}))]
    >>> model = ReplayModel(lines)
    >>> model.ask(ProbeSet(("p", "q"), ("Hi", "Bye"))).status.tolist()
    [0, 2]
    """

    def __init__(self, rows: Iterable[Recorded], spec: str = "replay") -> None:
        self._by_prompt: dict[tuple[str, int], list[Recorded]] = {}
        self._by_name: dict[tuple[str, int], list[Recorded]] = {}
        owners = {}
        for row in rows:
            owners[row.model] = row.root
            self._by_prompt.setdefault((row.prompt, row.repeat), []).append(row)
            self._by_name.setdefault((row.prompt_id, row.repeat), []).append(row)
        if not owners:
            raise ModelError(f"expected recorded answers in {spec}, got none: check the file and the model's name")
        if len(owners) != 1:
            raise UsageError(
                f"expected answers of one model in {spec}, got {len(owners)} "
                f"({', '.join(sorted(owners)[:5])}): choose one with ?model=NAME"
            )
        ((name, root),) = owners.items()
        self.spec, self.card = spec, ModelCard(name, root, spec)
        self.access = _access([row.answer for some in self._by_name.values() for row in some])

    def ask(self, probes: ProbeSet) -> Answers:
        """Look every probe up; an answer to another question under the same id is a ProtocolError."""
        return answers_from([self._find(probes, row) for row in range(len(probes))])

    def _find(self, probes: ProbeSet, row: int) -> Plain | None:
        probe = probes[row]
        questions = _questions(probes, row)
        same = [r for q in questions for r in self._by_prompt.get((q, probe.repeat), ())]
        named = [] if same else self._by_name.get((probe.id, probe.repeat), [])
        for other in named:
            comparable = DIGEST.fullmatch(other.prompt) or isinstance(probes.content, tuple)
            if other.prompt and comparable:
                raise ProtocolError(
                    f"expected an answer to {questions[-1][:60]!r} under {probe.id!r} in {self.spec}, "
                    f"got one to {other.prompt[:60]!r}: it was made with other probes or another protocol"
                )
        return self._chosen(same or named, probe)

    def _chosen(self, rows: Sequence[Recorded], probe: Probe) -> Plain | None:
        """Choose by id, then by sampling: several samples of one question are told apart by nothing else."""
        own = [r for r in rows if r.prompt_id == probe.id] or rows
        fit = [r for r in own if _compatible(r.sampling, probe.sampling)]
        if (rows and not fit) or any(r.answer != fit[0].answer for r in fit):
            what = f"{len(fit)} different ones" if fit else f"one under {dict(rows[0].sampling)}"
            raise ProtocolError(
                f"expected one answer to {probe.id!r} at {dict(probe.sampling)} in {self.spec}, got {what}: "
                "ask with the ids, repeats and sampling of the transcript"
            )
        return fit[0].answer if fit else None


class Transcript:
    """A transcript being written: one line per answer, each by a single append, none that is there already.

    >>> import tempfile
    >>> probes = ProbeSet(("a",), np.zeros((1, 2)))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "answers.jsonl"
    ...     Transcript(path).add(ModelCard("m", "m"), probes, Answers.from_labels(np.array([3])))
    ...     open_model(str(path)).ask(probes).labels.tolist()
    1
    [3]
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._known = {_identity(f) for _, f in _lines(self.path)} if self.path.exists() else set[str]()

    def add(self, card: ModelCard, probes: ProbeSet, answers: Answers, collected: str = "") -> int:
        """Append the answers that arrived (FAILED rows are none) and return how many lines were new."""
        fields = [_line(card, probes, answers, int(row)) for row in np.flatnonzero(answers.status != Status.FAILED)]
        fresh = {_identity(f): f for f in fields}
        lines = [_encoded({**f, "collected": collected}) for key, f in fresh.items() if key not in self._known]
        self._append(lines)
        self._known |= fresh.keys()
        return len(lines)

    def _append(self, lines: Sequence[bytes]) -> None:
        try:
            # Probes may be secret: the file is the owner's alone.
            handle = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
            try:
                size = os.fstat(handle).st_size
                torn = bool(size) and os.pread(handle, 1, size - 1) != b"\n"
                for line in [b"\n", *lines] if torn else lines:
                    if os.write(handle, line) != len(line):
                        raise OSError(28, "the disk is full")
            finally:
                os.close(handle)
        except OSError as error:
            raise FileError(f"expected to write {self.path}, got {error.strerror}: choose another place") from error


def open_model(rest: str) -> ReplayModel:
    """Open ``answers.jsonl``, or ``answers.jsonl?model=NAME`` where it holds several models."""
    target, options = split_spec(rest, allowed=("model",))
    rows = read_transcript(Path(target))
    wanted = options.get("model")
    return ReplayModel((r for r in rows if wanted in (None, r.model)), f"replay:{rest}")


def read_transcript(path: Path) -> Iterator[Recorded]:
    """Read line by line; what is not a bounded, complete, consistent line is a FileError with its number."""
    seen: dict[tuple[str, ...], Plain] = {}
    for place, fields in _lines(path):
        try:
            row = _recorded(fields)
            key = (row.model, row.prompt_id, row.prompt, str(row.repeat), canonical_json(row.sampling))
        except (ValueError, OverflowError, RecursionError) as error:
            raise FileError(f"expected {error} in {place}, got {str(list(fields))[:120]}: correct the line") from error
        if seen.setdefault(key, row.answer) != row.answer:
            raise FileError(
                f"expected one answer per prompt and repeat, got another to {row.prompt_id!r} in {place}: "
                "number the repeats, or delete the wrong line"
            )
        yield row


def answer_fields(answers: Answers, row: int) -> dict[str, Any]:
    """One answer as the fields ``response``, ``status``, ``usage`` of a line; floats exactly, NaN as text.

    >>> answer_fields(Answers.from_scores(np.array([[0.25, np.nan]])), 0)
    {'response': {'label': None, 'scores': [0.25, 'nan']}, 'status': 'invalid'}
    """
    label, response = int(answers.labels[row]), dict[str, Any]()
    for name in ("scores", "logits"):
        column = getattr(answers, name)
        if column is not None:
            numbers = np.asarray(column[row], np.float32).tolist()
            response[name] = [v if math.isfinite(v) else str(v) for v in numbers]
    if label >= 0 or response:
        response = {"label": label if label >= 0 else None, **response}
    if answers.text is not None:
        response["text"] = answers.text[row]
    bare: Any = response["text"] if set(response) == {"text"} else response or None
    usage = {} if answers.usage is None else {"usage": answers.usage[row].item()}
    return {"response": bare, "status": Status(int(answers.status[row])).name.lower(), **usage}


def parsed_answer(fields: Plain) -> dict[str, Any]:
    """Check the fields of one answer and bring them to one form; a ValueError says what was expected.

    >>> parsed_answer({"response": {"scores": [0.25, 0.75]}})
    {'scores': (0.25, 0.75), 'label': 1, 'status': 0}
    """
    response, named = fields.get("response"), str(fields.get("status", "")).upper()
    if named not in ("", *Status.__members__) or (response is None and not named):
        raise ValueError(f"a response, or one of the status {', '.join(Status.__members__).lower()}")
    whole = {"text": response} if isinstance(response, str) else {"label": response} if _whole(response) else response
    if not isinstance(whole, dict | None) or (whole and not whole.keys() & {"label", "scores", "logits", "text"}):
        raise ValueError("a text, a label, or label, scores, logits, text as the response")
    found = _columns(whole or {}, fields.get("usage"))
    found.setdefault("label", _best(found))
    answered = found["label"] >= 0 or "text" in found
    return {**found, "status": int(Status[named] if named else Status.OK if answered else Status.INVALID)}


def readable(text: str) -> str:
    r"""Replace half surrogates, which JSON can carry and no file or digest can hold.

    >>> readable("caf\u00e9 \ud800") == "caf\u00e9 \ufffd"
    True
    """
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def answers_from(rows: Sequence[Plain | None]) -> Answers:
    """Columns from parsed answers; None stands for a question that brought no answer.

    >>> answers_from([parsed_answer({"response": 4}), None]).labels.tolist()
    [4, -1]
    """
    status = np.array([Status.FAILED if r is None else r["status"] for r in rows], np.uint8)
    labels = np.array([-1 if r is None else r["label"] for r in rows], np.int64)
    return Answers(status, labels, **{n: _column(rows, n) for n in COLUMNS if _complete(rows, n)})


def _columns(response: Plain, usage: object) -> dict[str, Any]:
    """Check the columns of one answer."""
    found: dict[str, Any] = {}
    for name in ("scores", "logits"):
        if response.get(name) is not None:
            if not isinstance(response[name], list) or len(response[name]) < 2:
                raise ValueError(f"a list of two or more numbers as {name}")
            found[name] = tuple(_number(v) for v in response[name])
    if response.get("text") is not None:
        if not isinstance(response["text"], str):
            raise ValueError("a string as text")
        found["text"] = readable(response["text"])
    if "label" in response:
        label = response["label"]
        if label is not None and not _whole(label):
            raise ValueError("a whole number as label")
        found["label"] = label if label is not None and 0 <= label < MAX_LABEL else -1
    if usage is not None:
        found["usage"] = usage if _whole(usage) and abs(usage) < 2**53 else _number(usage)
    return found


def _best(found: Plain) -> int:
    """Find the label that the scores name, where none is given."""
    scores = found.get("scores", found.get("logits"))
    return int(np.argmax(scores)) if scores is not None and np.isfinite(scores).all() else -1


def _complete(rows: Sequence[Plain | None], name: str) -> bool:
    """Whether a column can be kept: somebody has it, and nobody who answered lacks it."""
    has = [r is not None and name in r for r in rows]
    return any(has) and all(h for h, r in zip(has, rows, strict=True) if r is not None and r["status"] == Status.OK)


def _column(rows: Sequence[Plain | None], name: str) -> Any:
    """One column; rows without it are padded with NaN, zero or empty text."""
    values = [None if r is None else r.get(name) for r in rows]
    if name == "text":
        return tuple(v or "" for v in values)
    if name == "usage":
        return np.array([v or 0 for v in values])
    widths = {len(v) for v in values if v is not None}
    if len(widths) != 1:
        raise ModelError(
            f"expected {name} for the same classes in every answer, got {sorted(widths)}: correct the file"
        )
    blank = (np.nan,) * widths.pop()
    with np.errstate(over="ignore"):
        return np.array([blank if v is None else v for v in values], np.float64).astype(np.float32)


def _access(answers: Sequence[Plain]) -> Access:
    """Claim what the recorded answers hold, no more."""
    found = Access.LABELS if any(a["label"] >= 0 for a in answers) else Access(0)
    for name, access in COLUMNS.items():
        found |= access if _complete(answers, name) else Access(0)
    return found


def _questions(probes: ProbeSet, row: int) -> list[str]:
    """How a transcript may spell what is asked: the content digest, and for texts the text itself."""
    content = probes.content[row]
    if isinstance(content, np.ndarray):
        return [probes.content_id(row)]
    return [probes.content_id(row), content if isinstance(content, str) else canonical_json(content)]


def _line(card: ModelCard, probes: ProbeSet, answers: Answers, row: int) -> dict[str, Any]:
    probe = probes[row]
    is_array = isinstance(probe.content, np.ndarray)
    return {
        "model": card.id,
        **({} if card.root == card.id else {"root": card.root}),
        "prompt_id": probe.id,
        "prompt": probes.content_id(row) if is_array else probe.content,
        "repeat": probe.repeat,
        "sampling": dict(probe.sampling),
        **answer_fields(answers, row),
    }


def _encoded(fields: Plain) -> bytes:
    """Write a line in ASCII, so that no text of a hostile API can break a line or an encoding."""
    line = json.dumps(fields, allow_nan=False).encode() + b"\n"
    if len(line) > MAX_LINE_BYTES:
        raise ModelError(f"expected answers below {MAX_LINE_BYTES} bytes, got {len(line)}: ask for fewer tokens")
    return line


def _identity(fields: Plain) -> str:
    """Digest of a line without the date."""
    return sha256(json.dumps({**fields, "collected": ""}, sort_keys=True).encode())


def _lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Where each line stands, and its JSON object."""
    try:
        with path.open("rb") as file:
            for number, line in enumerate(iter(lambda: file.readline(MAX_LINE_BYTES + 1), b""), 1):
                place = f"line {number} of {path}"
                if len(line) > MAX_LINE_BYTES:
                    raise FileError(f"expected at most {MAX_LINE_BYTES} bytes in {place}, got more: shorten the answer")
                if line.strip():
                    yield place, _object(line, place)
    except OSError as error:
        raise FileError(f"expected a transcript at {path}, got {error.strerror}: check the path") from error


def _object(line: bytes, place: str) -> dict[str, Any]:
    try:
        found = json.loads(line, parse_constant=str)
        if isinstance(found, dict):
            return found
        problem = f"a {type(found).__name__}"
    except (ValueError, RecursionError) as error:
        problem = str(error)[:120]
    raise FileError(f"expected one JSON object in {place}, got {problem}: the transcript is truncated or foreign")


def _recorded(fields: Plain) -> Recorded:
    """Check one line; a ValueError says what was expected."""
    for name in ("model", "prompt_id", "prompt", "response"):
        if name not in fields or (name in ("model", "prompt_id") and not isinstance(fields[name], str)):
            raise ValueError(f"the field {name!r}")
    repeat, sampling = fields.get("repeat", 0), fields.get("sampling") or {}
    if not _whole(repeat) or not 0 <= repeat < MAX_LABEL or not isinstance(sampling, dict):
        raise ValueError("a whole number as repeat and an object as sampling")
    prompt, root = fields["prompt"], fields.get("root", fields["model"])
    if not isinstance(root, str) or not isinstance(prompt, str | list):
        raise ValueError("a string as root, and a text or a list of messages as prompt")
    text = prompt if isinstance(prompt, str) else canonical_json(prompt)
    model, root, name, text = (readable(s) for s in (fields["model"], root, fields["prompt_id"], text))
    return Recorded(model, root, name, text, repeat, sampling, parsed_answer(fields))


def _whole(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _number(value: Any) -> float:
    """Read a float; NaN is always the same object, so that equal answers compare equal."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError("numbers")
    number = float(value)
    return math.nan if math.isnan(number) else number


def _compatible(recorded: Plain, asked: Plain) -> bool:
    """Whether no parameter that both name differs; lists and tuples are alike, as in JSON."""
    return all(canonical_json(asked[k]) == canonical_json(v) for k, v in recorded.items() if k in asked)
