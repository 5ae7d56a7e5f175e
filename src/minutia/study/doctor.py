"""Examine an installation: not only what is installed, but whether the main job runs."""

import platform
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np

from minutia import api, catalog
from minutia.core.answers import Observation
from minutia.core.fingerprint import Null
from minutia.core.material import Material
from minutia.core.method import Method
from minutia.models.toy import ToyClassifier
from minutia.storage.files import load_fingerprint, save_fingerprint

CORE = ("numpy", "scipy", "safetensors", "typer", "rich", "pydantic", "sqlalchemy", "jinja2", "cryptography")
EXTRAS = {
    "torch": "torch",
    "onnxruntime": "onnx",
    "scikit-learn": "sklearn",
    "pillow": "images",
    "pyarrow": "parquet",
    "ray": "ray",
    "obstore": "s3",
}


@dataclass(frozen=True)
class Finding:
    """One check: fine, absent (an extra that is not installed) or broken."""

    check: str
    state: str
    detail: str


def examine() -> list[Finding]:
    """Run every check; a check that raises is a finding, not a crash."""
    found = [Finding("python", "fine", platform.python_version())]
    found += [_package(name, None) for name in CORE]
    found += [_package(name, extra) for name, extra in EXTRAS.items()]
    found += list(_plugins())
    found.append(_tried("fingerprint file round trip", _round_trip))
    found.append(_tried("verdicts on toy models", _verdicts))
    return found


def _package(name: str, extra: str | None) -> Finding:
    try:
        return Finding(name, "fine", version(name))
    except PackageNotFoundError:
        if extra is None:
            return Finding(name, "broken", "not installed: pip install --force-reinstall minutia")
        return Finding(name, "absent", f"optional: pip install 'minutia[{extra}]'")


def _plugins() -> Iterator[Finding]:
    for group in catalog.GROUPS:
        names = catalog.names(group)
        yield _tried(f"{len(names)} {group}", partial(_loaded, group, names))


def _loaded(group: str, names: list[str]) -> str:
    for name in names:
        catalog.load(group, name)
    return ", ".join(names)


def _tried(check: str, work: Callable[[], str]) -> Finding:
    try:
        return Finding(check, "fine", work())
    except Exception as error:
        return Finding(check, "broken", f"{type(error).__name__}: {error}"[:200])


def _round_trip() -> str:
    method, owner, material = _toys()
    fp = method.extract(owner, material, seed=0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "fingerprint.safetensors"
        save_fingerprint(fp, path)
        if load_fingerprint(path).digest != fp.digest:
            raise ValueError("the digest changed on the way to disk and back")
    return fp.digest[:19]


def _verdicts() -> str:
    """The owner's model must match and a fresh one must not, against 99 random networks."""
    method, owner, material = _toys()
    fp = method.extract(owner, material, seed=0)
    models = [ToyClassifier.fresh((16, 12, 5), seed) for seed in range(100, 200)]
    seen = [Observation(m.card, fp.probes.ids, m.ask(fp.probes), fp.probes.digest) for m in models]
    null = Null("unrelated", tuple(seen[1:]), source="99 random networks")
    outcomes = (api.verify(fp, owner, null).outcome, api.verify(fp, models[0], null).outcome)
    if outcomes != ("match", "inconclusive"):
        raise ValueError(f"expected the owner to match and a stranger not to, got {outcomes}")
    return "owner matches, a stranger does not"


def _toys() -> tuple[Method, ToyClassifier, Material]:
    rng = np.random.default_rng(0)
    inputs = rng.random((300, 16), dtype=np.float32)
    owner = ToyClassifier.fresh((16, 12, 5), 1)
    spent = [ToyClassifier.fresh((16, 12, 5), seed) for seed in range(10, 30)]
    labels = rng.integers(0, 5, 300)
    return catalog.method("ipguard(probes=40)"), owner, Material(inputs, labels, unrelated=spent)
