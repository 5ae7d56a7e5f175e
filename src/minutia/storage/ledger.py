"""The ledger of spent keys: which probes of a fingerprint were shown to which suspect, and when.

A file of JSON lines beside the fingerprint that only grows. Each line is appended by one write and flushed to disk
before the suspect is asked, so that neither a kill nor a second process leaves a question untold.
"""

import errno
import json
import os
from datetime import UTC, datetime
from pathlib import Path

from minutia.core.answers import Answers
from minutia.core.digest import canonical_json
from minutia.core.errors import FileError
from minutia.core.fingerprint import Fingerprint
from minutia.core.model import Model, ModelCard
from minutia.core.probe import ProbeSet

SCHEMA = "minutia.ledger/1"


class Ledger:
    """The ledger of one fingerprint; the owner's own model is never noted, it shows nobody anything.

    >>> Ledger.beside(Path("mine.safetensors")).name
    'mine.ledger.jsonl'
    """

    def __init__(self, path: Path, fp: Fingerprint) -> None:
        self.path, self._fp = path, fp
        self._keys = {fp.probes.content_id(row): key for row, key in enumerate(fp.probes.ids)}

    @staticmethod
    def beside(fingerprint: Path) -> Path:
        """Where the ledger of a fingerprint lies."""
        return fingerprint.with_name(f"{fingerprint.stem}.ledger.jsonl")

    def spent(self, suspect: ModelCard) -> dict[str, set[str]]:
        """Keys that others than this suspect were asked: key -> ids of those models.

        A line that is cut off was never followed by its question, and does not count.
        """
        found: dict[str, set[str]] = {}
        for line in self._lines():
            try:
                entry = json.loads(line)
                if entry["fingerprint"] == self._fp.digest and entry["suspect"] != suspect.id:
                    for key in entry["keys"]:
                        found.setdefault(str(key), set()).add(str(entry["suspect"]))
            except (ValueError, LookupError, TypeError, RecursionError):
                continue
        return found

    def note(self, probes: ProbeSet, suspect: Model) -> None:
        """Append one line: these probes are about to be shown to this suspect; others than the keys are no secret."""
        asked = (self._keys.get(probes.content_id(row)) for row in range(len(probes)))
        keys = [key for key in asked if key is not None]
        if not keys:
            return
        who = {"suspect": suspect.card.id, "spec": suspect.spec, "at": datetime.now(UTC).isoformat(timespec="seconds")}
        entry = {"schema": SCHEMA, "fingerprint": self._fp.digest, "keys": keys, **who}
        try:
            file = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
            try:
                _append(file, canonical_json(entry).encode() + b"\n")
            finally:
                os.close(file)
        except OSError as error:
            raise FileError(
                f"expected a ledger that can be written at {self.path}, got {error.strerror}: nothing was asked, since "
                "spent keys must be known; make its folder writable"
            ) from error

    def noting(self, suspect: Model) -> Model:
        """The suspect, with every question noted before it is asked."""
        return suspect if suspect.card.id == self._fp.owner.id else _Noting(suspect, self)

    def _lines(self) -> list[bytes]:
        try:
            return self.path.read_bytes().splitlines()
        except FileNotFoundError:
            return []
        except OSError as error:
            raise FileError(f"expected a ledger that can be read, got {error.strerror}: {self.path}") from error


def _append(file: int, line: bytes) -> None:
    """One write, so that lines of two processes never mix; a line that a kill cut off is ended first."""
    size = os.lseek(file, 0, os.SEEK_END)
    if size:
        os.lseek(file, size - 1, os.SEEK_SET)
        line = line if os.read(file, 1) == b"\n" else b"\n" + line
    if os.write(file, line) < len(line):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    os.fsync(file)


class _Noting:
    """A model whose questions are noted."""

    def __init__(self, model: Model, ledger: Ledger) -> None:
        self.spec, self.card, self.access = model.spec, model.card, model.access
        self.behind = getattr(model, "behind", model)
        self._model, self._ledger = model, ledger

    def ask(self, probes: ProbeSet) -> Answers:
        """Note, then ask."""
        self._ledger.note(probes, self._model)
        return self._model.ask(probes)
