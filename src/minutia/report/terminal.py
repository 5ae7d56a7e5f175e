"""Verdicts in a terminal: one in full, or many as a table. rich is imported when something is printed."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from minutia.core.verdict import Member, Verdict
from minutia.report.rows import Group, Row, Summary, grouped
from minutia.report.words import (
    DASH,
    OUTCOMES,
    clean,
    explained,
    format_p,
    format_score,
    missing,
    outcome,
    percent,
    plural,
    points,
    ruled_out,
    sentence,
    short,
)

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

COLOURS = {"match": "bold red", "no-match": "green", "inconclusive": "yellow"}
ALARMS = {"match": "green", "no-match": "bold red", "inconclusive": "yellow"}
"""Where the question is whether a model is unchanged, the alarm is the other outcome."""
WIDE = 96
"""Columns from which on there is room for what an attack cost."""


def print_verdict(console: "Console", verdict: Verdict) -> None:
    """Print one verdict for a person: what was found, the numbers, then the reasons not to believe them."""
    from rich.text import Text

    name, colours = outcome(verdict).upper(), ALARMS if verdict.question == "integrity" else COLOURS
    console.print(Text.assemble((name, colours[verdict.outcome]), "  ", sentence(verdict)))
    console.print()
    console.print(pairs(list(_facts(verdict))))
    if verdict.members:
        console.print(Text("\nmembers (each by itself; the p-value above is that of all together)", "bold"))
        console.print(_members(verdict))
    if verdict.flags:
        console.print(Text("\nflags", "bold"))
        console.print(pairs([line for flag in verdict.flags for line in _flag(flag)]))
    console.print()
    console.print(pairs(_digests(verdict)), style="dim")


def _facts(verdict: Verdict) -> Iterator[tuple[str, str]]:
    """Names and values, in the order in which a reader asks for them."""
    yield "suspect", clean(verdict.suspect.id, 120)
    yield "method", _called(verdict)
    yield "H0", clean(verdict.h0, 300)
    yield "score", format_score(verdict.score)
    yield "p-value", f"{format_p(verdict.p_value)}  (the smallest this null can give: {format_p(verdict.p_floor)})"
    yield "alpha", f"{verdict.alpha:g}"
    yield "null", _null(verdict)
    yield "e-value", DASH if verdict.e_value is None or missing(verdict.e_value) else f"{verdict.e_value:.3g}"
    yield "queries", _queries(verdict)
    if verdict.question == "integrity":
        yield "power", ", ".join(f"{clean(kind)} {percent(rate)}" for kind, rate in verdict.power.items()) or DASH
    matched = verdict.question == "origin" and verdict.outcome == "match"
    yield "ruled out", DASH if matched else _kinds(verdict.ruled_out)
    yield "blind to", _kinds(verdict.blind_to)
    yield "untested", _kinds(verdict.untested)


def _called(verdict: Verdict) -> str:
    """The method by its key; a portfolio by the names of its members, whose keys the fingerprint shows."""
    if not verdict.members:
        return clean(verdict.method, 300)
    return f"portfolio of {', '.join(clean(m.method.partition('(')[0], 40) for m in verdict.members)}"


def _null(verdict: Verdict) -> str:
    """What the p-value rests on."""
    if verdict.question == "integrity":
        runs = plural(verdict.null_size, "benign run")
        return f"{clean(verdict.null_kind)}, {runs} ({clean(verdict.null_source, 300)})"
    if verdict.null_kind in ("exact", "assumed") and not verdict.null_size:
        return f"{clean(verdict.null_kind)}: it needs no other models"
    if not verdict.null_size:
        return f"{clean(verdict.null_kind)}: no unrelated model to compare with"
    rung = clean(verdict.null_rung, 80) or "rung not declared"
    size = plural(verdict.null_size, "unrelated model")
    return f"{clean(verdict.null_kind)}, {size}, {rung} ({clean(verdict.null_source, 200) or 'source not given'})"


def _queries(verdict: Verdict) -> str:
    """How many were asked and answered, and at which look it ended."""
    look = "no look was reached" if verdict.look is None else f"ended at the look after {verdict.look}"
    return f"{verdict.asked} asked, {verdict.answered} answered, {look}"


def _kinds(kinds: Sequence[str]) -> str:
    return ", ".join(clean(kind) for kind in kinds) or "none"


def _members(verdict: Verdict) -> "Table":
    """What each method of a portfolio says, the most telling first."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 2, 0, 2), pad_edge=True, header_style="")
    for number, head in enumerate(("method", "answers", "score", "of its reach", "p alone")):
        table.add_column(head, justify="right" if number else "left", no_wrap=True)
    told = sorted(verdict.members, key=lambda m: -1e9 if m.standardised is None else -m.standardised)
    for m in told:
        reach = DASH if m.standardised is None or missing(m.standardised) else f"{m.standardised:.2f}"
        name = clean(m.method.partition("(")[0], 60) + ("" if m.counts else f" (not counted: {_why_not(m)})")
        cells = (name, str(m.asked), format_score(m.score), reach, format_p(m.p_value))
        table.add_row(*(Text(cell) for cell in cells))
    return table


