"""A study as one self-contained page: what each method recognises, at which price, and how sure that is."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from minutia.report import bench_charts as charts
from minutia.report import bench_findings as findings
from minutia.report import bench_words as w
from minutia.report import words
from minutia.report.bench_charts import Curve, Point
from minutia.report.bench_words import ALPHA, LOOSE, Entry, Table
from minutia.report.html import environment, versions
from minutia.report.svg import Svg
from minutia.report.words import DASH, clean, plural


class Cell(NamedTuple):
    """One cell of the heat map: how dark, what it says, its interval, and what it says when pointed at."""

    shade: int | None
    says: str
    range: str
    rail: Svg
    title: str
    beaten: str


class Figure(NamedTuple):
    """A heading that says the finding, small pictures side by side, and how to read them."""

    title: str
    panels: Sequence[Svg]
    caption: str


def render(table: Table) -> str:
    """Return the page as text; nothing on it is loaded from elsewhere, and foreign text is escaped."""
    called, methods = w.names(table), w.ordered(table)
    page = environment().get_template("bench.html.j2")
    return str(
        page.render(
            title=f"{clean(table['name'], 60)}: whom the methods recognise",
            about=_about(table),
            lead=w.lines(table),
            tiles=list(_tiles(table)),
            methods=[(called[m["method"]], m["baseline"]) for m in methods],
            groups=list(_heat(table)),
            ladder=charts.ladder(table) if w.rungs(table) else None,
            ladder_key=charts.key_to_ladder(),
            alarms=list(_alarms(table)),
            figures=list(_figures(table)),
            staircases=list(_staircases(table)),
            claims=[_claim(table, c) for c in table["claims"]],
            details=[(called[m["method"]], m, list(_details(m))) for m in methods],
            apart=w.set_apart(table),
            times=list(_times(table)),
            facts=[*w.facts(table), ("digest", clean(table["digest"], 100)), ("versions", versions())],
            findings=findings,
            table=table,
        )
    )


def _about(table: Table) -> list[str]:
    seeds = f"seeds {words.some([str(s) for s in table['seeds']], 12)}" if table["seeds"] else ""
    return [part for part in (clean(table["date"], 20), seeds, plural(len(table["methods"]), "method")) if part]


def _tiles(table: Table) -> Iterator[tuple[str, str, str]]:
    """The best method's figures in large."""
    method = findings.best(table)
    if method is None:
        return
    hits, n = w.pooled(method)
    yield f"{hits}/{n}", f"copies recognised by {w.names(table)[method['method']]}", "all attacks together"
    for rung in (r for r in method["rungs"] if r["decides"] and r["n"]):
        yield w.counts(rung[ALPHA]), "innocents accused", f"{w.allows(rung[ALPHA])}, {clean(rung['rung'])}"
    half = w.middle(w.figures(method, "queries_median"))
    if half is not None:
        yield w.queries(half), "queries to a conviction", "median attack"
    trained = f"after {w.seconds(method['auxiliary_seconds'])} of training other models"
    yield w.seconds(method["extract_seconds"]), "to enrol", trained if method["auxiliary_seconds"] else ""


def _heat(table: Table) -> Iterator[tuple[str, list[str], list[tuple[str, list[Cell], str]]]]:
    """Groups of attacks with each method's sum; rows with a cell per method and what the attack cost in accuracy."""
    methods = w.ordered(table)
    for group, labels in w.groups(table).items():
        sums = [f"{hits}/{n}" if n else "" for hits, n in (w.pooled(m, group) for m in methods)]
        rows = []
        for label in labels:
            found = [w.attack_of(m, label) for m in methods]
            lost = next((a["accuracy_lost"] for a in found if a and a["accuracy_lost"] is not None), None)
            cells = [_cell(a, findings.beaten(table, m, label)) for m, a in zip(methods, found, strict=True)]
            rows.append((clean(label, 80), cells, words.points(lost)))
        yield clean(group) or "other attacks", sums, rows


def _cell(attack: Entry | None, beaten: str) -> Cell:
    if attack is None or not attack["n"]:
        apart = "not tried" if attack is None else w.apart(attack)
        return Cell(None, apart or DASH, "", Svg(""), apart, "")
    rate = attack["tpr"][ALPHA]
    more = "".join(f"; {part}" for part in (w.apart(attack), beaten) if part)
    told = f"{w.counts(rate)} at 1 %: {w.allows(rate)}; {w.counts(attack['tpr'][LOOSE])} at 5 %{more}"
    shade = round(10 * rate["rate"])
    return Cell(shade, w.counts(rate), w.span(rate), charts.rail(rate, w.span(rate)), told, beaten)


def _figures(table: Table) -> Iterator[Figure]:
    """One figure per curve, then the rate against accuracy lost."""
    for title in w.titles(table):
        curves = [_curve(table, m, title) for m in w.ordered(table)]
        drawn = charts.panels([c for c in curves if c.points], clean(title, 80))
        yield Figure(findings.curve(table, title), drawn, "")
    curves = [_by_lost(table, m) for m in w.ordered(table) if m["lost"]]
    if curves:
        yield Figure(findings.lost(table), charts.panels(curves, "accuracy lost, in points"), LOST)


def _curve(table: Table, method: Entry, title: str) -> Curve:
    points = [
        Point(
            p["x"],
            _short(p["x"]),
            p["tpr"][ALPHA] if p["n"] else None,
            f"at {p['x']:g}: {_told(p)}" + (f", {p['destroyed']} destroyed" if p["destroyed"] else ""),
            bool(p["destroyed"]),
        )
        for p in w.curve_of(method, title)
    ]
    return Curve(w.names(table)[method["method"]], method["baseline"], points)


