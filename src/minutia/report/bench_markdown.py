"""A study as a page of documentation: figures with their intervals, seeds and date, and how to make them again."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from minutia.report import bench_words as w
from minutia.report.words import DASH, clean, percent, points


def page(table: Mapping[str, Any]) -> str:
    """Return the page as Markdown; what a table holds of foreign text cannot become markup."""
    parts = [
        f"# The study {_text(table['name'])}{_shown(table)}",
        _intro(table),
        "## In words",
        *_words(table),
        "## Copies recognised",
        _about_rates(table),
        _rates(table),
        "## Innocents accused",
        "Verdicts *match* at alpha 0.01, the 95 % interval, and in brackets rejections (p at most 0.01) against what a "
        "valid test keeps below in 97.5 % of such studies. Only the deciding rung is promised.",
        _ladder(table),
        *_curves(table),
        *_claims(table),
        *_details(table),
        *_apart(table),
        "## Time",
        "Medians, one thread. Training other models is shared by all methods.",
        _times(table),
        "## To repeat it",
        _grid(["fact", "value"], [[_text(n), f"`{_text(v, 600)}`"] for n, v in w.facts(table)]),
    ]
    return "\n\n".join(parts) + "\n"


def _shown(table: Mapping[str, Any]) -> str:
    """What suspects let see, where that is more than labels."""
    access = table["facts"].get("access", "labels")
    return f", suspects with open {_text(access)}" if access != "labels" else ""


def _intro(table: Mapping[str, Any]) -> str:
    seeds = ", ".join(str(s) for s in table["seeds"])
    return (
        f"Measured {_text(table['date'])}, seeds {seeds}. Every seed has its own owner, null models, copies and "
        "innocents. Intervals are Clopper-Pearson, 95 %, over models, for copies widened by how owners differ. "
        "Digest of the table: "
        f"`{_text(table['digest'], 100)}`."
    )


def _words(table: Mapping[str, Any]) -> Iterator[str]:
    for line in w.lines(table):
        head = f"**{_text(line.name)}**{' (naive baseline)' if line.baseline else ''}"
        yield " ".join([f"{head} {_text('; '.join(line.says), 900)}.", *(f"It {_text(s, 400)}." for s in line.against)])


def _about_rates(table: Mapping[str, Any]) -> str:
    return (
        "Verdicts *match* at alpha 0.01 of the copies that are still worth stealing, with the interval, which is wider "
        "where owners differ, because copies of one owner are alike. The last column tells owners apart: matches per "
        "seed of the first method. *Lost* is the median accuracy lost, in points."
    )


def _rates(table: Mapping[str, Any]) -> str:
    methods, called = w.ordered(table), w.names(table)
    rows = []
    for group, labels in w.groups(table).items():
        rows.append([f"**{_text(group) or 'other'}**", *[""] * (len(methods) + 2)])
        for label in labels:
            found = [w.attack_of(m, label) for m in methods]
            lost = next((a["accuracy_lost"] for a in found if a and a["accuracy_lost"] is not None), None)
            rows.append([f"`{_text(label)}`", *map(_rate, found), points(lost), _by_seed(found[0])])
    head = ["attack", *(called[m["method"]] for m in methods), "lost", "per owner"]
    return _grid(head, rows)


def _rate(attack: Mapping[str, Any] | None) -> str:
    if attack is None or not attack["n"]:
        return w.apart(attack) or DASH if attack else DASH
    rate = attack["tpr"][w.ALPHA]
    apart = w.apart(attack)
    return f"{w.counts(rate)} ({w.span(rate)})" + (f"; {apart}" if apart else "")


def _by_seed(attack: Mapping[str, Any] | None) -> str:
    return " ".join(str(hits) for hits, _ in (attack or {}).get("by_seed", {}).values())


def _ladder(table: Mapping[str, Any]) -> str:
    methods, called = w.ordered(table), w.names(table)
    rows = []
    for name in w.rungs(table):
        found = [w.rung_of(m, name) for m in methods]
        decides = " (decides)" if any(r and r["decides"] for r in found) else ""
        rows.append([f"{_text(name)}{decides}", *map(_rung, found)])
    decisive = [next((r for r in m["rungs"] if r["decides"]), None) for m in methods]
    rows.append(["kinds left open (deciding rung)", *map(_open, decisive)])
    return _grid(["innocents", *(called[m["method"]] for m in methods)], rows)


def _open(rung: Mapping[str, Any] | None) -> str:
    told = rung.get("kinds_open") if rung else None
    return f"{w.counts(told)} ({percent(told['hits'] / told['n'])})" if told and told["n"] else DASH


def _rung(rung: Mapping[str, Any] | None) -> str:
    if rung is None or not rung["n"]:
        return DASH
    rate = rung[w.ALPHA]
    return f"{w.counts(rate)} ({w.span(rate)}) [{rate['rejected']} of {rate['bound']}]"


def _curves(table: Mapping[str, Any]) -> Iterator[str]:
    if w.titles(table):
        yield "## Along one parameter"
    methods, called = w.ordered(table), w.names(table)
    for title in w.titles(table):
        points_of = [{p["x"]: p for p in w.curve_of(m, title)} for m in methods]
        rows = []
        for x in sorted({x for found in points_of for x in found}):
            first = next(found[x] for found in points_of if x in found)
            cells = [_point(found.get(x)) for found in points_of]
            rows.append([f"{x:g}", *cells, points(first["accuracy_lost"]), str(first["destroyed"] or "")])
        yield f"### {_text(title).capitalize()}"
        yield _grid(["value", *(called[m["method"]] for m in methods), "lost", "destroyed"], rows)


def _point(point: Mapping[str, Any] | None) -> str:
    if point is None or not point["n"]:
        return DASH
    rate = point["tpr"][w.ALPHA]
    return f"{w.counts(rate)} ({w.span(rate)})"


def _claims(table: Mapping[str, Any]) -> Iterator[str]:
    if not table["claims"]:
        return
    yield "## False claims"
    yield (
        "An accuser forges a fingerprint; innocents of the deciding rung are tried. Convicted by the published rule (a "
        "match rate of at least 0.75), and by a judge with his own null models, at alpha 0.01 and 0.05, with the bound."
    )
    rows = []
    for c in table["claims"]:
        if "failed" in c:
            rows.append([_text(c["claim"]), _text(c["method"]), "", _text(c["failed"], 200), "", "", ""])
            continue
        when = "after seeing the accused" if c["known_suspect"] else "before"
        judged = [f"{w.counts(c[a])} ({w.span(c[a])})" for a in (w.ALPHA, w.LOOSE)]
        bound = "none" if c["known_suspect"] else f"{c[w.ALPHA]['bound']} and {c[w.LOOSE]['bound']}"
        rule = f"{w.counts(c['threshold'])} ({w.span(c['threshold'])})"
        rows.append([_text(c["claim"]), _text(c["method"]), when, rule, *judged, bound])
    yield _grid(["claim", "filed as", "probes chosen", "rate ≥ 0.75", "judge, 1 %", "judge, 5 %", "bounds"], rows)


def _details(table: Mapping[str, Any]) -> Iterator[str]:
    head = ["attack", "TPR at 1 %", "TPR at 5 %", "inconclusive", "AUC", "ARUC", "queries", "90 %", "bits per query"]
    figures = ("auc", "aruc", "queries_median", "queries_p90", "bits_per_query")
    for method in w.ordered(table):
        if method["baseline"]:
            continue
        yield f"## Every figure of {_text(w.names(table)[method['method']])}"
        yield f"`{_text(method['method'], 400)}`. AUC and ARUC against the innocents of the deciding rung."
        rows = []
        for a in method["attacks"]:
            rates = (a["tpr"][w.ALPHA], a["tpr"][w.LOOSE], a["inconclusive"])
            rows.append([f"`{_text(a['attack'])}`", *map(w.counts, rates), *(w.number(a[f]) for f in figures)])
        yield _grid(head, rows)


def _apart(table: Mapping[str, Any]) -> Iterator[str]:
    found = w.set_apart(table)
    if found:
        yield "## Set apart"
        yield "Kept and counted, and in no rate."
        yield _grid(
            ["attack", "how many", "why"], [[f"`{_text(a)}`", _text(n), _text(why, 240)] for a, n, why in found]
        )


def _times(table: Mapping[str, Any]) -> str:
    called = w.names(table)
    rows = [
        [
            called[m["method"]],
            w.number(m["probes"]),
            w.number(m["calibrators"]),
            *(w.seconds(m[f"{name}_seconds"]) for name in ("extract", "auxiliary", "verify")),
        ]
        for m in w.ordered(table)
    ]
    return _grid(["method", "probes", "null models", "extract", "training other models", "verify one"], rows)


def _grid(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def _text(text: object, limit: int = 120) -> str:
    """Foreign text that cannot leave its cell or become markup."""
    return clean(text, limit).replace("|", "\\|").replace("<", "&lt;").replace("`", "'")
