"""The pictures of the page: how alike the answers are, how many were needed, and how that came about."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from minutia.report import svg
from minutia.report.rows import Group, Rate, Row
from minutia.report.svg import Scale, Svg
from minutia.report.words import OUTCOMES, clean, format_p, format_score, missing, plural, some

WIDTH, LEFT, RIGHT = 760.0, 168.0, 22.0
LANE, HEADING, NULL_LANE, AXIS = 36.0, 26.0, 76.0, 44.0
TITLES = {"derived": "MADE FROM THE OWNER’S MODEL", "unrelated": "INDEPENDENT MODELS", None: "ORIGIN UNKNOWN"}


@dataclass(frozen=True, eq=False)
class NullPaths:
    """Scores of the null models: ``looks`` (L,) questions asked, ``scores`` (m, L)."""

    looks: Sequence[int]
    scores: Any

    def __post_init__(self) -> None:
        scores = np.asarray(self.scores, dtype=float).reshape(-1, len(self.looks))
        object.__setattr__(self, "scores", scores[np.isfinite(scores).all(axis=1)])

    @property
    def last(self) -> list[float]:
        """Scores after all questions."""
        return [float(s) for s in self.scores[:, -1]]


def strip(groups: Sequence[Group], null: NullPaths | None, owner: float | None) -> Svg:
    """Scores: the null models as a stack of dots on top, below it one lane per kind of suspect."""
    last = null.last if null else []
    seen = [r.verdict.score for g in groups for r in g.rows if not missing(r.verdict.score)]
    scale = _score_scale([*last, *(s for s in seen if s is not None), *([] if owner is None else [owner])])
    top = 40.0 + (NULL_LANE if last else 0.0)
    lanes, bottom = _lanes(groups, top, lambda rows, y: _spread(scale, rows, y))
    lines = []
    if last:
        lines.append(_marker(scale, max(last), 30.0, bottom, f"highest of {len(last)} null models", "null-line"))
    if owner is not None:
        lines.append(_marker(scale, owner, 14.0, bottom, "owner’s own model", "owner-line"))
    axis = _axis(scale, bottom, "score: how alike the answers are, 1 = all the same" if scale.high == 1 else "score")
    dots = [_null_lane(scale, last, top - 8.0)] if last else []
    label = f"Scores of {plural(sum(len(g.rows) for g in groups), 'suspect')} and {plural(len(last), 'null model')}"
    return svg.picture(WIDTH, bottom + AXIS, label, axis, *lines, *dots, lanes)


def queries(groups: Sequence[Group], most: int) -> Svg:
    """Questions asked until the verdict, one lane per kind; an early stop lies to the left."""
    asked = [r.verdict.asked for g in groups for r in g.rows]
    least, most = min([*asked, most]), max([*asked, most])
    scale = Scale(max(least, 1), max(most, 2), LEFT, WIDTH - RIGHT, log=most > 8 * max(least, 1))
    lanes, bottom = _lanes(groups, 0.0, lambda rows, y: _counted(scale, rows, y))
    axis = _axis(scale, bottom, "questions asked until the verdict" + (" (logarithmic)" if scale.log else ""))
    return svg.picture(WIDTH, bottom + AXIS, f"Questions asked until the verdict, {least} to {most}", axis, lanes)


def paths(rows: Sequence[Row], null: NullPaths) -> Svg:
    """Score against questions asked: every suspect a line, the null models as a band behind them."""
    looks = [n for row in rows for n, _ in row.path] + list(null.looks)
    scores = [s for row in rows for _, s in row.path] + [float(s) for s in null.scores.ravel()]
    bottom = 330.0
    x = Scale(min(looks), max(looks), 56.0, WIDTH - RIGHT, log=max(looks) > 8 * min(looks))
    y = _score_scale(scores, bottom, 16.0)
    axis = _axis(x, bottom, "questions asked" + (" (logarithmic)" if x.log else ""))
    label = f"Scores at each look of {plural(len(rows), 'suspect')} against {plural(len(null.scores), 'null model')}"
    lines = [_path(x, y, row) for row in rows if row.path[1:]]
    return svg.picture(WIDTH, bottom + AXIS, label, axis, _rulers(y), _band(x, y, null), *lines, *_ends(x, y, rows))


def _path(x: Scale, y: Scale, row: Row) -> Svg:
    """One suspect's scores."""
    kind = "unrelated" if row.truth == "unrelated" else ""
    return svg.polyline([(x(n), y(s)) for n, s in row.path], f"path {row.verdict.outcome} {kind}".strip())


