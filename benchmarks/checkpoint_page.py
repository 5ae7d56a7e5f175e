"""What the laboratory of checkpoints found, as a page of documentation."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from minutia.stats.intervals import clopper_pearson

SHARED = "shared ancestor or initialisation"
NOT_ACCUSED = ("unrelated", "undecided")
FAINT = "merge_stranger_30"
ABOUT = """Seven families of tiny language models (width 32 to 64, 3 to 5 layers, grouped queries; one without gates,
one of experts) are trained for {steps} steps on real and made-up text and compared by the rule that `minutia compare`
uses. Seeds up to 70 were used while the rule was built. Intervals are 95 %, Clopper-Pearson; pairs share models, so
those of pairs are too narrow.
"""
EXACT = "The exact test where its null hypothesis was made true, units and stream in random order"

Row = Mapping[str, Any]


def page(found: Mapping[str, Any]) -> str:
    """All tables."""
    copies, strangers = found["copies"], found["strangers"]
    parts = [
        f"# Checkpoints of known descent\n\n`python -m benchmarks.checkpoint_laboratory --seed {found['seed']}`",
        ABOUT.format(steps=found["steps"]).strip(),
        "## Independent pairs",
        independent(strangers),
        f"{EXACT}: {redrawn(found['exact'])}.",
        "## Copies, as they are",
        as_they_are([r for r in copies if not r["disguise"]]),
        "## Copies in disguise",
        in_disguise([r for r in copies if r["disguise"]]),
        "## One start, no copy",
        one_start(found["start"]),
        "## Weak baselines",
        "At the threshold, chosen after the fact, that accuses one independent pair in a hundred:",
        weak(strangers, copies),
    ]
    return "\n\n".join(parts)


def independent(rows: Sequence[Row]) -> str:
    """Pairs that have nothing to do with each other, by kind."""
    lines = []
    for (kind,), group in [*by(rows, "kind").items(), (("all",), rows)]:
        accused = sum(r["relation"] not in NOT_ACCUSED for r in group)
        lines.append((kind, below(group, 0.05), below(group, 0.01), accused, below(group, 0.05, "order_p")))
    return table(("pairs", "p <= .05", "p <= .01", "accused", "exact test alone, p <= .05"), lines)


def redrawn(ps: Sequence[float]) -> str:
    """How often the exact test rejects."""
    return ", ".join(f"p <= {a}: {rate(sum(p <= a for p in ps), len(ps))}" for a in (0.1, 0.05, 0.01))


def as_they_are(rows: Sequence[Row]) -> str:
    """Copies whose units keep their order."""
    lines = []
    for (kind,), group in [*by(rows, "kind").items(), (("all",), rows)]:
        largest = max(r["order_p"] for r in group)
        lines.append((kind, below(group, 1e-6, "order_p"), f"{largest:.1e}", told(group, "derived")))
    return table(("copy", "exact p <= 1e-6", "largest exact p", "called derived"), lines)


def in_disguise(rows: Sequence[Row]) -> str:
    """Copies whose units were re-ordered, turned or rescaled."""
    whole = [r for r in rows if r["kind"] != FAINT]
    lines = []
    for (kind, disguise), group in by(rows, "kind", "disguise").items():
        tests = Counter(f"{r['test']} ({r['null']})" for r in group if r["p"] <= 0.01)
        said = ", ".join(f"{test} {n}" for test, n in tests.items())
        found = sum(r["p"] <= 0.01 for r in group)
        lines.append((kind, disguise, f"{found} of {len(group)}", told(group, "derived"), said or "–"))
    total = f"p <= .01, averages that hold 30 % of the copied model left out: {below(whole, 0.01)}."
    return f"{total}\n\n{table(('copy', 'disguise', 'p <= .01', 'called derived', 'decided by'), lines)}"


def one_start(rows: Sequence[Row]) -> str:
    """Pairs that share a start and nothing that was learnt since, or little."""
    groups = by(rows, "kind").items()
    lines = [(kind, below(group, 0.01), told(group, SHARED), told(group, "derived")) for (kind,), group in groups]
    return table(("pairs", "p <= .01", SHARED, "derived"), lines)


def weak(strangers: Sequence[Row], copies: Sequence[Row]) -> str:
    """Each baseline at the threshold that accuses one stranger in a hundred."""
    lines = []
    for name in strangers[0]["weak"]:
        null = values(strangers, name)
        limit = np.quantile(null, 0.99)
        sides = [values([r for r in copies if bool(r["disguise"]) is hidden], name) for hidden in (False, True)]
        cells = (f"{int((side > limit).sum())} of {len(side)}" for side in sides)
        lines.append((name, f"{np.median(null):.2f}, {null.max():.2f}", *cells))
    return table(("measure", "independent pairs: median, largest", "copies as they are", "copies in disguise"), lines)


def values(rows: Sequence[Row], name: str) -> np.ndarray:
    """A baseline where it was measured."""
    return np.array([r["weak"][name] for r in rows if r["weak"][name] is not None])


def told(rows: Sequence[Row], relation: str) -> int:
    """How many are called this."""
    return sum(r["relation"] == relation for r in rows)


def below(rows: Sequence[Row], level: float, key: str = "p") -> str:
    """How many have a p-value of at most this."""
    return rate(sum(r[key] <= level for r in rows), len(rows))


def rate(hits: int, of: int) -> str:
    """A count with its 95 % interval."""
    low, high = clopper_pearson(hits, of)
    return f"{hits} of {of} [{low:.3f}, {high:.3f}]"


def by(rows: Sequence[Row], *keys: str) -> dict[tuple[Any, ...], list[Row]]:
    """Rows by the values of some keys, in the order in which they come."""
    found: dict[tuple[Any, ...], list[Row]] = {}
    for r in rows:
        found.setdefault(tuple(r[key] for key in keys), []).append(r)
    return found


def table(heads: Sequence[str], lines: Sequence[Sequence[object]]) -> str:
    """A table in Markdown."""
    return "\n".join(_lines(heads, lines))


def _lines(heads: Sequence[str], lines: Sequence[Sequence[object]]) -> Iterator[str]:
    yield f"| {' | '.join(heads)} |"
    yield f"|{'---|' * len(heads)}"
    for line in lines:
        yield f"| {' | '.join(map(str, line))} |"