def _short(x: float) -> str:
    """A value for an axis: thousands as k."""
    return f"{x / 1000:g}k" if abs(x) >= 1000 and x % 100 == 0 else f"{x:g}"


def _told(point: Entry) -> str:
    rate, lost = point["tpr"][ALPHA], point.get("accuracy_lost")
    cost = "" if lost is None else f", {words.points(lost)} points lost"
    return (f"{w.counts(rate)} recognised, {w.span(rate)}" if point["n"] else "nobody judged") + cost


def _by_lost(table: Table, method: Entry) -> Curve:
    """Bands of accuracy lost in equal steps; bands are the same for every method."""
    points = [
        Point(b["from"], _edge(b), b["tpr"][ALPHA], f"{findings.band(b)} points lost: {_told(b)}")
        for b in method["lost"]
    ]
    steps = sorted({b["from"] for m in table["methods"] for b in m["lost"]})
    placed = [p._replace(x=float(steps.index(p.x))) for p in points]
    return Curve(w.names(table)[method["method"]], method["baseline"], placed)


def _edge(band: Entry) -> str:
    """A band's label where there is little room: its end, or that it has none."""
    low, high = (words.points(band[end]).removesuffix(".0") for end in ("from", "to"))
    return f">{low}" if band["to"] >= 1 else f"<{high}"


def _staircases(table: Table) -> Iterator[tuple[str, list[tuple[Svg, str]]]]:
    """Groups of attacks against methods: share convicted after so many questions."""
    methods = [m for m in w.ordered(table) if m["queries"]]
    labels = dict.fromkeys(q["label"] for m in methods for q in m["queries"])
    most = max((p["queries"] for m in methods for q in m["queries"] for p in q["points"]), default=1)
    for label in labels:
        found: list[Sequence[Entry]] = [
            next((q["points"] for q in m["queries"] if q["label"] == label), []) for m in w.ordered(table)
        ]
        yield clean(label), [_staircase(points, most) for points in found]


def _staircase(points: Sequence[Entry], most: float) -> tuple[Svg, str]:
    if not points:
        return Svg(""), DASH
    end = points[-1]
    half = next((p["queries"] for p in points if end["share"] and p["share"] >= end["share"] / 2), None)
    soon = f", half of them by {w.queries(half)}" if half is not None else ""
    says = f"{words.percent(end['share'])}{soon}"
    return charts.steps([(p["queries"], p["share"]) for p in points], most, f"convicted: {says}"), says


def _alarms(table: Table) -> Iterator[tuple[str, bool, list[str]]]:
    """The ladder in figures, at both levels."""
    for name in w.rungs(table):
        found = [w.rung_of(m, name) for m in w.ordered(table)]
        for alpha in (ALPHA, LOOSE):
            title = f"{clean(name, 80)}, at {words.percent(float(alpha))}"
            yield title, any(r is not None and r["decides"] for r in found), [_alarm(r, alpha) for r in found]


def _alarm(rung: Entry | None, alpha: str) -> str:
    if rung is None or not rung["n"]:
        return DASH
    rate = rung[alpha]
    sign = "≤" if rate["rejected"] <= rate["bound"] else ">"
    return f"{w.counts(rate)}, {w.span(rate)} ({rate['rejected']} {sign} {rate['bound']})"


def _claim(table: Table, claim: Entry) -> dict[str, str]:
    called = w.names(table).get(claim["method"], clean(claim["method"], 40))
    seed = f", seed {claim['seed']}" if "seed" in claim else ""
    named = {"claim": clean(claim["claim"], 60), "method": f"{called}{clean(seed, 30)}"}
    if "failed" in claim:
        return {**named, "why": clean(claim["failed"], 200)}
    rates = {name: f"{w.counts(claim[key])}, {w.span(claim[key])}" for name, key in CLAIM_RATES.items()}
    known = claim["known_suspect"]
    return {
        **named,
        **rates,
        "chosen": "after" if known else "before",
        "bound": "none" if known else f"{claim[ALPHA]['bound']}, {claim[LOOSE]['bound']}",
    }


def _details(method: Entry) -> Iterator[list[str]]:
    for a in method["attacks"]:
        rates = (a["tpr"][ALPHA], a["tpr"][LOOSE], a["inconclusive"])
        cells = [f"{w.counts(r)} {w.span(r)}".strip() for r in rates]
        ranks = [w.number(a[name]) for name in ("auc", "aruc")]
        asked = [w.queries(a[name]) for name in ("queries_median", "queries_p90")]
        lost = words.points(a["accuracy_lost"])
        yield [clean(a["attack"], 80), *cells, *ranks, *asked, w.number(a["bits_per_query"]), lost]


def _times(table: Table) -> Iterator[list[str]]:
    called = w.names(table)
    for m in w.ordered(table):
        alone, trained = m["extract_seconds"], m["auxiliary_seconds"]
        both = None if alone is None or trained is None else alone + trained
        spent = [w.seconds(value) for value in (alone, both, m["verify_seconds"])]
        yield [called[m["method"]], w.number(m["probes"]), w.number(m["calibrators"]), *spent]


CLAIM_RATES = {"rule": "threshold", "judge": ALPHA, "loose": LOOSE}
LOST = (
    "Across: points of accuracy that a copy lost, in bands. Upwards: share recognised at 1 %, over all attacks and "
    "curves together. A band holds different attacks, so this is a picture of the study, not of one attack."
)
