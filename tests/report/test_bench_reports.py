"""A study's table on every surface: terminal, page, files, documentation, comparison."""

import csv
import io
import re
from copy import deepcopy

import bench_rows
import pytest
from rich.console import Console

from minutia.report import bench_compare, bench_files, bench_html, bench_markdown, bench_terminal, bench_words
from minutia.study.table import rate

HOSTILE = "<script>alert(1)</script>\x1b[31m|`"


@pytest.fixture(scope="module")
def table():
    return bench_rows.whole()


def terminal(table, *, details=False, width=100):
    screen = Console(width=width, file=io.StringIO(), highlight=False)
    bench_terminal.print_table(screen, table, details=details)
    return screen.file.getvalue()


def method_of(table, name):
    return next(m for m in table["methods"] if m["name"] == name)


def attack_of(table, name, label):
    return bench_words.attack_of(method_of(table, name), label)


# --- terminal


def test_the_terminal_shows_every_attack_rung_and_method_in_a_hundred_columns(table):
    text = terminal(table)
    assert max(map(len, text.splitlines())) <= 100
    for method in table["methods"]:
        assert method["name"] in text
    squeezed = re.sub(r"\s+", "", text)
    for attack in table["methods"][0]["attacks"]:
        assert re.sub(r"\s+", "", attack["attack"]) in squeezed
    found = attack_of(table, "ipguard", "fine_tune_last")["tpr"]["0.01"]
    assert f"{found['hits']}/{found['n']}" in text


def test_details_add_every_figure(table):
    assert "ARUC" not in terminal(table) and "ARUC" in terminal(table, details=True)


def test_a_method_that_loses_to_a_baseline_says_so(table):
    changed = deepcopy(table)
    for attack in method_of(changed, "ipguard")["attacks"]:
        attack["tpr"]["0.01"] = rate(0, attack["n"])
    for attack in method_of(changed, "natural_errors")["attacks"]:
        attack["tpr"]["0.01"] = rate(attack["n"], attack["n"])
    for text in (terminal(changed), bench_html.render(changed), bench_markdown.page(changed)):
        assert "loses to the baseline natural_errors overall" in re.sub(r"\s+", " ", text)


def test_a_lost_attack_is_said_even_where_its_groups_sum_hides_it(table):
    changed = deepcopy(table)
    for name, hits in (("ipguard", (0, 15)), ("natural_errors", (9, 6)), ("noise_agreement", (0, 0))):
        for label, number in zip(("distil", "extract_probabilities(student=other)"), hits, strict=True):
            attack_of(changed, name, label)["tpr"]["0.01"] = rate(number, 15)
    for text in (terminal(changed), bench_html.render(changed), bench_markdown.page(changed)):
        assert "on distil: 0 of 15 against 9 of 15" in re.sub(r"\s+", " ", text)
    attack_of(changed, "natural_errors", "distil")["tpr"]["0.01"] = rate(2, 15)
    assert "on distil" not in terminal(changed)  # within the intervals nobody lost


def test_more_rejections_than_the_bound_are_said(table):
    changed = deepcopy(table)
    rung = bench_words.rung_of(method_of(changed, "ipguard"), "other data")
    rung["0.01"]["rejected"] = rung["0.01"]["bound"] + 1
    assert f"({rung['0.01']['rejected']} > {rung['0.01']['bound']})" in terminal(changed, width=200)


# --- every surface


@pytest.mark.parametrize("made", [bench_rows.empty, bench_rows.failed], ids=["empty", "failed"])
def test_empty_tables_and_failed_methods_are_shown(made):
    found = made()
    assert found["name"] in terminal(found, details=True)
    assert "</html>" in bench_html.render(found)
    assert bench_markdown.page(found).startswith("# ")
    assert bench_files.rates_csv(found).startswith("method,")
    assert bench_compare.compare(found, found)["moved"] == []


def test_foreign_text_is_only_text():
    found = bench_rows.renamed(HOSTILE)
    page, text = bench_html.render(found), terminal(found, details=True)
    assert "<script" not in page and "\x1b" not in page
    assert "\x1b" not in text
    for line in bench_markdown.page(found).splitlines():
        assert "<script" not in line
        if line.startswith("|"):
            assert len(re.findall(r"(?<!\\)\|", line)) >= 3


def test_the_page_loads_nothing_and_draws_everything(table):
    page = bench_html.render(table)
    assert "default-src 'none'" in page
    assert not re.search(r"""(src|href)\s*=\s*["'](?!data:)""", page) and "@import" not in page and "url(" not in page
    assert page.count("<svg") >= 1 + len(bench_words.titles(table)) + 1
    for attack in table["methods"][0]["attacks"]:
        assert attack["attack"].replace("+", "+") in page
    assert table["digest"] in page


