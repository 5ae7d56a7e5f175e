"""What a study's table says: methods and attacks in the order of the page, rates in words, who loses to whom.

A table is plain data of the schema ``minutia.table/1``; everything here only reads it.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from minutia.core.errors import UsageError
from minutia.core.keys import split_key
from minutia.report.words import DASH, clean, percent, plural, some

Table = Mapping[str, Any]
Entry = Mapping[str, Any]
"""A part of a table: a method, an attack, a rung, a rate."""
ALPHA, LOOSE = "0.01", "0.05"
NOBODY = {"hits": 0, "n": 0, "rate": None, "low": 0.0, "high": 1.0}
STATES = ("destroyed", "diverged", "failed", "not_applicable")
STATE_WORDS = {
    "destroyed": "lost so much accuracy that nobody would want them",
    "diverged": "diverged while they were made",
    "failed": "could not be made",
    "not_applicable": "could not be asked",
}


class Verdict(NamedTuple):
    """What the table says of one method: sentences, and those of them that count against it."""

    name: str
    baseline: bool
    says: list[str]
    against: list[str]


def ordered(table: Table) -> list[Entry]:
    """Methods in the study's order, the baselines after them."""
    return sorted(table["methods"], key=lambda m: bool(m["baseline"]))


def names(table: Table) -> dict[str, str]:
    """A short name for every method's key: parameters only where they tell two methods of one name apart."""
    parsed = {m["method"]: (m["name"], _parameters(m["method"])) for m in table["methods"]}
    found = {}
    for key, (name, parameters) in parsed.items():
        twins = [other for k, (n, other) in parsed.items() if n == name and k != key]
        differing = {p: v for p, v in parameters.items() if any(other.get(p) != v for other in twins)}
        inside = ",".join(f"{p}={v}" for p, v in differing.items())
        found[key] = clean(f"{name}({inside})" if inside else name, 48)
    # Keys that no parser understands may still clash: then the whole key is the name.
    clashing = {n for n in found.values() if list(found.values()).count(n) > 1}
    return {key: clean(key, 120) if n in clashing else n for key, n in found.items()}


def _parameters(key: str) -> dict[str, str]:
    """Of one method; several in one, and such as no parser understands, have none."""
    try:
        found = split_key(key)
    except UsageError:
        return {}
    return {**found.parameters, **({"version": str(found.version)} if found.version != 1 else {})}


def groups(table: Table) -> dict[str, list[str]]:
    """Attacks by group, both in the order of first appearance."""
    found: dict[str, dict[str, None]] = {}
    for method in table["methods"]:
        for attack in method["attacks"]:
            found.setdefault(attack["group"], {})[attack["attack"]] = None
    return {group: list(labels) for group, labels in found.items()}


def rungs(table: Table) -> list[str]:
    """Rungs of the ladder of innocents, the deciding one first."""
    found: dict[str, bool] = {}
    for method in table["methods"]:
        for rung in method["rungs"]:
            found[rung["rung"]] = found.get(rung["rung"], False) or rung["decides"]
    return sorted(found, key=lambda name: not found[name])


def titles(table: Table) -> list[str]:
    """Names of the curves."""
    return list(dict.fromkeys(curve["curve"] for method in table["methods"] for curve in method["curves"]))


def attack_of(method: Entry, label: str) -> Entry | None:
    """One attack as one method met it."""
    return next((a for a in method["attacks"] if a["attack"] == label), None)


def rung_of(method: Entry, name: str) -> Entry | None:
    """One rung as one method met it."""
    return next((r for r in method["rungs"] if r["rung"] == name), None)


def curve_of(method: Entry, title: str) -> Sequence[Entry]:
    """The points of one curve of one method."""
    return next((c["points"] for c in method["curves"] if c["curve"] == title), ())


def pooled(method: Entry, group: str | None = None, alpha: str = ALPHA) -> tuple[int, int]:
    """Hits and copies over the attacks of a group, or all; copies of one owner, so no interval goes with it."""
    some = [a["tpr"][alpha] for a in method["attacks"] if group in (None, a["group"])]
    return sum(r["hits"] for r in some), sum(r["n"] for r in some)


