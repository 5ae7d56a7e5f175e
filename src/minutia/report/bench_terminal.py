"""A study's table for people at a terminal: what each method is worth, then the figures side by side."""

from collections.abc import Mapping, Sequence
from typing import Any

from minutia.report import bench_words as w
from minutia.report.words import DASH, clean, points

WIDEST = 46
"""Characters of an attack's name before it is folded."""


def print_table(console: Any, table: Mapping[str, Any], *, details: bool = False) -> None:
    """Sentences first, then true positive rates, false alarms, claims, what was set apart, and times.

    ``details`` adds one table per method with every figure.
    """
    from rich.text import Text

    seeds = ", ".join(map(str, table["seeds"]))
    console.print(Text(f"{clean(table['name'])}: seeds {seeds}, {clean(table['date'], 20)}", style="bold"))
    for line in w.lines(table):
        _say(console, line)
    _section(console, "Recognised at 1 % false alarms, with 95 % intervals")
    console.print(_rates(table))
    _section(console, "Innocents accused at 1 %, against what a valid test keeps")
    console.print(_ladder(table))
    if table["claims"]:
        _section(console, "False claims: innocents convicted")
        console.print(_claims(table))
    if details:
        for method in w.ordered(table):
            _section(console, w.names(table)[method["method"]])
            console.print(_details(method))
    _apart(console, table)
    _section(console, "Time")
    console.print(_times(table))


def _say(console: Any, line: w.Verdict) -> None:
    from rich.padding import Padding
    from rich.text import Text

    head = Text(f"{line.name}{' (baseline)' if line.baseline else ''}", style="bold")
    console.print(Padding(head.append(Text(f" {'; '.join(line.says)}.", style="not bold")), (0, 0, 0, 2)))
    for sentence in line.against:
        console.print(Padding(Text(f"! {sentence}", style="yellow"), (0, 0, 0, 4)))


def _section(console: Any, title: str) -> None:
    from rich.text import Text

    console.print(Text(f"\n{title}", style="bold"))


def _grid(*columns: str) -> Any:
    from rich.table import Table

    grid = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for number, name in enumerate(columns):
        grid.add_column(name, overflow="fold", max_width=WIDEST if not number else None)
    return grid


def _rates(table: Mapping[str, Any]) -> Any:
    """Attacks in groups against methods: hits of n and the interval."""
    from rich.text import Text

    methods, called = w.ordered(table), w.names(table)
    grid = _grid("attack", *(called[m["method"]] + ("*" if m["baseline"] else "") for m in methods))
    for group, labels in w.groups(table).items():
        grid.add_row(Text(clean(group) or "other", style="italic"))
        for label in labels:
            grid.add_row(f"  {clean(label, 90)}", *(_rate_cell(w.attack_of(m, label)) for m in methods))
    grid.caption, grid.caption_justify = "* naive baseline", "left"
    return grid


def _rate_cell(attack: Mapping[str, Any] | None) -> str:
    if attack is None:
        return DASH
    if not attack["n"]:
        return w.apart(attack) or DASH
    rate = attack["tpr"][w.ALPHA]
    return f"{w.counts(rate)}  {w.span(rate)}"


def _ladder(table: Mapping[str, Any]) -> Any:
    """Rungs against methods: accused of n, the interval, and rejections against the bound."""
    methods, called = w.ordered(table), w.names(table)
    grid = _grid("innocents", *(called[m["method"]] for m in methods))
    for name in w.rungs(table):
        found = [w.rung_of(m, name) for m in methods]
        decides = any(r and r["decides"] for r in found)
        grid.add_row(f"{clean(name, 80)}{' (decides)' if decides else ''}", *map(_rung_cell, found))
    grid.caption, grid.caption_justify = "in brackets: p at most 1 %, and the bound that a valid test keeps", "left"
    return grid


def _rung_cell(rung: Mapping[str, Any] | None) -> str:
    if rung is None or not rung["n"]:
        return DASH
    rate = rung[w.ALPHA]
    return f"{w.counts(rate)}  {w.span(rate)}  ({rate['rejected']} ≤ {rate['bound']})".replace(
        "≤", "≤" if rate["rejected"] <= rate["bound"] else ">"
    )


def _claims(table: Mapping[str, Any]) -> Any:
    """How often innocents are convicted by a fixed threshold and by the judge."""
    grid = _grid("claim", "as", "probes chosen", "match rate ≥ 0.75", "judge's own null, 1 %", "bound")
    for claim in table["claims"]:
        name = clean(claim["claim"], 40)
        if "failed" in claim:
            grid.add_row(name, clean(claim["method"]), DASH, clean(claim["failed"], 80))
            continue
        judged = claim[w.ALPHA]
        when = "after seeing the accused" if claim["known_suspect"] else "before"
        bound = "none: voids the test" if claim["known_suspect"] else str(judged["bound"])
        by_rule, by_judge = (f"{w.counts(r)}  {w.span(r)}" for r in (claim["threshold"], judged))
        grid.add_row(name, clean(claim["method"]), when, by_rule, by_judge, bound)
    return grid


def _details(method: Mapping[str, Any]) -> Any:
    """Every figure of one method."""
    grid = _grid("attack", "n", "1 %", "5 %", "inconcl.", "AUC", "ARUC", "queries", "90 %", "bits", "lost")
    for attack in method["attacks"]:
        grid.add_row(clean(attack["attack"], 60), *_detail_cells(attack))
    return grid


def _detail_cells(attack: Mapping[str, Any]) -> Sequence[str]:
    rates = (w.counts(attack["tpr"][w.ALPHA]), w.counts(attack["tpr"][w.LOOSE]), w.counts(attack["inconclusive"]))
    figures = ("auc", "aruc", "queries_median", "queries_p90", "bits_per_query")
    return (str(attack["n"]), *rates, *(w.number(attack[name]) for name in figures), points(attack["accuracy_lost"]))


def _apart(console: Any, table: Mapping[str, Any]) -> None:
    """Copies that are in no rate."""
    from rich.text import Text

    found = w.set_apart(table)
    if not found:
        return
    _section(console, "Set apart, in no rate")
    for label, how_many, why in found:
        console.print(Text(f"  {clean(label, 70)}: {how_many}: {why}"))


def _times(table: Mapping[str, Any]) -> Any:
    grid = _grid("method", "probes", "null models", "extract", "training other models", "verify one")
    for method in w.ordered(table):
        grid.add_row(
            w.names(table)[method["method"]],
            w.number(method["probes"]),
            w.number(method["calibrators"]),
            w.seconds(method["extract_seconds"]),
            w.seconds(method["auxiliary_seconds"]),
            w.seconds(method["verify_seconds"]),
        )
    return grid
