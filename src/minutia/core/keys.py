"""Keys: a plug-in's name with every parameter, and back."""

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import Field, fields
from numbers import Integral, Real
from typing import Any, NamedTuple

from minutia.core.errors import UsageError


def key_of(plugin: Any) -> str:
    """Name and every field, sorted: ``name(parameter=value,…)``; equal plug-ins have equal keys."""
    inside = ",".join(f"{f.name}={_spelled(f.default, getattr(plugin, f.name))!r}" for f in _sorted_fields(plugin))
    return f"{plugin.name}({inside})"


def _sorted_fields(plugin: Any) -> list[Field[Any]]:
    return sorted(fields(plugin), key=lambda f: f.name)


def _spelled(default: Any, value: Any) -> Any:
    """A number as its field's type: 1 in a field of floats is 1.0, and so are numpy's numbers."""
    if isinstance(default, float) and isinstance(value, Real):
        return float(value)
    return int(value) if type(default) is int and isinstance(value, Integral) else value


class Key(NamedTuple):
    """A key taken apart; ``preset`` is "" where none is named."""

    name: str
    parameters: dict[str, str]
    version: int
    preset: str


def split_key(key: str) -> Key:
    """Split ``name/preset(parameter=value,…)@version``; the version defaults to 1 when a person writes the key.

    >>> split_key("example/paper(probes=50)@1")
    Key(name='example', parameters={'probes': '50'}, version=1, preset='paper')
    """
    found = re.fullmatch(r"([a-z0-9_]+)(?:/([a-z0-9_-]+))?(?:\(([^()]*)\))?(?:@(\d+))?", key.strip())
    if not found:
        raise UsageError(f"expected name or name(parameter=value,…), got {key!r}: see 'minutia methods' or 'attacks'")
    pairs = [p.split("=", 1) for p in (found[3] or "").split(",") if p.strip()]
    if any(len(p) != 2 for p in pairs) or len({p[0].strip() for p in pairs}) != len(pairs):
        raise UsageError(f"expected parameters as name=value, each once, got {found[3]!r}")
    parameters = {n.strip(): v.strip().strip("'\"") for n, v in pairs}
    return Key(found[1], parameters, int(found[4] or 1), found[2] or "")


def split_chain(key: str) -> list[str]:
    """Split ``first(…)+second(…)`` into the keys of its steps; a plus inside parentheses belongs to a number.

    >>> split_chain("prune(fraction=5e-1)+fine_tune_all(learning_rate=1e+0)")
    ['prune(fraction=5e-1)', 'fine_tune_all(learning_rate=1e+0)']
    """
    return re.split(r"\+(?![^()]*\))", key)


def configured(cls: Any, name: str, parameters: dict[str, str], given: Mapping[str, Any] | None = None) -> Any:
    """Build a dataclass from text parameters, converted to each field's type; unknown names are refused.

    ``given`` are values that the parameters may override.
    """
    known = {f.name: f for f in fields(cls)}
    for parameter in parameters:
        if parameter not in known:
            near = did_you_mean(parameter, known)
            raise UsageError(f"expected a parameter of {name} ({', '.join(known) or 'none'}), got {parameter!r}{near}")
    return cls(
        **{**(given or {}), **{n: _converted(name, n, known[n].default, text) for n, text in parameters.items()}}
    )


def _converted(method: str, name: str, default: Any, text: str) -> Any:
    """Text to the type of the field's default."""
    try:
        if isinstance(default, bool):
            return {"true": True, "false": False}[text.lower()]
        return type(default)(text)
    except (ValueError, KeyError):
        raise UsageError(f"expected {type(default).__name__} for {method}({name}=…), got {text!r}") from None


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The end of an error message: the nearest known word, or nothing.

    >>> did_you_mean("prun", ["noise", "prune"])
    ': did you mean prune?'
    """
    near = difflib.get_close_matches(word, list(known), n=1)
    return f": did you mean {near[0]}?" if near else ""
