"""minutia tells whose model this is: fingerprints, verdicts with honest error rates, evidence to re-judge."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from minutia.api import (
        build_copies,
        build_null,
        collect_null,
        compare,
        extract,
        lineage,
        null_from,
        observe_null,
        verify,
    )
    from minutia.catalog import attack, method, model
    from minutia.core.access import Access
    from minutia.core.answers import Answers, Observation
    from minutia.core.attack import Attack
    from minutia.core.errors import MinutiaError
    from minutia.core.fingerprint import Fingerprint, Null
    from minutia.core.material import Material
    from minutia.core.method import Method
    from minutia.core.model import Model, ModelCard, Plan
    from minutia.core.probe import Probe, ProbeSet
    from minutia.core.verdict import Verdict
    from minutia.storage.data import Dataset, load_dataset
    from minutia.storage.files import load_fingerprint, load_null, save_fingerprint, save_null
    from minutia.storage.models import ModelStore

__version__ = "0.1.0"

_HOMES = {
    "Access": "minutia.core.access",
    "Answers": "minutia.core.answers",
    "Attack": "minutia.core.attack",
    "Dataset": "minutia.storage.data",
    "Fingerprint": "minutia.core.fingerprint",
    "Material": "minutia.core.material",
    "Method": "minutia.core.method",
    "MinutiaError": "minutia.core.errors",
    "Model": "minutia.core.model",
    "ModelCard": "minutia.core.model",
    "ModelStore": "minutia.storage.models",
    "Null": "minutia.core.fingerprint",
    "Observation": "minutia.core.answers",
    "Plan": "minutia.core.model",
    "Probe": "minutia.core.probe",
    "ProbeSet": "minutia.core.probe",
    "Verdict": "minutia.core.verdict",
    "attack": "minutia.catalog",
    "build_copies": "minutia.api",
    "build_null": "minutia.api",
    "collect_null": "minutia.api",
    "compare": "minutia.api",
    "extract": "minutia.api",
    "lineage": "minutia.api",
    "load_dataset": "minutia.storage.data",
    "load_fingerprint": "minutia.storage.files",
    "load_null": "minutia.storage.files",
    "method": "minutia.catalog",
    "model": "minutia.catalog",
    "null_from": "minutia.api",
    "observe_null": "minutia.api",
    "save_fingerprint": "minutia.storage.files",
    "save_null": "minutia.storage.files",
    "verify": "minutia.api",
}

__all__ = [
    "Access",
    "Answers",
    "Attack",
    "Dataset",
    "Fingerprint",
    "Material",
    "Method",
    "MinutiaError",
    "Model",
    "ModelCard",
    "ModelStore",
    "Null",
    "Observation",
    "Plan",
    "Probe",
    "ProbeSet",
    "Verdict",
    "__version__",
    "attack",
    "build_copies",
    "build_null",
    "collect_null",
    "compare",
    "extract",
    "lineage",
    "load_dataset",
    "load_fingerprint",
    "load_null",
    "method",
    "model",
    "null_from",
    "observe_null",
    "save_fingerprint",
    "save_null",
    "verify",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that ``import minutia`` stays light."""
    if name not in _HOMES:
        raise AttributeError(f"module 'minutia' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