def _why_not(member: Member) -> str:
    """Why a member is no part of the joint p-value."""
    return "sees fewer copies" if member.kind in ("rank", "none") else "null shares weights"


def _flag(flag: str) -> list[tuple[str, str]]:
    """A flag's meaning, and what to do."""
    about = explained(flag)
    return [(clean(flag), f"{about.raised_if}: {about.meaning}"), ("", f"→ {about.remedy}")]


def _digests(verdict: Verdict) -> list[tuple[str, str]]:
    found = {"fingerprint": verdict.fingerprint, "observation": verdict.observation, "null": verdict.null_digest}
    return [(name, short(digest)) for name, digest in found.items()]


def pairs(lines: Sequence[tuple[str, str]]) -> "Table":
    """Two aligned columns; text stays text, whatever brackets it holds."""
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in lines:
        table.add_row(Text(f"  {name}", "cyan"), Text(value))
    return table


def print_table(console: "Console", rows: Sequence[Row]) -> None:
    """Print many verdicts, copies first, with what they add up to underneath."""
    from rich.text import Text

    if rows:
        console.print(_table(console.width, grouped(rows)))
        console.print()
        for line in _about_p([row.verdict for row in rows]):
            console.print(Text(line, "dim"))
        if any(row.wrong for row in rows):
            console.print(Text("! marks a false accusation or a missed copy", "bold red"))
        console.print()
    console.print(Text(Summary(rows).sentence(), "bold"))


def _about_p(verdicts: Sequence[Verdict]) -> list[str]:
    """One line for each null that gave a p-value in the table."""
    lines = {
        f"p: {_null(v)}; the smallest it can give is {format_p(v.p_floor)}, alpha is {v.alpha:g}": None
        for v in verdicts
    }
    return list(lines)


def _table(width: int, groups: Sequence[Group]) -> "Table":
    """The table in this many columns: what an attack cost goes first, then names and kinds are shortened."""
    from rich.table import Table

    shown = len(_HEADS) if width >= WIDE else len(_HEADS) - 1
    lines = [(row, _cells(row)[:shown]) for group in groups for row in group.rows]
    sizes = _sizes([cells for _, cells in lines], width)
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold")
    for number, (head, size) in enumerate(zip(_HEADS, sizes, strict=False)):
        table.add_column(head, width=size, no_wrap=True, justify="right" if number >= _NUMBERS else "left")
    for number, (row, cells) in enumerate(lines):
        if number and row.truth != lines[number - 1][0].truth:
            table.add_row()
        table.add_row(*_styled(row, cells))
    return table


_HEADS = ("\nsuspect", "\ntruth", "\nkind", "\nverdict", "\nscore", "\np", "\nqueries", "ruled\nout", "accuracy\nlost")
_NUMBERS = 4
"""Columns from this one on are aligned to the right."""


def _cells(row: Row) -> tuple[str, ...]:
    """One line of the table; an exclamation mark stands beside a wrong verdict."""
    lost = points(row.fidelity.get("accuracy_lost"))
    return (
        clean(row.suspect, 40),
        clean(row.truth or "unknown", 12),
        clean(row.kind),
        OUTCOMES[row.verdict.outcome] + (" !" if row.wrong else ""),
        format_score(row.verdict.score),
        format_p(row.verdict.p_value),
        str(row.verdict.asked),
        ruled_out(row.verdict),
        lost if lost == DASH else f"{lost} pp",
    )


def _sizes(lines: Sequence[Sequence[str]], width: int) -> list[int]:
    """Widths of the columns; the suspect's name and its kind give way to the others."""
    from rich.cells import cell_len

    heads = [max(head.split("\n"), key=len) for head in _HEADS]
    sizes = [max(map(cell_len, column)) for column in zip(heads, *lines, strict=False)]
    name, kind = sizes[0], sizes[2]
    room = width - (len(sizes) - 1) - (sum(sizes) - name - kind)
    sizes[0] = min(name, max(room - kind, room // 2))
    sizes[2] = max(1, min(kind, room - sizes[0]))
    return sizes


def _styled(row: Row, cells: Sequence[str]) -> "Iterator[Text]":
    """The verdict in the colour of its outcome, the rest plain."""
    from rich.text import Text

    for number, cell in enumerate(cells):
        colour = COLOURS[row.verdict.outcome] if number == 3 else ""
        yield Text(cell, f"{colour} reverse" if row.wrong and number == 3 else colour, overflow="ellipsis")
