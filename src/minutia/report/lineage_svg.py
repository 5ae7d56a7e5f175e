"""A forest of checkpoints as a picture: time runs to the right, one line per checkpoint."""

from collections.abc import Mapping, Sequence
from typing import Any

from minutia.report import svg
from minutia.report.lineage_text import edge_words
from minutia.report.svg import Svg
from minutia.report.words import clean, plural

ROW, STEP, LEFT, TOP = 24.0, 64.0, 14.0, 18.0
NAME_ROOM = 240.0
"""Room for the name of the deepest."""


def lineage_picture(forest: Mapping[str, Any]) -> Svg:
    """Return a forest, as its ``plain()`` gives it, as one picture for a page.

    Edges that are not supported are drawn as rails, lighter than the others; a tooltip tells what is known of each.

    >>> edge = {"parent": "a", "child": "<b>", "kind": "pruned", "support": 1.0, "direction": 0.9, "supported": True,
    ...         "share": 1.0}
    >>> drawn = lineage_picture({"roots": ["a"], "edges": [edge], "common": []})
    >>> drawn.count("<circle"), "<b>" in drawn, "&lt;b&gt;" in drawn
    (2, False, True)
    """
    edges: Sequence[Mapping[str, Any]] = forest["edges"]
    places = _places(forest["roots"], edges)
    lines = [_edge(places, edge, edges) for edge in edges if {edge["parent"], edge["child"]} <= set(places)]
    dots = [_node(name, *place) for name, place in places.items()]
    width = max((x for x, _ in places.values()), default=LEFT) + NAME_ROOM
    height = TOP + ROW * max(len(places), 1)
    unsupported = sum(not edge["supported"] for edge in edges)
    label = f"{plural(len(places), 'checkpoint')} in {plural(len(forest['roots']), 'tree')}"
    if unsupported:
        label += f", {plural(unsupported, 'edge')} unsupported"
    return svg.picture(width, height, label, *lines, *dots)


def _places(roots: Sequence[str], edges: Sequence[Mapping[str, Any]]) -> dict[str, tuple[float, float]]:
    """Where each checkpoint stands: depth to the right, one line each, children below their first parent."""
    found: dict[str, tuple[float, float]] = {}
    todo = [(root, 0) for root in reversed(roots)]
    while todo:
        name, depth = todo.pop()
        if name not in found:
            found[name] = (LEFT + STEP * depth, TOP + ROW * len(found))
            todo += [(edge["child"], depth + 1) for edge in reversed(edges) if edge["parent"] == name]
    return found


def _edge(
    places: Mapping[str, tuple[float, float]], edge: Mapping[str, Any], edges: Sequence[Mapping[str, Any]]
) -> Svg:
    """Down from the parent, then across to the child."""
    (x, y), (to_x, to_y) = places[edge["parent"]], places[edge["child"]]
    words = f"{clean(edge['parent'])} → {clean(edge['child'])}: {edge_words(edge, edges)}"
    drawn = svg.polyline([(x, y), (x, to_y), (to_x, to_y)], "range" if edge["supported"] else "rail")
    return svg.tag("g", svg.tag("title", words), drawn, fill="none")


def _node(name: str, x: float, y: float) -> Svg:
    dot = svg.tag("circle", cx=x, cy=y, r=4.0, class_="dot")
    return svg.joined([dot, svg.text(x + 9, y + 4, clean(name, 40))])
