"""A forest of checkpoints as one self-contained page."""

from collections.abc import Mapping
from typing import Any

from minutia.report.html import environment, versions
from minutia.report.lineage_svg import lineage_picture
from minutia.report.lineage_text import edge_words
from minutia.report.words import plural


def render(forest: Mapping[str, Any]) -> str:
    """Return the page as text, from a forest as its ``plain()`` gives it."""
    edges = forest["edges"]
    supported = sum(edge["supported"] for edge in edges)
    lead = (
        f"{plural(len(forest['names']), 'checkpoint')}, {plural(len(forest['roots']), 'root')}, "
        f"{plural(len(edges), 'edge')}, of which {supported} are supported."
    )
    page = (
        environment()
        .get_template("lineage.html.j2")
        .render(
            title="Lineage of checkpoints",
            about=[f"alpha {forest['alpha']:g}"],
            lead=lead,
            picture=lineage_picture(forest),
            edges=[(edge, edge_words(edge, edges)) for edge in edges],
            forest=forest,
            versions=versions(),
        )
    )
    return str(page)
