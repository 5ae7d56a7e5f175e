"""How numbers and foreign text are written, the same in the terminal and on the page."""

import math
import re
from collections.abc import Sequence
from decimal import ROUND_CEILING, Context
from typing import Literal

from minutia.core.verdict import FLAGS, Flag, Verdict

DASH = "–"
OUTCOMES = {"match": "match", "no-match": "no match", "inconclusive": "inconclusive"}
NULL_KINDS = {
    "exact": "exact: the owner's own committed random draw, or an order nobody chose",
    "rank": "rank among the answers of unrelated models to the same questions",
    "assumed": "assumed: holds only as far as the named assumption does",
    "extrapolated": "extrapolated: a parametric tail, shown and never decisive",
    "none": "none: nothing to compare with, so there is no p-value",
}
QUESTIONS = {
    "origin": "Was this model made from the owner’s?",
    "data-use": "Were the owner’s training inputs used to train this model?",
    "same": "Is this the same model as the owner’s?",
    "integrity": "Is this model unchanged?",
}
INTEGRITY = {"match": "intact", "no-match": "changed", "inconclusive": "inconclusive"}
"""The outcomes where the question is whether a model is unchanged."""
DATA_USE = {"match": "data used", "no-match": "data not used", "inconclusive": "inconclusive"}
"""The outcomes where the question is whether data was used; not used is never claimed."""
NOT_INTACT = "Inconclusive is not intact: the questions asked could not tell."
NOT_INNOCENCE = "Inconclusive is not innocence: the questions asked could not tell."
_UP = Context(prec=3, rounding=ROUND_CEILING)
_NO_FLAG = Flag("unknown", "this version of minutia has no explanation on file", "update minutia")


def missing(value: float | None) -> bool:
    """Whether a number was not measured."""
    return value is None or math.isnan(value)


def format_p(p: float | None) -> str:
    """Three digits, rounded up, because a smaller p would claim too much; nobody's assumptions hold below 1e-12.

    >>> format_p(0.01), format_p(0.9), format_p(1 / 7), format_p(3e-80), format_p(None)
    ('0.01', '0.90', '0.143', '< 1e-12', '–')
    """
    if p is None or math.isnan(p):
        return DASH
    if p < 1e-12:
        return "< 1e-12"
    # Twelve digits first: 0.1 + 0.2 must not be rounded up to 0.301.
    text = f"{float(_UP.create_decimal(f'{p:.12g}')):.3g}"
    return text if len(text) > 3 else f"{float(text):.2f}"


def format_score(score: float | None) -> str:
    """Three decimals; fewer for scores that are not rates.

    >>> format_score(0.25), format_score(1234.5), format_score(None)
    ('0.250', '1.23e+03', '–')
    """
    if score is None or math.isnan(score):
        return DASH
    return f"{score:.3f}" if abs(score) < 100 else f"{score:.3g}"


def percent(rate: float, rounding: Literal["nearest", "up", "down"] = "nearest") -> str:
    """A rate in percent, with one decimal below ten; the ends of intervals are rounded outwards.

    >>> percent(0.1171, "up"), percent(0.0298, "up"), percent(1), percent(0.0149, "down")
    ('12 %', '3 %', '100 %', '1.4 %')
    """
    places = 1 if rate < 0.1 else 0
    scaled = 100 * rate * 10**places
    # Float noise must not push an exact percentage to the next step.
    turned = {"nearest": round(scaled), "up": math.ceil(scaled - 1e-9), "down": math.floor(scaled + 1e-9)}
    return f"{turned[rounding] / 10**places:g} %"


def points(lost: float | None) -> str:
    """An accuracy lost, in percentage points.

    >>> points(0.0123), points(-0.004), points(None)
    ('1.2', '−0.4', '–')
    """
    return DASH if lost is None or math.isnan(lost) else f"{round(100 * lost, 1) + 0.0:.1f}".replace("-", "−")


def share(rate: float | None) -> str:
    """A rate that may not have been measured.

    >>> share(0.987), share(None)
    ('99 %', '–')
    """
    return DASH if rate is None or math.isnan(rate) else percent(rate)


def clean(text: object, limit: int = 60) -> str:
    r"""Foreign text in one line of bounded length, without characters that steer a terminal or turn the writing.

    >>> clean("a\x1b[31m\u202eb"), clean("x" * 99, 5)
    ('a�[31m�b', 'xxxx…')
    """
    kept = str(text)[: limit + 1]
    line = "".join(" " if c.isspace() else c if c.isprintable() else "\ufffd" for c in kept)
    return line if len(line) <= limit else line[: limit - 1] + "…"


def short(digest: str, digits: int = 12) -> str:
    """A digest short enough to compare by eye.

    >>> short("sha256:" + "0123456789abcdef" * 4)
    'sha256:0123456789ab…'
    """
    found = re.fullmatch(r"(\w+:)?(\w+)", digest)
    return f"{found[1] or ''}{found[2][:digits]}…" if found and len(found[2]) > digits else clean(digest, 40)


def plural(count: int, noun: str) -> str:
    """A count with its noun.

    >>> plural(1, "query"), plural(6, "query"), plural(2, "model")
    ('1 query', '6 queries', '2 models')
    """
    return f"{count} {noun}" if count == 1 else f"{count} {re.sub('y$', 'ie', noun)}s"


def some(names: Sequence[str], most: int) -> str:
    """The first of many foreign names.

    >>> some(["a", "b", "c"], 2)
    'a, b and 1 more'
    """
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(clean(name) for name in names[:most]) + more


def outcome(verdict: Verdict) -> str:
    """The outcome in the words of the question.

    >>> from types import SimpleNamespace as Some
    >>> outcome(Some(question="integrity", outcome="no-match")), outcome(Some(question="origin", outcome="no-match"))
    ('changed', 'no match')
    """
    return {"integrity": INTEGRITY, "data-use": DATA_USE}.get(verdict.question, OUTCOMES)[verdict.outcome]


def sentence(verdict: Verdict) -> str:
    """What was found, in one or two sentences that claim no more than the numbers do."""
    if verdict.question == "origin" and verdict.outcome == "match" and verdict.null_kind not in ("exact", "assumed"):
        rung = clean(verdict.null_rung, 80) or "not declared"
        return (
            f"An independent model of the rung “{rung}” would look like this "
            f"with probability at most {format_p(verdict.p_value)}."
        )
    why = "; ".join(clean(reason, 300) for reason in verdict.reasons) or "no reason was recorded"
    remark = NOT_INTACT if verdict.question == "integrity" else NOT_INNOCENCE
    ending = f" {remark}" if verdict.outcome == "inconclusive" else ""
    return f"{why[0].upper()}{why[1:]}.{ending}"


def ruled_out(verdict: Verdict) -> str:
    """Kinds of copy that are ruled out, of all kinds in question.

    >>> from types import SimpleNamespace as Some
    >>> ruled_out(Some(outcome="inconclusive", ruled_out=("prune",), power={"prune": 1.0, "distil": 0}, untested=()))
    '1/2'
    """
    kinds = {*verdict.power, *verdict.untested}
    if verdict.outcome == "match" or not kinds:
        return DASH
    return "all" if kinds <= set(verdict.ruled_out) else f"{len(verdict.ruled_out)}/{len(kinds)}"


def explained(flag: str) -> Flag:
    """When a flag is raised, what it means and what to do; a newer core may raise flags unknown here."""
    return FLAGS.get(flag, _NO_FLAG)
