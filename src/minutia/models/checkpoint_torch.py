"""Zip files of torch, read without torch: their pickle is looked at, opcode by opcode, and nothing in it is called.

Only what builds plain tensors is understood; any other name in the pickle is refused, as ``weights_only=True`` does.
"""

import io
import math
import pickletools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from minutia.core.errors import FileError
from minutia.models.byte_ranges import ByteRanges
from minutia.models.checkpoint_entries import MAX_NAME, Contents, Entry, check_count, entry
from minutia.models.checkpoint_zip import Member
from minutia.models.number_formats import FORMATS, NumberFormat

PICKLE = "data.pkl"
MAX_PICKLE = 2**24
MAX_OPCODES = 2**21
MAX_VALUES = 2**20
"""Values that are looked at in nested dictionaries and lists, the same one twice counted twice."""
MAX_DEPTH = 16
MAX_SHARED = 16
"""Tensors may share storages up to this many times the size of the file."""
WRAPPERS = ("state_dict", "model_state_dict", "model")
"""Keys under which training programs keep the weights, beside other things."""
STORAGES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
    "ComplexFloatStorage": "complex64",
    "ComplexDoubleStorage": "complex128",
    "UntypedStorage": "uint8",
}


@dataclass(frozen=True)
class _Name:
    """A global that the pickle names."""

    module: str
    name: str


@dataclass(frozen=True)
class _Storage:
    dtype: str
    key: str
    count: int


@dataclass(frozen=True)
class _Tensor:
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: str


class _StrangeError(Exception):
    """The pickle holds something else than tensors."""


_MARK = object()


def read_torch(source: ByteRanges, members: Sequence[Member]) -> Contents:
    """Entries of a file of ``torch.save``; dictionaries in dictionaries give names joined by dots.

    Weights below ``state_dict``, ``model_state_dict`` or ``model`` stand for the whole file. Tensors may share a
    storage, as tied weights do. Tensors whose numbers do not lie one behind the other are listed and cannot be read.

    Source: torch.save of github.com/pytorch/pytorch, ``torch/serialization.py``; opcodes by Python's ``pickletools``.
    """
    found = {member.name: member for member in members}
    folder = next(name for name in found if name.rpartition("/")[2] == PICKLE).removesuffix(PICKLE)
    pickled, order = found[folder + PICKLE], found.get(f"{folder}byteorder")
    if order and _bytes(order, source, 16).strip() != b"little":
        raise FileError(f"expected little-endian numbers in {source.name}, got others: save it on another machine")
    try:
        root = _built(_bytes(pickled, source, MAX_PICKLE))
        tensors = dict(_tensors(root))
    except (_StrangeError, ValueError, TypeError, IndexError, KeyError, AttributeError, RecursionError) as error:
        raise FileError(
            f"expected nothing but tensors in {source.name}, got {str(error)[:120] or type(error).__name__}: "
            "do not trust the file, or save its state_dict alone"
        ) from None
    check_count(len(tensors), source)
    entries = {name: _entry(name, tensor, found, folder, source) for name, tensor in tensors.items()}
    if not entries or sum(e.info.nbytes for e in entries.values()) > MAX_SHARED * source.size:
        raise FileError(
            f"expected tensors of about {source.size} bytes in {source.name}, got {len(entries)} of "
            f"{sum(e.info.nbytes for e in entries.values())}: do not trust the file"
        )
    return Contents(entries)


def _bytes(member: Member, source: ByteRanges, limit: int) -> bytes:
    if member.size > limit:
        raise FileError(
            f"expected at most {limit} bytes in {member.name[:80]!r} of {source.name}, got {member.size}: "
            "do not trust the file"
        )
    held, start = member.opened(source)
    return held.read(start, member.size).tobytes()


def _entry(name: str, tensor: _Tensor, members: Mapping[str, Member], folder: str, source: ByteRanges) -> Entry:
    member, kind = members.get(f"{folder}data/{tensor.storage.key}"), FORMATS[tensor.dtype]
    stored = FORMATS[tensor.storage.dtype].block_bytes * tensor.storage.count
    if member is None or member.size != stored:
        raise FileError(
            f"expected {stored} bytes for {name[:80]!r} in {source.name}, got {member.size if member else 'none'}: "
            "the file is truncated or damaged"
        )
    count, fortran = math.prod(tensor.shape), False
    if count and tensor.strides != _contiguous(tensor.shape):
        fortran = tensor.strides == _contiguous(tensor.shape[::-1])[::-1]
        kind = kind if fortran else NumberFormat(f"strided {kind.name}", 1, kind.block_bytes)
    held, start = member.opened(source)
    at = tensor.offset * FORMATS[tensor.dtype].block_bytes
    last = at + count * kind.block_bytes
    if count and not 0 <= at < last <= member.size:
        raise FileError(
            f"expected {name[:80]!r} inside the {member.size} bytes of its storage in {source.name}, got bytes {at} "
            f"to {last}: do not trust the file"
        )
    return entry(name, tensor.shape, kind, held, start + (at if count else 0), fortran=fortran)


