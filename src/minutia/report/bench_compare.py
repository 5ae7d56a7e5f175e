"""Two tables of one study: which rates moved beyond their intervals."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from minutia.report.bench_words import ALPHA, LOOSE, counts, differ, span
from minutia.report.words import clean, plural, some

Table = Mapping[str, Any]
SCHEMA = "minutia.comparison/1"
SET_UP = ("seeds", "alphas")


class Cell(NamedTuple):
    """One rate of a table: of which method, in which row, and whether more of it is better."""

    method: str
    what: str
    figure: str
    more_is_better: bool
    rate: Mapping[str, Any]


def compare(new: Table, old: Table) -> dict[str, Any]:
    """What moved: each of the two rates lies outside the other's 95 % interval.

    Rates of one study with the same seeds share their models, so most do not move at all. With other seeds there are
    other owners, and some rates move by chance: ``set_up`` says when seeds differ.
    """
    before, after = ({(c.method, c.what, c.figure): c for c in cells(table)} for table in (old, new))
    shared = [key for key in after if key in before]
    moved = [_moved(after[key], before[key]) for key in shared if differ(after[key].rate, before[key].rate)]
    return {
        "schema": SCHEMA,
        "new": {"name": new["name"], "date": new["date"], "digest": new["digest"]},
        "old": {"name": old["name"], "date": old["date"], "digest": old["digest"]},
        "compared": len(shared),
        "moved": moved,
        "appeared": _only(after, before),
        "disappeared": _only(before, after),
        "set_up": [
            {"what": name, "old": old.get(name), "new": new.get(name)}
            for name in ("name", *SET_UP)
            if old.get(name) != new.get(name)
        ]
        + _facts(new["facts"], old["facts"]),
    }


def print_comparison(console: Any, found: Mapping[str, Any]) -> None:
    """The comparison for people."""
    from rich.table import Table as Grid
    from rich.text import Text

    old = f"{clean(found['old']['name'])} of {clean(found['old']['date'], 20)}"
    console.print(Text(f"\nAgainst {old}: {plural(found['compared'], 'rate')} compared", style="bold"))
    for change in found["set_up"][:8]:
        console.print(Text(f"  other {clean(change['what'])}: {clean(change['old'])} → {clean(change['new'])}"))
    for name in ("appeared", "disappeared"):
        if found[name]:
            console.print(Text(f"  {name}: {some([clean(x, 60) for x in found[name]], 6)}"))
    if not found["moved"]:
        console.print(Text("  nothing moved beyond its interval"))
        return
    grid = Grid(box=None, pad_edge=False, header_style="bold")
    for column in ("", "method", "what", "figure", "old", "new"):
        grid.add_column(column, overflow="fold")
    for move in found["moved"]:
        cells_of = [f"{counts(move[when])} ({span(move[when])})" for when in ("old", "new")]
        sign = "▲ better" if move["direction"] == "better" else "▼ worse"
        grid.add_row(sign, clean(move["method"], 40), clean(move["what"], 50), move["figure"], *cells_of)
    console.print(grid)


def cells(table: Table) -> Iterator[Cell]:
    """Every rate of a table that has an interval."""
    for method in table["methods"]:
        key = method["method"]
        for attack in method["attacks"]:
            for alpha in (ALPHA, LOOSE):
                yield Cell(key, attack["attack"], f"TPR at {float(alpha):.0%}", True, attack["tpr"][alpha])
            yield Cell(key, attack["attack"], "inconclusive", False, attack["inconclusive"])
        for rung in method["rungs"]:
            for alpha in (ALPHA, LOOSE):
                yield Cell(key, rung["rung"], f"FPR at {float(alpha):.0%}", False, rung[alpha])


def _moved(new: Cell, old: Cell) -> dict[str, Any]:
    better = (new.rate["rate"] > old.rate["rate"]) == new.more_is_better
    named = {"method": new.method, "what": new.what, "figure": new.figure}
    return {**named, "direction": "better" if better else "worse", "old": dict(old.rate), "new": dict(new.rate)}


def _only(these: Mapping[tuple[str, str, str], Cell], others: Mapping[tuple[str, str, str], Cell]) -> list[str]:
    """Methods, and rows of methods that both tables have, which only one of them has."""
    known = {method for method, _, _ in others}
    gone = {m if m not in known else w for m, w, f in these if (m, w, f) not in others}
    return sorted(gone)


def _facts(new: Mapping[str, Any], old: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Sizes, data and plans that differ, one entry per fact."""
    return [
        {"what": name, "old": old.get(name), "new": new.get(name)}
        for name in sorted({*new, *old})
        if old.get(name) != new.get(name)
    ]
