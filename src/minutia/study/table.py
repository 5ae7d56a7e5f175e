"""The table of a study: from rows (one suspect, one method) to rates with intervals, curves and false alarms."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import Any

import numpy as np

from minutia.core.fingerprint import HARDEST_RUNG
from minutia.core.keys import split_chain
from minutia.stats.intervals import clopper_pearson, clustered
from minutia.stats.nulls import type_one_bound_over
from minutia.stats.ranking import aruc, auc
from minutia.storage.tables import SCHEMA, digest
from minutia.study.house import RESERVE

ALPHAS = ("0.01", "0.05")
APART = ("destroyed", "diverged", "failed", "not-applicable")
"""States of a suspect that is kept and shown, but no part of any rate."""
LOST_EDGES = (-1.0, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 1.0)
Row = Mapping[str, Any]


@dataclass(frozen=True)
class About:
    """What the table is of: name, seeds, sizes, data, and what else a reader must know to repeat it."""

    name: str
    seeds: tuple[int, ...]
    baselines: tuple[str, ...]
    facts: Mapping[str, Any]
    date: str
    fingerprints: Sequence[Mapping[str, Any]]
    claims: Sequence[Mapping[str, Any]]


def table(about: About, rows: Sequence[Row]) -> dict[str, Any]:
    """The whole table as plain data; its digest leaves out measured seconds and the date, which no two runs share."""
    rows = distinct(rows)
    known = list(dict.fromkeys(row["method"] for row in rows))
    keys = sorted(known, key=lambda key: (known.index(key.removesuffix(RESERVE)), key))  # a reserve follows its method
    methods = [_method(about, key, [row for row in rows if row["method"] == key]) for key in keys]
    body = {
        "schema": SCHEMA,
        "name": about.name,
        "seeds": list(about.seeds),
        "alphas": [float(a) for a in ALPHAS],
        "facts": dict(about.facts),
        "methods": methods,
        "claims": list(about.claims),
        "apart": _apart(rows),
    }
    return {**body, "date": about.date, "digest": digest(body)}


def distinct(rows: Sequence[Row]) -> list[Row]:
    """Rows of copies that differ: an attack without randomness makes one model however often it is asked for.

    Intervals are over models, so a copy that is there twice counts once. Innocents are all of different trainings.
    """
    found: dict[tuple[Any, ...], Row] = {}
    for number, row in enumerate(rows):
        what = [row[name] for name in ("seed", "method", "label", "curve", "x", "suspect", "state")]
        same = row["truth"] == "derived" and row["state"] in ("fine", "destroyed")
        key = (*what, row.get("observation")) if same else (number,)
        found.setdefault(key, row)
    return list(found.values())


def _method(about: About, key: str, rows: Sequence[Row]) -> dict[str, Any]:
    """One method: its speed, every attack, every rung, its curves."""
    name = _name(key)
    prints = [f for f in about.fingerprints if f["method"] == key]
    asked = [row for row in rows if row["state"] in ("fine", "destroyed")]
    fair = [row for row in asked if row["state"] == "fine" and not row["curve"]]
    innocents = [r for r in fair if r["truth"] == "unrelated" and r["kind"] == HARDEST_RUNG and not r["attack"]]
    scores = [row["score"] for row in innocents if row["score"] is not None]
    copies = [row for row in fair if row["truth"] == "derived"]
    return {
        "method": key,
        "name": name,
        "baseline": name in about.baselines,
        "reserve": key.endswith(RESERVE),
        "failed": sorted({f["failed"] for f in prints if "failed" in f}),
        "probes": _middle(f["probes"] for f in prints if "probes" in f),
        "calibrators": _middle(f["m"] for f in prints if "m" in f),
        "extract_seconds": _middle(f["seconds"] for f in prints if "seconds" in f),
        "auxiliary_seconds": _middle(f["auxiliary_seconds"] for f in prints if f.get("auxiliary_seconds")),
        "verify_seconds": _middle(row["seconds"] for row in asked),
        "auc": _ranked(auc, copies, scores),
        "aruc": _ranked(aruc, copies, scores),
        "attacks": [
            _attack(label, some, scores)
            for label, some in _by("label", (r for r in rows if r["truth"] == "derived" and not r["curve"]))
        ],
        "rungs": [_rung(rung, some) for rung, some in _rungs(fair)],
        "curves": [_curve(name, some) for name, some in _by("curve", (r for r in asked if r["curve"]))],
        "lost": _by_accuracy_lost([r for r in asked if r["truth"] == "derived" and r["state"] == "fine"]),
        "queries": [{"label": label, "points": _query_points(some)} for label, some in _by("group", copies) if label],
    }


def _name(key: str) -> str:
    """The name of a method: several in one are a portfolio, and a second fingerprint says that it is one.

    >>> _name("ipguard(probes=9)@1"), _name("a()@1+b()@1"), _name("a()@1 in reserve")
    ('ipguard', 'portfolio', 'a in reserve')
    """
    own = key.removesuffix(RESERVE)
    name = "portfolio" if len(split_chain(own)) > 1 else own.partition("(")[0]
    return name + key[len(own) :]


def _attack(label: str, rows: Sequence[Row], innocents: Sequence[float]) -> dict[str, Any]:
    """One attack: rates over the copies that are still worth stealing, the others counted apart."""
    fine = [row for row in rows if row["state"] == "fine"]
    states = {state: sum(row["state"] == state for row in rows) for state in APART}
    matched = [row["queries"]["0.01"] for row in fine if row["outcome"]["0.01"] == "match"]
    return {
        "attack": label,
        "key": rows[0]["attack"],
        "group": rows[0]["group"],
        "n": len(fine),
        **{state.replace("-", "_"): count for state, count in states.items()},
        "tpr": _matched(fine),
        "by_seed": {str(seed): [_matches(some, "0.01"), len(some)] for seed, some in _by("seed", fine)},
        "inconclusive": _ended(fine, "inconclusive"),
        "no_match": _ended(fine, "no-match"),
        "auc": _ranked(auc, fine, innocents),
        "aruc": _ranked(aruc, fine, innocents),
        "queries_median": _quantile(matched, 0.5),
        "queries_p90": _quantile(matched, 0.9),
        "bits_per_query": _middle(row["bits"] for row in fine),
        "accuracy_lost": _middle(_cost(fine, "accuracy_lost")),
        "accuracy_lost_most": max(_cost(fine, "accuracy_lost"), default=None),
        "agreement": _middle(_cost(fine, "agreement")),
        "why": sorted({row["why"] for row in rows if row.get("why")}),
    }


def _rung(rung: str, rows: Sequence[Row]) -> dict[str, Any]:
    """False alarms on one rung, with the bound that a valid test keeps in 97.5 % of such studies."""
    found: dict[str, Any] = {"rung": rung, "n": len(rows), "decides": rung == HARDEST_RUNG}
    groups = [list(some) for _, some in _by("seed", rows)]
    for alpha in ALPHAS:
        rejected = sum(row["p"][alpha] is not None and row["p"][alpha] <= float(alpha) + 1e-12 for row in rows)
        bound = type_one_bound_over([(len(some), some[0]["m"]) for some in groups], float(alpha))
        found[alpha] = {**rate(_matches(rows, alpha), len(rows)), "rejected": rejected, "bound": bound}
    found["inconclusive"] = rate(_outcomes(rows, "inconclusive"), len(rows))
    found["no_match"] = rate(_outcomes(rows, "no-match"), len(rows))
    found["kinds_open"] = _kinds_open(rows)
    return found


def _kinds_open(rows: Sequence[Row]) -> dict[str, Any]:
    """Of the kinds of copy that fingerprints claim to see, those that were not ruled out of innocents; all together."""
    alpha = ALPHAS[0]
    told = [(set(r["sees"][alpha]), set(r["ruled_out"][alpha])) for r in rows if r["outcome"][alpha] != "match"]
    return {"hits": sum(len(sees - out) for sees, out in told), "n": sum(len(sees) for sees, _ in told)}


def _rungs(rows: Sequence[Row]) -> Iterator[tuple[str, list[Row]]]:
    """The rungs of the ladder, and apart from them innocent models that went through a removal attack."""
    innocents = [row for row in rows if row["truth"] == "unrelated"]
    yield from _by("kind", (row for row in innocents if not row["attack"]))
    if attacked := [row for row in innocents if row["attack"]]:
        yield "innocent models that were attacked", attacked


def _curve(name: str, rows: Sequence[Row]) -> dict[str, Any]:
    """A rate against one parameter of an attack; destroyed copies are counted but drawn apart."""
    points = []
    for x, some in sorted(_by("x", rows)):
        fine = [row for row in some if row["state"] == "fine"]
        points.append(
            {
                "x": x,
                "n": len(fine),
                "destroyed": len(some) - len(fine),
                "tpr": _matched(fine),
                "score": _middle(row["score"] for row in some),
                "accuracy_lost": _middle(_cost(some, "accuracy_lost")),
                "agreement": _middle(_cost(some, "agreement")),
            }
        )
    return {"curve": name, "points": points}


def _by_accuracy_lost(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Rates in bands of accuracy lost, over every attack: what an attacker pays for getting away."""
    bands = []
    for low, high in pairwise(LOST_EDGES):
        some = [r for r in rows if low <= r["fidelity"].get("accuracy_lost", -2.0) < high]
        if some:
            tpr = _matched(some)
            bands.append({"from": low, "to": high, "n": len(some), "tpr": tpr})
    return bands