def apart(attack: Entry) -> str:
    """Why copies of this attack are in no rate, with their numbers.

    >>> apart({"destroyed": 3, "diverged": 0, "failed": 1, "not_applicable": 0})
    '3 destroyed, 1 failed'
    """
    return ", ".join(f"{attack[s]} {s.replace('_', ' ')}" for s in STATES if attack.get(s))


def counts(rate: Entry | None) -> str:
    """Hits of n.

    >>> counts({"hits": 15, "n": 15}), counts({"hits": 0, "n": 0})
    ('15/15', '–')
    """
    return f"{rate['hits']}/{rate['n']}" if rate and rate["n"] else DASH


def bare(rate: Entry | None) -> str:
    """The interval in percent without the sign, for columns that name the unit.

    >>> bare({"n": 15, "low": 0.782, "high": 1.0})
    '78–100'
    """
    return span(rate).removesuffix(" %")


def queries(value: float | None) -> str:
    """A number of queries, rounded up: half a query cannot be asked.

    >>> queries(12.5), queries(None)
    ('13', '–')
    """
    return DASH if value is None else f"{math.ceil(value - 1e-9)}"


def span(rate: Entry | None) -> str:
    """The interval, its ends rounded outwards; nothing where nobody was counted.

    >>> span({"n": 15, "low": 0.782, "high": 1.0}), span({"n": 300, "low": 0.0, "high": 0.0122})
    ('78–100 %', '0–1.3 %')
    """
    if not rate or not rate["n"]:
        return ""
    return f"{percent(rate['low'], 'down').removesuffix(' %')}–{percent(rate['high'], 'up')}"


def allows(rate: Entry) -> str:
    """What so many of so many allow to say of the rate behind them.

    >>> allows({"hits": 15, "n": 15, "low": 0.782, "high": 1.0}), allows({"hits": 0, "n": 9, "low": 0, "high": 0.336})
    ('at least 78 %', 'at most 34 %')
    """
    if not rate["n"]:
        return "nothing: nobody was judged"
    if rate["hits"] == rate["n"]:
        return f"at least {percent(rate['low'], 'down')}"
    if not rate["hits"]:
        return f"at most {percent(rate['high'], 'up')}"
    return f"between {percent(rate['low'], 'down').removesuffix(' %')} and {percent(rate['high'], 'up')}"


def number(value: float | None, digits: int = 3) -> str:
    """A figure that may not have been measured.

    >>> number(12.0), number(0.98765), number(None)
    ('12', '0.988', '–')
    """
    return DASH if value is None else f"{value:.{digits}g}" if abs(value) < 1000 else f"{value:.0f}"


def seconds(value: float | None) -> str:
    """A time in the unit that suits it.

    >>> seconds(0.0042), seconds(3.21), seconds(212.0), seconds(7200), seconds(None)
    ('4.2 ms', '3.2 s', '3.5 min', '2 h', '–')
    """
    if value is None:
        return DASH
    for factor, unit, most in ((1000.0, "ms", 0.1), (1.0, "s", 100.0), (1 / 60, "min", 6000.0)):
        if value < most:
            return f"{value * factor:.2g} {unit}" if value * factor < 10 else f"{value * factor:.0f} {unit}"
    return f"{value / 3600:.2g} h" if value < 36_000 else f"{value / 3600:.0f} h"


def lines(table: Table) -> list[Verdict]:
    """One verdict per method, the baselines last."""
    called = names(table)
    return [_line(table, method, called) for method in ordered(table)]


def _line(table: Table, method: Entry, called: Mapping[str, str]) -> Verdict:
    against = [*_failures(method), *beyond(method), *losses(table, method, called)]
    says = [part for part in (_recognised(method), _accused(method)) if part]
    return Verdict(called[method["method"]], method["baseline"], says, against)


def _failures(method: Entry) -> list[str]:
    return [f"could not be enrolled: {clean(why, 200)}" for why in method["failed"][:3]]


