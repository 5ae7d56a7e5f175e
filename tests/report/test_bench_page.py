"""The page of a study: titles that the figures bear out, panels, the ladder, and no table that breaks it."""

from copy import deepcopy

import bench_rows
import pytest
from test_report_html import Page

from minutia.report import bench_charts, bench_findings, bench_html, bench_words
from minutia.report.bench_charts import Curve, Point
from minutia.study.table import rate


@pytest.fixture
def table():
    return deepcopy(bench_rows.whole())


def method_of(table, name):
    return next(m for m in table["methods"] if m["name"] == name)


def along(table, *shares):
    """Give one curve of ipguard these rates out of ten, at x = 1, 2, …; None where all copies were destroyed."""
    points = [
        {"x": x, "n": 0 if hits is None else 10, "destroyed": 4 if hits is None else 0, "accuracy_lost": None}
        | {"tpr": dict.fromkeys(("0.01", "0.05"), rate(0, 0) if hits is None else rate(hits, 10))}
        for x, hits in enumerate(shares, 1)
    ]
    for method in table["methods"]:
        method["curves"] = [{"curve": "steps", "points": points}] if method["name"] == "ipguard" else []
    return table


# --- titles


@pytest.mark.parametrize(
    ("shares", "says"),
    [
        ((10, 9, 5), "Steps: ipguard recognises at least half all along"),
        ((4, 0, 1), "Steps: ipguard recognises fewer than half all along"),
        ((10, 4, 6, 3, 0), "Steps: ipguard recognises fewer than half from 4 on"),
        ((0, 2, 6, 10), "Steps: ipguard recognises at least half from 3 on"),
        ((10, 2, None), "Steps: ipguard recognises fewer than half from 2 on"),
        ((None, None), "Steps"),
    ],
)
def test_a_curves_title_names_its_turning_point(table, shares, says):
    assert bench_findings.curve(along(table, *shares), "steps") == says


def test_the_first_title_is_that_of_the_best_method_and_admits_a_better_baseline(table):
    hits, n = bench_words.pooled(method_of(table, "ipguard"))
    assert bench_findings.recognised(table) == f"ipguard recognises {hits} of {n} copies"
    for attack in method_of(table, "natural_errors")["attacks"]:
        attack["tpr"]["0.01"] = rate(attack["n"], attack["n"])
    assert bench_findings.recognised(table).endswith("fewer than the baseline natural_errors")


def test_the_ladders_title_follows_the_bounds(table):
    assert bench_findings.accused(table) == "No method rejects more innocents than a valid test may"
    rung = bench_words.rung_of(method_of(table, "ipguard"), "other data")
    rung["0.01"]["rejected"] = rung["0.01"]["bound"] + 1
    assert bench_findings.accused(table) == "ipguard rejects more innocents than a valid test may"
    assert 'class="rejected bad"' in bench_html.render(table)


def test_claims_that_saw_the_accused_do_not_count_against_the_judge(table):
    assert (
        bench_findings.claims(table)
        == "The published rule convicts 84 of 90 innocents of forged claims, the judge none of 90"
    )
    table["claims"] = [c for c in table["claims"] if c["known_suspect"]]
    assert bench_findings.claims(table) == "False claims"


def test_a_cell_says_which_baseline_recognises_more(table):
    mine, theirs = (bench_words.attack_of(method_of(table, n), "prune") for n in ("ipguard", "natural_errors"))
    other = bench_words.attack_of(method_of(table, "noise_agreement"), "prune")
    mine["tpr"]["0.01"], theirs["tpr"]["0.01"], other["tpr"]["0.01"] = rate(5, 10), rate(6, 10), rate(0, 10)
    says = bench_findings.beaten(table, method_of(table, "ipguard"), "prune")
    assert says == "the baseline natural_errors recognises 6/10" and says in bench_html.render(table)
    theirs["tpr"]["0.01"] = rate(5, 10)
    assert bench_findings.beaten(table, method_of(table, "ipguard"), "prune") == ""
    assert bench_findings.beaten(table, method_of(table, "natural_errors"), "prune") == ""


# --- pictures


def test_a_panel_draws_one_method_in_full_and_the_others_behind_it():
    def curve(name, *hits):
        return Curve(name, False, [Point(x, str(x), rate(h, 9), "") for x, h in enumerate(hits)])

    first, second = bench_charts.panels([curve("a", 9, 3, 0), curve("b", 0, 0, 0)], "steps")
    for panel in (first, second):
        assert panel.count('class="mine"') == panel.count('class="other"') == panel.count('class="sure"') == 1
        assert panel.count('class="dot"') == 3
    assert "a: share" in first and "b: share" in second


def test_destroyed_copies_are_hollow_and_never_part_of_the_line():
    points = [Point(1.0, "1", rate(9, 9), ""), Point(2.0, "2", None, "4 destroyed", apart=True)]
    (panel,) = bench_charts.panels([Curve("a", False, points)], "steps")
    assert panel.count('class="hollow"') == 1 and "4 destroyed" in panel
    assert 'class="sure"' not in panel


@pytest.mark.parametrize(
    ("xs", "steps"),
    [((1, 10, 100), "even"), ((0, 100, 2000), "even"), ((0.1, 0.2, 0.5), "in proportion"), ((0, 5, 10), "even")],
)
def test_values_stand_in_proportion_or_by_their_logarithm(xs, steps):
    (panel,) = bench_charts.panels([Curve("a", False, [Point(x, f"{x:g}", rate(1, 9), "") for x in xs])], "x")
    a, b, c = (float(part.split('"')[1]) for part in panel.split("<circle ")[1:] for part in [part.split("cx=")[1]])
    assert a < b < c
    assert (abs((b - a) - (c - b)) < 0.3) == (steps == "even")


# --- whole pages


@pytest.mark.parametrize("made", [bench_rows.whole, bench_rows.empty, bench_rows.failed], ids=lambda m: m.__name__)
def test_every_page_is_well_formed_and_loads_nothing(made):
    page = Page(bench_html.render(made()))
    assert page.open == []
    assert {"script", "img", "iframe", "object"}.isdisjoint(page.seen)
    assert all(v.startswith("data:") for n, v in page.attributes if n in ("src", "href"))


def test_a_failed_method_says_why(table):
    text = Page(bench_html.render(bench_rows.failed())).text
    assert "ipguard could not be enrolled: expected gradients, got a model without" in text
    assert len(bench_rows.failed()["apart"]) < 40  # one method's failure is not that of every suspect


def test_what_is_in_no_rate_is_listed_with_its_reason(table):
    text = Page(bench_html.render(table)).text
    for part in ("6 destroyed", "3 diverged", "3 failed", "3 not applicable", "expected batch norms to fold"):
        assert part in text


def test_ten_methods_still_make_a_page(table):
    for number in range(7):
        more = deepcopy(table["methods"][0])
        table["methods"].append(more | {"method": f"other(a={number})@1", "name": "other"})
    text = Page(bench_html.render(table)).text
    assert all(f"other(a={number})" in text for number in range(7))
