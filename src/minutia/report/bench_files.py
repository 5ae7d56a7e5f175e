"""A study's rows and rates as files for other programs: CSV, and parquet where pyarrow is installed."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from minutia.core.errors import MissingExtraError

LEVELS = ("0.01", "0.05")
PLAIN = ("seed", "truth", "kind", "group", "label", "attack", "curve", "x", "method", "suspect", "state", "why")
JUDGED = ("score", "agreement", "answered", "asked", "m", "bits", "seconds", "observation")
COST = (
    "accuracy_before",
    "accuracy",
    "accuracy_lost",
    "parent_agreement",
    "inputs",
    "queries",
    "steps",
    "attack_seconds",
    "weights_changed",
    "weight_distance",
)
NAMED_OTHERWISE = {"parent_agreement": "agreement", "attack_seconds": "seconds"}
"""Columns whose name on a card is also that of a judged column."""


def cases_csv(rows: Iterable[Mapping[str, Any]]) -> str:
    """One line per suspect and method; what was not measured is empty."""
    return _csv([flat(row) for row in rows], columns())


def parquet_bytes(rows: Iterable[Mapping[str, Any]]) -> bytes:
    """The same columns as a parquet file; needs pyarrow."""
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError:
        raise MissingExtraError("pyarrow", "parquet", "a parquet file") from None
    flattened = [flat(row) for row in rows]
    sink = io.BytesIO()
    parquet.write_table(pa.table({name: [row[name] for row in flattened] for name in columns()}), sink)
    return sink.getvalue()


def rates_csv(table: Mapping[str, Any]) -> str:
    """One line per method and attack, or rung, with counts and intervals."""
    return _csv([*_attacks(table), *_rungs(table)], RATES)


RATES = (
    "method",
    "baseline",
    "truth",
    "what",
    "group",
    "n",
    *(f"{name}_{level}" for level in LEVELS for name in ("hits", "low", "high")),
    "bound_0.01",
    "inconclusive",
    "no_match",
    "auc",
    "aruc",
    "queries_median",
    "queries_p90",
    "bits_per_query",
    "accuracy_lost",
    "destroyed",
    "diverged",
    "failed",
    "not_applicable",
)


def columns() -> list[str]:
    """The columns of cases, in their order."""
    by_level = [f"{name}_{level}" for level in LEVELS for name in ("outcome", "p", "queries")]
    return [*PLAIN, *by_level, *JUDGED, "flags", *COST]


def flat(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row with one value per column; absent is None."""
    found: dict[str, Any] = {name: row.get(name) for name in (*PLAIN, *JUDGED)}
    for name in ("outcome", "p", "queries"):
        found |= {f"{name}_{level}": (row.get(name) or {}).get(level) for level in LEVELS}
    found["flags"] = " ".join(row["flags"]) if "flags" in row else None
    card = row.get("fidelity", {})
    return found | {name: card.get(NAMED_OTHERWISE.get(name, name)) for name in COST}


def _attacks(table: Mapping[str, Any]) -> Iterable[dict[str, Any]]:
    for method in table["methods"]:
        for attack in method["attacks"]:
            counted = {name: attack[name]["hits"] for name in ("inconclusive", "no_match")}
            rates = _levels(attack["tpr"])
            named = {"method": method["method"], "baseline": method["baseline"], "truth": "derived"}
            yield {**attack, **named, **counted, **rates, "what": attack["attack"]}


def _rungs(table: Mapping[str, Any]) -> Iterable[dict[str, Any]]:
    for method in table["methods"]:
        for rung in method["rungs"]:
            counted = {name: rung[name]["hits"] for name in ("inconclusive", "no_match")}
            named = {"method": method["method"], "baseline": method["baseline"], "truth": "unrelated"}
            bound = {"bound_0.01": rung["0.01"]["bound"]}
            yield {**named, "what": rung["rung"], "n": rung["n"], **counted, **bound, **_levels(rung)}


def _levels(rates: Mapping[str, Any]) -> dict[str, Any]:
    return {f"{name}_{level}": rates[level][name] for level in LEVELS for name in ("hits", "low", "high")}


def _csv(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, names, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _cell(row.get(name)) for name in names} for row in rows)
    return out.getvalue()


def _cell(value: Any) -> Any:
    """Text that a spreadsheet would take for a formula is made text."""
    if isinstance(value, str) and value[:1] in ("=", "+", "-", "@"):
        return "'" + value
    return "" if value is None else value
