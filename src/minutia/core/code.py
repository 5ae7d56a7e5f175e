"""The user's own code, named on his own command line: ``module:name`` or ``file.py:name``. Never a suspect's."""

import importlib
import importlib.util
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

from minutia.core.errors import MinutiaError, ModelError, UsageError


def own_code(target: str, kind: str, failure: type[MinutiaError] = ModelError) -> Callable[..., Any]:
    """Import what ``module:name`` or ``file.py:name`` stands for; ``kind`` is the word before it in a spec.

    The working directory is searched first, as ``python -m`` does. A target without a name is a UsageError; a module
    that cannot be imported, or a name in it that is absent or cannot be called, is a ``failure``.

    >>> own_code("math:sqrt", "torch")(9.0)
    3.0
    """
    place, _, name = target.rpartition(":")
    if not place or not name:
        raise UsageError(f"expected module:name or file.py:name after {kind}:, got {target!r}")
    try:
        found = _from_file(place) if place.endswith(".py") else _from_name(place)
    except Exception as error:
        raise failure(
            f"expected an importable module {place!r}, got {type(error).__name__}: {one_line(error)}; "
            "check the name or the path, MINUTIA_DEBUG=1 shows where"
        ) from error
    function = getattr(found, name, None)
    if not callable(function):
        raise failure(f"expected a callable {name!r} in {place}, found none: check its spelling")
    called: Callable[..., Any] = function
    return called


def one_line(error: BaseException, limit: int = 200) -> str:
    r"""Shorten the text of somebody else's error for our own sentence.

    >>> one_line(ValueError("first\nsecond")), one_line(KeyError())
    ('first', 'KeyError')
    """
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:limit]


def _from_name(name: str) -> ModuleType:
    if "" not in sys.path:  # stands for the working directory, whichever it is at the time
        sys.path.insert(0, "")
    return importlib.import_module(name)


def _from_file(path: str) -> ModuleType:
    stem = path.replace("\\", "/").rpartition("/")[2].removesuffix(".py")
    spec = importlib.util.spec_from_file_location(stem, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"no file {path}")
    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault(stem, module)
    spec.loader.exec_module(module)
    return module
