"""What a table adds up to: known answers."""

from dataclasses import replace

import pytest

from minutia.core.model import ModelCard
from minutia.report.rows import Rate, Row, Summary, grouped


@pytest.fixture
def row(one):
    def made(truth, kind, outcome="match", *, asked=6, root=None, name="s"):
        return Row(name, truth, kind, one(outcome=outcome, asked=asked, suspect=ModelCard("id", root or name)))

    return made


@pytest.fixture
def table(row):
    return [
        row("unrelated", "other seed", "inconclusive", name="a", asked=100),
        row("derived", "distil", "inconclusive", asked=100),
        row("derived", "prune", asked=6),
        row("derived", "prune", asked=8),
        row("derived", "quantise", "no-match", asked=100),
        row("derived", "a stranger's attack", asked=50),
        row("unrelated", "other seed", "match", name="b", root="r"),
        row("unrelated", "other data", "inconclusive", name="c", root="r"),
    ]


def test_summary_counts(table):
    found = Summary(table)
    assert (found.keeping, found.others) == (Rate(2, 3), Rate(1, 2))
    assert (found.innocent, found.cleared, found.queries) == (Rate(1, 2), Rate(1, 5), 7)
    assert found.outcomes == {"match": 4, "no-match": 1, "inconclusive": 3}
    assert found.sentence() == (
        "2 of 3 weight-derived copies matched, median 7 queries; "
        "1 of 2 other copies matched (distil, a stranger's attack); "
        "1 of 5 copies wrongly called no match; "
        "1 of 2 innocents matched (95 % interval 1.2–99 %)"
    )


def test_the_sentence_of_the_demo(demo):
    assert Summary(demo[0]).sentence() == (
        "18 of 18 weight-derived copies matched, median 6 queries; "
        "0 of 6 other copies matched (distil, extract-labels); "
        "0 of 20 innocents matched (95 % upper bound 14 %)"
    )


def test_suspects_of_unknown_origin_are_only_counted(row):
    rows = [row(None, ""), row(None, "", "inconclusive")]
    assert Summary(rows).sentence() == "2 suspects: 1 match, 0 no match, 1 inconclusive"
    assert Summary(rows).plain()["innocents_matched"] == {"hits": 0, "of": 0, "interval": None}


def test_nobody():
    assert Summary([]).sentence() == "no suspect was judged"
    assert Summary([]).queries is None
    assert grouped([]) == []


def test_copies_come_first_in_the_order_of_the_threat_list(table, row):
    table.append(row(None, "?"))
    assert [(g.truth, g.kind, len(g.rows)) for g in grouped(table)] == [
        ("derived", "prune", 2),
        ("derived", "quantise", 1),
        ("derived", "distil", 1),
        ("derived", "a stranger's attack", 1),
        ("unrelated", "other seed", 2),
        ("unrelated", "other data", 1),
        (None, "?", 1),
    ]


def test_wrong_verdicts_are_named(row):
    assert row("unrelated", "x", "match").wrong == "false accusation"
    assert row("derived", "x", "no-match").wrong == "missed copy"
    assert not row("derived", "x", "inconclusive").wrong
    assert not row(None, "x", "match").wrong


def test_unmeasured_looks_are_no_part_of_a_path(row, one):
    found = replace(row("derived", "prune"), verdict=one(path=((6, 0.5), (8, float("nan")))))
    assert found.path == ((6, 0.5),)