def _ends(x: Scale, y: Scale, rows: Sequence[Row]) -> list[Svg]:
    """Marks where paths end; counts only where questioning stopped early, because at the right end they would clash."""
    found: dict[tuple[str, int, float], list[str]] = {}
    for row in rows:
        if row.path:
            found.setdefault((row.verdict.outcome, *row.path[-1]), []).append(row.suspect)
    return [_several(x(n), y(s), o, names, counted=n < x.high) for (o, n, s), names in found.items()]


def interval(rate: Rate) -> Svg:
    """A rate as a dot on its interval, for a cell of a table."""
    scale, (low, high) = Scale(0, 1, 6, 114), rate.interval
    return svg.picture(
        120,
        16,
        rate.words(),
        svg.line(6, 8, 114, 8, "rail"),
        svg.line(scale(low), 8, scale(high), 8, "range"),
        svg.tag("circle", cx=scale(rate.hits / rate.of), cy=8.0, r=4.0, class_="dot"),
    )


def symbol(outcome: str) -> Svg:
    """A suspect's mark by itself, for legends and tables."""
    drawn = svg.mark(outcome, 7, 7)
    return svg.tag("svg", drawn, viewBox="0 0 14 14", class_="symbol", aria_hidden="true")


def _score_scale(scores: Sequence[float], start: float = LEFT, end: float = WIDTH - RIGHT) -> Scale:
    """0 to 1 for rates, else the range of the data."""
    low, high = min(scores, default=0.0), max(scores, default=1.0)
    if low >= 0 and high <= 1:
        return Scale(0.0, 1.0, start, end)
    margin = 0.04 * (high - low) or 1.0
    return Scale(low - margin, high + margin, start, end)


def _lanes(groups: Sequence[Group], top: float, draw: Callable[[Sequence[Row], float], Svg]) -> tuple[Svg, float]:
    """One lane per kind, with a heading where the truth changes; returns where they end."""
    parts, y, truth = [], top, "?"
    for group in groups:
        if group.truth != truth:
            truth = group.truth or ""
            parts.append(svg.text(0, y + 17, TITLES.get(group.truth, TITLES[None]), class_="heading"))
            y += HEADING
        parts += [
            _lane_label(group.kind, y + LANE / 2),
            svg.line(LEFT, y + LANE / 2, WIDTH - RIGHT, y + LANE / 2, "rail"),
        ]
        parts.append(draw(group.rows, y + LANE / 2))
        y += LANE
    return svg.joined(parts), y + 4


def _lane_label(kind: str, y: float) -> Svg:
    """A kind in at most two lines, broken at its comma."""
    first, _, second = clean(kind, 48).partition(", ")
    if not second:
        return svg.text(LEFT - 14, y + 4, clean(first, 25), "end")
    above = svg.text(LEFT - 14, y - 4, clean(first, 25) + ",", "end")
    return svg.joined([above, svg.text(LEFT - 14, y + 12, clean(second, 25), "end")])


def _spread(scale: Scale, rows: Sequence[Row], y: float) -> Svg:
    """Suspects at their scores, those that would hide each other set apart; without a score, none is drawn."""
    drawn = [(row, scale(s)) for row in rows if (s := row.verdict.score) is not None and not missing(s)]
    aside = svg.stacked([x for _, x in drawn], 9.0, LANE - 12)
    pairs = zip(drawn, aside, strict=True)
    return svg.joined([svg.mark(row.verdict.outcome, x, y + dy, _tooltip(row)) for (row, x), dy in pairs])


