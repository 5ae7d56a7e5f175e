"""Comparisons as text and as a page."""

import io
import re

import pytest
from rich.console import Console

from minutia.core.comparison import Compared, Comparison, Compatibility, Kinship, LayerMatch, Side
from minutia.report.comparison import print_comparison
from minutia.report.comparison_html import heat_strip, render

EVIL = "<script>alert(1)</script>\x1b[31m.npz"


def compared(relation="derived", layers=3, spec="a.npz", **more):
    strip = tuple(
        LayerMatch(at, at + (at > 1), f"layer {at}", 0.9 if at else 0.02, Kinship(0.8, 1.0, 0.7))
        for at in range(layers)
    )
    found = Comparison(
        relation,
        1e-12,
        "assumed",
        "vocabulary",
        "two trainings",
        0.01,
        (("unit order", 0.4), ("vocabulary", 1e-30)),
        strip,
        notes=("a note",),
        **more,
    )
    side = Side(spec, 9, 2_000_000_000, 30_000_000, ("bfloat16",))
    return Compared(found, side, side, Compatibility(8, 9, None, True))


def shown(found, width=100):
    out = io.StringIO()
    print_comparison(Console(file=out, width=width, force_terminal=False), found)
    return out.getvalue()


def test_everything_is_told():
    text = shown(compared(merged=0.5, baselines=(("CKA of embeddings", 0.5), ("invariant terms", None))))
    for part in (
        "DERIVED",
        "at most 1e-12",
        "assumed, with measured error rates (vocabulary)",
        "unit order 0.40",
        "2 of 3",
        "about 50 %",
        "CKA of embeddings 0.500",
        "a note",
        "30.0 MB of 2.0 GB",
        "to fit is not to be related",
    ):
        assert part in " ".join(text.split()), part
    assert re.search(r"layer 2\s+layer 3\s+90 %\s+0\.800\s+related", text)
    assert re.search(r"layer 0\s+the same\s+2 %\s+–", text)


@pytest.mark.parametrize("relation", ["derived", "shared ancestor or initialisation", "unrelated", "undecided"])
def test_every_relation_has_its_words(relation):
    assert relation.upper() in " ".join(shown(compared(relation), width=60).split())
    assert ("taken over" in shown(compared(relation))) == (relation == "derived")


def test_many_layers_are_cut():
    assert "16 more with --json" in shown(compared(layers=40))


def test_nothing_foreign_steers_the_page_or_the_terminal():
    found = compared(spec=EVIL)
    assert "\x1b" not in shown(found)
    page = render(found)
    assert "<script" not in page and "\x1b" not in page
    assert "&lt;script&gt;" in page
    assert not re.search(r'(?:src|href)="(?!data:)', page)


def test_the_strip_has_a_cell_per_layer():
    strip = compared(layers=5).comparison.strip
    assert heat_strip(strip).count('class="cell"') == 5
    assert "fill-opacity: 0.90" in heat_strip(strip)
