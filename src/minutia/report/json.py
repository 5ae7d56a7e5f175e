"""One JSON document: insertion order, no NaN, nothing that a terminal could take for a command."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from minutia.report.rows import Row, Summary

SCHEMA = "minutia.demo/1"


def document(rows: Sequence[Row], report: str) -> dict[str, Any]:
    """All verdicts with the truth beside them, where the page lies, and what they add up to."""
    verdicts = []
    for row in rows:
        truth = {"suspect": row.suspect, "truth": row.truth, "kind": row.kind}
        verdicts.append(truth | row.verdict.plain() | truth | {"fidelity": dict(row.fidelity)})
    return {"schema": SCHEMA, "verdicts": verdicts, "report": report, "summary": Summary(rows).plain()}


def dumps(obj: object) -> str:
    """Write JSON; NaN and infinity, which JSON does not know, were not measured and become null.

    >>> print(dumps({"score": float("nan"), "asked": np.int64(6)}))
    {
      "score": null,
      "asked": 6
    }
    """
    return json.dumps(_plain(obj), indent=2, allow_nan=False)


def _plain(obj: object) -> object:
    """Plain data all the way down."""
    if isinstance(obj, Mapping):
        return {str(name): _plain(value) for name, value in obj.items()}
    if isinstance(obj, np.generic | np.ndarray):
        return _plain(obj.tolist())
    if isinstance(obj, list | tuple):
        return [_plain(value) for value in obj]
    return None if isinstance(obj, float) and not math.isfinite(obj) else obj
