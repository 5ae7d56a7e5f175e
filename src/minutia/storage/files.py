"""Fingerprints, nulls and observations as files: one safetensors file each, canonical, digest-checked.

The header's ``minutia`` entry is canonical JSON with the kind of value and its digest; arrays follow. Reading
recomputes the digest and the canonical bytes, so any change of any byte is noticed. See docs/reference/format.
"""

import errno
import json
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from minutia.core.answers import Answers, Observation
from minutia.core.digest import Array, canonical_json, content_digest
from minutia.core.errors import FileError, MinutiaError, UsageError
from minutia.core.fingerprint import FORMAT, Fingerprint, Null, Part
from minutia.core.model import ModelCard
from minutia.core.probe import ProbeSet

MAX_BYTES = 4 * 2**30
FIELDS = {"kind": str, "format": int, "digest": str, "content": str, "value": dict}


def write_atomically(path: Path, data: bytes, *, private: bool = True) -> None:
    """Write beside the target, flush to disk, then rename: readers see the old file or the new one, never half.

    A link is followed; devices, pipes and folders are refused, since the rename would put a file in their place.
    """
    path = Path(os.path.realpath(path))
    try:
        if path.exists() and not path.is_file():
            raise FileError(f"expected to write {path}, got something that is no file: choose another place")
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            if not private:
                Path(temporary).chmod(0o644)
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        remedy = "free some space, then the same command continues" if full else "choose another place"
        raise FileError(f"expected to write {path}, got {error.strerror}: {remedy}") from error


def save_fingerprint(fp: Fingerprint, path: Path) -> None:
    """Write a fingerprint; the file is private (0600) because its probes are secret."""
    write_atomically(path, fingerprint_bytes(fp))


def load_fingerprint(path: Path) -> Fingerprint:
    """Read a fingerprint and check it against its own digest."""
    return _load(path, "fingerprint", _fingerprint, fingerprint_bytes)


def save_null(null: Null, path: Path) -> None:
    """Write a null: the observations of innocent models on one fingerprint's probes."""
    write_atomically(path, null_bytes(null))


def load_null(path: Path) -> Null:
    """Read a null and check it against its own digest."""
    return _load(path, "null", _null, null_bytes)


def fingerprint_bytes(fp: Fingerprint) -> bytes:
    """The one byte string that stands for a fingerprint."""
    header, arrays = fp.header(), {f"own.{k}": v for k, v in fp.answers.arrays().items()}
    header["controls"] = {}
    for kind, seen in sorted(fp.controls.items()):
        header["controls"][kind] = _pack(f"controls.{kind}", seen, arrays)
    header["reference"] = _pack("reference", fp.reference, arrays)
    arrays |= {f"method.{k}": v for k, v in fp.arrays.items()} | {"probes": fp.probes.array}
    return _bytes("fingerprint", fp.digest, header, arrays)


def null_bytes(null: Null) -> bytes:
    """The one byte string that stands for a null."""
    arrays: dict[str, Array] = {}
    packed = _pack("null", null.observations, arrays)
    header = {"kind": null.kind, "rung": null.rung, "source": null.source, "null": packed}
    return _bytes("null", null.digest, header, arrays)


def _bytes(kind: str, digest: str, header: Mapping[str, Any], arrays: Mapping[str, Array]) -> bytes:
    from safetensors.numpy import save

    plain = {name: np.asarray(arrays[name], order="C") for name in sorted(arrays)}
    fields = {"format": FORMAT, "kind": kind, "digest": digest, "value": header}
    # The value's digest leaves out what does not change a verdict (dates, sources); the content's leaves out nothing.
    meta = canonical_json({**fields, "content": content_digest(header, plain)})
    return bytes(save(plain, metadata={"minutia": meta}))


def _pack(name: str, seen: Sequence[Observation], arrays: dict[str, Array]) -> dict[str, Any]:
    """Stack the observations of many models column by column; columns that they do not share stand alone."""
    if any(o.answers.text is not None for o in seen):
        raise UsageError("expected answers of classifiers, got texts: this format cannot hold them yet")
    found = [_columns(o) for o in seen]
    columns = sorted({c for held in found for c in held})
    shared = [c for c in columns if len({_form(held, c) for held in found}) == 1]
    for column in shared:
        arrays[f"{name}.{column}"] = np.stack([held[column] for held in found])
    models = []
    for row, (o, held) in enumerate(zip(seen, found, strict=True)):
        alone = {c: a for c, a in held.items() if c not in shared}
        arrays |= {f"{name}.{row}.{column}": array for column, array in alone.items()}
        place = {"asked": list(o.asked), "protocol": o.protocol, "occasion": o.occasion}
        models.append({"card": o.subject.plain(), **place, **({"columns": sorted(alone)} if alone else {})})
    return {"columns": shared, "models": models}


def _columns(seen: Observation) -> dict[str, Array]:
    """Answers and what was read off the weights, by name."""
    return {**seen.answers.arrays(), **{f"read.{name}": array for name, array in seen.arrays.items()}}


