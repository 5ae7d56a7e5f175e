"""Names to classes, lazily: built-ins come in by the same entry points as strangers' plug-ins."""

from collections.abc import Iterable
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from minutia.core.access import Access
from minutia.core.attack import Attack, Chain, Claim
from minutia.core.errors import ModelError, UnknownNameError, UsageError
from minutia.core.keys import did_you_mean, split_chain, split_key
from minutia.core.mark import Mark
from minutia.core.method import Method
from minutia.core.model import Model
from minutia.core.portfolio import Portfolio

PORTFOLIO = ("metaclassifier", "ipguard(probes=40)", "conferrable", "unit_order", "unit_matching")
"""Members of the portfolio of the house, by key: what is enrolled where the user names no method of his own."""
GROUPS = ("methods", "models", "attacks", "claims")


@lru_cache
def _found(group: str) -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=f"minutia.{group}")}


def names(group: str) -> list[str]:
    """Installed names of a group: methods, models, attacks or claims.

    >>> "ipguard" in names("methods")
    True
    """
    return sorted(_found(group))


def load(group: str, name: str) -> Any:
    """Import what a name stands for; an unknown name is answered with the nearest ones."""
    point = _found(group).get(name)
    if point is None and group == "attacks" and name in names("claims"):
        raise UnknownNameError(
            f"expected an attack, got {name!r}, a false claim: name it in a study, claims = [{name!r}]"
        )
    if point is None:
        raise UnknownNameError(
            f"expected one of the {group} ({_listed(names(group))}), got {name!r}{did_you_mean(name, names(group))}"
        )
    return point.load()


def method(key: str) -> Method:
    """A configured method from ``name`` or ``name(parameter=value,…)[@version]``, or several of them joined by ``+``.

    ``portfolio`` is the portfolio of the house, see ``PORTFOLIO``.

    >>> method("ipguard(probes=20)").probes
    20
    >>> [m.name for m in method("ipguard+noise_agreement").methods]
    ['ipguard', 'noise_agreement']
    """
    steps = [_method(step) for step in split_chain("+".join(PORTFOLIO) if key == "portfolio" else key)]
    return steps[0] if len(steps) == 1 else Portfolio(tuple(steps))


def _method(key: str) -> Method:
    name = split_key(key).name
    cls: type[Method] = load("methods", name)
    return cls.from_key(key)


def methods_for(access: Access) -> list[str]:
    """Names of the methods for the question whose model it is that can enrol an owner's model with this access.

    >>> "boundary_search" in methods_for(Access.LABELS), "ipguard" in methods_for(Access.LABELS)
    (True, False)
    """
    found: dict[str, type[Method]] = {name: load("methods", name) for name in names("methods")}
    return [
        name
        for name, cls in found.items()
        if cls.question == "origin" and cls.owner_needs in access and not issubclass(cls, Mark)
    ]


def attack(key: str) -> Attack:
    """A configured attack from ``name``, ``name/preset(parameter=value,…)``, or several of them joined by ``+``.

    >>> attack("prune(fraction=0.6,spread=0)+fine_tune_all").kind
    'prune+fine-tune-all'
    """
    steps = tuple(_attack(step) for step in split_chain(key))
    return steps[0] if len(steps) == 1 else Chain(steps)


def _attack(key: str) -> Attack:
    name = split_key(key).name
    cls: type[Attack] = load("attacks", name)
    return cls.from_key(key)


def claim(key: str) -> Claim:
    """A configured false-claim attack from ``name`` or ``name(parameter=value,…)``."""
    name = split_key(key).name
    cls: type[Claim] = load("claims", name)
    return cls.from_key(key)


def model(spec: str) -> Model:
    """Open a model from ``kind:rest``; a bare path is sniffed by its content.

    >>> model("toy:mlp?sizes=4-3-2&seed=1").card.root.startswith("sha256:")
    True
    """
    kind, separator, rest = spec.partition(":")
    if separator and kind in _found("models"):
        opened: Model = load("models", kind)(rest)
        return opened
    if _is_path(spec):
        return load("models", _sniffed(Path(spec)))(spec)
    if separator and not Path(spec).suffix:
        load("models", kind)
    raise ModelError(
        f"expected a model such as onnx:FILE or torch:module:factory, or a file; got {spec!r}, which is neither "
        f"a kind ({_listed(names('models'))}) nor an existing path"
    )


def _is_path(spec: str) -> bool:
    try:
        return bool(spec) and Path(spec).exists()
    except (OSError, ValueError):  # too long for a name, or with a null byte in it
        return False


def _sniffed(path: Path) -> str:
    """The kind of model a file holds, by its first bytes."""
    head = b""
    if not path.is_dir():
        try:
            with path.open("rb") as file:
                head = file.read(64)
        except OSError as error:
            raise ModelError(f"expected a model file that can be read, got {error.strerror}: {path}") from error
    if path.suffix == ".toml":
        return "http"
    if head.lstrip().startswith(b"{"):
        return "replay"
    if len(head) > 9 and head[8:9] == b"{":
        raise UsageError(
            f"expected weights together with their architecture, got only {path}: "
            f"use torch:module:factory?weights={path}"
        )
    if path.suffix == ".onnx" or head[:1] == b"\x08":
        return "onnx"
    raise ModelError(
        f"expected an ONNX file or a transcript (JSON lines), got {path} of unknown content: "
        "name its kind, as in onnx:FILE or torch:module:factory?weights=FILE"
    )


def _listed(items: Iterable[str]) -> str:
    return ", ".join(items) or "(none)"
