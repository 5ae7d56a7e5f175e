"""What the page says in words and small tables: the answer, its errors, the blind spots, the flags."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from minutia.core.fingerprint import Fingerprint, Null
from minutia.core.judge import RULED_OUT_AT
from minutia.core.verdict import FLAGS, Verdict
from minutia.report.rows import Rate, Row, Summary
from minutia.report.words import (
    DASH,
    NULL_KINDS,
    OUTCOMES,
    QUESTIONS,
    clean,
    explained,
    format_p,
    format_score,
    missing,
    percent,
    plural,
    sentence,
    some,
)
from minutia.stats.intervals import clopper_pearson
from minutia.stats.nulls import critical_rank


class Tile(NamedTuple):
    """One figure of the summary, what it counts, and how sure it is."""

    value: str
    label: str
    note: str


class Power(NamedTuple):
    """How well copies of one kind are recognised."""

    kind: str
    rate: Rate | None
    copies: int
    reading: str
    ruled_out: str


def unique(values: Iterable[str]) -> list[str]:
    """Distinct values in their order."""
    return list(dict.fromkeys(values))


def lead(rows: Sequence[Row], fingerprint: Fingerprint, null: Null) -> list[str]:
    """The answer in a few sentences: what was asked, what was found, how often that is wrong."""
    if not rows:
        return ["No suspect was judged."]
    if len(rows) == 1:
        return [_asked(rows, fingerprint, null), sentence(rows[0].verdict), *promise([rows[0].verdict])]
    summary = Summary(rows)
    paragraphs = [_asked(rows, fingerprint, null), " ".join(_found(summary)), " ".join(_errors(summary, rows))]
    return [paragraph for paragraph in paragraphs if paragraph]


def _asked(rows: Sequence[Row], fingerprint: Fingerprint, null: Null) -> str:
    """The question, and what was done to answer it."""
    most = max(row.verdict.asked for row in rows)
    who = "The suspect answered" if len(rows) == 1 else f"{len(rows)} suspects answered at most"
    against = f"those of {plural(null.m, 'unrelated model')}" if null.m else "nothing, because no null was given"
    question = QUESTIONS.get(fingerprint.question, "")
    return f"{question} {who} {plural(most, 'question')}; the answers were compared with {against}.".strip()


def _found(summary: Summary) -> list[str]:
    """What was recognised."""
    parts = []
    if summary.keeping.of:
        after = "" if summary.queries is None else f", after a median of {summary.queries:g} questions"
        parts.append(f"{_share(summary.keeping)} copies that keep the owner’s weights matched{after}.")
    if summary.others.of:
        parts.append(f"{_share(summary.others)} other copies ({summary.other_kinds}) matched.")
    unknown = [row for row in summary.rows if row.truth is None]
    if unknown:
        parts.append(f"Of {plural(len(unknown), 'suspect')} of unknown origin: {Summary(unknown).counts()}.")
    return parts


def _share(rate: Rate) -> str:
    """All, none or some."""
    if rate.hits == rate.of:
        return f"All {rate.of}"
    return f"{rate.hits or 'None'} of the {rate.of}"


def _errors(summary: Summary, rows: Sequence[Row]) -> list[str]:
    """What went wrong, and what may still go wrong."""
    parts = []
    if summary.innocent.of:
        parts.append(f"{_share(summary.innocent)} independent models matched{_worth(summary.innocent)}.")
    if summary.cleared.of:
        parts.append(f"{_share(summary.cleared)} copies got a wrong “no match”.")
    return [*parts, *promise([row.verdict for row in rows])]


def _worth(rate: Rate) -> str:
    """What a count of false accusations says about their rate."""
    if rate.hits:
        return f": false accusations, {rate.bounds()}"
    return f", which by itself only shows a rate of false accusations below {percent(rate.interval.high, 'up')}"


def promise(verdicts: Sequence[Verdict]) -> list[str]:
    """What the test promises about false accusations, averaged over null sets and for the one at hand."""
    nulls = {(v.alpha, v.null_size) for v in verdicts if v.null_kind == "rank"}
    if len(nulls) != 1:
        return []
    alpha, m = nulls.pop()
    rank = critical_rank(alpha, m)
    if not rank:
        return [
            f"A null of {m} models cannot decide at alpha {alpha:g}: its smallest p-value is {format_p(1 / (m + 1))}."
        ]
    # A null set is one draw: the rate of an innocent beyond its k-th largest score is Beta(k, m + 1 - k).
    worst = clopper_pearson(rank - 1, m, confidence=0.9).high
    return [
        f"The test promises at most {percent(alpha)} false accusations per suspect, averaged over null sets; "
        f"for this one set of {m} the rate is below {percent(worst, 'up')} with 95 % confidence."
    ]


def tiles(rows: Sequence[Row], most: int) -> list[Tile]:
    """The figures at the top of the page: of one suspect, of known copies and innocents, or of outcomes."""
    if len(rows) == 1:
        return _tiles_of_one(rows[0].verdict, most)
    summary = Summary(rows)
    rates = [
        (summary.keeping, "copies that keep weights matched"),
        (summary.others, "other copies matched"),
        (summary.innocent, "innocents accused"),
    ]
    found = [Tile(f"{rate.hits}/{rate.of}", label, rate.bounds()) for rate, label in rates if rate.of]
    if rows and not found:
        found = [Tile(str(n), OUTCOMES[name], "") for name, n in summary.outcomes.items()]
    if summary.queries is not None:
        found.append(Tile(f"{summary.queries:g}", "questions until a match", f"median, of at most {most}"))
    return found


def _tiles_of_one(verdict: Verdict, most: int) -> list[Tile]:
    """Outcome, p-value, score and questions."""
    return [
        Tile(OUTCOMES[verdict.outcome], "verdict", f"alpha {verdict.alpha:g}"),
        Tile(format_p(verdict.p_value), "p-value", f"cannot be smaller than {format_p(verdict.p_floor)}"),
        Tile(format_score(verdict.score), "score", f"at the look after {verdict.look}" if verdict.look else ""),
        Tile(str(verdict.asked), "questions asked", f"of at most {most}, {verdict.answered} answered"),
    ]


def powers(rows: Sequence[Row], fingerprint: Fingerprint) -> list[Power]:
    """Every kind of copy in question: how many stored copies are recognised, and for whom it is ruled out."""
    verdicts = [row.verdict for row in rows]
    kinds = unique([*fingerprint.threats, *(k for v in verdicts for k in (*v.power, *v.untested))])
    return [_power(kind, verdicts, len(fingerprint.controls.get(kind, ()))) for kind in kinds]


def _power(kind: str, verdicts: Sequence[Verdict], copies: int) -> Power:
    shares = [v.power[kind] for v in verdicts if kind in v.power]
    # Lost questions make some verdicts weaker than others: the weakest counts.
    rate = Rate(round(min(shares) * copies), copies) if shares and copies else None
    silent = [v for v in verdicts if v.outcome != "match"]
    out = sum(kind in v.ruled_out for v in silent)
    return Power(kind, rate, copies, _reading(kind, verdicts, copies), f"{out} of {len(silent)}" if silent else DASH)


def _reading(kind: str, verdicts: Sequence[Verdict], copies: int) -> str:
    """What a low score says about this kind."""
    if not copies or any(kind in v.untested for v in verdicts):
        return "untested: nothing can be said"
    if any(kind in v.blind_to for v in verdicts):
        return "blind: a low score says nothing"
    if not any(kind in v.power for v in verdicts):
        return "not measured"
    if 1 / (1 + copies) > RULED_OUT_AT:
        return "too few stored copies to rule it out"
    return "a low score rules it out"


def reading(rows: Sequence[Row], null: Null) -> list[tuple[str, list[str]]]:
    """How to read the page: terms and what they mean here."""
    verdicts = [row.verdict for row in rows]
    found = [
        ("H0, the hypothesis that is tested", [f"“{clean(h0, 300)}”" for h0 in unique(v.h0 for v in verdicts)]),
        ("Where the null comes from", _origin(verdicts, null)),
        ("p-value and its floor", [_about_p(v) for v in _one_per_floor(verdicts)]),
        ("alpha", [_about_alpha(verdicts)] if verdicts else []),
    ]
    return [(term, sentences) for term, sentences in found if sentences]


def _origin(verdicts: Sequence[Verdict], null: Null) -> list[str]:
    kinds = unique(v.null_kind for v in verdicts)
    source = clean(null.source, 300) or "source not given"
    rung = clean(null.rung, 100) or "not declared"
    words = [f"Kind: {NULL_KINDS.get(kind, clean(kind))}." for kind in kinds]
    return [f"{source}. Rung of the ladder of innocents: {rung}.", *words]


def _one_per_floor(verdicts: Sequence[Verdict]) -> list[Verdict]:
    return list({(v.p_floor, v.null_size): v for v in verdicts}.values())


def _about_p(verdict: Verdict) -> str:
    if verdict.p_floor is None or missing(verdict.p_floor):
        return "No null was given, so there is no p-value."
    return (
        "The share of innocent models, the suspect counted as one of them, that would look at least this similar. "
        f"With {plural(verdict.null_size, 'null model')} it cannot be smaller than {format_p(verdict.p_floor)}, "
        "whatever the suspect."
    )


def _about_alpha(verdicts: Sequence[Verdict]) -> str:
    levels = ", ".join(unique(f"{v.alpha:g}" for v in verdicts))
    text = f"{levels}: the accepted rate of false accusations, fixed before looking."
    if len(verdicts) < 2:
        return text
    expected = sum(v.alpha for v in verdicts)
    return (
        f"{text} It holds for each suspect by itself. Were all {len(verdicts)} suspects innocent, "
        f"up to {expected:.2g} of them would be accused on average."
    )


def raised(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Every flag that some verdict carries, explained, with the suspects it concerns."""
    found: dict[str, list[str]] = {}
    for row in rows:
        for flag in row.verdict.flags:
            found.setdefault(flag, []).append(row.suspect)
    return [
        {"name": clean(f), "about": explained(f), "count": len(who), "suspects": some(who, 12)}
        for f, who in found.items()
    ]


def all_flags() -> list[dict[str, Any]]:
    """The appendix."""
    return [{"name": name, "about": about} for name, about in FLAGS.items()]