def test_the_documentation_page_has_figures_intervals_seeds_and_the_date(table):
    text = bench_markdown.page(table)
    found = attack_of(table, "ipguard", "retrain_all")["tpr"]["0.01"]
    assert f"{found['hits']}/{found['n']} ({bench_words.span(found)})" in text
    assert table["date"] in text and ", ".join(map(str, table["seeds"])) in text
    tables = [block for block in text.split("\n\n") if block.startswith("|")]
    for block in tables:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}) == 1, block[:200]


# --- files


def test_the_documentation_page_says_what_suspects_show_and_which_kinds_stay_open(table):
    """Of innocents every second kind that is seen was ruled out, see ``bench_rows``."""
    text = bench_markdown.page(table)
    (row,) = [line for line in text.splitlines() if line.startswith("| kinds left open")]
    assert row.split("|")[2].strip().endswith("(50 %)")
    shown = {**table, "facts": {**table["facts"], "access": "scores"}}
    assert bench_markdown.page(shown).splitlines()[0] == text.splitlines()[0] + ", suspects with open scores"


def test_cases_are_one_line_per_row_and_read_back(table):
    rows = bench_rows.rows()
    read = list(csv.DictReader(io.StringIO(bench_files.cases_csv(rows))))
    assert len(read) == len(rows)
    for row, line in zip(rows, read, strict=True):
        assert line["state"] == row["state"] and line["method"] == row["method"]
        assert line["outcome_0.01"] == row.get("outcome", {}).get("0.01", "")
        assert line["score"] == ("" if row.get("score") is None else str(row["score"]))
        lost = row["fidelity"].get("accuracy_lost")
        assert line["accuracy_lost"] == ("" if lost is None else str(lost))


def test_parquet_holds_the_same_cases():
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = bench_rows.rows()
    found = parquet.read_table(io.BytesIO(bench_files.parquet_bytes(rows))).to_pylist()
    assert found == [bench_files.flat(row) for row in rows]


def test_rates_hold_every_attack_and_rung(table):
    read = list(csv.DictReader(io.StringIO(bench_files.rates_csv(table))))
    assert len(read) == sum(len(m["attacks"]) + len(m["rungs"]) for m in table["methods"])
    first = next(r for r in read if r["what"] == "fine_tune_last" and r["method"].startswith("ipguard"))
    assert int(first["hits_0.01"]) == attack_of(table, "ipguard", "fine_tune_last")["tpr"]["0.01"]["hits"]


def test_a_spreadsheet_finds_no_formula():
    row = {**bench_rows.rows()[0], "label": "=1+1"}
    assert "'=1+1" in bench_files.cases_csv([row])


# --- comparison


def test_a_table_against_itself_moves_nothing(table):
    found = bench_compare.compare(table, table)
    assert (found["moved"], found["appeared"], found["disappeared"], found["set_up"]) == ([], [], [], [])
    assert found["compared"] > 100


@pytest.mark.parametrize(
    ("figure", "hits", "direction"),
    [("tpr", (0, 9), "better"), ("tpr", (9, 0), "worse"), ("inconclusive", (0, 9), "worse")],
)
def test_a_rate_that_left_its_interval_has_moved(table, figure, hits, direction):
    old, new = deepcopy(table), deepcopy(table)
    for found, number in zip((old, new), hits, strict=True):
        attack = attack_of(found, "ipguard", "prune")
        if figure == "tpr":
            attack["tpr"]["0.01"] = rate(number, 9)
        else:
            attack["inconclusive"] = rate(number, 9)
    (moved,) = bench_compare.compare(new, old)["moved"]
    assert (moved["what"], moved["direction"]) == ("prune", direction)
    screen = Console(width=120, file=io.StringIO())
    bench_compare.print_comparison(screen, bench_compare.compare(new, old))
    assert direction in screen.file.getvalue()


def test_a_higher_false_alarm_rate_is_worse(table):
    old, new = deepcopy(table), deepcopy(table)
    for found, hits in ((old, 0), (new, 30)):
        rung = bench_words.rung_of(method_of(found, "ipguard"), "other data")
        rung["0.01"] = {**rung["0.01"], **rate(hits, 90)}
    (moved,) = bench_compare.compare(new, old)["moved"]
    assert (moved["figure"], moved["direction"]) == ("FPR at 1%", "worse")


def test_within_the_intervals_nothing_moves(table):
    old, new = deepcopy(table), deepcopy(table)
    attack_of(old, "ipguard", "prune")["tpr"]["0.01"] = rate(5, 9)
    attack_of(new, "ipguard", "prune")["tpr"]["0.01"] = rate(7, 9)
    assert bench_compare.compare(new, old)["moved"] == []


def test_what_came_and_went_is_listed(table):
    old = deepcopy(table)
    method_of(old, "ipguard")["attacks"].pop()
    gone = table["methods"][0]["attacks"][-1]["attack"]
    old["seeds"] = [7]
    found = bench_compare.compare(table, old)
    assert found["appeared"] == [gone] and found["disappeared"] == []
    assert {"what": "seeds", "old": [7], "new": table["seeds"]} in found["set_up"]
