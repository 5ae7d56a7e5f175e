"""Kinds of models, one file each; ``open_model(rest)`` of each takes what follows ``kind:`` in a spec."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from minutia.core.code import one_line
from minutia.core.errors import FileError, UsageError

__all__ = ["one_line", "read_bounded", "split_spec", "whole_number"]


def split_spec(rest: str, allowed: Sequence[str] = ()) -> tuple[str, dict[str, str]]:
    """Split ``target?name=value&name=value``; values are taken literally, so that paths need no quoting.

    >>> split_spec("mlp?sizes=64-10&seed=3", allowed=("sizes", "seed"))
    ('mlp', {'sizes': '64-10', 'seed': '3'})
    >>> split_spec("victim.onnx")
    ('victim.onnx', {})
    """
    target, _, query = rest.partition("?")
    if not target:
        raise UsageError(f"expected a target before the options of a model spec, got {rest!r}: name a file or a model")
    options: dict[str, str] = {}
    for pair in query.split("&") if query else ():
        name, equals, value = pair.partition("=")
        if name not in allowed or not equals or name in options:
            names = ", ".join(allowed) or "none"
            raise UsageError(f"expected options of {target} as name=value, each once ({names}), got {pair!r}")
        options[name] = value
    return target, options


def whole_number(options: Mapping[str, str], name: str, default: int, least: int = 0) -> int:
    """Read a whole number from the options of a spec.

    >>> whole_number({"seed": "3"}, "seed", 0), whole_number({}, "seed", 0)
    (3, 0)
    """
    text = options.get(name, str(default))
    if not text.isdecimal() or len(text) > 18 or int(text) < least:
        raise UsageError(f"expected a whole number of at least {least} for {name}, got {text!r}")
    return int(text)


def read_bounded(path: Path, what: str, limit: int) -> bytes:
    """Read a file that may be hostile: FileError if it is absent, unreadable or larger than ``limit`` bytes.

    >>> read_bounded(Path("absent"), "weights", 10)
    Traceback (most recent call last):
    minutia.core.errors.FileError: expected weights at absent, got No such file or directory: check the path
    """
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise FileError(f"expected {what} at {path}, got {error.strerror}: check the path") from error
    if len(data) > limit:
        raise FileError(f"expected {what} of at most {limit >> 20} MiB, got more at {path}: choose a smaller file")
    return data