def _counted(scale: Scale, rows: Sequence[Row], y: float) -> Svg:
    """Suspects at the questions they took; equals are one mark with a count."""
    found: dict[tuple[str, int], list[str]] = {}
    for row in rows:
        found.setdefault((row.verdict.outcome, row.verdict.asked), []).append(row.suspect)
    places = [scale(max(asked, 1)) for _, asked in found]
    aside = svg.stacked(places, 14.0, LANE - 12)
    items = zip(found.items(), places, aside, strict=True)
    return svg.joined([_several(x, y + dy, outcome, names) for ((outcome, _), names), x, dy in items])


def _tooltip(row: Row) -> str:
    """What is known about one mark."""
    v = row.verdict
    numbers = f"score {format_score(v.score)}, p {format_p(v.p_value)}, {plural(v.asked, 'query')}"
    return f"{clean(row.suspect)} · {clean(row.kind)} · {OUTCOMES[v.outcome]}: {numbers}"


def _null_lane(scale: Scale, scores: Sequence[float], base: float) -> Svg:
    """The null models as a stack of translucent dots."""
    places = [scale(s) for s in scores]
    lifts = svg.stacked(places, 5.6, NULL_LANE - 26, upwards=True)
    dots = [
        svg.tag("circle", cx=x, cy=base + dy - 4, r=2.8, class_="null-dot") for x, dy in zip(places, lifts, strict=True)
    ]
    label = svg.text(LEFT - 14, base - 8, plural(len(scores), "null model"), "end", "label strong")
    return svg.joined([label, svg.line(LEFT, base, WIDTH - RIGHT, base, "rail"), *dots])


def _marker(scale: Scale, value: float, y: float, bottom: float, words: str, class_: str) -> Svg:
    """A labelled line at a score, its words on the side that has room."""
    x = scale(value)
    right = x < (LEFT + WIDTH) / 2
    label = svg.text(
        x + (5 if right else -5), y, f"{words}: {format_score(value)}", "start" if right else "end", "label strong"
    )
    return svg.joined([svg.line(x, y - 10, x, bottom, class_), label])


def _axis(scale: Scale, y: float, words: str) -> Svg:
    """A horizontal axis below the picture."""
    ticks = [svg.text(scale(t), y + 18, f"{t:g}", "middle", "tick") for t in scale.ticks()]
    marks = [svg.line(scale(t), y, scale(t), y + 5, "axis") for t in scale.ticks()]
    title = svg.text((scale.start + scale.end) / 2, y + 37, words, "middle", "axis-title")
    return svg.joined([svg.line(scale.start, y, scale.end, y, "axis"), *marks, *ticks, title])


def _rulers(y: Scale) -> Svg:
    """A vertical axis as faint lines."""
    lines = [svg.line(56, y(t), WIDTH - RIGHT, y(t), "rail") for t in y.ticks()]
    return svg.joined([*lines, *(svg.text(48, y(t) + 4, f"{t:g}", "end", "tick") for t in y.ticks())])


def _band(x: Scale, y: Scale, null: NullPaths) -> Svg:
    """All null models, nine in ten of them, and their median."""
    if not len(null.scores):
        return Svg("")
    low, fifth, middle, most, high = np.quantile(null.scores, [0, 0.05, 0.5, 0.95, 1], axis=0)
    across = [x(n) for n in null.looks]

    def between(under: Any, over: Any) -> list[tuple[float, float]]:
        there = [(a, y(s)) for a, s in zip(across, over, strict=True)]
        return there + [(a, y(s)) for a, s in zip(across, under, strict=True)][::-1]

    middle_line = [(a, y(s)) for a, s in zip(across, middle, strict=True)]
    bands = [svg.polygon(between(low, high), "band"), svg.polygon(between(fifth, most), "band")]
    return svg.joined([*bands, svg.polyline(middle_line, "median")])


def _several(x: float, y: float, outcome: str, names: Sequence[str], *, counted: bool = True) -> Svg:
    """Suspects at one place as one mark, with their count on the side that has room."""
    drawn = svg.mark(outcome, x, y, f"{some(names, 8)}: {OUTCOMES[outcome]}")
    if not counted or len(names) == 1:
        return drawn
    aside, anchor = (-10, "end") if x > (LEFT + WIDTH) / 2 else (10, "start")
    count = svg.text(x + aside, y + 4, f"× {len(names)}", anchor, "label strong halo")
    return svg.joined([drawn, count])
