"""The page: one file that loads nothing, escapes everything and explains every flag."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest

from minutia.core.fingerprint import Null
from minutia.core.model import ModelCard
from minutia.core.verdict import FLAGS
from minutia.report import html
from minutia.report.rows import Row

HOSTILE = (
    "\x1b[2J\ud800\u202e</td><script>alert('x')</script><img src=http://evil.example/x.png onerror=alert(1)>"
    + "y" * 5000
)
VOID = {"meta", "link", "br", "img", "hr", "input"}


class Page(HTMLParser):
    """Checks that elements are closed in order; collects attributes and text."""

    def __init__(self, text):
        super().__init__()
        self.open, self.seen, self.attributes, self.words = [], [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.seen.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.seen.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).replace("\u00a0", " ").split())


@pytest.fixture(scope="module")
def page(demo):
    rows, fp, null, scores = demo
    return html.render(
        rows,
        fp,
        null,
        title="Whose?",
        created="1 May 2030",
        null_paths=(fp.schedule, scores),
        owner_score=1.0,
        seconds=83,
    )


def check(text):
    """A page that is balanced, loads nothing and runs nothing."""
    found = Page(text)
    assert found.open == []
    loads = [value for name, value in found.attributes if name in ("src", "href", "srcset", "action", "data")]
    assert set(loads) <= {"data:,"}
    assert not {"script", "img", "iframe", "object", "form"} & set(found.seen)
    assert not [name for name, _ in found.attributes if name.startswith("on")]
    assert not re.search(r"url\(|@import|https?:", re.search(r"<style>(.*?)</style>", text, re.S)[1])
    for picture in re.findall(r"<svg.*?</svg>", text, re.S):
        ElementTree.fromstring(picture)
    return found


def test_page_is_whole_and_loads_nothing(page):
    found = check(page)
    assert found.seen.count("figure") == 3
    assert "default-src 'none'" in page


def test_summary_is_honest_about_errors(page):
    text = Page(page).text
    for sentence in (
        "All 18 copies that keep the owner’s weights matched, after a median of 6 questions.",
        "None of the 6 other copies (distil, extract-labels) matched.",
        "None of the 20 independent models matched, which by itself only shows a rate of false accusations below 14 %.",
        "The test promises at most 1 % false accusations per suspect, averaged over null sets; "
        "for this one set of 99 the rate is below 3 % with 95 % confidence.",
        "up to 0.44 of them would be accused on average",
        "With 99 null models it cannot be smaller than 0.01",
        "That is not innocence",
    ):
        assert sentence in text
    assert "stolen" not in text
    assert "thief" not in text


def test_everything_needed_to_judge_again_is_there(page, demo):
    rows, fp, _, _ = demo
    digests = [fp.digest, fp.probes.digest, rows[0].verdict.null_digest, *(row.verdict.observation for row in rows)]
    for part in (*digests, "minutia 0", "numpy", "1 May 2030", "made in 83 s", "steps=300"):
        assert part in page


def test_power_has_counts_and_readings(page):
    text = Page(page).text
    assert "retrain-last 8 of 9 8 of 9 (95 % interval 51–100 %) a low score rules it out" in text
    assert "extract-labels 0 of 9 0 of 9 (95 % upper bound 29 %) blind: a low score says nothing" in text


def test_same_arguments_same_page(demo):
    rows, fp, null, _ = demo
    assert html.render(rows, fp, null, title="t") == html.render(rows, fp, null, title="t")


def test_foreign_text_is_escaped_and_bounded(demo, one):
    _, fp, null, scores = demo
    hostile = one(
        outcome="inconclusive",
        suspect=ModelCard(HOSTILE, HOSTILE),
        flags=(HOSTILE,),
        reasons=(HOSTILE,),
        null_source=HOSTILE,
        null_rung=HOSTILE,
        null_kind=HOSTILE,
        h0=HOSTILE,
        method=HOSTILE,
        observation=HOSTILE,
        null_digest=HOSTILE,
        power={HOSTILE: 1.0},
        blind_to=(HOSTILE,),
    )
    rows = [Row(HOSTILE, truth, HOSTILE, hostile) for truth in (None, "derived", "unrelated", HOSTILE)]
    plain = HOSTILE.replace("\ud800", "")  # has no digest, so no fingerprint can hold it
    evil = replace(null, source=HOSTILE, rung=HOSTILE)
    options = {"title": HOSTILE, "created": HOSTILE, "commands": [HOSTILE], "null_paths": (fp.schedule, scores)}
    text = html.render(rows, replace(fp, method=plain, owner=ModelCard(plain, "r")), evil, **options)
    check(text)
    assert "y" * 500 not in text
    assert not set("\x1b\ud800\u202e") & set(text)
    assert "&lt;script&gt;" in text


def test_every_raised_flag_is_explained_and_all_are_listed(demo, one):
    _, fp, null, _ = demo
    rows = [Row(f"s-{name}", "derived", "prune", one(flags=(name,))) for name in (*FLAGS, "made-up")]
    text = Page(html.render(rows, fp, null, title="t")).text.replace("’", "'")
    raised, appendix = text.split("Flags: reasons not to believe a verdict")[1].split("Judge it again")
    for name, flag in FLAGS.items():
        assert f"{name} raised for 1 suspect Raised if {flag.raised_if}." in raised
        assert f"It means: {flag.meaning}. What to do: {flag.remedy}. s-{name}" in raised
        assert f"{name} {flag.raised_if} {flag.meaning} {flag.remedy}" in appendix
    assert "made-up" in raised


def test_wrong_verdicts_are_not_hidden(demo, one):
    _, fp, null, _ = demo
    rows = [Row("a", "unrelated", "x", one()), Row("b", "derived", "prune", one(outcome="no-match"))]
    text = Page(html.render(rows, fp, null, title="t")).text
    assert "match false accusation" in text
    assert "no match missed copy" in text
    assert "All 1 independent models matched: false accusations, 95 % interval 2.5–100 %." in text


def test_one_suspect_is_answered_in_a_sentence(demo, one):
    _, fp, null, _ = demo
    text = Page(html.render([Row("a", None, "", one())], fp, null, title="t")).text
    assert "The suspect answered 6 questions; the answers were compared with those of 99 unrelated models." in text
    assert "would look like this with probability at most 0.01." in text


@pytest.mark.parametrize("scores", [None, (), [[float("nan")] * 12]])
def test_without_suspects_without_null_without_numbers(demo, one, scores):
    _, fp, _, _ = demo
    empty = dict.fromkeys(("score", "p_value", "p_floor", "e_value", "look"))
    nothing = one(outcome="inconclusive", path=(), power={}, null_kind="none", null_size=0, **empty)
    null_paths = None if scores is None else (fp.schedule, scores)
    for rows in ([], [Row("a", None, "", nothing)], [Row("a", "derived", "prune", nothing)] * 2):
        found = check(html.render(rows, fp, Null.none(), title="t", null_paths=null_paths))
        assert "None" not in found.text.replace("None of", "")
        assert "nan" not in found.text.split()


def test_a_table_of_thousands_stays_a_page(demo):
    rows, fp, null, _ = demo
    text = html.render(rows * 30, fp, null, title="t")
    assert f"{len(rows) * 30 - html.MOST} more suspects are counted but not listed" in text
    assert len(text) < 1_000_000
