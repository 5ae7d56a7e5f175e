"""Checkpoints of any format, read as data: headers when they are opened, numbers when they are asked for."""

import types
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from minutia.core.digest import Array
from minutia.core.errors import UsageError
from minutia.models.byte_ranges import ByteRanges
from minutia.models.checkpoint_entries import Contents, Entry, TensorInfo, runs
from minutia.models.checkpoint_places import Opened, read_place
from minutia.models.checkpoint_vocabulary import read_vocabulary

__all__ = ["Checkpoint", "TensorInfo", "open_checkpoint"]

MAX_READ = 2**31
"""Numbers that are returned at once: 8 GiB as float32."""
STEP = 2**22
"""Numbers that are fetched and converted at once."""
FORTRAN_STEP = 2**24
"""The same where rows lie apart, and each block passes over the whole tensor."""


class Checkpoint:
    """Named tensors in one or several files; what is not asked for is not fetched. A context manager.

    Numbers come as float32, whatever they are stored as. Not for several threads at once.

    >>> import tempfile
    >>> from safetensors.numpy import save_file
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_file({"w": np.arange(6, dtype=np.float16).reshape(3, 2)}, f"{folder}/model.safetensors")
    ...     with open_checkpoint(folder) as ck:
    ...         ck.names, ck.info("w"), ck.read("w", rows=np.array([2, 0])).tolist()
    (('w',), TensorInfo(shape=(3, 2), dtype='float16', nbytes=12), [[4.0, 5.0], [0.0, 1.0]])
    """

    def __init__(self, spec: str, contents: Contents, held: Sequence[ByteRanges]) -> None:
        self.spec, self.names = spec, tuple(contents.entries)
        self.metadata: Mapping[str, str] = types.MappingProxyType(dict(contents.metadata))
        self._entries, self._held, self._tokenizer = contents.entries, held, contents.tokenizer

    def __enter__(self) -> "Checkpoint":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def bytes_read(self) -> int:
        """Bytes fetched so far, headers included."""
        return sum(source.bytes_read for source in self._held)

    def info(self, name: str) -> TensorInfo:
        """Shape, stored type and stored size of a tensor; UsageError for a name that is not there."""
        return self._entry(name).info

    def vocabulary(self) -> tuple[str, ...] | None:
        """Tokens as strings by their number, read from ``tokenizer.json`` beside the weights; None without one."""
        source = self._tokenizer() if self._tokenizer else None
        return None if source is None else read_vocabulary(source)

    def read(self, name: str, rows: slice | Array | None = None) -> Array:
        """The tensor, or some rows of its first axis (rows, ...), as float32; only these are fetched.

        ``rows`` is a slice or whole numbers (k,) from 0, in any order; neighbours are fetched together. UsageError
        for rows that are not there and for more than 8 GiB at once, FileError for what is damaged.
        """
        found = self._entry(name)
        wanted = _wanted(found.info, rows, name, self.spec)
        shape = (len(wanted), *found.info.shape[1:]) if found.info.shape else ()
        width = found.info.size // max(found.info.rows, 1)
        if len(wanted) * width > MAX_READ:
            raise UsageError(
                f"expected to read at most {MAX_READ >> 28} GiB of {name!r} at once, got "
                f"{len(wanted) * width >> 28}: read some of its rows, or block by block"
            )
        if not len(wanted) * width:
            return np.empty(shape, np.float32)
        if found.fortran:
            return _from_columns(found, np.asarray(wanted))
        if isinstance(wanted, range) and wanted.step == 1:
            return _stretch(found, wanted.start * width, wanted.stop * width).reshape(shape)
        return _gathered(found, np.asarray(wanted), width).reshape(shape)

    def blocks(self, name: str, nbytes: int = 2**22) -> Iterator[Array]:
        """The whole tensor in order, as float32 blocks of rows (k, ...) of about ``nbytes`` bytes.

        A row that is larger is cut along the next axis, and so on: a block always has as many axes as the tensor and
        is one stretch of it, so that the blocks' numbers in order are the tensor's.
        """
        found, most = self._entry(name), max(nbytes // 4, 1)
        if not found.info.size:
            yield np.empty(found.info.shape, np.float32)
        elif found.fortran:
            count = max(max(most, FORTRAN_STEP) * found.info.rows // found.info.size, 1)
            for start in range(0, found.info.rows, count):
                yield _from_columns(found, np.arange(start, min(start + count, found.info.rows)))
        else:
            for start, shape in _cuts(found.info.shape, most):
                yield found.numbers(start, start + int(np.prod(shape))).reshape(shape)

    def close(self) -> None:
        """Let go of files and connections."""
        for source in self._held:
            source.close()

    def _entry(self, name: str) -> Entry:
        if name not in self._entries:
            raise UsageError(
                f"expected the name of a tensor in {self.spec}, got {name!r}: it holds {len(self.names)}, such as "
                f"{', '.join(self.names[:3])}"
            )
        return self._entries[name]


def open_checkpoint(spec: str) -> Checkpoint:
    """Open a file or a folder, ``https://...``, ``s3://bucket/key`` or ``hf://org/name@revision/file``, of any format.

    Safetensors (alone, or by an index of shards), npz without pickle, GGUF, ONNX and zip files of torch are told by
    their content. Only headers are read, nothing in them is executed, and all of it is checked against the file's
    size first. FileError for what is absent, damaged or of another format; MissingExtraError where a format needs a
    library that is not installed.

    >>> open_checkpoint("absent.gguf")
    Traceback (most recent call last):
    minutia.core.errors.FileError: expected a checkpoint at absent.gguf, got No such file or directory: check the path
    """
    opened = Opened()
    try:
        return Checkpoint(spec, read_place(spec, opened), opened.held)
    except BaseException:
        opened.close()
        raise


def _wanted(info: TensorInfo, rows: slice | Array | None, name: str, spec: str) -> range | Array:
    """Numbers of the rows to fetch, all of them inside the tensor."""
    if rows is None:
        return range(info.rows)
    if isinstance(rows, slice):
        return range(info.rows)[rows]
    found = np.asarray(rows)
    whole = found.ndim == 1 and (found.dtype.kind in "iu" or not found.size)
    if not whole or (found.size and not 0 <= int(found.min()) <= int(found.max()) < info.rows):
        raise UsageError(
            f"expected row numbers (k,) from 0 to {info.rows - 1} of {name!r} in {spec}, got "
            f"{found.dtype} {found.shape}{f' up to {found.max()}' if whole and found.size else ''}: "
            "ask for rows that are there"
        )
    return found.astype(np.int64)


def _stretch(entry: Entry, start: int, stop: int) -> Array:
    """Numbers start to stop (stop - start,), converted step by step so that the stored form is never held whole."""
    if stop - start <= STEP:
        return entry.numbers(start, stop)
    found = np.empty(stop - start, np.float32)
    for at in range(start, stop, STEP):
        end = min(at + STEP, stop)
        found[at - start : end - start] = entry.numbers(at, end)
    return found


def _gathered(entry: Entry, rows: Array, width: int) -> Array:
    """Rows (k, width) in the order asked for; each is fetched once."""
    wanted, back = np.unique(rows, return_inverse=True)
    found = np.empty((len(wanted), width), np.float32)
    row_bytes, most = width * entry.format.block_bytes // entry.format.block, max(STEP // width, 1)
    pieces = [
        (start, min(start + most, last))
        for first, last in runs(wanted, row_bytes, entry.source.gap)
        for start in range(first, last, most)
    ]

    def fetched(piece: tuple[int, int]) -> None:
        start, stop = piece
        low, high = np.searchsorted(wanted, piece)
        part = _stretch(entry, start * width, stop * width).reshape(-1, width)
        found[low:high] = part[wanted[low:high] - start]

    if entry.source.lanes > 1 < len(pieces):
        with ThreadPoolExecutor(entry.source.lanes) as pool:
            list(pool.map(fetched, pieces))
    else:
        for piece in pieces:
            fetched(piece)
    return found if np.array_equal(wanted, rows) else found[back]


def _from_columns(entry: Entry, rows: Array) -> Array:
    """Rows (k, ...) of a tensor that is stored with the first axis fastest: one pass over what lies between them."""
    count, width = entry.info.rows, entry.info.size // entry.info.rows
    low, high = (int(rows.min()), int(rows.max()) + 1) if count > STEP else (0, count)
    found = np.empty((width, len(rows)), np.float32)
    step = max(STEP // count, 1)
    for at in range(0, width, step):
        end = min(at + step, width)
        part = _stretch(entry, at * count + low, (end - 1) * count + high).reshape(end - at, -1)
        found[at:end] = part[:, rows - low]
    return found.reshape(*entry.info.shape[:0:-1], len(rows)).transpose()


def _cuts(shape: tuple[int, ...], most: int) -> Iterator[tuple[int, tuple[int, ...]]]:
    """Start and shape of consecutive stretches of at most ``most`` numbers.

    >>> list(_cuts((3, 4), 8)), list(_cuts((2, 3), 2))
    ([(0, (2, 4)), (8, (1, 4))], [(0, (1, 2)), (2, (1, 1)), (3, (1, 2)), (5, (1, 1))])
    """
    if not shape:
        yield 0, ()
        return
    count, width = shape[0], int(np.prod(shape[1:]))
    if width <= most:
        for start in range(0, count, most // width):
            yield start * width, (min(most // width, count - start), *shape[1:])
        return
    for row in range(count):
        for start, part in _cuts(shape[1:], most):
            yield row * width + start, (1, *part)
