"""Numbers and foreign text: known answers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minutia.core.verdict import FLAGS
from minutia.report import words


@pytest.mark.parametrize(
    ("p", "written"),
    [
        (None, "–"),
        (float("nan"), "–"),
        (0.0, "< 1e-12"),
        (9.9e-13, "< 1e-12"),
        (1e-12, "1e-12"),
        (1 / 112, "0.00893"),
        (0.01, "0.01"),
        (0.1 + 0.2, "0.30"),
        (1 / 7, "0.143"),
        (0.99999, "1.00"),
        (1.0, "1.00"),
    ],
)
def test_p_is_written_with_three_digits_rounded_up(p, written):
    assert words.format_p(p) == written


@given(st.floats(1e-12, 1))
def test_p_is_never_written_smaller_than_it_is(p):
    assert float(words.format_p(p)) >= p * (1 - 1e-9)


@given(st.floats(0, 1))
def test_ends_of_intervals_are_rounded_outwards(rate):
    low, high = (float(words.percent(rate, how).removesuffix(" %")) for how in ("down", "up"))
    assert low - 1e-6 <= 100 * rate <= high + 1e-6


@given(st.text(), st.integers(2, 80))
def test_cleaned_text_is_printable_and_bounded(text, limit):
    found = words.clean(text, limit)
    assert len(found) <= limit
    assert all(c == " " or c.isprintable() for c in found)


def test_match_reads_as_a_probability_and_accuses_nobody(one):
    assert words.sentence(one()) == (
        "An independent model of the rung “same data and recipe, other seed” "
        "would look like this with probability at most 0.01."
    )


def test_inconclusive_gives_its_reasons_and_is_not_innocence(one):
    found = words.sentence(one(outcome="inconclusive", reasons=("no null was given", "nobody was asked")))
    assert found == f"No null was given; nobody was asked. {words.NOT_INNOCENCE}"
    assert words.NOT_INNOCENCE not in words.sentence(one(outcome="no-match", reasons=()))


def test_other_questions_use_the_judge_s_own_words(one):
    found = words.sentence(one(question="integrity", reasons=("the answers are those of the reference",)))
    assert found == "The answers are those of the reference."


def test_kinds_ruled_out_are_counted_among_all_in_question(one):
    quiet = one(outcome="inconclusive", power={"prune": 1.0}, untested=("distil",), ruled_out=("prune",))
    assert words.ruled_out(quiet) == "1/2"
    assert words.ruled_out(one(outcome="no-match", power={"prune": 1.0}, ruled_out=("prune",))) == "all"
    assert words.ruled_out(one(power={"prune": 1.0}, ruled_out=("prune",))) == "–"


def test_flags_of_a_newer_core_are_not_dropped():
    assert words.explained("made-up").meaning
    assert words.explained("refusals") is FLAGS["refusals"]
