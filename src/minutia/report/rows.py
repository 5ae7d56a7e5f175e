"""Suspects with their verdicts, in the order in which they are shown, and what they add up to."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from statistics import median
from typing import Any, Literal

from minutia.core.fingerprint import THREATS
from minutia.core.verdict import Verdict
from minutia.report.words import missing, percent, plural, some
from minutia.stats.intervals import Interval, clopper_pearson, upper_bound_if_none

Truth = Literal["derived", "unrelated"]
LEARNT_ANEW = frozenset({"distil", "extract-labels"})
"""Kinds of the default threat list that keep no weight of the owner's; all others of that list do."""
KEEP_WEIGHTS = frozenset(THREATS) - LEARNT_ANEW


@dataclass(frozen=True)
class Row:
    """One suspect: its name, where it really comes from if that is known, and what was decided.

    ``kind`` is the kind of theft or the rung of an innocent; ``fidelity`` what an attack cost (``accuracy_lost``,
    ``agreement``).
    """

    suspect: str
    truth: str | None
    kind: str
    verdict: Verdict
    fidelity: Mapping[str, float] = field(default_factory=dict)

    @property
    def path(self) -> tuple[tuple[int, float], ...]:
        """Scores (asked, score) at the looks that were reached and measured."""
        return tuple((n, s) for n, s in self.verdict.path if not missing(s))

    @property
    def wrong(self) -> str:
        """What kind of error the verdict is, where the truth is known; empty if it is none."""
        errors = {("unrelated", "match"): "false accusation", ("derived", "no-match"): "missed copy"}
        return errors.get((self.truth or "", self.verdict.outcome), "")


@dataclass(frozen=True)
class Group:
    """Suspects of one truth and kind."""

    truth: str | None
    kind: str
    rows: tuple[Row, ...]


def grouped(rows: Sequence[Row]) -> list[Group]:
    """Copies first, in the order of the threat list, then innocents, then suspects of unknown origin."""
    found: dict[tuple[str | None, str], list[Row]] = {}
    for row in rows:
        found.setdefault((row.truth, row.kind), []).append(row)
    groups = [Group(truth, kind, tuple(members)) for (truth, kind), members in found.items()]
    return sorted(groups, key=lambda g: (_place(("derived", "unrelated"), g.truth), _place(THREATS, g.kind)))


def _place(order: Sequence[str], name: str | None) -> int:
    return order.index(name) if name in order else len(order)


@dataclass(frozen=True)
class Rate:
    """So many of so many, with a 95 % interval: Clopper-Pearson, or the upper bound that "none" is worth.

    >>> Rate(0, 24).words()
    '0 of 24 (95 % upper bound 12 %)'
    >>> Rate(24, 24).words()
    '24 of 24 (95 % interval 85–100 %)'
    """

    hits: int
    of: int

    @property
    def interval(self) -> Interval:
        """Both ends; (0, 1) if nothing was counted."""
        if not self.hits:
            return Interval(0.0, upper_bound_if_none(self.of))
        return clopper_pearson(self.hits, self.of)

    def bounds(self) -> str:
        """The interval in words, its ends rounded outwards."""
        low, high = self.interval
        if not self.hits:
            return f"95 % upper bound {percent(high, 'up')}"
        return f"95 % interval {percent(low, 'down').removesuffix(' %')}–{percent(high, 'up')}"

    def words(self) -> str:
        """Counts with their interval."""
        return f"{self.hits} of {self.of} ({self.bounds()})"

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        return {"hits": self.hits, "of": self.of, "interval": list(self.interval) if self.of else None}


@dataclass(frozen=True, eq=False)
class Summary:
    """What a table of suspects adds up to."""

    rows: Sequence[Row]

    def _rate(self, rows: Sequence[Row], outcome: str) -> Rate:
        return Rate(sum(r.verdict.outcome == outcome for r in rows), len(rows))

    @cached_property
    def derived(self) -> list[Row]:
        """Suspects known to be made from the owner's model."""
        return [r for r in self.rows if r.truth == "derived"]

    @cached_property
    def _keeping(self) -> list[Row]:
        return [r for r in self.derived if r.kind in KEEP_WEIGHTS]

    @cached_property
    def keeping(self) -> Rate:
        """Matches among the copies that keep weights."""
        return self._rate(self._keeping, "match")

    @cached_property
    def others(self) -> Rate:
        """Matches among all other copies."""
        return self._rate([r for r in self.derived if r.kind not in KEEP_WEIGHTS], "match")

    @property
    def other_kinds(self) -> str:
        """Kinds of those other copies; who makes copies also names their kinds, so names and list are bounded."""
        return some([g.kind for g in grouped(self.derived) if g.kind not in KEEP_WEIGHTS], 8)

    @cached_property
    def cleared(self) -> Rate:
        """Copies that were wrongly called no match."""
        return self._rate(self.derived, "no-match")

    @cached_property
    def innocent(self) -> Rate:
        """Accusations among innocents, counted over independent trainings: several models of one root are one."""
        roots: dict[str, bool] = {}
        for row in self.rows:
            if row.truth == "unrelated":
                root = row.verdict.suspect.root or row.suspect
                roots[root] = roots.get(root, False) or row.verdict.outcome == "match"
        return Rate(sum(roots.values()), len(roots))

    @cached_property
    def queries(self) -> float | None:
        """Median number of queries until a match, over weight-derived copies if there are any; None without a match."""
        asked = [r.verdict.asked for r in self._keeping or self.rows if r.verdict.outcome == "match"]
        return median(asked) if asked else None

    @cached_property
    def outcomes(self) -> dict[str, int]:
        """How many suspects had which outcome."""
        seen = [r.verdict.outcome for r in self.rows]
        return {name: seen.count(name) for name in ("match", "no-match", "inconclusive")}

    def sentence(self) -> str:
        """One line under a table."""
        if not self.rows:
            return "no suspect was judged"
        parts = [*self._copies(), *self._innocents()]
        return "; ".join(parts) or f"{plural(len(self.rows), 'suspect')}: {self.counts()}"

    def counts(self) -> str:
        """Outcomes in words."""
        return ", ".join(f"{count} {name.replace('-', ' ')}" for name, count in self.outcomes.items())

    def _copies(self) -> list[str]:
        parts = []
        if self.keeping.of:
            median_of = "" if self.queries is None else f", median {self.queries:g} queries"
            parts.append(f"{self.keeping.hits} of {self.keeping.of} weight-derived copies matched{median_of}")
        if self.others.of:
            parts.append(f"{self.others.hits} of {self.others.of} other copies matched ({self.other_kinds})")
        if self.cleared.hits:
            parts.append(f"{self.cleared.hits} of {self.cleared.of} copies wrongly called no match")
        return parts

    def _innocents(self) -> list[str]:
        rate = self.innocent
        return [f"{rate.hits} of {rate.of} innocents matched ({rate.bounds()})"] if rate.of else []

    def plain(self) -> dict[str, Any]:
        """For JSON; what was not measured is None."""
        return {
            "suspects": len(self.rows),
            "outcomes": dict(self.outcomes),
            "weight_derived_matched": self.keeping.plain(),
            "other_copies_matched": self.others.plain(),
            "copies_called_no_match": self.cleared.plain(),
            "innocents_matched": self.innocent.plain(),
            "median_queries_to_match": self.queries,
            "sentence": self.sentence(),
        }
