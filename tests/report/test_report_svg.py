"""Pictures: well-formed, with words for those who cannot see them, and marks that do not hide each other."""

from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minutia.report import charts, svg
from minutia.report.charts import NullPaths
from minutia.report.rows import Rate, grouped
from minutia.report.svg import Scale, Svg

HOSTILE = '"/><script>alert(1)</script>&amp;\x00\x1b\ud800'


@pytest.fixture
def hostile(demo):
    return [replace(row, suspect=HOSTILE, kind=HOSTILE, truth=HOSTILE) for row in demo[0][:5]]


def pictures(rows, null_paths, owner=1.0):
    groups = grouped(rows)
    found = [charts.strip(groups, null_paths, owner), charts.queries(groups, 100), charts.interval(Rate(2, 9))]
    return [*found, charts.paths(rows, null_paths)] if null_paths else found


@pytest.fixture
def null_paths(demo):
    return NullPaths(demo[1].schedule, demo[3])


def test_every_picture_is_xml_with_a_title(demo, hostile, null_paths):
    for picture in [*pictures(demo[0], null_paths), *pictures(hostile, null_paths), *pictures(hostile, None, None)]:
        root = ElementTree.fromstring(picture)
        assert root.get("role") == "img"
        assert root.get("aria-label") == root.findtext("title")
        assert not list(root.iter("script"))


def test_every_suspect_and_every_null_model_is_drawn(demo, null_paths):
    rows = demo[0]
    root = ElementTree.fromstring(charts.strip(grouped(rows), null_paths, None))
    marks = [e for e in root.iter() if (e.get("class") or "").startswith("mark ")]
    assert len(marks) == len(rows)
    assert {m.get("class").split()[1] for m in marks} == {"match", "inconclusive"}
    assert all("suspect-" in (m.findtext("title") or "") for m in marks)
    assert len([e for e in root.iter() if e.get("class") == "null-dot"]) == len(demo[3])


def test_suspects_without_a_score_are_left_out(demo):
    rows = [replace(row, verdict=replace(row.verdict, score=None, path=())) for row in demo[0][:3]]
    root = ElementTree.fromstring(charts.strip(grouped(rows), None, None))
    assert not [e for e in root.iter() if (e.get("class") or "").startswith("mark ")]


def test_scores_that_are_no_rates_get_an_axis_of_their_own(demo):
    rows = [replace(row, verdict=replace(row.verdict, score=float(i) - 3)) for i, row in enumerate(demo[0][:9])]
    assert "1 = all the same" not in charts.strip(grouped(rows), None, None)
    assert "1 = all the same" in charts.strip(grouped(demo[0]), None, None)


def test_equal_ends_are_counted(demo):
    root = ElementTree.fromstring(charts.queries(grouped(demo[0]), 100))
    counts = [e.text for e in root.iter("text") if (e.text or "").startswith("× ")]
    assert sorted(counts) == sorted(["× 3"] * 8 + ["× 8", "× 6", "× 6"])


def test_null_paths_with_nan_are_dropped():
    assert NullPaths([6, 8], [[0.1, 0.2], [np.nan, 0.3]]).last == [0.2]


def test_text_and_attributes_are_escaped():
    found = svg.tag("text", '<b>"&', svg.tag("b"), title='"<&')
    assert found == '<text title="&quot;&lt;&amp;">&lt;b&gt;"&amp;<b/></text>'
    assert isinstance(found, Svg)


@given(st.lists(st.floats(0, 100), max_size=40), st.booleans())
def test_marks_at_nearly_one_place_are_set_apart(places, upwards):
    aside = svg.stacked(places, 5.0, 1000.0, upwards=upwards)
    for i, x in enumerate(places):
        for j in range(i):
            assert abs(x - places[j]) >= 5.0 or aside[i] != aside[j]
    assert max(map(abs, aside), default=0) <= 1000


@given(st.floats(0.5, 10), st.floats(11, 1e6), st.booleans())
def test_an_axis_keeps_the_order_and_shows_ticks_inside(low, high, log):
    scale = Scale(low, high, 0, 100, log=log)
    assert (scale(low), scale(high)) == (0, 100)
    places = [scale(tick) for tick in scale.ticks()]
    assert len(places) >= 2
    assert places == sorted(places)


def test_an_axis_of_one_value_does_not_divide_by_zero():
    assert Scale(1, 1, 0, 10)(1) == 5
