"""A store of models by content: weights named by their digest, one manifest, one journal of finished tasks."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from minutia.core.digest import Array, canonical_json, content_digest
from minutia.core.errors import FileError, UsageError
from minutia.core.model import ModelCard, WeightModel
from minutia.storage import trust
from minutia.storage.files import write_atomically
from minutia.storage.journal import SqliteJournal

SCHEMA = "minutia.zoo/1"


@dataclass(frozen=True)
class Entry:
    """One stored model: its role (calibrator, spent, craft, control, suspect, …), kind, card and weights file."""

    role: str
    kind: str
    spec: str
    card: ModelCard
    weights: str | None

    def plain(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "role": self.role,
            "kind": self.kind,
            "spec": self.spec,
            "card": self.card.plain(),
            "weights": self.weights,
        }

    @classmethod
    def from_plain(cls, data: Mapping[str, Any]) -> "Entry":
        """The inverse of ``plain``; weights outside the store are refused."""
        if data["weights"] is not None and not trust.is_weights_name(data["weights"]):
            raise ValueError(f"weights at {data['weights']!r}")
        return cls(data["role"], data["kind"], data["spec"], ModelCard.from_plain(data["card"]), data["weights"])


class ModelStore:
    """A directory: ``models/<digest>.safetensors``, ``journal.sqlite`` and a manifest ``zoo.json``.

    Weights are written before the journal says so, so a kill at any moment loses at most the task under way.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        try:
            (root / "models").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FileError(f"expected a folder for models at {root}, got {error.strerror}: choose another") from error
        fresh = not (root / "zoo.json").is_file() and not (root / "journal.sqlite").is_file()
        if fresh and not trust.is_own(root):  # a journal names models too: one that is there already is not ours
            trust.made(root)
        self.journal = SqliteJournal(root / "journal.sqlite")

    @property
    def own(self) -> bool:
        """Whether this user made the store, so that code it names may be run."""
        return trust.is_own(self.root)

    def save_weights(self, model: WeightModel) -> str:
        """Store a model's tensors by content and return their path inside the store."""
        return save_weights(self.root, dict(model.tensors()))

    def results(self, digests: Iterable[str]) -> dict[str, dict[str, Any]]:
        """Values of finished jobs whose files are all there, by digest."""
        found = {}
        for digest, entry in self.journal.get(digests).items():
            try:
                body = json.loads(entry)
                names, value = list(body["files"]), dict(body["value"])
            except (ValueError, LookupError, TypeError):
                continue  # not ours, or of another version: the job is done again
            if all(trust.is_own_name(str(name)) and (self.root / name).is_file() for name in names):
                found[digest] = value
        return found

    def keep(self, digest: str, value: Mapping[str, Any], files: Mapping[str, bytes]) -> None:
        """Write a finished job's files, then remember that it is done."""
        for name, content in files.items():
            self.save_file(name, content)
        self.journal.put({digest: canonical_json({"value": value, "files": sorted(files)}).encode()})

    def save_file(self, name: str, content: bytes) -> None:
        """Write a file that is named by its content, once; all but weights are for the owner's eyes alone."""
        if not (self.root / name).is_file():
            write_atomically(self.root / name, content, private=not name.startswith("models/"))

    def write_manifest(self, header: Mapping[str, Any], entries: Iterator[Entry] | list[Entry]) -> None:
        """Replace the manifest."""
        body = {**header, "models": [e.plain() for e in entries]}
        text = json.dumps(body, indent=1, sort_keys=True, ensure_ascii=False)
        write_atomically(self.root / "zoo.json", text.encode(), private=False)

    def check_population(self, wanted: Mapping[str, object]) -> None:
        """Refuse models of another population: a store holds one that is declared."""
        if not (self.root / "zoo.json").is_file():
            return
        header, _ = self.manifest()
        for name, value in wanted.items():
            if header.get(name) != value:
                raise UsageError(
                    f"expected the population of {self.root} ({name} {header.get(name)}), got {name} {value}: "
                    "one declared null population per store, choose another folder"
                )

    def listed(self, header: Mapping[str, object], entries: Sequence[Entry]) -> list[Entry]:
        """Add entries to the manifest, each model once, and return all that are in it."""
        before = self.manifest()[1] if (self.root / "zoo.json").is_file() else []
        known = {e.card.id: e for e in [*before, *entries]}
        self.write_manifest({"schema": SCHEMA, **header}, list(known.values()))
        return list(known.values())

    def manifest(self) -> tuple[dict[str, Any], list[Entry]]:
        """Header and entries of the manifest."""
        path = self.root / "zoo.json"
        if not path.is_file():
            raise FileError(
                f"expected a store of models, found no zoo.json in {self.root}: make one with 'minutia null build'"
            )
        try:
            body = json.loads(path.read_text())
            entries = [Entry.from_plain(e) for e in body.pop("models")]
            missing = [name for name in ("rung", "like", "data") if not isinstance(body[name], str)]
        except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            missing = [type(error).__name__]
        if missing:
            raise FileError(f"expected a manifest in {path}, got a damaged one ({missing[0]}): build it again")
        return body, entries


def save_weights(root: Path, tensors: Mapping[str, Array]) -> str:
    """Write tensors as ``models/<digest>.safetensors`` unless that content is there already."""
    name, content = weights_file(tensors)
    if not (root / name).is_file():
        write_atomically(root / name, content, private=False)
    return name


def weights_file(tensors: Mapping[str, Array]) -> tuple[str, bytes]:
    """Name and content of the file that holds these tensors."""
    from safetensors.numpy import save

    digest = content_digest({"kind": "weights"}, tensors).removeprefix("sha256:")
    return f"models/{digest}.safetensors", save({n: np.ascontiguousarray(tensors[n]) for n in sorted(tensors)})


def load_weights(root: Path, name: str) -> dict[str, Array]:
    """Read stored weights and check them against the digest that is their name."""
    from safetensors.numpy import load_file

    path = root / name
    try:
        tensors = dict(load_file(path))
    except Exception as error:
        raise FileError(f"expected stored weights in {path}, got {error}: build the model again") from error
    if content_digest({"kind": "weights"}, tensors).removeprefix("sha256:") != path.stem:
        raise FileError(f"expected the content that {path.name} is named after, got another: build the model again")
    return tensors
