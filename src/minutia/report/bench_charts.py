"""The pictures of a study's page: false alarms against their bounds, rates along a parameter, rates against queries."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from minutia.report import bench_words as w
from minutia.report import svg
from minutia.report.svg import Scale, Svg
from minutia.report.words import clean, percent

WIDTH, LEFT, RIGHT, TOP, BOTTOM = 760.0, 52.0, 200.0, 30.0, 46.0
HEIGHT = 262.0
LADDER_LEFT, LADDER_RIGHT, LANE = 240.0, 190.0, 19.0
ALPHA = 0.01


class Series(NamedTuple):
    """One method's points (x, rate, low, high); without an interval low and high are the rate."""

    name: str
    points: Sequence[tuple[float, float, float, float]]


def lines(series: Sequence[Series], x_title: str, label: str, *, log: bool = False, hollow: Any = ()) -> Svg:
    """Rates with interval bands along one axis, each method's name at the end of its line.

    ``hollow`` are (series number, x, rate) of points whose copies are destroyed, drawn apart.
    """
    xs = [x for s in series for x, *_ in s.points] + [x for _, x, _ in hollow]
    low, high = (min(xs), max(xs)) if xs else (0.0, 1.0)
    across = Scale(low, high if high > low else low + 1, LEFT, WIDTH - RIGHT, log=log and low > 0)
    up = Scale(0, 1, HEIGHT - BOTTOM, TOP)
    parts = [_frame(across, up, x_title)]
    names = svg.stacked([up(s.points[-1][1]) for s in series if s.points], 15, 200) if series else []
    for number, (one, shift) in enumerate(zip([s for s in series if s.points], names, strict=True)):
        parts.append(_series(one, number, across, up, shift))
    parts += [
        svg.tag("circle", svg.tag("title", "destroyed"), cx=across(x), cy=up(y), r=4.0, class_=f"hollow series-{n % 6}")
        for n, x, y in hollow
    ]
    return svg.picture(WIDTH, HEIGHT, label, *parts)


def _series(one: Series, number: int, across: Scale, up: Scale, shift: float) -> Svg:
    """A band, a line, its marks, and the name at its end."""
    look = f"series-{number % 6}"
    band = [(across(x), up(high)) for x, _, _, high in one.points]
    band += [(across(x), up(low)) for x, _, low, _ in reversed(one.points)]
    parts = [svg.polygon(band, f"band {look}")] if any(low < high for _, _, low, high in one.points) else []
    parts.append(svg.polyline([(across(x), up(y)) for x, y, _, _ in one.points], f"line {look}"))
    parts += [
        _dot(number, across(x), up(y), f"{one.name}: {percent(y)} ({percent(low, 'down')} to {percent(high, 'up')})")
        for x, y, low, high in one.points
    ]
    x, y, *_ = one.points[-1]
    end = up(y) + shift
    if abs(shift) > 1:
        parts.append(svg.line(across(x) + 6, up(y), across(x) + 12, end, "rail"))
    parts.append(svg.text(across(x) + 14, end + 4, clean(one.name, 28), class_=f"label name {look}"))
    return svg.joined(parts)


def _dot(number: int, x: float, y: float, tooltip: str) -> Svg:
    """A method shows in the shape of its marks as well as in the colour."""
    inside, name, r = svg.tag("title", tooltip), f"dot series-{number % 6}", 3.6
    if number % 3 == 1:
        return svg.tag("rect", inside, x=x - r, y=y - r, width=2 * r, height=2 * r, class_=name)
    if number % 3 == 2:
        corners = f"{x:.1f},{y - 1.3 * r:.1f} {x + 1.2 * r:.1f},{y + r:.1f} {x - 1.2 * r:.1f},{y + r:.1f}"
        return svg.tag("polygon", inside, points=corners, class_=name)
    return svg.tag("circle", inside, cx=x, cy=y, r=r, class_=name)


def _frame(across: Scale, up: Scale, x_title: str) -> Svg:
    """Rails with percentages, ticks along the bottom, and what the axis shows."""
    parts = []
    for rate in (0.0, 0.25, 0.5, 0.75, 1.0):
        parts.append(svg.line(LEFT, up(rate), WIDTH - RIGHT, up(rate), "axis" if not rate else "rail"))
        parts.append(svg.text(LEFT - 8, up(rate) + 4, f"{rate:.0%}", "end"))
    for tick in across.ticks():
        parts.append(svg.line(across(tick), up(0), across(tick), up(0) + 4, "axis"))
        parts.append(svg.text(across(tick), up(0) + 17, f"{tick:g}", "middle"))
    parts.append(svg.text((LEFT + WIDTH - RIGHT) / 2, up(0) + 36, clean(x_title, 80), "middle", "label axis-title"))
    return svg.joined(parts)


def ladder(table: Mapping[str, Any]) -> Svg:
    """Matches among innocents per rung and method: the rate, its interval, and alpha as a line."""
    methods, called = w.ordered(table), w.names(table)
    rungs = w.rungs(table)
    found = [(name, m, r) for name in rungs for m in methods if (r := w.rung_of(m, name)) and r["n"]]
    most = max([0.02, *(min(1.0, r[w.ALPHA]["high"]) for _, _, r in found)])
    across = Scale(0, most, LADDER_LEFT, WIDTH - LADDER_RIGHT)
    y, parts = 30.0, []
    for name in rungs:
        lanes = [(m, r) for n, m, r in found if n == name]
        if not lanes:
            continue
        decides = any(r["decides"] for _, r in lanes)
        parts.append(svg.text(0, y + 4, clean(name, 48), class_="label strong" if decides else "label"))
        if decides:
            parts.append(svg.text(0, y + 18, "this rung decides", class_="label"))
        for method, rung in lanes:
            parts.append(_lane(called[method["method"]], methods.index(method), rung, across, y))
            y += LANE
        y += 14.0
    axis = [
        svg.line(LADDER_LEFT, y, WIDTH - LADDER_RIGHT, y, "axis"),
        svg.line(across(ALPHA), 14, across(ALPHA), y, "null-line"),
    ]
    axis.append(svg.text(across(ALPHA), 10, "alpha 1 %", "middle"))
    axis += [svg.text(across(t), y + 17, percent(t), "middle") for t in across.ticks()]
    axis.append(svg.text(LADDER_LEFT, y + 36, "innocents accused, with 95 % interval", class_="label axis-title"))
    return svg.picture(WIDTH, y + 46, "False alarms per rung of the negative ladder", *axis, *parts)


def _lane(name: str, number: int, rung: Mapping[str, Any], across: Scale, y: float) -> Svg:
    rate, look = rung[w.ALPHA], f"series-{number % 6}"
    told = f"{name}: {w.counts(rate)}, {w.allows(rate)}; p at most 1 %: {rate['rejected']}, bound {rate['bound']}"
    return svg.joined(
        [
            svg.line(across(rate["low"]), y, across(rate["high"]), y, f"range {look}"),
            _dot(number, across(rate["rate"]), y, told),
            svg.text(
                WIDTH - LADDER_RIGHT + 10, y + 4, f"{w.counts(rate)} {clean(name, 18)}", class_=f"label name {look}"
            ),
        ]
    )