def _query_points(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Share convicted at alpha .01 after so many queries."""
    most = max((row["asked"] for row in rows), default=0)
    hits = sorted(row["queries"]["0.01"] for row in rows if row["outcome"]["0.01"] == "match")
    steps = sorted({*hits, most})
    return [{"queries": q, "share": sum(h <= q for h in hits) / len(rows)} for q in steps]


def _apart(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Copies that are in no rate, once each: what was destroyed, what diverged, what could not be made."""
    seen: dict[tuple[Any, ...], dict[str, Any]] = {}
    enrolled = {(row["method"], row["seed"]) for row in rows if row["state"] != "failed"}
    named = ("label", "truth", "kind", "seed", "curve", "x", "state")
    for row in rows:
        # Without a fingerprint nobody is judged: that is the method's failure, not that of each suspect.
        if row["state"] in ("destroyed", "diverged", "failed") and (row["method"], row["seed"]) in enrolled:
            entry = {name: row[name] for name in ("label", "truth", "seed", "state")}
            entry["accuracy"] = row["fidelity"].get("accuracy")
            entry["why"] = row.get("why", "")
            seen.setdefault(tuple(row.get(name) for name in (*named, "suspect", "number")), entry)
    return list(seen.values())


def rate(hits: int, n: int) -> dict[str, Any]:
    """Hits of n with the 95 % Clopper-Pearson interval; of none, nothing is known.

    >>> rate(0, 0)
    {'hits': 0, 'n': 0, 'rate': None, 'low': 0.0, 'high': 1.0}
    """
    low, high = clopper_pearson(hits, n)
    return {"hits": hits, "n": n, "rate": hits / n if n else None, "low": low, "high": high}


def _matched(rows: Sequence[Row]) -> dict[str, Any]:
    """True positive rates of copies at both levels; the interval knows that copies of one owner are alike."""
    return {alpha: _clustered(rows, alpha, "match") for alpha in ALPHAS}


def _ended(rows: Sequence[Row], outcome: str) -> dict[str, Any]:
    return _clustered(rows, "0.01", outcome)


def _clustered(rows: Sequence[Row], alpha: str, outcome: str) -> dict[str, Any]:
    owners = [list(some) for _, some in _by("seed", rows)]
    hits = [sum(row["outcome"][alpha] == outcome for row in some) for some in owners]
    sizes = [len(some) for some in owners]
    low, high = clustered(hits, sizes)
    return {**rate(sum(hits), sum(sizes)), "low": low, "high": high}


def _matches(rows: Iterable[Row], alpha: str) -> int:
    return sum(row["outcome"][alpha] == "match" for row in rows)


def _outcomes(rows: Iterable[Row], outcome: str) -> int:
    return sum(row["outcome"]["0.01"] == outcome for row in rows)


def _cost(rows: Iterable[Row], name: str) -> list[float]:
    return [row["fidelity"][name] for row in rows if name in row["fidelity"]]


def _by(name: str, rows: Iterable[Row]) -> Iterator[tuple[Any, list[Row]]]:
    """Groups of rows with one value of a column, in the order of first appearance."""
    found = list(rows)
    order = {value: i for i, value in enumerate(dict.fromkeys(row[name] for row in found))}
    for value, some in groupby(sorted(found, key=lambda row: order[row[name]]), key=lambda row: row[name]):
        yield value, list(some)


def _ranked(figure: Callable[..., float | None], rows: Sequence[Row], innocents: Sequence[float]) -> float | None:
    return figure([row["score"] for row in rows if row["score"] is not None], innocents)


def _middle(values: Iterable[float | None]) -> float | None:
    return _quantile([v for v in values if v is not None], 0.5)


def _quantile(values: Sequence[float], share: float) -> float | None:
    return float(np.quantile(values, share)) if len(values) else None
