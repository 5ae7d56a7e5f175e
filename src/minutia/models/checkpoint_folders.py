"""All the checkpoints of a folder, whether they are files in it or folders of their own."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from minutia.core.errors import FileError, UsageError

SUFFIXES = (".safetensors", ".npz", ".gguf", ".onnx", ".pt", ".pth", ".bin")
INDEX = ".index.json"
_SHARD = re.compile(r"-\d{5}-of-\d{5}\.(?:safetensors|bin)$")
_PART = re.compile(r"-(?!00001)\d{5}-of-\d{5}\.gguf$")


def checkpoints_in(places: Sequence[str]) -> dict[str, str]:
    """Names and specs of all checkpoints: of files and addresses themselves, of folders what they hold.

    A folder with an index of shards, or with one file, is one checkpoint; of any other each file and each subfolder
    that is one counts. UsageError for the same name twice, FileError for a folder without any.

    >>> checkpoints_in(["hf://org/name@v1", "a.npz"])
    {'hf://org/name@v1': 'hf://org/name@v1', 'a.npz': 'a.npz'}
    """
    found: dict[str, str] = {}
    for place in places:
        inside = dict(_inside(Path(place))) if _is_folder(place) else {place: place}
        if not inside:
            raise FileError(f"expected checkpoints in the folder {place}, got none: name the files themselves")
        for name, spec in inside.items():
            if name in found and found[name] != spec:
                raise UsageError(
                    f"expected different names, got {name!r} for {found[name]} and for {spec}: rename one of them"
                )
            found[name] = spec
    return found


def _is_folder(place: str) -> bool:
    return "://" not in place and Path(place).is_dir()


def _inside(folder: Path) -> Iterator[tuple[str, str]]:
    """The checkpoints of a folder by the names that they have in it."""
    if _whole(folder):
        yield folder.name or str(folder), str(folder)
        return
    for path in sorted(folder.iterdir()):
        if (path.is_dir() and _whole(path)) or (path.is_file() and _weights(path)):
            yield path.name, str(path)


def _whole(folder: Path) -> bool:
    """Whether a folder is one checkpoint: an index, or one file."""
    files = [path for path in folder.iterdir() if path.is_file()]
    return any(path.name.endswith(INDEX) for path in files) or sum(map(_weights, files)) == 1


def _weights(path: Path) -> bool:
    """Whether a name is that of a checkpoint by itself; shards are parts of an index."""
    return path.suffix in SUFFIXES and not _SHARD.search(path.name) and not _PART.search(path.name)