def _recognised(method: Entry) -> str:
    """How many copies, where all, where none, and how soon."""
    hits, n = pooled(method)
    if not n:
        return "judged no copy"
    judged = [a for a in method["attacks"] if a["n"]]
    every = sum(a["tpr"][ALPHA]["hits"] == a["n"] for a in judged)
    none = [a["attack"] for a in judged if not a["tpr"][ALPHA]["hits"]]
    asked = figures(method, "queries_median")
    soon = f", typically after {queries(middle(asked))} queries" if asked else ""
    where = f"every copy in {every} of {plural(len(judged), 'attack')}" if every else ""
    nowhere = f"no copy of {some(none, 4)}" if none else ""
    inside = "; ".join(part for part in (where, nowhere) if part)
    return f"recognises {hits} of {plural(n, 'copy')}{soon}" + (f" ({inside})" if inside else "")


def middle(values: Sequence[float]) -> float | None:
    """The upper median; None of nothing."""
    return sorted(values)[len(values) // 2] if values else None


def figures(method: Entry, name: str) -> list[float]:
    """One figure of every attack on which it was measured."""
    return [a[name] for a in method["attacks"] if a[name] is not None]


def _accused(method: Entry) -> str:
    """False alarms on the rung that decides."""
    found = [r for r in method["rungs"] if r["decides"] and r["n"]]
    if not found:
        return "false alarms were not measured on the deciding rung"
    rate = found[0][ALPHA]
    return f"accuses {rate['hits']} of {plural(rate['n'], 'innocent')} ({allows(rate)})"


def beyond(method: Entry, alpha: str = ALPHA) -> list[str]:
    """Rungs on which a test that keeps its promise would hardly ever reject so often."""
    return [
        f"rejects {r[alpha]['rejected']} of {r['n']} innocents of “{clean(r['rung'])}”, "
        f"a valid test at most {r[alpha]['bound']}"
        for r in method["rungs"]
        if r[alpha]["rejected"] > r[alpha]["bound"]
    ]


class Loss(NamedTuple):
    """A group of attacks in which a baseline recognises a larger share: hits and copies, mine and its."""

    group: str
    baseline: str
    mine: tuple[int, int]
    theirs: tuple[int, int]


def lost_groups(table: Table, method: Entry) -> list[Loss]:
    """Groups in which the best baseline recognises a larger share than this method does."""
    if method["baseline"]:
        return []
    rivals = [m for m in table["methods"] if m["baseline"]]
    found = []
    for group in groups(table):
        mine = pooled(method, group)
        theirs = [(pooled(r, group), r["method"]) for r in rivals]
        better = [(h / n, r, (h, n)) for (h, n), r in theirs if n and mine[1] and h / n > mine[0] / mine[1]]
        if better:
            _, rival, score = max(better)
            found.append(Loss(group, rival, mine, score))
    return found


def differ(one: Entry, two: Entry) -> bool:
    """Whether each rate lies outside the other's interval; of nobody judged nothing is known.

    >>> some, none = {"n": 9, "rate": 0.4, "low": 0.2, "high": 0.6}, {"n": 9, "rate": 0.0, "low": 0.0, "high": 0.3}
    >>> differ(some, none), differ(some, some), differ(some, NOBODY)
    (True, False, False)
    """
    if not one["n"] or not two["n"]:
        return False
    return not two["low"] <= one["rate"] <= two["high"] and not one["low"] <= two["rate"] <= one["high"]


def lost_attacks(table: Table, method: Entry) -> list[tuple[str, str, str]]:
    """Attacks on which the best baseline's rate is above and neither lies in the other's interval: attack, it, counts.

    Only those that no lost group names already: a sum over a group can hide them.
    """
    lost = {loss.group for loss in lost_groups(table, method)}
    rivals = [m for m in table["methods"] if m["baseline"] and not method["baseline"]]
    found = []
    for attack in (a for a in method["attacks"] if a["group"] not in lost):
        mine = attack["tpr"][ALPHA]
        theirs = [(a["tpr"][ALPHA], r["method"]) for r in rivals if (a := attack_of(r, attack["attack"]))]
        better = [(t["rate"], r, t) for t, r in theirs if differ(mine, t) and t["rate"] > mine["rate"]]
        if better:
            _, rival, rate = max(better, key=lambda b: b[:2])
            found.append((attack["attack"], rival, f"{counts(mine)} against {counts(rate)}"))
    return found


def losses(table: Table, method: Entry, called: Mapping[str, str]) -> list[str]:
    """Where a naive baseline does better, said plainly."""
    found = []
    (hits, n), rivals = pooled(method), [m for m in table["methods"] if m["baseline"] and not method["baseline"]]
    for rival in rivals:
        h, of = pooled(rival)
        if n and of and h / of > hits / n:
            found.append(f"loses to the baseline {called[rival['method']]} overall: {hits} of {n} against {h} of {of}")
    where: dict[str, list[str]] = {}
    for loss in lost_groups(table, method):
        (a, b), (c, d) = loss.mine, loss.theirs
        group = clean(loss.group) or "attacks without a group"
        where.setdefault(loss.baseline, []).append(f"in {group}: {a} of {b} against {c} of {d}")
    for label, baseline, score in lost_attacks(table, method):
        where.setdefault(baseline, []).append(f"on {clean(label)}: {score.replace('/', ' of ')}")
    found += [f"loses to the baseline {called[rival]} {'; '.join(places)}" for rival, places in where.items()]
    return found


def set_apart(table: Table) -> list[tuple[str, str, str]]:
    """What is in no rate, as (attack, how many and in which state, why), one line each."""
    found: dict[tuple[str, str], list[Entry]] = {}
    for entry in table["apart"]:
        label = entry["label"] or f"{entry['truth']} models"
        found.setdefault((label, entry["state"]), []).append(entry)
    lines = [(label, f"{len(them)} {state}", _because(state, them)) for (label, state), them in found.items()]
    return lines + list(_not_asked(table))


def _because(state: str, entries: Sequence[Entry]) -> str:
    reasons = sorted({e["why"] for e in entries if e["why"]})
    if reasons:
        return some([clean(r, 160) for r in reasons], 2) if len(reasons) > 1 else clean(reasons[0], 240)
    left = [e["accuracy"] for e in entries if e["accuracy"] is not None]
    kept = f"; accuracy left {percent(min(left))} to {percent(max(left))}" if left and state == "destroyed" else ""
    return STATE_WORDS.get(state, state) + kept


def _not_asked(table: Table) -> Iterator[tuple[str, str, str]]:
    """Suspects that a method could not ask, which is a matter of method and suspect together."""
    called = names(table)
    found: dict[tuple[str, int, str], list[str]] = {}
    for method in ordered(table):
        for attack in method["attacks"]:
            if attack["not_applicable"]:
                why = clean(attack["why"][0], 240) if attack["why"] else STATE_WORDS["not_applicable"]
                key = (attack["attack"], attack["not_applicable"], why)
                found.setdefault(key, []).append(called[method["method"]])
    for (label, count, why), who in found.items():
        by = "" if len(who) == len(called) else f" by {some(who, 4)}"
        yield label, f"{count} not applicable{by}", why


def facts(table: Table) -> list[tuple[str, str]]:
    """The study's facts as flat pairs, for who wants to repeat it."""
    return [
        ("study", clean(table["name"], 120)),
        ("seeds", some([str(s) for s in table["seeds"]], 40)),
        *_flat(table["facts"]),
    ]


def _flat(value: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    for name, inside in value.items():
        path = f"{before}{clean(name, 80)}"
        if isinstance(inside, Mapping):
            yield from _flat(inside, f"{path}.")
        elif inside not in ("", None, [], ()):
            yield path, clean(inside if not isinstance(inside, list | tuple) else _listed(inside), 600)


def _listed(items: Sequence[Any]) -> str:
    return "; ".join(" ".join(f"{k}={v}" for k, v in i.items()) if isinstance(i, Mapping) else str(i) for i in items)