def _contiguous(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Strides of numbers one behind the other; axes of length one may state anything and are counted like torch.

    >>> _contiguous((2, 3, 4))
    (12, 4, 1)
    """
    return tuple(math.prod(max(d, 1) for d in shape[i + 1 :]) for i in range(len(shape)))


def _tensors(root: object) -> Iterator[tuple[str, _Tensor]]:
    """Names and tensors in nested dictionaries and lists, bounded however often they hold one another."""
    if isinstance(root, dict):
        root = next((root[key] for key in WRAPPERS if isinstance(root.get(key), dict)), root)
    left = MAX_VALUES
    stack: list[tuple[str, object, int]] = [("", root, 0)]
    while stack:
        name, value, depth = stack.pop()
        left -= 1
        if left < 0 or depth > MAX_DEPTH:
            raise _StrangeError("dictionaries in dictionaries without end")
        if isinstance(value, _Tensor):
            yield name, value
        elif isinstance(value, dict | list | tuple):
            left -= len(value)
            keys = [str(key) for key in (value if isinstance(value, dict) else range(len(value)))]
            if left < 0 or max(map(len, keys), default=0) + len(name) > MAX_NAME:
                raise _StrangeError("far too many names, or too long ones")
            parts = value.values() if isinstance(value, dict) else value
            inner = [(f"{name}.{key}" if name else key, part, depth + 1) for key, part in zip(keys, parts, strict=True)]
            stack.extend(reversed(inner))


def _built(data: bytes) -> Any:
    """What the pickle describes: plain values and tensors; calls are recognised, never made."""
    machine = _Machine()
    for count, (opcode, argument, _) in enumerate(pickletools.genops(io.BytesIO(data))):
        if count > MAX_OPCODES:
            raise _StrangeError(f"more than {MAX_OPCODES} steps")
        if opcode.name == "STOP":
            return machine.stack.pop()
        step = STEPS.get(opcode.name)
        if step is None:
            raise _StrangeError(f"the step {opcode.name}")
        step(machine, argument)
    raise _StrangeError("no end")


class _Machine:
    """Stack and memory of a pickle."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memory: dict[int, Any] = {}

    def push(self, value: object) -> None:
        self.stack.append(value)

    def marked(self) -> list[Any]:
        """Everything above the last mark, taken off."""
        at = next(i for i in range(len(self.stack) - 1, -2, -1) if i < 0 or self.stack[i] is _MARK)
        if at < 0:
            raise _StrangeError("an end without a beginning")
        found = self.stack[at + 1 :]
        del self.stack[at:]
        return found

    def popped(self, count: int) -> tuple[Any, ...]:
        found = tuple(self.stack[-count:])
        del self.stack[-count:]
        if len(found) < count:
            raise _StrangeError("too few values")
        return found

    def remember(self, at: int) -> None:
        self.memory[at] = self.stack[-1]

    def update(self, pairs: list[Any]) -> None:
        if not isinstance(self.stack[-1], dict) or len(pairs) % 2:
            raise _StrangeError("entries of no dictionary")
        keys = pairs[::2]
        if not all(isinstance(key, str | int | float) or key is None for key in keys):
            raise _StrangeError("keys that are no text")
        self.stack[-1].update(zip(keys, pairs[1::2], strict=True))

    def extend(self, values: list[Any]) -> None:
        if not isinstance(self.stack[-1], list):
            raise _StrangeError("entries of no list")
        self.stack[-1].extend(values)

    def called(self) -> None:
        function, arguments = self.popped(2)
        self.push(_recognised(function, arguments))

    def attributes(self) -> None:
        """State of an ordered dictionary (``_metadata``), which holds no tensors."""
        target, _ = self.popped(2)
        if not isinstance(target, dict):
            raise _StrangeError("attributes of something else than a dictionary")
        self.push(target)


def _named(argument: str) -> object:
    module, _, name = argument.partition(" ")
    known = (
        (module == "collections" and name == "OrderedDict")
        or (module in ("torch", "torch.storage") and (name in STORAGES or name in FORMATS or name == "Size"))
        or (module == "torch._utils" and name in REBUILT)
    )
    if not known:
        raise _StrangeError(f"the name {f'{module}.{name}'!r}")
    return _Name(module, name)


def _stored(pid: Any) -> _Storage:
    word, kind, key, _, count = pid
    fits = word == "storage" and isinstance(kind, _Name) and kind.name in STORAGES and isinstance(key, str)
    if not fits or not isinstance(count, int) or not 0 <= count < 2**48:
        raise _StrangeError("a storage that is none")
    return _Storage(STORAGES[kind.name], key, count)


def _recognised(function: Any, arguments: Any) -> Any:
    """The value that a call would give, for the few calls that build plain tensors."""
    if not isinstance(function, _Name) or not isinstance(arguments, tuple):
        raise _StrangeError("a call of something else than a name")
    if function.name == "OrderedDict" and not arguments:
        return {}
    if function.name == "Size" and len(arguments) == 1:
        return arguments[0]
    if function.name in REBUILT:
        return REBUILT[function.name](*arguments)
    raise _StrangeError(f"a call of {function.module}.{function.name}")


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> _Tensor:
    numbers = [offset, *shape, *strides]
    fits = isinstance(shape, tuple) and isinstance(strides, tuple) and len(shape) == len(strides) <= 64
    if not fits or not isinstance(storage, _Storage) or not all(type(n) is int and 0 <= n < 2**48 for n in numbers):
        raise _StrangeError("a tensor of an impossible shape")
    # An axis of length one is never stepped along: its stride may be anything.
    plain = _contiguous(shape)
    return _Tensor(
        storage,
        offset,
        shape,
        tuple(p if d == 1 else s for d, s, p in zip(shape, strides, plain, strict=True)),
        storage.dtype,
    )


def _typed(
    storage: Any, offset: Any, shape: Any, strides: Any, _grad: Any, _hooks: Any, dtype: Any, *_: Any
) -> _Tensor:
    found = _tensor(storage, offset, shape, strides)
    if not isinstance(dtype, _Name) or dtype.name not in FORMATS:
        raise _StrangeError("a tensor of an unknown type")
    return replace(found, dtype=dtype.name)


def _parameter(tensor: Any, *_: Any) -> _Tensor:
    if not isinstance(tensor, _Tensor):
        raise _StrangeError("a parameter that is no tensor")
    return tensor


REBUILT: dict[str, Callable[..., _Tensor]] = {
    "_rebuild_tensor": _tensor,
    "_rebuild_tensor_v2": _tensor,
    "_rebuild_tensor_v3": _typed,
    "_rebuild_parameter": _parameter,
    "_rebuild_parameter_with_state": _parameter,
}
Step = Callable[[_Machine, Any], object]
VALUES = (
    *("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"),
    *("SHORT_BINSTRING", "BINSTRING", "BINBYTES", "SHORT_BINBYTES"),
)
STEPS: dict[str, Step] = {
    **dict.fromkeys(VALUES, lambda m, value: m.push(value)),
    **dict.fromkeys(("PROTO", "FRAME"), lambda m, _: None),
    **dict.fromkeys(("BINPUT", "LONG_BINPUT"), lambda m, at: m.remember(at)),
    **dict.fromkeys(("BINGET", "LONG_BINGET"), lambda m, at: m.push(m.memory[at])),
    "MEMOIZE": lambda m, _: m.remember(len(m.memory)),
    "NONE": lambda m, _: m.push(None),
    "NEWTRUE": lambda m, _: m.push(True),
    "NEWFALSE": lambda m, _: m.push(False),
    "MARK": lambda m, _: m.push(_MARK),
    "EMPTY_DICT": lambda m, _: m.push({}),
    "EMPTY_LIST": lambda m, _: m.push([]),
    "EMPTY_TUPLE": lambda m, _: m.push(()),
    "TUPLE": lambda m, _: m.push(tuple(m.marked())),
    "TUPLE1": lambda m, _: m.push(m.popped(1)),
    "TUPLE2": lambda m, _: m.push(m.popped(2)),
    "TUPLE3": lambda m, _: m.push(m.popped(3)),
    "SETITEM": lambda m, _: m.update(list(m.popped(2))),
    "SETITEMS": lambda m, _: m.update(m.marked()),
    "APPEND": lambda m, _: m.extend(list(m.popped(1))),
    "APPENDS": lambda m, _: m.extend(m.marked()),
    "GLOBAL": lambda m, name: m.push(_named(name)),
    "BINPERSID": lambda m, _: m.push(_stored(m.stack.pop())),
    "REDUCE": lambda m, _: m.called(),
    "BUILD": lambda m, _: m.attributes(),
}
