"""Small pictures as SVG text: elements that escape what they hold, axes, marks, and marks that give way."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from minutia.report.words import OUTCOMES, clean


class Svg(str):
    """Markup that is already escaped; any other text is escaped when it is put into an element.

    >>> tag("text", "<b>", x=1.25, class_="label")
    '<text x="1.2" class="label">&lt;b&gt;</text>'
    """

    def __html__(self) -> str:
        """Tell the page's template not to escape it again."""
        return str(self)


def tag(name: str, *inside: str, **attributes: str | float | None) -> Svg:
    """Return one element; text inside is cleaned and escaped, attributes that are None are left out."""
    body = "".join(part if isinstance(part, Svg) else escape(clean(part, 300), quote=False) for part in inside)
    pairs = "".join(f' {_name(n)}="{escape(_value(v))}"' for n, v in attributes.items() if v is not None)
    return Svg(f"<{name}{pairs}>{body}</{name}>" if body else f"<{name}{pairs}/>")


def joined(parts: Sequence[Svg]) -> Svg:
    """Elements beside each other."""
    return Svg("".join(parts))


def picture(width: float, height: float, label: str, *inside: Svg) -> Svg:
    """Return a whole picture that scales with the page and says what it shows to those who cannot see it."""
    return tag(
        "svg",
        tag("title", label),
        *inside,
        viewBox=f"0 0 {width:g} {height:g}",
        role="img",
        aria_label=label,
        class_="chart",
    )


def text(x: float, y: float, content: str, anchor: str = "start", class_: str = "label") -> Svg:
    """Return a line of text."""
    return tag("text", content, x=x, y=y, text_anchor=anchor, class_=class_)


def line(x1: float, y1: float, x2: float, y2: float, class_: str) -> Svg:
    """Return a straight line."""
    return tag("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=class_)


def polygon(points: Sequence[tuple[float, float]], class_: str) -> Svg:
    """Return a closed shape."""
    return tag("polygon", points=_points(points), class_=class_)


def polyline(points: Sequence[tuple[float, float]], class_: str) -> Svg:
    """Return an open line."""
    return tag("polyline", points=_points(points), class_=class_)


def mark(outcome: str, x: float, y: float, tooltip: str = "", size: float = 5.0) -> Svg:
    """Return a suspect's mark: its outcome shows in the shape as well as in the colour."""
    inside = [tag("title", tooltip)] if tooltip else []
    name = f"mark {outcome if outcome in OUTCOMES else 'inconclusive'}"
    if outcome == "match":
        around = [(x, y - size), (x + size, y), (x, y + size), (x - size, y)]
        return tag("polygon", *inside, points=_points(around), class_=name)
    if outcome == "no-match":
        return tag("circle", *inside, cx=x, cy=y, r=0.8 * size, class_=name)
    around = [(x, y - 0.9 * size), (x + 0.9 * size, y + 0.7 * size), (x - 0.9 * size, y + 0.7 * size)]
    return tag("polygon", *inside, points=_points(around), class_=name)


def _points(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


def _name(name: str) -> str:
    return name.rstrip("_").replace("_", "-")


def _value(value: str | float) -> str:
    return clean(value, 20_000) if isinstance(value, str) else f"{value:.1f}".removesuffix(".0")


@dataclass(frozen=True)
class Scale:
    """Numbers to places along one axis, linear or logarithmic.

    >>> Scale(0, 1, 100, 200)(0.25), Scale(1, 100, 0, 10, log=True)(10)
    (125.0, 5.0)
    """

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """Return the place of a value; beyond the ends of the axis, its end."""
        low, high, at = (math.log(v) if self.log else v for v in (self.low, self.high, value))
        share = (at - low) / (high - low) if high > low else 0.5
        return self.start + (self.end - self.start) * min(max(share, 0.0), 1.0)

    def ticks(self) -> list[float]:
        """Round numbers along the axis; a logarithmic one also shows its two ends.

        >>> Scale(0, 1, 0, 1).ticks(), Scale(6, 100, 0, 1, log=True).ticks()
        ([0.0, 0.2, 0.4, 0.6, 0.8, 1.0], [6, 10, 20, 50, 100])
        """
        if self.log:
            decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            steps = [m * 10.0**d for d in decades for m in (1, 2, 5)]
            between = [s for s in steps if self.low * 1.25 < s < self.high / 1.25]
            return [self.low, *map(round, between), self.high]
        step = _round_step((self.high - self.low) / 5)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [round(i * step, 12) for i in range(first, last + 1)]


def _round_step(least: float) -> float:
    """The smallest of 1, 2, 5 times a power of ten that is not below."""
    power = 10.0 ** math.floor(math.log10(least)) if least > 0 else 1.0
    return next(m * power for m in (1, 2, 5, 10) if m * power >= least * (1 - 1e-9))


def stacked(places: Sequence[float], gap: float, room: float, *, upwards: bool = False) -> list[float]:
    """Return for each mark how far it moves aside so that neighbours nearer than ``gap`` do not hide it.

    Marks move to both sides in turn, or all upwards; if they need more than ``room`` pixels they move closer.

    >>> stacked([5, 5, 5, 50], gap=10, room=100)
    [0.0, 10.0, -10.0, 0.0]
    >>> stacked([5, 5, 5], gap=10, room=10, upwards=True)
    [0.0, -5.0, -10.0]
    """
    levels, recent = [0] * len(places), list[int]()
    for mine in sorted(range(len(places)), key=lambda i: places[i]):
        recent = [other for other in recent if places[mine] - places[other] < gap]
        taken = {levels[other] for other in recent}
        levels[mine] = next(level for level in range(len(taken) + 1) if level not in taken)
        recent.append(mine)
    steps = [-level if upwards else (level + 1) // 2 * (1 if level % 2 else -1) for level in levels]
    highest = max(map(abs, steps), default=0) or 1
    spacing = min(gap, (room if upwards else room / 2) / highest)
    return [step * spacing + 0.0 for step in steps]
