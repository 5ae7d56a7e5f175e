"""The pictures of a study's page: intervals, false alarms against their bounds, and one small panel per method.

Panels show one method in full and the others as faint lines behind it, so that no reader has to tell colours apart.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from minutia.report import bench_words as w
from minutia.report import svg
from minutia.report.bench_words import ALPHA, LOOSE, Entry, Table
from minutia.report.svg import Scale, Svg
from minutia.report.words import clean, percent

PANEL, HIGH, SIDE, TOP, BOTTOM = 264.0, 160.0, 42.0, 26.0, 136.0
TICK = 7.0
"""Pixels per character of a tick's label."""
WIDE, LEFT, RIGHT, LANE = 760.0, 196.0, 170.0, 20.0
FEW = 20
"""Rungs with fewer innocents do not stretch the axis: their intervals leave the picture."""


class Point(NamedTuple):
    """One place along an axis: what stands under it, the rate there (None if nobody was judged), and a tooltip."""

    x: float
    label: str
    rate: Entry | None
    tooltip: str
    apart: bool = False


class Curve(NamedTuple):
    """One method along an axis."""

    name: str
    baseline: bool
    points: Sequence[Point]


def rail(rate: Entry, label: str) -> Svg:
    """A small dot on its interval, for a cell of the heat map."""
    scale = Scale(0, 1, 3, 107)
    return svg.tag(
        "svg",
        svg.line(3, 4, 107, 4, "rail"),
        svg.line(scale(rate["low"]), 4, scale(rate["high"]), 4, "range"),
        svg.tag("circle", cx=scale(rate["rate"]), cy=4.0, r=2.4, class_="dot"),
        viewBox="0 0 110 8",
        class_="rail-in-cell",
        role="img",
        aria_label=label,
    )


def panels(curves: Sequence[Curve], what: str) -> list[Svg]:
    """One panel per method; ``what`` names the axis for who cannot see it."""
    xs = sorted({p.x for curve in curves for p in curve.points})
    labels = {p.x: p.label for curve in curves for p in curve.points}
    places = _places(xs)
    return [_panel(curve, [c for c in curves if c is not curve], places, labels, what) for curve in curves if xs]


def _places(xs: Sequence[float]) -> dict[float, float]:
    """Where values stand: in proportion, by their logarithm if they span more than a decade, else in equal steps."""
    positive = [x for x in xs if x > 0]
    far = bool(positive) and max(positive) >= 12 * min(positive)
    if len(xs) < 2 or (far and len(positive) < len(xs)):
        scale = Scale(0, max(len(xs) - 1, 1), SIDE + 8, PANEL - 14)
        return {x: scale(i if len(xs) > 1 else 0.5) for i, x in enumerate(xs)}
    scale = Scale(xs[0], xs[-1], SIDE + 8, PANEL - 14, log=far)
    return {x: scale(x) for x in xs}


def _panel(
    curve: Curve, others: Sequence[Curve], places: Mapping[float, float], labels: Mapping[float, str], what: str
) -> Svg:
    up = Scale(0, 1, BOTTOM, TOP)
    parts = [_rulers(up), _ticks(places, labels)]
    parts += [svg.polyline(_middles(other, places, up), "other") for other in others]
    kind = "series baseline" if curve.baseline else "series"
    inside = [_sure(curve, places, up), svg.polyline(_middles(curve, places, up), "mine")]
    inside += [_dot(p, places[p.x], up) for p in curve.points]
    parts.append(svg.tag("g", *inside, class_=kind))
    title = clean(curve.name, 30) + (" · baseline" if curve.baseline else "")
    parts.append(svg.text(0, 11, title, class_="label strong panel-title"))
    return svg.picture(PANEL, HIGH, f"{title}: share recognised along {what}", *parts)


