"""A comparison of two checkpoints as one self-contained page."""

from collections.abc import Sequence

from minutia.core.comparison import Compared, LayerMatch
from minutia.report import svg
from minutia.report.comparison import SENTENCES, facts
from minutia.report.html import environment, versions
from minutia.report.svg import Svg
from minutia.report.words import clean, format_p, percent

WIDTH, LEFT, TOP, HEIGHT = 760.0, 8.0, 8.0, 44.0
MOST = 400
"""Layers that are drawn."""


def render(compared: Compared, created: str = "") -> str:
    """Return the page as text."""
    found = compared.comparison
    about = (clean(created), *(clean(side.spec, 80) for side in (compared.first, compared.second)))
    lead = [SENTENCES[found.relation], *(f"{note[0].upper()}{note[1:]}." for note in found.notes)]
    page = (
        environment()
        .get_template("comparison.html.j2")
        .render(
            title=f"{found.relation[0].upper()}{found.relation[1:]}",
            about=[part for part in about if part],
            lead=lead,
            outcome=found.outcome,
            facts=list(facts(compared)),
            strip=heat_strip(found.strip[:MOST]) if found.strip else None,
            layers=found.strip[:MOST],
            left_out=max(0, len(found.strip) - MOST),
            p=format_p(found.p_value),
            percent=percent,
            versions=versions(),
        )
    )
    return str(page)


def heat_strip(strip: Sequence[LayerMatch]) -> Svg:
    """One cell per layer, the darker the more of its hidden units match; moved layers name their partner.

    >>> heat_strip([LayerMatch(0, 0, "layer 0", 0.5)]).count("<rect")
    2
    """
    step = (WIDTH - 2 * LEFT) / len(strip)
    cells = []
    for at, match in enumerate(strip):
        partner = "" if match.first == match.second else f" (layer {match.second} of the second)"
        title = svg.tag("title", f"{match.name}{partner}: {percent(match.share)} of units match")
        place = {"x": LEFT + at * step, "y": TOP, "width": max(step - 1, 1.0), "height": HEIGHT}
        cells.append(svg.tag("rect", title, class_="cell empty", **place))
        cells.append(svg.tag("rect", title, class_="cell", style=f"fill-opacity: {match.share:.2f}", **place))
    every = max(1, -(-len(strip) // 24))
    shown = [(at, match.first) for at, match in enumerate(strip) if at % every == 0]
    names = [
        svg.text(LEFT + (at + 0.5) * step, TOP + HEIGHT + 18, str(layer) if layer >= 0 else "emb.", "middle")
        for at, layer in shown
    ]
    return svg.picture(WIDTH, TOP + HEIGHT + 28, "Share of matching hidden units, layer by layer", *cells, *names)