def _form(held: Mapping[str, Array], column: str) -> tuple[tuple[int, ...], str] | None:
    found = held.get(column)
    return None if found is None else (found.shape, found.dtype.str)


def _observations(name: str, packed: Mapping[str, Any], arrays: Mapping[str, Array]) -> tuple[Observation, ...]:
    """The inverse of ``_pack``."""
    stacks = {column: arrays[f"{name}.{column}"] for column in packed["columns"]}
    found = []
    for row, item in enumerate(packed["models"]):
        held = {column: stack[row] for column, stack in stacks.items()}
        held |= {column: arrays[f"{name}.{row}.{column}"] for column in item.get("columns", ())}
        read = {c.removeprefix("read."): a for c, a in held.items() if c.startswith("read.")}
        who, asked = ModelCard.from_plain(item["card"]), tuple(item["asked"])
        answers = Answers.from_arrays(held)
        found.append(Observation(who, asked, answers, item["protocol"], item["occasion"], arrays=read))
    return tuple(found)


def _null(header: Mapping[str, Any], arrays: Mapping[str, Array]) -> Null:
    return Null(header["kind"], _observations("null", header["null"], arrays), header["rung"], header["source"])


def _fingerprint(header: Mapping[str, Any], arrays: Mapping[str, Array]) -> Fingerprint:
    controls = {k: _observations(f"controls.{k}", v, arrays) for k, v in header["controls"].items()}
    return Fingerprint(
        method=header["method"],
        question=header["question"],
        owner=ModelCard.from_plain(header["owner"]),
        probes=ProbeSet(tuple(header["ids"]), arrays["probes"], header["protocol"]),
        answers=Answers.from_arrays({k.removeprefix("own."): v for k, v in arrays.items() if k.startswith("own.")}),
        arrays={k.removeprefix("method."): v for k, v in arrays.items() if k.startswith("method.")},
        controls={"owner": controls.pop("owner"), **controls},
        reference=_observations("reference", header["reference"], arrays),
        spent=frozenset(header["spent"]),
        schedule=tuple(header["schedule"]),
        threats=tuple(header["threats"]),
        binds=tuple(header["binds"]),
        seed=header["seed"],
        members=tuple(Part(key, tuple(rows), why) for key, rows, why in header.get("members", ())),
    )


_Value = TypeVar("_Value", Fingerprint, Null)


def _load(
    path: Path,
    kind: str,
    build: Callable[[Mapping[str, Any], Mapping[str, Array]], _Value],
    canonical: Callable[[_Value], bytes],
) -> _Value:
    """Parse, rebuild the value, and believe it only if its digest and its canonical bytes are those of the file."""
    data = _bounded(path, kind)
    meta, arrays = _parsed(path, kind, data)
    if meta["kind"] != kind:
        raise FileError(f"expected a {kind} file, got a {meta['kind'][:20]} in {path}: pass the other file here")
    if meta["format"] != FORMAT:
        raise FileError(f"expected format {FORMAT}, got {meta['format']} in {path}: upgrade minutia")
    try:
        value = build(meta["value"], arrays)
        intact = content_digest(meta["value"], arrays) == meta["content"]
        same = intact and value.digest == meta["digest"] and canonical(value) == data
    except (MinutiaError, LookupError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
        raise _damaged(path, kind, error) from error
    if not same:
        raise FileError(
            f"expected content with the digest {meta['digest'][:19]}… that {path} promises, got another: "
            "the file was altered; restore it from a copy or make it again"
        )
    return value


def _bounded(path: Path, kind: str) -> bytes:
    try:
        if not path.is_file():
            raise FileError(f"expected a {kind} file, found nothing at {path}: check the path")
        if path.stat().st_size > MAX_BYTES:
            raise FileError(f"expected a {kind} of at most {MAX_BYTES >> 30} GiB, got {path}: it is not one of ours")
        return path.read_bytes()
    except OSError as error:
        raise FileError(f"expected a {kind} file that can be read, got {error.strerror}: {path}") from error


def _parsed(path: Path, kind: str, data: bytes) -> tuple[dict[str, Any], dict[str, Array]]:
    """Metadata and arrays; safetensors checks offsets and sizes against the file before it allocates."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        arrays = dict(load(data))
        size = int.from_bytes(data[:8], "little")
        meta = json.loads(json.loads(data[8 : 8 + size])["__metadata__"]["minutia"])
        if not all(isinstance(meta[name], kind) for name, kind in FIELDS.items()):
            raise TypeError("fields of another type")
        return meta, arrays
    except (SafetensorError, LookupError, TypeError, ValueError, RecursionError) as error:
        raise _damaged(path, kind, error) from error


def _damaged(path: Path, kind: str, error: Exception) -> FileError:
    return FileError(
        f"expected a {kind} file, got something else or a damaged one in {path} ({type(error).__name__}): "
        "restore it from a copy or make it again"
    )
