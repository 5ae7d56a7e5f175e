"""From a spec to the files that it names, and from a file's first bytes to its reader."""

from collections.abc import Callable
from pathlib import Path

from minutia.core.errors import FileError, UsageError
from minutia.models.byte_ranges import ByteRanges, open_bytes
from minutia.models.checkpoint_entries import Contents
from minutia.models.checkpoint_safetensors import read_index, read_safetensors

FOLDER = (*("model.safetensors.index.json", "model.safetensors", "*.safetensors.index.json", "*.safetensors"),)
"""What is looked for in a folder, the first that is there wins."""
KNOWN = "safetensors"


class Opened:
    """Every file that a checkpoint holds open, so that all of them are counted and closed."""

    def __init__(self) -> None:
        self.held: list[ByteRanges] = []

    def open(self, address: str) -> ByteRanges:
        """Open one more file."""
        self.held.append(open_bytes(address))
        return self.held[-1]

    def close(self) -> None:
        """Close all of them."""
        for source in self.held:
            source.close()


def read_place(spec: str, opened: Opened) -> Contents:
    """Read the headers of what a spec names."""
    path = Path(spec)
    if "://" not in spec and path.is_dir():
        path = _in_folder(path)
    address = spec if "://" in spec else str(path)

    def beside(name: str) -> ByteRanges:
        return opened.open(str(path.parent / name) if "://" not in spec else f"{address.rpartition('/')[0]}/{name}")

    return read_file(opened.open(address), beside)


def read_file(source: ByteRanges, beside: Callable[[str], ByteRanges]) -> Contents:
    """Read the header of one file, told by its content; ``beside`` opens others of the same folder by name."""
    head = source.read(0, min(source.size, 64)).tobytes()
    if head[8:9] == b"{":
        return read_safetensors(source)
    if head.lstrip()[:1] == b"{":
        return read_index(source, beside, read_safetensors)
    raise FileError(
        f"expected a checkpoint ({KNOWN}) in {source.name}, got a file that begins with {head[:8]!r}: convert it to "
        "safetensors"
    )


def _in_folder(folder: Path) -> Path:
    for pattern in FOLDER:
        found = sorted(folder.glob(pattern))
        if len(found) > 1:
            names = ", ".join(path.name for path in found[:4])
            raise UsageError(f"expected one checkpoint in {folder}, got {len(found)} ({names}): name one of them")
        if found:
            return found[0]
    raise FileError(f"expected a checkpoint ({KNOWN}) in the folder {folder}, got none: name the file itself")
