"""What each picture of a study's page shows, as a sentence that the figures bear out."""

from collections.abc import Sequence

from minutia.report.bench_words import (
    ALPHA,
    Entry,
    Table,
    beyond,
    counts,
    curve_of,
    figures,
    middle,
    names,
    ordered,
    pooled,
    queries,
    seconds,
)
from minutia.report.words import clean, percent, plural, points, some

HALF = 0.5


def best(table: Table) -> Entry | None:
    """The method that recognises the largest share of copies; a baseline only where there is nothing else.

    A reserve is no method: thieves who know the first fingerprint do not know it.
    """
    judged = [m for m in ordered(table) if pooled(m)[1] and not m.get("reserve")]
    chosen = [m for m in judged if not m["baseline"]] or judged
    return max(chosen, key=_share, default=None)


def _share(method: Entry) -> float:
    hits, n = pooled(method)
    return hits / n


def recognised(table: Table) -> str:
    """The heat map's title: what the best method recognises, and if a baseline beats it, that."""
    method = best(table)
    if method is None:
        return "No copy was judged"
    hits, n = pooled(method)
    rivals = [m for m in ordered(table) if m["baseline"] and pooled(m)[1] and _share(m) > _share(method)]
    found = f"{_name(table, method)} recognises {hits} of {plural(n, 'copy')}"
    return f"{found}, fewer than the baseline {_name(table, rivals[0])}" if rivals else found


def accused(table: Table) -> str:
    """The ladder's title: whether any method rejects more innocents than a valid test may."""
    known = names(table)
    broken = [known[m["method"]] for m in ordered(table) if beyond(m)]
    if broken:
        return f"{some(broken, 3)} {'rejects' if len(broken) == 1 else 'reject'} more innocents than a valid test may"
    if not any(rung["n"] for m in table["methods"] for rung in m["rungs"]):
        return "False alarms were not measured"
    return "No method rejects more innocents than a valid test may"


def curve(table: Table, title: str) -> str:
    """A curve's title: where the method that does best along it falls below one half, or rises above it."""
    candidates = [(m, [p for p in curve_of(m, title) if p["n"]]) for m in ordered(table) if not m["baseline"]]
    candidates = [(m, found) for m, found in candidates if found]
    what = clean(title, 80)
    what = what[:1].upper() + what[1:]
    if not candidates:
        return what
    method, found = max(candidates, key=lambda pair: sum(p["tpr"][ALPHA]["rate"] for p in pair[1]))
    return f"{what}: {_name(table, method)} {_crossing(found)}"


def _crossing(found: Sequence[Entry]) -> str:
    above = [p["tpr"][ALPHA]["rate"] >= HALF for p in found]
    if all(above):
        return "recognises at least half all along"
    if not any(above):
        return "recognises fewer than half all along"
    turn = next(i for i in range(len(above)) if len(set(above[i:])) == 1)
    return f"recognises {'at least' if above[-1] else 'fewer than'} half from {found[turn]['x']:g} on"


def lost(table: Table) -> str:
    """What getting away costs: the share recognised in the first and the last band of accuracy lost."""
    method = best(table)
    bands = method["lost"] if method else []
    if method is None or len(bands) < 2:
        return "What getting away costs"
    first, last = bands[0], bands[-1]
    shares = [percent(b["tpr"][ALPHA]["rate"]) for b in (first, last)]
    return (
        f"{_name(table, method)} recognises {shares[0]} of the copies that lose {band(first)} points of accuracy, "
        f"{shares[1]} of those that lose {band(last)}"
    )


def band(entry: Entry) -> str:
    """A band of accuracy lost, in points.

    >>> band({"from": -1.0, "to": 0.005}), band({"from": 0.02, "to": 0.05}), band({"from": 0.2, "to": 1.0})
    ('under 0.5', '2 to 5', 'over 20')
    """
    low, high = (points(entry[end]).removesuffix(".0") for end in ("from", "to"))
    if entry["from"] < 0:
        return f"under {high}"
    return f"over {low}" if entry["to"] >= 1 else f"{low} to {high}"


def asked(table: Table) -> str:
    """How soon the best method convicts."""
    method = best(table)
    half = middle(figures(method, "queries_median")) if method else None
    if method is None or half is None:
        return "Questions asked until a conviction"
    whole = "" if method["probes"] is None else f" of {queries(method['probes'])}"
    return f"When {_name(table, method)} convicts, it does so after {queries(half)}{whole} questions"


def claims(table: Table) -> str:
    """Whom the published rule and the judge convict when the probes were chosen before the accused was seen."""
    fair = [c for c in table["claims"] if "failed" not in c and not c["known_suspect"]]
    if not fair:
        return "False claims"
    rule, judge = ([sum(c[name][part] for c in fair) for part in ("hits", "n")] for name in ("threshold", ALPHA))
    return (
        f"The published rule convicts {rule[0]} of {rule[1]} innocents of forged claims, "
        f"the judge {judge[0] or 'none'} of {judge[1]}"
    )


def speed(table: Table) -> str:
    """What one more suspect costs with the best method."""
    method = best(table)
    if method is None or method["verify_seconds"] is None:
        return "Time"
    return f"{_name(table, method)} judges one suspect in {seconds(method['verify_seconds'])}"


def beaten(table: Table, method: Entry, label: str) -> str:
    """The baseline that recognises a larger share of one attack's copies, in words; empty if there is none."""
    mine = _rate(method, label)
    if method["baseline"] or mine is None:
        return ""
    rivals = [(m, rate) for m in table["methods"] if m["baseline"] and (rate := _rate(m, label))]
    better = [(rate["rate"], m["method"], rate) for m, rate in rivals if rate["rate"] > mine["rate"]]
    if not better:
        return ""
    _, key, rate = max(better, key=lambda found: found[:2])
    return f"the baseline {names(table)[key]} recognises {counts(rate)}"


def _rate(method: Entry, label: str) -> Entry | None:
    found = next((a["tpr"][ALPHA] for a in method["attacks"] if a["attack"] == label), None)
    return found if found and found["n"] else None


def _name(table: Table, method: Entry) -> str:
    return names(table)[method["method"]]