def _rulers(up: Scale) -> Svg:
    """Rails at none, half and all."""
    lines = [svg.line(SIDE, up(t), PANEL - 6, up(t), "axis" if not t else "rail") for t in (0.0, 0.5, 1.0)]
    words = [svg.text(SIDE - 5, up(t) + 4, percent(t), "end", "tick") for t in (0.0, 0.5, 1.0)]
    return svg.joined([*lines, *words])


def _ticks(places: Mapping[float, float], labels: Mapping[float, str]) -> Svg:
    """Labels under the axis; those that would touch the one before are left out."""
    parts, end = [], -math.inf
    for x, at in sorted(places.items(), key=lambda item: item[1]):
        parts.append(svg.line(at, BOTTOM, at, BOTTOM + 4, "axis"))
        half = TICK * len(labels[x]) / 2
        if at - half >= end:
            parts.append(svg.text(min(at, PANEL - half), BOTTOM + 17, labels[x], "middle", "tick"))
            end = at + half + 4
    return svg.joined(parts)


def _middles(curve: Curve, places: Mapping[float, float], up: Scale) -> list[tuple[float, float]]:
    return [(places[p.x], up(p.rate["rate"])) for p in curve.points if p.rate]


def _sure(curve: Curve, places: Mapping[float, float], up: Scale) -> Svg:
    """The interval as a band; a single point has a line instead."""
    known = [(places[p.x], up(p.rate["low"]), up(p.rate["high"])) for p in curve.points if p.rate]
    if len(known) == 1:
        x, low, high = known[0]
        return svg.line(x, low, x, high, "mine")
    around = [(x, high) for x, _, high in known] + [(x, low) for x, low, _ in reversed(known)]
    return svg.polygon(around, "sure")


def _dot(point: Point, x: float, up: Scale) -> Svg:
    """A rate as a dot, hollow where copies were destroyed; with nobody left to judge it lies on the axis."""
    inside = svg.tag("title", point.tooltip)
    y = up(point.rate["rate"] if point.rate else 0.0)
    return svg.tag("circle", inside, cx=x, cy=y, r=3.4, class_="hollow" if point.apart else "dot")


def steps(points: Sequence[tuple[float, float]], most: float, label: str) -> Svg:
    """Share convicted against questions asked, as a small staircase; ``points`` are (questions, share)."""
    across, up = Scale(1, max(most, 2), 2, 118, log=True), Scale(0, 1, 34, 4)
    path, height = [(across(1), up(0))], up(0)
    for asked, share in points:
        path += [(across(max(asked, 1)), height), (across(max(asked, 1)), up(share))]
        height = up(share)
    path.append((across(max(most, 2)), height))
    under = [*path, (path[-1][0], up(0))]
    return svg.tag(
        "svg",
        svg.line(2, up(1), 118, up(1), "rail"),
        svg.polygon(under, "sure"),
        svg.polyline(path, "mine"),
        svg.line(2, up(0), 118, up(0), "axis"),
        viewBox="0 0 120 36",
        class_="staircase",
        role="img",
        aria_label=label,
    )


def ladder(table: Table) -> Svg:
    """Innocents accused, per rung and method: the rate on its interval, rejections, and what a valid test may give."""
    known = w.names(table)
    lanes = [(name, m, r) for name in w.rungs(table) for m in w.ordered(table) if (r := w.rung_of(m, name)) and r["n"]]
    scale = Scale(0, _most([r for _, _, r in lanes]), LEFT, WIDE - RIGHT)
    y, last, parts = 26.0, None, list[Svg]()
    for name, method, rung in lanes:
        if name != last:
            y += 12 if last else 0
            parts.append(_rung_title(name, rung, y + 6))
            y, last = y + 26, name
        parts.append(_lane(known[method["method"]], method["baseline"], rung, scale, y))
        y += LANE
    alpha = scale(float(ALPHA))
    marks = [svg.line(alpha, 16, alpha, y, "null-line"), svg.text(alpha, 10, "alpha 1 %", "middle", "tick")]
    axis = [svg.line(LEFT, y, WIDE - RIGHT, y, "axis")]
    axis += [svg.line(scale(t), y, scale(t), y + 5, "axis") for t in scale.ticks()]
    axis += [svg.text(scale(t), y + 18, percent(t), "middle", "tick") for t in scale.ticks()]
    axis.append(svg.text((LEFT + WIDE - RIGHT) / 2, y + 37, "innocents accused at 1 %", "middle", "axis-title"))
    return svg.picture(WIDE, y + 46, "Innocents accused per rung and method", *axis, *marks, *parts)


