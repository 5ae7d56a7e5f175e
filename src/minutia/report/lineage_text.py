"""A forest of checkpoints as lines of text: who was made from whom, with the support of each edge."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from minutia.report.words import clean

LONGEST = 60
"""Letters of a name that are shown."""


def lineage_lines(forest: Mapping[str, Any]) -> list[str]:
    r"""Return a forest, as its ``plain()`` gives it, as lines of text; each tree from its root down.

    A child with two parents stands under the first of them, and its line names the other.

    >>> edge = {"parent": "a", "child": "b", "kind": "quantised", "support": 1.0, "direction": 0.9,
    ...         "supported": True, "share": 1.0}
    >>> print("\n".join(lineage_lines({"roots": ["a"], "edges": [edge], "common": []})))
    a
    └─ b  quantised, support 100 %, direction 90 %
    """
    edges: Sequence[Mapping[str, Any]] = forest["edges"]
    seen: set[str] = set()
    found = [line for root in forest["roots"] for line in (clean(root, LONGEST), *_below(root, edges, "", seen))]
    for group in forest["common"]:
        found += ["", f"shared ancestor or initialisation: {', '.join(clean(name, LONGEST) for name in group)}"]
    notes = [clean(note, 300) for note in forest.get("notes", ())]
    return [*found, "", *notes] if notes else found


def _below(parent: str, edges: Sequence[Mapping[str, Any]], before: str, seen: set[str]) -> Iterator[str]:
    """Lines of all that was made from one, each child once."""
    own = [edge for edge in edges if edge["parent"] == parent and edge["child"] not in seen]
    seen.update(edge["child"] for edge in own)
    for at, edge in enumerate(own):
        last = at + 1 == len(own)
        yield f"{before}{'└─' if last else '├─'} {clean(edge['child'], LONGEST)}  {edge_words(edge, edges)}"
        yield from _below(edge["child"], edges, before + ("   " if last else "│  "), seen)


def edge_words(edge: Mapping[str, Any], edges: Sequence[Mapping[str, Any]]) -> str:
    """What is known about an edge, and about the other parent of an average."""
    kind = str(edge["kind"])
    if edge["share"] < 1:
        others = (other for other in edges if other["child"] == edge["child"] and other["parent"] != edge["parent"])
        with_ = "".join(f" and {other['share']:.0%} of {clean(other['parent'], LONGEST)}" for other in others)
        kind = f"average, {edge['share']:.0%}{with_}"
    numbers = f"support {edge['support']:.0%}, direction {edge['direction']:.0%}".replace("%", " %")
    return f"{kind.replace('%', ' %')}, {numbers}" + ("" if edge["supported"] else ", unsupported")
