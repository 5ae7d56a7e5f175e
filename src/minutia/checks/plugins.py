"""Rules that methods and attacks share."""

import copy
from dataclasses import MISSING, fields, is_dataclass
from inspect import cleandoc, get_annotations

from minutia.checks.subjects import (
    Raid,
    Trial,
    another,
    must,
)
from minutia.core.attack import Attack
from minutia.core.method import Method


def parameters_are_fields(trial: Trial | Raid) -> None:
    """Every parameter is a field of a frozen dataclass, has a plain default, and changes the key."""
    plugin = trial.plugin
    frozen = is_dataclass(plugin) and getattr(plugin, "__dataclass_params__").frozen  # noqa: B009 - not in the stubs
    must(frozen, plugin, "must be a frozen dataclass: decorate the class with @dataclass(frozen=True)")
    known = {f.name: f for f in fields(plugin)}
    for cls in type(plugin).__mro__:
        for name, kind in get_annotations(cls).items():
            loose = name not in known and "ClassVar" not in str(kind) and issubclass(cls, Method | Attack)
            must(not loose, plugin, f"{name!r} of {cls.__name__} is no field: decorate the class, or say ClassVar")
    must(set(vars(plugin)) <= set(known), plugin, f"must hold no state but its fields, got {sorted(vars(plugin))}")
    for name, field in known.items():
        plain = field.default is not MISSING and isinstance(field.default, bool | int | float | str)
        must(plain, plugin, f"field {name!r} needs a default of type int, float, str or bool: it is spelled in keys")
        other = copy.copy(plugin)
        object.__setattr__(other, name, another(getattr(plugin, name)))
        must(other.key != plugin.key, plugin, f"field {name!r} must change the key: do not override ``key``")


def the_key_comes_back(trial: Trial | Raid) -> None:
    """``from_key`` rebuilds the plug-in from its key: a fingerprint or a threat list names it by nothing else."""
    plugin = trial.plugin
    again = type(plugin).from_key(plugin.key)
    fine = again == plugin and again.key == plugin.key
    must(fine, plugin, f"from_key(key) must give the same plug-in, got {again.key} for {plugin.key}")


def it_is_documented(trial: Trial | Raid) -> None:
    """The docstring names the source and holds an example that runs; H0 is written in words."""
    plugin, cls = trial.plugin, type(trial.plugin)
    text = cleandoc(cls.__doc__ or "")
    must("Source:" in text and bool(cls.source), plugin, "must name its source, in the docstring and as ``source``")
    texts = [text, *(str(getattr(cls, name).__doc__) for name in vars(cls) if callable(getattr(cls, name)))]
    must(any(">>>" in t for t in texts), plugin, "must show a doctest in its docstring")
    if isinstance(plugin, Method):
        must("H0" in text and bool(plugin.h0), plugin, "must say in words what H0 is, in the docstring and as ``h0``")


# --- methods


SHARED_RULES = (parameters_are_fields, the_key_comes_back, it_is_documented)