def _most(rungs: Sequence[Entry]) -> float:
    """The end of the axis: intervals of rungs with enough innocents, and every bound, fit."""
    large = [r for r in rungs if r["n"] >= FEW] or list(rungs)
    ends = [max(r[ALPHA]["high"], r[ALPHA]["bound"] / r["n"]) for r in large]
    return min(1.0, max([0.05, *ends]))


def _rung_title(name: str, rung: Entry, y: float) -> Svg:
    words = f"{clean(name, 60)}{' · this rung decides' if rung['decides'] else ''}"
    return svg.text(0, y, words, class_="label strong halo heavy" if rung["decides"] else "label strong halo")


def _lane(name: str, baseline: bool, rung: Entry, scale: Scale, y: float) -> Svg:
    """One method on one rung."""
    rate, n = rung[ALPHA], rung["n"]
    told = (
        f"{name}: {w.counts(rate)} at 1 %, {w.allows(rate)}; p at most 1 %: {rate['rejected']}, a valid test at most "
        f"{rate['bound']}; {w.counts(rung[LOOSE])} at 5 %"
    )
    bad = rate["rejected"] > rate["bound"]
    parts = [svg.text(LEFT - 12, y + 4, clean(name, 26), "end"), svg.line(LEFT, y, WIDE - RIGHT, y, "rail")]
    parts.append(svg.line(scale(rate["low"]), y, scale(rate["high"]), y, "range"))
    if rate["high"] > scale.high:
        end = WIDE - RIGHT
        parts.append(svg.polygon([(end - 1, y - 4), (end + 5, y), (end - 1, y + 4)], "range-end"))
    if rate["bound"] / n <= scale.high:
        bound = scale(rate["bound"] / n)
        parts.append(svg.line(bound, y - 6, bound, y + 6, "bound"))
    parts.append(_diamond(scale(rate["rejected"] / n), y, "rejected bad" if bad else "rejected"))
    parts.append(svg.tag("circle", svg.tag("title", told), cx=scale(rate["rate"]), cy=y, r=3.6, class_="dot"))
    words = f"{rate['hits']} of {n}, {w.span(rate)}" + (" !" if bad else "")
    parts.append(svg.text(WIDE - RIGHT + 12, y + 4, words, class_="label strong" if bad else "label"))
    return svg.tag("g", *parts, class_="series baseline" if baseline else "series")


def _diamond(x: float, y: float, class_: str) -> Svg:
    return svg.polygon([(x, y - 5.5), (x + 5.5, y), (x, y + 5.5), (x - 5.5, y)], class_)


def key_to_ladder() -> list[tuple[Svg, str]]:
    """The ladder's legend."""
    drawn = {
        "accused (verdict match), 95 % interval": [
            svg.line(0, 7, 22, 7, "range"),
            svg.tag("circle", cx=8.0, cy=7.0, r=3.6, class_="dot"),
        ],
        "rejected (p at most 1 %)": [_diamond(11, 7, "rejected")],
        "what a valid test may reject": [svg.line(11, 1, 11, 13, "bound")],
    }
    return [
        (
            svg.tag(
                "svg", svg.tag("g", *parts, class_="series"), viewBox="0 0 22 14", class_="key", aria_hidden="true"
            ),
            words,
        )
        for words, parts in drawn.items()
    ]
