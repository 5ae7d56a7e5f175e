"""Keys: a plug-in's name with every parameter, and back."""

import re
from dataclasses import Field, fields
from numbers import Integral, Real
from typing import Any

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


def split_key(key: str) -> tuple[str, dict[str, str], int]:
    """Split ``name(parameter=value,…)@version``; the version defaults to 1 when a person writes the key.

    >>> split_key("example(probes=50)@1")
    ('example', {'probes': '50'}, 1)
    """
    found = re.fullmatch(r"([a-z0-9_]+)(?:\(([^()]*)\))?(?:@(\d+))?", key.strip())
    if not found:
        raise UsageError(f"expected name or name(parameter=value,…), got {key!r}: see 'minutia methods' or 'attacks'")
    pairs = [p.split("=", 1) for p in (found[2] or "").split(",") if p.strip()]
    if any(len(p) != 2 for p in pairs) or len({p[0].strip() for p in pairs}) != len(pairs):
        raise UsageError(f"expected parameters as name=value, each once, got {found[2]!r}")
    return found[1], {n.strip(): v.strip().strip("'\"") for n, v in pairs}, int(found[3] or 1)


def configured(cls: Any, name: str, parameters: dict[str, str]) -> Any:
    """Build a dataclass from text parameters, converted to each field's type; unknown names are refused."""
    known = {f.name: f for f in fields(cls)}
    for parameter in parameters:
        if parameter not in known:
            raise UsageError(f"expected a parameter of {name} ({', '.join(known) or 'none'}), got {parameter!r}")
    return cls(**{n: _converted(name, n, known[n].default, text) for n, text in parameters.items()})


def _converted(method: str, name: str, default: Any, text: str) -> Any:
    """Text to the type of the field's default."""
    try:
        if isinstance(default, bool):
            return {"true": True, "false": False}[text.lower()]
        return type(default)(text)
    except (ValueError, KeyError):
        raise UsageError(f"expected {type(default).__name__} for {method}({name}=…), got {text!r}") from None
