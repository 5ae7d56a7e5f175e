"""Files by their SHA-256, written and read as the in-toto statements of OpenSSF model signing.

A statement lists every file of a model as ``{"name", "algorithm", "digest"}`` under ``predicate.resources``; its
subject is the model, named, with the SHA-256 of all digests in the order of the list. ``model_signing`` puts such a
statement into a DSSE envelope, and that into a Sigstore bundle. Signatures are not verified here: that is what
``model_signing verify`` does.
"""

import base64
import binascii
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from minutia.core.digest import Array, canonical_json
from minutia.core.errors import FileError

STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "https://model_signing/signature/v1.0"
OLD_PREDICATE = "https://model_signing/Digests/v0.1"
MAX_BYTES = 64 * 2**20
ARRAY = "files"
"""The array of a fingerprint that holds its statement."""
Found = Literal["identical", "different", "not listed"]


class Manifest(NamedTuple):
    """SHA-256 in hexadecimal by name, relative to the model's folder; ``model`` names the main file or the folder."""

    model: str
    digests: Mapping[str, str]

    def statement(self) -> dict[str, Any]:
        """The in-toto statement that ``model_signing`` would sign for these files.

        >>> Manifest("a.onnx", {"a.onnx": "00" * 32}).statement()["predicate"]["resources"][0]["name"]
        'a.onnx'
        """
        names = sorted(self.digests)
        root = hashlib.sha256(b"".join(bytes.fromhex(self.digests[name]) for name in names)).hexdigest()
        resources = [{"name": n, "algorithm": "sha256", "digest": self.digests[n]} for n in names]
        serialization = {"method": "files", "hash_type": "sha256", "allow_symlinks": False}
        return {
            "_type": STATEMENT,
            "subject": [{"name": self.model, "digest": {"sha256": root}}],
            "predicateType": PREDICATE,
            "predicate": {"serialization": serialization, "resources": resources},
        }

    def array(self) -> Array:
        """The statement as bytes, to be kept among the arrays of a fingerprint."""
        return np.frombuffer(canonical_json(self.statement()).encode(), dtype=np.uint8)

    @classmethod
    def from_array(cls, array: Array) -> "Manifest":
        """The inverse of ``array``.

        >>> some = Manifest("a.onnx", {"a.onnx": "00" * 32})
        >>> Manifest.from_array(some.array()) == some
        True
        """
        return _parsed(array.tobytes(), "the fingerprint")


def manifest_of(files: Sequence[Path]) -> Manifest:
    """Hash the files of a model; the first is the main one, the others lie in its folder or below."""
    digests = {}
    for path in files:
        try:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise FileError(f"expected a file of the model at {path}, got {error.strerror}: check the path") from error
        inside = path.is_relative_to(files[0].parent)
        digests[path.relative_to(files[0].parent).as_posix() if inside else path.name] = digest
    return Manifest(files[0].name, digests)


def read_manifest(path: Path) -> Manifest:
    """Read a Sigstore bundle, a DSSE envelope or a bare statement; its signature is not verified."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise FileError(f"expected a manifest of at most {MAX_BYTES >> 20} MiB, got {path}: it is something else")
        data = path.read_bytes()
    except OSError as error:
        raise FileError(f"expected a model-signing manifest, got {error.strerror}: {path}") from error
    return _parsed(data, str(path))


def same(mine: Manifest, recorded: Manifest) -> bool:
    """Whether two models consist of the same files; the main file may have been renamed.

    >>> one, other = Manifest("a", {"a": "00" * 32}), Manifest("b", {"b": "00" * 32})
    >>> same(one, other), same(one, Manifest("a", {"a": "11" * 32}))
    (True, False)
    """
    return _anonymous(mine) == _anonymous(recorded)


def _anonymous(manifest: Manifest) -> dict[str, str]:
    return {"." if name == manifest.model else name: digest for name, digest in manifest.digests.items()}


def compared(mine: Manifest, listed: Manifest) -> Found:
    """Whether a model's files are those of a list, which may hold more and be of a folder further up.

    The main file may have been renamed; files that it refers to by name must have the digest of that name.

    >>> listed = Manifest("m", {"deep/a.onnx": "00" * 32, "README.md": "11" * 32})
    >>> compared(Manifest("b.onnx", {"b.onnx": "00" * 32}), listed)
    'identical'
    >>> compared(Manifest("a.onnx", {"a.onnx": "22" * 32}), listed)
    'different'
    """
    results = [_compared(name, digest, name == mine.model, listed) for name, digest in mine.digests.items()]
    for worst in ("different", "not listed"):
        if worst in results:
            return worst
    return "identical"


def _compared(name: str, digest: str, is_main: bool, listed: Manifest) -> Found:
    named = [d for n, d in listed.digests.items() if n in (name, ".") or n.endswith(f"/{name}")]
    if digest in named or (is_main and digest in listed.digests.values()):
        return "identical"
    # A list of a single file is about this model, however it is called.
    return "different" if named or (is_main and len(listed.digests) == 1) else "not listed"


def _parsed(data: bytes, place: str) -> Manifest:
    try:
        found = json.loads(data)
        envelope = found.get("dsseEnvelope", found)
        if "payload" in envelope:
            found = json.loads(base64.b64decode(envelope["payload"], validate=True))
        return _manifest(found)
    except (ValueError, TypeError, AttributeError, LookupError, RecursionError, binascii.Error) as error:
        raise FileError(
            f"expected a model-signing manifest (Sigstore bundle or in-toto statement, one SHA-256 per file) in "
            f"{place}, got something else ({type(error).__name__}): name the file that 'model_signing sign' wrote"
        ) from error


def _manifest(statement: Mapping[str, Any]) -> Manifest:
    """Resources of the current format, or subjects of the first one; anything else is a ValueError."""
    kind, subjects = statement["predicateType"], statement["subject"]
    if statement["_type"] != STATEMENT or kind not in (PREDICATE, OLD_PREDICATE):
        raise ValueError("another statement")
    if kind == OLD_PREDICATE:
        return Manifest("", _checked({str(s["name"]): s["digest"]["sha256"] for s in subjects}))
    predicate = statement["predicate"]
    resources = predicate["resources"]
    if predicate["serialization"]["method"] != "files" or {r["algorithm"] for r in resources} != {"sha256"}:
        raise ValueError("shards, or another digest")
    digests = _checked({str(r["name"]): r["digest"] for r in resources})
    root = hashlib.sha256(b"".join(bytes.fromhex(r["digest"]) for r in resources)).hexdigest()
    if len(digests) != len(resources) or root != subjects[0]["digest"]["sha256"]:
        raise ValueError("the subject is not the digest of its resources")
    return Manifest(str(subjects[0]["name"]), digests)


def _checked(digests: dict[str, str]) -> dict[str, str]:
    """Only whole SHA-256 digests in lower case."""
    if not digests or any(bytes.fromhex(d).hex() != d or len(d) != 64 for d in digests.values()):
        raise ValueError("no SHA-256 digests")
    return digests
