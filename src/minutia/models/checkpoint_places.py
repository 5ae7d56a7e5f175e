"""From a spec to the files that it names, and from a file's first bytes to its reader."""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import quote, urlsplit, urlunsplit

from minutia.core.errors import FileError, UsageError
from minutia.models.byte_ranges import ByteRanges, LocalBytes
from minutia.models.checkpoint_entries import Contents, Entry
from minutia.models.checkpoint_gguf import MAGIC, read_gguf
from minutia.models.checkpoint_http import AbsentError, HttpBytes
from minutia.models.checkpoint_npz import read_npz
from minutia.models.checkpoint_onnx import read_onnx
from minutia.models.checkpoint_s3 import S3Bytes
from minutia.models.checkpoint_safetensors import is_plain, read_index, read_safetensors
from minutia.models.checkpoint_torch import PICKLE, read_torch
from minutia.models.checkpoint_zip import read_members

KNOWN = "safetensors or an index of them, npz, GGUF, ONNX, a zip file of torch"
HUB = "https://huggingface.co"
REPOSITORY = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
"""What is looked for in a repository, in this order."""
FOLDER = (
    *("model.safetensors.index.json", "model.safetensors", "*.safetensors.index.json", "*.safetensors"),
    *(
        "*-00001-of-*.gguf",
        "*.gguf",
        "*.npz",
        "*.onnx",
        "pytorch_model.bin.index.json",
        "pytorch_model.bin",
        "*.pt",
        "*.pth",
        "*.bin",
    ),
)
"""What is looked for in a folder, the first that is there wins."""
CONFIG, TOKENIZER = "config.json", "tokenizer.json"
MAX_CONFIG = 2**20
PICKLES = tuple(bytes([0x80, protocol]) for protocol in range(2, 6))


class Opened:
    """Every file that a checkpoint holds open, so that all of them are counted and closed."""

    def __init__(self) -> None:
        self.held: list[ByteRanges] = []

    def open(self, place: "Place") -> ByteRanges:
        """Open one more file."""
        if place.in_bucket:
            self.held.append(S3Bytes(place.where))
        else:
            self.held.append(HttpBytes(place.where, place.token) if place.remote else LocalBytes(Path(place.where)))
        return self.held[-1]

    def close(self) -> None:
        """Close all of them."""
        for source in self.held:
            source.close()


@dataclass(frozen=True)
class Place:
    """A file: a local path, or an address (of a bucket's object, or with the token that its host gets)."""

    where: str
    remote: bool = False
    token: str = ""

    @property
    def in_bucket(self) -> bool:
        """Whether it is an object of a bucket."""
        return self.remote and self.where[:5].lower() == "s3://"

    def beside(self, name: str) -> "Place":
        """Another file of the same folder; FileError for a name that leads out of it.

        >>> Place("https://host/a/model.json?x=1", remote=True).beside("b.safetensors").where
        'https://host/a/b.safetensors?x=1'
        >>> Place("a/model.json").beside("../b")
        Traceback (most recent call last):
        minutia.core.errors.FileError: expected a file in the folder of a/model.json, got '../b': do not trust the file
        """
        parts = name.split("/")
        if not all(is_plain(part) for part in parts):
            shown = self.where.partition("?")[0]
            raise FileError(f"expected a file in the folder of {shown}, got {name[:120]!r}: do not trust the file")
        if self.in_bucket:
            return replace(self, where=f"{self.where.rpartition('/')[0]}/{name}")
        if not self.remote:
            return replace(self, where=str(Path(self.where).parent.joinpath(*parts)))
        place = urlsplit(self.where)
        folder = place.path.rpartition("/")[0]
        return replace(self, where=urlunsplit(place._replace(path=f"{folder}/{quote(name)}")))


def read_place(spec: str, opened: Opened) -> Contents:
    """Read the headers of what a spec names; a ``config.json`` beside the weights joins the metadata."""
    scheme = spec.partition("://")[0].lower() if "://" in spec else ""
    if scheme == "hf":
        return _in_repository(spec, opened)
    if scheme in ("http", "https", "s3"):
        return _read(Place(spec, remote=True), opened)
    if scheme:
        raise UsageError(
            f"expected a path, hf://org/name@revision, https:// or s3://bucket/key, got {spec[:120]!r}: download it, "
            "or sign an https:// address for it"
        )
    path = Path(spec)
    if not path.is_dir():
        return _read(Place(spec), opened)
    place = Place(str(_in_folder(path)))
    return _with_neighbours(_read(place, opened), place, opened)


def read_file(source: ByteRanges, beside: Callable[[str], ByteRanges]) -> Contents:
    """Read the header of one file, told by its content; ``beside`` opens others of the same folder by name."""
    head = source.read(0, min(source.size, 64)).tobytes()
    if head.startswith(MAGIC):
        return _read_split(source, beside)
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _read_zip(source)
    if head[8:9] == b"{":
        return read_safetensors(source)
    if head.lstrip()[:1] == b"{":
        return read_index(source, beside, lambda shard: read_file(shard, _nothing_beside))
    if head.startswith(PICKLES):
        raise FileError(
            f"expected a checkpoint ({KNOWN}) in {source.name}, got a bare pickle, which could run code: "
            "save the weights as safetensors"
        )
    # ONNX has no mark of its own: its first field is the version (0x08), or it names itself.
    if head[:1] == b"\x08" or source.name.endswith(".onnx"):
        return read_onnx(source, beside)
    raise FileError(
        f"expected a checkpoint ({KNOWN}) in {source.name}, got a file that begins with {head[:8]!r}: convert it to "
        "safetensors"
    )


