"""A comparison of two checkpoints in a terminal."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from minutia.core.comparison import LEAST, Compared, Comparison, Compatibility, LayerMatch, Side
from minutia.report.terminal import COLOURS, pairs
from minutia.report.words import DASH, clean, format_p, percent, some

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

SHADES = "·░▒▓█"
"""Shares of matching units from none to all."""
LISTED = 24
"""Layers that are listed one by one."""
SENTENCES = {
    "derived": "Both descend from one training: one holds the weights of the other, or of a base that the other has "
    "hardly left.",
    "shared ancestor or initialisation": "They share hidden units, but neither holds what the other has learnt: two "
    "trainings of one initialisation, or two children of one ancestor.",
    "unrelated": "No hidden units in common, in any order, rotation or scale that could be tested.",
    "undecided": "Not decided: neither an origin in common nor its absence is shown.",
}
CHANCE = {"exact": "exact: it needs no other models", "assumed": "assumed, with measured error rates", "none": DASH}


def print_comparison(console: "Console", compared: Compared) -> None:
    """Print what was found, the numbers, then layer by layer."""
    from rich.text import Text

    found = compared.comparison
    console.print(Text.assemble((found.relation.upper(), COLOURS[found.outcome]), "  ", SENTENCES[found.relation]))
    console.print()
    console.print(pairs(list(facts(compared))))
    if found.strip:
        console.print(Text("\nlayers (first → second), by the share of hidden units that match", "bold"))
        console.print(Text("  " + "".join(shade(match.share) for match in found.strip)))
        console.print(_layers(found))


def facts(compared: Compared) -> Iterator[tuple[str, str]]:
    """Names and values, in the order in which a reader asks for them."""
    found = compared.comparison
    yield "first", side(compared.first)
    yield "second", side(compared.second)
    yield "H0", found.h0 or DASH
    yield "p-value", f"{_p(found)}  (alpha {found.alpha:g})"
    yield "null", f"{CHANCE[found.null]}{f' ({found.test})' if found.test else ''}"
    yield "tests", ", ".join(f"{test} {format_p(p)}" for test, p in found.tests) or DASH
    if found.copied:
        yield "taken over", f"{len(found.copied)} of {len(found.strip)} layers: {some(found.copied, 8)}"
    if found.merged is not None:
        yield "average", f"about {percent(found.merged)} of one in the other, the rest of a stranger"
    if compared.compatibility is not None:
        yield "fits", fits(compared.compatibility)
    if found.baselines:
        values = (f"{name} {DASH if value is None else f'{value:.3f}'}" for name, value in found.baselines)
        yield "weak", f"{', '.join(values)} (no null: decides nothing)"
    for note in found.notes:
        yield "note", note


def side(held: Side) -> str:
    """A checkpoint in one line."""
    share = held.bytes_read / max(held.nbytes, 1)
    read = f"{size(held.bytes_read)} of {size(held.nbytes)} read" if share < 0.95 else f"{size(held.nbytes)}"
    return f"{clean(held.spec, 100)}  ({held.tensors} tensors, {', '.join(held.formats[:3])}, {read})"


def size(nbytes: int) -> str:
    """Bytes for people.

    >>> size(900), size(1_500_000), size(2_000_000_000)
    ('900 B', '1.5 MB', '2.0 GB')
    """
    for factor, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if nbytes >= factor:
            return f"{nbytes / factor:.1f} {unit}"
    return f"{nbytes} B"


def fits(about: Compatibility) -> str:
    """What strangers may share as well."""
    told = {True: "equal", False: "different", None: "not there"}
    return (
        f"{about.shapes} of {about.tensors} tensors have one name and shape in both, config.json {told[about.config]}, "
        f"vocabulary {told[about.vocabulary]} (to fit is not to be related)"
    )


def shade(share: float) -> str:
    """One character for a share of units.

    >>> shade(0.0), shade(0.3), shade(1.0)
    ('·', '▒', '█')
    """
    return SHADES[0] if share <= 0.1 else SHADES[min(4, 1 + int(share * 4))]


def _p(found: Comparison) -> str:
    """The p-value; where assumptions hold no further, a bound."""
    if not found.tests:
        return DASH
    return f"at most {format_p(found.p_value)}" if found.p_value <= LEAST else format_p(found.p_value)


def _layers(found: Comparison) -> "Table":
    """The layers one by one; of many, the first."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 2, 0, 2), pad_edge=True, header_style="")
    for number, head in enumerate(("layer", "in the second", "units", "cosine", "")):
        table.add_column(head, justify="right" if number in (2, 3) else "left", no_wrap=True)
    for match in found.strip[:LISTED]:
        table.add_row(*(Text(cell) for cell in _cells(match)), _related(match))
    if len(found.strip) > LISTED:
        table.add_row(Text(f"{len(found.strip) - LISTED} more with --json", "dim"))
    return table


def _cells(match: LayerMatch) -> Sequence[str]:
    partner = "the same" if match.first == match.second else f"layer {match.second}"
    cosine = DASH if match.kinship is None or not match.related else f"{match.kinship.cosine:.3f}"
    return clean(match.name, 60), partner, percent(match.share), cosine


def _related(match: LayerMatch) -> "Text":
    from rich.text import Text

    return Text("related", "red") if match.related else Text("")
