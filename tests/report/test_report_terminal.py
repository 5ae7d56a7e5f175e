"""What people see in a terminal."""

import io
import subprocess
import sys
from dataclasses import replace

import pytest
from rich.console import Console

from minutia.core.model import ModelCard
from minutia.core.verdict import FLAGS
from minutia.report import terminal
from minutia.report.rows import Row

HOSTILE = "[red]evil[/red]\x1b[31m\x9b2J\u202e\nsecond line" + "x" * 500


def shown(printer, what, width=100, **options):
    console = Console(file=io.StringIO(), width=width, highlight=False, **options)
    printer(console, what)
    return console.file.getvalue()


@pytest.fixture
def few(one):
    quiet = one(outcome="inconclusive", p_value=0.5, score=0.08, asked=100, ruled_out=("prune", "noise"))
    first, second = ModelCard("b", "b"), ModelCard("c", "c")
    return [
        Row("b-model", "unrelated", "same data and recipe, other seed", replace(quiet, suspect=first)),
        Row("a-model", "derived", "fine-tune-last", one(), {"accuracy_lost": 0.0123}),
        Row("c-model", "unrelated", "same data and recipe, other seed", one(score=None, p_value=None, suspect=second)),
    ]


TABLE = """\
                                                                                   ruled accuracy
suspect truth     kind                             verdict      score    p queries   out     lost
a-model derived   fine-tune-last                   match        1.000 0.01       6     –   1.2 pp

b-model unrelated same data and recipe, other seed inconclusive 0.080 0.50     100   2/8        –
c-model unrelated same data and recipe, other seed match !          –    –       6     –        –

p: rank, 99 unrelated models, same data and recipe, other seed (99 models like
torch:minutia.study.architectures:digits_cnn on sklearn:digits?rows=0:900); the smallest it can give
is 0.01, alpha is 0.01
! marks a false accusation or a missed copy

1 of 1 weight-derived copies matched, median 6 queries; 1 of 2 innocents matched (95 % interval
1.2–99 %)
"""


def test_table_at_width_100(few):
    lines = shown(terminal.print_table, few).splitlines()
    assert [line.rstrip() for line in lines] == TABLE.splitlines()


@pytest.mark.parametrize("width", [80, 100, 140])
def test_every_suspect_has_one_line_that_fits(demo, width):
    lines = shown(terminal.print_table, demo[0], width).splitlines()
    assert max(map(len, lines)) <= width
    for row in demo[0]:
        assert sum(line.startswith(row.suspect) for line in lines) == 1


def test_what_a_copy_cost_gives_way_first(few):
    assert "lost" in shown(terminal.print_table, few, 96)
    narrow = shown(terminal.print_table, few, 80)
    assert "lost" not in narrow
    assert "same data and recipe," in narrow


def test_nobody_to_show():
    assert shown(terminal.print_table, []) == "no suspect was judged\n"


def test_one_verdict_says_everything(one):
    text = " ".join(shown(terminal.print_verdict, one(flags=("unscreened",), untested=("merge",)), 160).split())
    for part in (
        "MATCH  An independent model of the rung “same data and recipe, other seed” would look like this",
        "H0           the suspect was trained without my model",
        "p-value      0.01  (the smallest this null can give: 0.01)",
        "null         rank, 99 unrelated models, same data and recipe, other seed",
        "e-value      5",
        "queries      6 asked, 6 answered, ended at the look after 6",
        "blind to     distil, extract-labels",
        "untested     merge",
        "unscreened",
        "sha256:0123456789ab…",
    ):
        assert " ".join(part.split()) in text


def test_every_flag_is_shown_with_meaning_and_remedy(one):
    text = " ".join(shown(terminal.print_verdict, one(flags=(*FLAGS, "made-up")), 200).split())
    for name, flag in FLAGS.items():
        assert f"{name} {flag.raised_if}: {flag.meaning}" in text
        assert f"→ {flag.remedy}" in text
    assert "made-up" in text


def test_what_was_not_measured_is_a_dash(one):
    empty = dict.fromkeys(("score", "p_value", "p_floor", "e_value", "look"))
    nothing = one(outcome="inconclusive", null_kind="none", null_size=0, reasons=(), **empty)
    text = shown(terminal.print_verdict, nothing)
    assert "none: no unrelated model to compare with" in text
    assert "no look was reached" in text
    assert "None" not in text


@pytest.mark.parametrize("width", [80, 100])
def test_hostile_names_are_harmless(one, width):
    rows = [Row(HOSTILE, truth, HOSTILE, one()) for truth in (None, "derived", "unrelated", HOSTILE)]
    text = shown(terminal.print_table, rows, width)
    assert "[red]evil" in text
    assert not set("\x1b\x9b\u202e") & set(text)
    hostile = one(null_source=HOSTILE, flags=(HOSTILE,), reasons=(HOSTILE,), h0=HOSTILE, outcome="inconclusive")
    assert not set("\x1b\x9b\u202e") & set(shown(terminal.print_verdict, hostile))


def test_colour_only_where_it_is_wanted(few, monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b[1;31m" in shown(terminal.print_table, few, force_terminal=True)
    monkeypatch.setenv("NO_COLOR", "1")
    plain = shown(terminal.print_table, few, force_terminal=True)
    assert not any(f"{c}m" in plain for c in ("31", "32", "33"))


def test_nothing_heavy_is_imported_before_something_is_printed():
    code = (
        "import sys; from minutia.report import html, json, terminal; "
        "print([m for m in ('rich', 'jinja2', 'scipy', 'torch') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