def _read(place: Place, opened: Opened) -> Contents:
    return read_file(opened.open(place), _beside(place, opened))


def _beside(place: Place, opened: Opened) -> Callable[[str], ByteRanges]:
    return lambda name: opened.open(place.beside(name))


def _read_split(source: ByteRanges, beside: Callable[[str], ByteRanges]) -> Contents:
    """A GGUF file, with the others if it is one of several (``name-00001-of-00003.gguf``)."""
    contents = read_gguf(source)
    parts = contents.metadata.get("split.count", "0")
    if parts in ("0", "1"):
        return contents
    name = source.name.replace("\\", "/").rpartition("/")[2]
    found = re.fullmatch(r"(.+)-(\d{5})-of-(\d{5})\.gguf", name)
    if not found or int(found[3]) != int(parts if parts.isdecimal() and len(parts) < 6 else 0):
        raise FileError(
            f"expected a name like model-00001-of-00003.gguf for one of {parts[:20]} parts, got {source.name}: "
            "give the parts their names back"
        )
    entries: dict[str, Entry] = {}
    metadata: dict[str, str] = {}
    for number in range(1, int(parts) + 1):
        other = f"{found[1]}-{number:05d}-of-{found[3]}.gguf"
        part = contents if other == name else read_gguf(beside(other))
        if part.metadata.get("split.no") != str(number - 1) or set(part.entries) & set(entries):
            raise FileError(f"expected part {number} of {parts} in {other}, got another one: download it anew")
        entries |= part.entries
        metadata = metadata or dict(part.metadata)
    return Contents(entries, metadata)


def _read_zip(source: ByteRanges) -> Contents:
    members = read_members(source)
    if any(member.name.rpartition("/")[2] == PICKLE for member in members):
        return read_torch(source, members)
    if any(member.name.endswith(".npy") for member in members):
        return read_npz(source, members)
    raise FileError(f"expected arrays of numpy or torch in the archive {source.name}, got none: unpack it first")


def _nothing_beside(name: str) -> ByteRanges:
    raise FileError(f"expected weights in the shards of an index, got one that names {name[:80]!r}: do not trust it")


def _in_folder(folder: Path) -> Path:
    for pattern in FOLDER:
        found = sorted(folder.glob(pattern))
        if len(found) > 1:
            names = ", ".join(path.name for path in found[:4])
            raise UsageError(f"expected one checkpoint in {folder}, got {len(found)} ({names}): name one of them")
        if found:
            return found[0]
    raise FileError(f"expected a checkpoint ({KNOWN}) in the folder {folder}, got none: name the file itself")


def resolved(spec: str, endpoint: str = "") -> str:
    """The address of ``hf://org/name@revision/file``; without a file that of the repository's folder, ending in "/".

    ``endpoint`` is $HF_ENDPOINT, or the public hub.

    >>> resolved("hf://org/name@v1/model.safetensors", "https://hub")
    'https://hub/org/name/resolve/v1/model.safetensors'
    >>> resolved("hf://gpt2", "https://hub")
    'https://hub/gpt2/resolve/main/'
    """
    word, revision = r"[A-Za-z0-9][\w.-]*", r"(?:@([\w.%-]+))?"
    found = re.fullmatch(rf"hf://({word}/{word}){revision}(?:/(.+))?", spec, re.ASCII)
    found = found or re.fullmatch(rf"hf://({word}){revision}()", spec, re.ASCII)
    file = (found[3] or "") if found else ""
    if not found or (file and not all(is_plain(part) for part in file.split("/"))):
        raise UsageError(
            f"expected hf://org/name@revision/file (revision and file may be left out), got {spec[:120]!r}"
        )
    base = (endpoint or os.environ.get("HF_ENDPOINT") or HUB).rstrip("/")
    return f"{base}/{found[1]}/resolve/{found[2] or 'main'}/{quote(file)}"


def _in_repository(spec: str, opened: Opened) -> Contents:
    address, token = resolved(spec), os.environ.get("HF_TOKEN", "")
    if not address.endswith("/"):
        return _read(Place(address, remote=True, token=token), opened)
    for name in REPOSITORY:
        place = Place(address + name, remote=True, token=token)
        try:
            source = opened.open(place)
        except AbsentError:
            continue
        return _with_neighbours(read_file(source, _beside(place, opened)), place, opened)
    raise FileError(
        f"expected one of {', '.join(REPOSITORY)} in {spec}, got none: name the file, as in {spec}/model.gguf"
    )


def _with_neighbours(contents: Contents, place: Place, opened: Opened) -> Contents:
    """Add the text of a configuration as it is, and the way to the tokenizer, which is large and seldom asked for."""
    metadata, source = dict(contents.metadata), _neighbour(place, CONFIG, opened)
    if source is not None:
        if source.size > MAX_CONFIG:
            raise FileError(f"expected a configuration of at most {MAX_CONFIG >> 20} MiB, got {source.name}: check it")
        metadata[CONFIG] = source.read(0, source.size).tobytes().decode("utf-8", "replace")
    return Contents(contents.entries, metadata, lambda: _neighbour(place, TOKENIZER, opened))


def _neighbour(place: Place, name: str, opened: Opened) -> ByteRanges | None:
    """A file of the same folder, None where it is not there."""
    beside = place.beside(name)
    if not place.remote:
        return opened.open(beside) if Path(beside.where).is_file() else None
    try:
        return opened.open(beside)
    except AbsentError:
        return None
