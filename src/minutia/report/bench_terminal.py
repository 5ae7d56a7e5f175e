"""A study's table in a terminal: each method in a sentence, methods side by side, then what that rests on."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from minutia.report import bench_words as say
from minutia.report.bench_words import ALPHA, LOOSE, Entry, Table
from minutia.report.words import DASH, clean, percent, plural, points, some

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table as Grid
    from rich.text import Text

LABEL, CELL, ALARM = 42, 19, 20
"""Columns for an attack's name, for one method's rate, and for its rate with a bound."""
HIGH, LOW = 0.9, 0.5
"""Shares from which on a rate is written in green, and below which in red; the numbers say the same."""


def print_table(console: "Console", table: Table, *, details: bool = False) -> None:
    """Print a table for people; ``details`` adds every figure of every method, one table each."""
    _head(console, table)
    if not table["methods"]:
        _say(console, "no suspect was judged", "bold")
        return
    _sentences(console, table)
    _recognised(console, table)
    _accused(console, table)
    _claims(console, table)
    _speed(console, table)
    if details:
        for method in say.ordered(table):
            _detail(console, method, say.names(table)[method["method"]])
    _set_apart(console, table)


def _say(console: "Console", words: str, style: str = "") -> None:
    from rich.text import Text

    console.print(Text(words, style))


def _heading(console: "Console", title: str, note: str = "") -> None:
    console.print()
    _say(console, title, "bold")
    if note:
        _say(console, note, "dim")


def _head(console: "Console", table: Table) -> None:
    """What was studied, in one line."""
    seeds = table["seeds"]
    who = some([str(seed) for seed in seeds], 12)
    words = f"{clean(table['name'])} · {plural(len(seeds), 'seed')} ({who}) · {clean(table['date'], 20)}"
    _say(console, words if seeds else f"{clean(table['name'])} · {clean(table['date'], 20)}", "dim")


def _sentences(console: "Console", table: Table) -> None:
    """One paragraph per method: what it recognises, whom it accuses, to whom it loses."""
    from rich.padding import Padding
    from rich.text import Text

    _heading(console, f"What the methods are worth at {percent(float(ALPHA))} false alarms")
    for line in say.lines(table):
        name = Text(line.name + (" (baseline)" if line.baseline else ""), "cyan")
        console.print(Padding(Text.assemble(name, ": ", "; ".join(line.says), "."), (0, 0, 0, 2), expand=False))
        for reason in line.against:
            console.print(Padding(Text(f"! {reason}", "red"), (0, 0, 0, 4), expand=False))


def _grid(heads: Sequence[str], first: int) -> "Grid":
    """Names on the left, figures to the right of them."""
    from rich.table import Table as Grid

    grid = Grid(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    grid.add_column("", width=first, overflow="fold")
    for head in heads:
        grid.add_column(head, justify="right", no_wrap=True, vertical="bottom")
    return grid


def _in_columns(console: "Console", table: Table, first: int, cell: int) -> Iterator[list[Entry]]:
    """As many methods side by side as there is room for."""
    methods = say.ordered(table)
    fit = max(1, (console.width - first) // cell)
    for start in range(0, len(methods), fit):
        yield methods[start : start + fit]


def _titles(methods: Sequence[Entry], called: Mapping[str, str]) -> list[str]:
    """Heads of columns, baselines marked."""
    return [called[m["method"]] + ("\nbaseline" if m["baseline"] else "\n") for m in methods]


def _first(names: Sequence[str]) -> int:
    """Room for the longest name and its indent."""
    return min(LABEL, max((len(clean(name)) for name in names), default=0) + 2)


def _recognised(console: "Console", table: Table) -> None:
    """Attacks by group against methods: how many copies matched, and the interval."""
    groups = say.groups(table)
    if not groups:
        return
    note = "matches/copies, 95 % interval in percent; sums have none, because copies of one owner are alike"
    _heading(console, f"Copies recognised at {percent(float(ALPHA))} false alarms", note)
    first = _first([label for labels in groups.values() for label in labels])
    for methods in _in_columns(console, table, first, CELL):
        grid = _grid(_titles(methods, say.names(table)), first)
        for group, labels in groups.items():
            _group(grid, group, [_sum(m, group) for m in methods])
            for label in labels:
                cells = [_cell(say.attack_of(m, label)) for m in methods]
                grid.add_row(_text(f"  {clean(label)}"), *cells)
        _group(grid, "all", [_sum(m, None) for m in methods])
        for name, figure in _FIGURES.items():
            grid.add_row(_text(f"  {name}"), *(_text(figure(m)) for m in methods))
        console.print(grid)


def _text(words: str, style: str = "") -> "Text":
    from rich.text import Text

    return Text(words, style)


def _group(grid: "Grid", name: str, sums: Sequence[str]) -> None:
    grid.add_row(_text(clean(name) or "attacks", "bold cyan"), *(_text(s, "dim") for s in sums))


def _sum(method: Entry, group: str | None) -> str:
    """Hits over a group, and its share."""
    hits, n = say.pooled(method, group)
    return f"{hits}/{n} {percent(hits / n):>7}" if n else DASH


def _cell(attack: Entry | None) -> "Text":
    """Hits and interval, or why there are none."""
    if attack is None:
        return _text("not tried", "dim")
    if not attack["n"]:
        return _text(say.apart(attack) or DASH, "dim")
    return _rate(attack["tpr"][ALPHA])


def _rate(rate: Entry) -> "Text":
    share = rate["rate"] or 0.0
    return _text(f"{say.counts(rate)} {say.bare(rate):>6}", "green" if share >= HIGH else "red" if share < LOW else "")


_FIGURES: Mapping[str, Callable[[Entry], str]] = {
    "queries to a match, median": lambda m: say.queries(say.middle(say.figures(m, "queries_median"))),
    "… 90 % of copies, slowest attack": lambda m: say.queries(max(say.figures(m, "queries_p90"), default=None)),
    "AUC, all attacks": lambda m: say.number(m["auc"]),
}


def _accused(console: "Console", table: Table) -> None:
    """Rungs against methods: how many innocents matched, and how many rejections a valid test may give."""
    if not (rungs := say.rungs(table)):
        return
    note = "matches/innocents, 95 % interval in percent, ≤ rejections that a valid test may give"
    _heading(console, f"Innocents accused at {percent(float(ALPHA))}", note)
    first = _first([*rungs, "at 5 %, the deciding rung  "])
    for methods in _in_columns(console, table, first, ALARM):
        grid = _grid(_titles(methods, say.names(table)), first)
        for rung in rungs:
            found = [say.rung_of(m, rung) for m in methods]
            decides = any(r is not None and r["decides"] for r in found)
            grid.add_row(_text(clean(rung), "bold" if decides else ""), *(_alarm(r, ALPHA) for r in found))
            if decides:
                grid.add_row(_text("  at 5 %, the deciding rung"), *(_alarm(r, LOOSE) for r in found))
        console.print(grid)


def _alarm(rung: Entry | None, alpha: str) -> "Text":
    if rung is None or not rung["n"]:
        return _text(DASH, "dim")
    rate = rung[alpha]
    beyond = rate["rejected"] > rate["bound"]
    bound = f"({rate['rejected']} > {rate['bound']})" if beyond else f"≤{rate['bound']:<2}"
    return _text(f"{say.counts(rate)} {say.bare(rate):>7} {bound}", "bold red" if beyond else "")


def _claims(console: "Console", table: Table) -> None:
    """Forged fingerprints: innocents convicted by the published rule, and by the judge."""
    if not table["claims"]:
        return
    note = "a fingerprint forged so that innocents match: convicted/innocents, 95 % interval in percent"
    _heading(console, "False claims", note)
    heads = ["probes\nchosen", "match rate\n≥ 0.75", f"judge at\n{percent(float(ALPHA))}", "judge at\n5 %"]
    grid, called = _grid(heads, LABEL), say.names(table)
    for claim in table["claims"]:
        who = f"{clean(claim['claim'], 20)} · {called.get(claim['method'], clean(claim['method'], 24))}"
        seed = f" · seed {claim['seed']}" if "seed" in claim else ""
        grid.add_row(_text(clean(who + seed, 100)), *(_text(cell) for cell in _claim(claim)))
    console.print(grid)


def _claim(claim: Entry) -> list[str]:
    if "failed" in claim:
        return [f"could not be made: {clean(claim['failed'], 36)}"]
    rates = [f"{say.counts(claim[name])} {say.bare(claim[name]):>6}" for name in ("threshold", ALPHA, LOOSE)]
    return ["after seeing" if claim["known_suspect"] else "before", *rates]


def _speed(console: "Console", table: Table) -> None:
    """What enrolling and judging took."""
    _heading(
        console, "Time", "medians on one thread; other models are the unrelated ones and copies that enrolment uses"
    )
    grid = _grid(["probes", "null\nmodels", "enrolment", "other\nmodels", "one\nsuspect"], 30)
    for m in say.ordered(table):
        times = [say.seconds(m[name]) for name in ("extract_seconds", "auxiliary_seconds", "verify_seconds")]
        sizes = [say.number(m["probes"]), say.number(m["calibrators"])]
        grid.add_row(_text(say.names(table)[m["method"]], "cyan"), *(_text(c) for c in (*sizes, *times)))
    console.print(grid)


def _detail(console: "Console", method: Entry, name: str) -> None:
    """Every figure of one method; attacks without a copy to judge are set apart below."""
    judged = [a for a in method["attacks"] if a["n"]]
    if not judged:
        return
    note = "intervals in percent; I inconclusive, N no match; lost in points"
    ranks = f"over all attacks: AUC {say.number(method['auc'])}, ARUC {say.number(method['aruc'])}"
    _heading(console, f"{name} in detail", f"{clean(method['method'], 200)}\n{ranks}; {note}")
    first = _first([a["attack"] for a in judged])
    grid = _grid(["n", "at 1 %", "at 5 %", "I", "N", "AUC", "queries\n½, 90 %", "bits", "lost"], first)
    for group in dict.fromkeys(a["group"] for a in judged):
        grid.add_row(_text(clean(group) or "attacks", "bold cyan"))
        for attack in (a for a in judged if a["group"] == group):
            grid.add_row(_text(f"  {clean(attack['attack'])}"), *(_text(c) for c in _figures(attack)))
    console.print(grid)


def _figures(attack: Entry) -> list[str]:
    asked = [say.queries(attack[name]) for name in ("queries_median", "queries_p90")]
    return [
        str(attack["n"]),
        say.bare(attack["tpr"][ALPHA]),
        say.bare(attack["tpr"][LOOSE]),
        str(attack["inconclusive"]["hits"]),
        str(attack["no_match"]["hits"]),
        say.number(attack["auc"], 2),
        DASH if attack["queries_median"] is None else ", ".join(asked),
        say.number(attack["bits_per_query"], 2),
        points(attack["accuracy_lost"]),
    ]


def _set_apart(console: "Console", table: Table) -> None:
    """What is in no rate, one line each."""
    from rich.table import Table as Grid

    if not (lines := say.set_apart(table)):
        return
    _heading(console, "Set apart", "in no rate above")
    grid = Grid.grid(padding=(0, 2, 0, 0))
    for width in (min(LABEL, 38), 18, None):
        grid.add_column(width=width, overflow="fold")
    for cells in lines:
        grid.add_row(*(_text(clean(cell, 260)) for cell in cells))
    console.print(grid)
