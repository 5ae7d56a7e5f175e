"""A study as one self-contained page: what each method recognises, at which price, and how sure that is."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from minutia.report import bench_charts as charts
from minutia.report import bench_words as w
from minutia.report import words
from minutia.report.bench_charts import Series
from minutia.report.html import environment, versions
from minutia.report.svg import Svg
from minutia.report.words import DASH, clean, plural


class Cell(NamedTuple):
    """One cell of the heat map: how dark, what it says, and what it says when pointed at."""

    shade: int | None
    says: str
    range: str
    title: str


class Figure(NamedTuple):
    """A picture with what it shows and how to read it."""

    picture: Svg
    title: str
    caption: str


def render(table: Mapping[str, Any]) -> str:
    """Return the page as text; nothing on it is loaded from elsewhere, and foreign text is escaped."""
    called = w.names(table)
    page = (
        environment()
        .get_template("bench.html.j2")
        .render(
            title=f"{clean(table['name'], 60)}: what is recognised, and at which price",
            about=_about(table),
            lead=w.lines(table),
            tiles=list(_tiles(table)),
            methods=[(called[m["method"]], m["baseline"]) for m in w.ordered(table)],
            groups=list(_heat(table)),
            figures=list(_figures(table)),
            claims=[_claim(c) for c in table["claims"]],
            details=[(called[m["method"]], m, list(_details(m))) for m in w.ordered(table)],
            ladder=list(_ladder(table)),
            apart=w.set_apart(table),
            times=list(_times(table)),
            facts=[*w.facts(table), ("digest", clean(table["digest"], 100)), ("versions", versions())],
            words=words,
        )
    )
    return str(page)


def _about(table: Mapping[str, Any]) -> list[str]:
    seeds = f"seeds {', '.join(str(s) for s in table['seeds'][:20])}"
    return [part for part in (clean(table["date"], 20), seeds, plural(len(table["methods"]), "method")) if part]


def _tiles(table: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """The first method's figures in large."""
    methods = [m for m in w.ordered(table) if not m["baseline"]]
    if not methods:
        return
    method, name = methods[0], w.names(table)[methods[0]["method"]]
    hits, n = w.pooled(method)
    if n:
        yield f"{hits}/{n}", f"copies recognised by {name}", "all attacks together"
    decides = [r for r in method["rungs"] if r["decides"] and r["n"]]
    if decides:
        rate = decides[0][w.ALPHA]
        yield w.counts(rate), "innocents accused", f"{w.allows(rate)}, same data and recipe"
    asked = [a["queries_median"] for a in method["attacks"] if a["queries_median"] is not None]
    if asked:
        yield (
            w.number(sorted(asked)[len(asked) // 2]),
            "queries to a verdict",
            "median over attacks, of what it recognises",
        )
    yield (
        w.seconds(method["extract_seconds"]),
        "to extract",
        f"and {w.seconds(method['auxiliary_seconds'])} of training",
    )


def _heat(table: Mapping[str, Any]) -> Iterator[tuple[str, list[tuple[str, list[Cell], str]]]]:
    """Groups of attacks, each a row of cells per method with what it cost in accuracy."""
    methods = w.ordered(table)
    for group, labels in w.groups(table).items():
        rows = []
        for label in labels:
            found = [w.attack_of(m, label) for m in methods]
            lost = next((a["accuracy_lost"] for a in found if a and a["accuracy_lost"] is not None), None)
            rows.append((clean(label, 80), [_cell(a) for a in found], words.points(lost)))
        yield clean(group) or "other", rows


def _cell(attack: Mapping[str, Any] | None) -> Cell:
    if attack is None or not attack["n"]:
        return Cell(None, DASH, "", w.apart(attack) if attack else "not tried")
    rate = attack["tpr"][w.ALPHA]
    apart = f"; {w.apart(attack)}" if w.apart(attack) else ""
    title = f"{w.counts(rate)} at 1 %: {w.allows(rate)}; {w.counts(attack['tpr'][w.LOOSE])} at 5 %{apart}"
    return Cell(round(10 * rate["rate"]), w.counts(rate), w.span(rate), title)


def _figures(table: Mapping[str, Any]) -> Iterator[Figure]:
    if any(r["n"] for m in table["methods"] for r in m["rungs"]):
        yield Figure(charts.ladder(table), "Who is accused wrongly", LADDER)
    for title in w.titles(table):
        yield Figure(_along(table, title), f"Recognised along: {clean(title, 80)}", CURVE)
    if any(m["lost"] for m in table["methods"]):
        yield Figure(_lost(table), "Recognised against accuracy lost", LOST)
    if any(m["queries"] for m in table["methods"]):
        yield from _by_queries(table)


def _along(table: Mapping[str, Any], title: str) -> Svg:
    """One parameter of an attack against the rate, per method."""
    called, series, hollow = w.names(table), [], []
    for number, method in enumerate(w.ordered(table)):
        points = w.curve_of(method, title)
        fine = [(p["x"], p["tpr"][w.ALPHA]) for p in points if p["n"]]
        series.append(Series(called[method["method"]], [(x, r["rate"], r["low"], r["high"]) for x, r in fine]))
        hollow += [(number, p["x"], 0.0) for p in points if p["destroyed"] and not p["n"]]
    xs = [x for s in series for x, *_ in s.points]
    wide = bool(xs) and min(xs) >= 1 and max(xs) / min(xs) >= 20
    return charts.lines(series, title, f"Share recognised at 1 % along {clean(title, 80)}", log=wide, hollow=hollow)


def _lost(table: Mapping[str, Any]) -> Svg:
    """Bands of accuracy lost, drawn at their middle."""
    series = []
    for method in w.ordered(table):
        points = [(_middle(b), b["tpr"][w.ALPHA]) for b in method["lost"]]
        series.append(
            Series(w.names(table)[method["method"]], [(x, r["rate"], r["low"], r["high"]) for x, r in points])
        )
    return charts.lines(series, "accuracy lost, in points", "Share recognised at 1 % against accuracy lost")


def _middle(band: Mapping[str, Any]) -> float:
    """Where a band is drawn, in points: the open ends at 0 and at 30."""
    return 100 * (max(band["from"], 0.0) + min(band["to"], 0.4)) / 2


def _by_queries(table: Mapping[str, Any]) -> Iterator[Figure]:
    """For each method the share recognised after so many queries, one line per group of attacks."""
    for method in w.ordered(table):
        if method["baseline"] or not method["queries"]:
            continue
        series = [
            Series(
                clean(q["label"], 30), [(max(p["queries"], 1), p["share"], p["share"], p["share"]) for p in q["points"]]
            )
            for q in method["queries"]
        ]
        name = w.names(table)[method["method"]]
        for start in range(0, len(series), 6):
            picture = charts.lines(series[start : start + 6], "queries asked", f"Queries of {name}", log=True)
            yield Figure(picture, f"How soon {name} recognises what it recognises", QUERIES)


def _claim(claim: Mapping[str, Any]) -> dict[str, str]:
    named = {"claim": clean(claim["claim"], 60), "method": clean(claim["method"], 40)}
    if "failed" in claim:
        return {**named, "why": clean(claim["failed"], 200)}
    judged = claim[w.ALPHA]
    return {
        **named,
        "chosen": "after seeing the accused" if claim["known_suspect"] else "before",
        "rule": f"{w.counts(claim['threshold'])} ({w.span(claim['threshold'])})",
        "judge": f"{w.counts(judged)} ({w.span(judged)})",
        "bound": "none: the choice voids the test" if claim["known_suspect"] else str(judged["bound"]),
    }


def _details(method: Mapping[str, Any]) -> Iterator[list[str]]:
    figures = ("auc", "aruc", "queries_median", "queries_p90", "bits_per_query")
    for a in method["attacks"]:
        rates = (a["tpr"][w.ALPHA], a["tpr"][w.LOOSE], a["inconclusive"])
        cells = [f"{w.counts(r)} {w.span(r)}".strip() for r in rates]
        yield [clean(a["attack"], 80), *cells, *(w.number(a[f]) for f in figures), words.points(a["accuracy_lost"])]


def _ladder(table: Mapping[str, Any]) -> Iterator[tuple[str, list[str]]]:
    for name in w.rungs(table):
        found = [w.rung_of(m, name) for m in w.ordered(table)]
        yield clean(name, 80), [_rung(r) for r in found]


def _rung(rung: Mapping[str, Any] | None) -> str:
    if rung is None or not rung["n"]:
        return DASH
    rate = rung[w.ALPHA]
    return f"{w.counts(rate)} ({w.span(rate)}), p ≤ 1 %: {rate['rejected']} of at most {rate['bound']}"


def _times(table: Mapping[str, Any]) -> Iterator[list[str]]:
    called = w.names(table)
    for m in w.ordered(table):
        sizes = [w.number(m["probes"]), w.number(m["calibrators"])]
        spent = [w.seconds(m[f"{name}_seconds"]) for name in ("extract", "auxiliary", "verify")]
        yield [called[m["method"]], *sizes, *spent]


LADDER = (
    "Each mark is a share of innocent models with the verdict match, its line the 95 % interval over models. The "
    "deciding rung is the one that the null models are of; for the others nothing is promised, so they are measured."
)
CURVE = (
    "Share of copies with the verdict match at 1 %, with 95 % intervals. Hollow marks: every copy there was destroyed."
)
LOST = (
    "All attacks together, in bands of accuracy lost: what a thief pays for getting away. A band holds different "
    "attacks, so this is a picture of the battery, not of one attack."
)
QUERIES = "Share of all copies of a group that are convicted at 1 % after so many queries, with early stopping."
