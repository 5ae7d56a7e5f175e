"""Lineage as text, picture and page."""

from minutia.report.lineage_html import render
from minutia.report.lineage_svg import lineage_picture
from minutia.report.lineage_text import lineage_lines

EVIL = "<b>\x1b[31m"


def edge(parent, child, kind="derived", share=1.0, supported=True):
    numbers = {"distance": 0.2, "support": 0.98, "direction": 0.95, "p_value": 1e-12}
    return {"parent": parent, "child": child, "kind": kind, "share": share, "supported": supported, **numbers}


FOREST = {
    "names": ["a", "b", "c", EVIL, "lone"],
    "roots": ["a", "lone"],
    "edges": [
        edge("a", "b"),
        edge("a", "c", "average", 0.4),
        edge("b", "c", "average", 0.6),
        edge("b", EVIL, supported=False),
    ],
    "trees": [["a", "b", "c", EVIL], ["lone"]],
    "common": [["a", "lone"]],
    "alpha": 0.01,
    "rests_on": "weights",
    "notes": ["x looks made from y: p 0.5"],
}


def test_the_tree_is_drawn_in_lines():
    lines = lineage_lines(FOREST)
    assert lines[0] == "a"
    assert lines[1].startswith("├─ b  derived, support 98 %, direction 95 %")
    assert any("average, 40 % and 60 % of b" in line for line in lines)
    assert any(line.endswith("unsupported") for line in lines)
    assert lines[-3:] == ["shared ancestor or initialisation: a, lone", "", "x looks made from y: p 0.5"]
    assert "\x1b" not in "".join(lines)


def test_every_checkpoint_has_a_dot():
    drawn = lineage_picture(FOREST)
    assert drawn.count("<circle") == 5
    assert "<b>" not in drawn and "\x1b" not in drawn


def test_the_page_holds_all_of_it():
    page = render(FOREST)
    assert "5 checkpoints, 2 roots, 4 edges, of which 3 are supported" in page
    assert "<b>" not in page.replace("</b>", "") and "\x1b" not in page
    assert "x looks made from y" in page
