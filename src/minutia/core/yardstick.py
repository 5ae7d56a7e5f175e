"""The yardstick of a verdict: every method's scores at every look, for spent, null and stored models."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING

import numpy as np

from minutia.core.answers import Observation
from minutia.core.digest import Array
from minutia.core.errors import ProtocolError, UsageError
from minutia.core.fingerprint import Fingerprint, Null
from minutia.stats.evalues import average, e_to_p, p_to_e
from minutia.stats.multiple import combine_rank_exact
from minutia.stats.nulls import Significance, rank_p
from minutia.stats.sequential import Standardiser

if TYPE_CHECKING:
    from minutia.core.method import Method

LEAST_ANSWERS = 6
"""Answers that a member of a portfolio must have at a look: fewer hang on one or two regions of the input space."""
RANK_SHARE = 0.9
"""Share of alpha that is left for the rank part beside exact members, see ``combine_rank_exact``."""
STRETCH = 2.0
"""How much larger the unit of a member is that recognises no copy where the best recognises all."""
BEHIND = 0.2
"""Share of the stored copies by which a member may see less than the best and still count; the best two always do."""
EARLY = 0.1
"""Power of the share of a member's answers that has arrived, by which early scores count less than late ones."""
RARE = 5.5
"""How many mean excesses above the upper quartile one in a thousand lies in an exponential tail: ln(0.25/0.001)."""
SHARED = 1e-5
"""Exact p-value of an unrelated model from which its weights are plainly no independent ones."""
LOOKED_AT = 20
"""Unrelated models that are looked at for it: children of one ancestor all share what they share."""
EVERYTHING = 1 << 30
"""More scores per answer than any model tells."""
NONE = Significance(None, None, "none")


@dataclass(frozen=True, eq=False)
class Column:
    """One method of a fingerprint: the part of every look that is its own, and the scores of the null there.

    ``prefixes`` are the ids of its probes at each look; before ``first`` it has too few and says nothing. ``raw``
    (m, looks) are the scores of the null, one row per root, ``own`` (looks,) those of the owner's model asked again.
    ``tail`` is how far spent models reach, so that members with long tails do not set the bar for all. A member that
    does not ``count`` is shown, and no part of the joint test. An exact method has neither a scale nor a null.
    """

    method: "Method"
    fp: Fingerprint
    prefixes: tuple[tuple[str, ...], ...]
    first: int
    exact: bool
    scale: Standardiser | None
    own: Array
    raw: Array
    tail: float = 1.0
    counts: bool = True

    @cached_property
    def weights(self) -> Array:
        """What scores count at each look (looks,): few answers make long tails, the later looks decide more surely.

        Source: O'Brien and Fleming, Biometrics 35(3), 1979.
        """
        sizes = np.array([max(len(p), 1) for p in self.prefixes], dtype=float)
        return np.asarray((sizes / sizes[-1]) ** EARLY)

    @cached_property
    def null(self) -> Array:
        """The null's scores (m, looks) on the scale of the spent models."""
        return self.standardised(self.raw)

    @cached_property
    def halfway(self) -> Array:
        """Scores (looks,) halfway between the null's mean and the owner's own model asked again."""
        return np.asarray((self.own + self.raw.mean(axis=0)) / 2 if len(self.raw) else self.own)

    def path(self, observation: Observation, looks: int) -> Array:
        """Scores (looks,) of one observation, NaN where the method says nothing yet."""
        found = np.full(looks, np.nan)
        if self.first < looks:
            found[self.first :] = self.method.path(self.fp, observation, self.prefixes[self.first : looks])
        return found

    def standardised(self, path: Array) -> Array:
        """Scores in units of what innocent models vary by; minus infinity where there is none."""
        found = np.full(path.shape, -np.inf)
        if self.scale is not None and self.first < path.shape[-1]:
            weights = self.weights[self.first : path.shape[-1]]
            found[..., self.first :] = self.scale.transform(path[..., self.first :]) * weights / self.tail
        return found

    def significance(self, path: Array) -> Significance:
        """Of an exact method: what its scores are worth by themselves."""
        known = path[self.first :]
        if not self.exact or not len(known) or np.isnan(known).any():
            return NONE
        sizes = np.array([len(p) for p in self.prefixes[self.first :]])
        return self.method.exact(self.fp, known, sizes) or NONE


@dataclass(frozen=True, eq=False)
class Yardstick:
    """Everything about one set of usable probes that does not depend on the suspect.

    A plain method is one column; a portfolio has one per member. ``shows`` is how many scores per answer are looked at,
    of everybody alike.
    """

    looks: tuple[int, ...]
    columns: tuple[Column, ...]
    shows: int
    m: int

    @cached_property
    def ranked(self) -> tuple[Column, ...]:
        """Columns that are judged together by rank among the null."""
        return tuple(c for c in self.columns if c.counts and not c.exact)

    @cached_property
    def exact(self) -> tuple[Column, ...]:
        """Columns whose p-values need no null models."""
        return tuple(c for c in self.columns if c.counts and c.exact)

    @cached_property
    def highest(self) -> Array:
        """The largest standardised score (m,) of each null model over columns and looks."""
        return np.max([c.null.max(axis=1) for c in self.ranked], axis=0) if self.ranked else np.empty(0)

    def path(self, observation: Observation) -> Array:
        """Scores (columns, looks) of one observation at the looks it reached."""
        reached = sum(look <= len(observation.asked) for look in self.looks)
        shown = observation.showing(self.shows)
        return np.array([c.path(shown, reached) for c in self.columns]).reshape(len(self.columns), reached)

    def standardised(self, path: Array) -> Array:
        """Of the ranked columns: standardised scores (ranked, looks)."""
        rows = [c.standardised(p) for c, p in zip(self.columns, path, strict=True) if c in self.ranked]
        return np.array(rows).reshape(len(rows), path.shape[1])

    def shown(self, path: Array) -> Array:
        """The one number per look (looks,) that a reader is shown: the score, or of several the joint maximum."""
        if len(self.columns) == 1:
            return np.asarray(path[0])
        return np.asarray(self.standardised(path).max(axis=0) if self.ranked else path.max(axis=0))

    @cached_property
    def innocent(self) -> Array:
        """What a reader is shown of the null models (m, looks)."""
        if len(self.columns) == 1:
            return self.columns[0].raw
        return np.max([c.null for c in self.ranked], axis=0) if self.ranked else np.empty((0, len(self.looks)))

    def significance(self, path: Array) -> Significance:
        """Joint test of one model's scores; H0: it is one more model of the null's population.

        The largest standardised score over methods and looks is ranked among the null's; exact methods enter as
        e-values among themselves. The split between the two parts is fixed by the fingerprint.
        """
        return self._combined(self._rank(self.standardised(path)), path)

    def convicts(self, path: Array, alpha: float) -> bool:
        """Whether H0 is rejected by a score that is nearer to the owner's own than to the null's mean.

        The second condition only makes the test more careful: a suspect may be unlike the null because it comes
        from another rung of the ladder, and still be nowhere near the owner's model. Exact tests need no such care.
        """
        seen = self.standardised(path)
        rows = [row for row, c in zip(path, self.columns, strict=True) if c in self.ranked]
        near = [row >= c.halfway[: len(row)] for row, c in zip(rows, self.ranked, strict=True)]
        careful = np.where(np.array(near).reshape(seen.shape), seen, -np.inf)
        return rejects(self._combined(self._rank(careful), path), alpha)

    def against(self, paths: Array) -> "Yardstick":
        """The same yardstick with other null models, whose paths (m, columns, looks) are known."""
        columns = [replace(c, raw=paths[:, k]) for k, c in enumerate(self.columns)]
        return Yardstick(self.looks, tuple(columns), self.shows, len(paths))

    def _rank(self, seen: Array) -> Significance:
        if not self.ranked or not self.m:
            return NONE
        if not seen.size or np.isneginf(seen.max()):
            return Significance(1.0, 1 / (1 + self.m), "rank")
        return rank_p(seen.max(), self.highest)

    def _combined(self, rank: Significance, path: Array) -> Significance:
        if not self.exact:
            return rank
        found = [c.significance(row) for row, c in zip(path, self.columns, strict=True) if c in self.exact]
        parts = [p for p in found if p.p is not None]
        if not self.ranked:
            return _averaged(parts)
        return combine_rank_exact(rank, _averaged(parts))


def _averaged(parts: Sequence[Significance]) -> Significance:
    """Exact p-values as e-values among themselves, whatever their dependence; one alone stays as it is.

    With an assumed one among them the whole is assumed, with the largest measured bound.
    """
    if len(parts) < 2:
        return parts[0] if parts else NONE
    p = e_to_p(average([p_to_e(part.p) for part in parts if part.p is not None]))
    floor = e_to_p(average([p_to_e(part.floor or 0.0) for part in parts]))
    bounds = [part.measured_bound for part in parts if part.kind == "assumed"]
    known = all(b is not None for b in bounds)
    bound = max((b for b in bounds if b is not None), default=None) if known else None
    return Significance(max(p, floor), floor, "assumed" if bounds else "exact", e_value=1 / p, measured_bound=bound)


def rejects(significance: Significance, alpha: float) -> bool:
    """Whether H0 is rejected; a little slack for the rounding of k/(m+1)."""
    return significance.decides and significance.p is not None and significance.p <= alpha + 1e-12


@lru_cache(maxsize=16)
def yardstick(
    method: "Method",
    fp: Fingerprint,
    null: Null,
    lost: frozenset[str] = frozenset(),
    shows: int = EVERYTHING,
    read: bool = True,
) -> Yardstick:
    """Score spent models and calibrators at every look on the probes that were not lost.

    ``shows`` is how many scores per answer the suspect tells, ``read`` whether its weights were open. What a suspect
    does not show is not looked at in the null either. Kept between calls, because a verdict that looks early asks for
    the same one at every look.
    """
    known = (*null.observations, *fp.reference, *fp.controls["owner"])
    read = read and all(o.arrays for o in known)
    parts = [(m, part) for m, part in method.columns(fp) if read or not m.reads]
    looks, usable = _looks(fp, lost, bool(parts) and all(m.reads for m, _ in parts))
    shows = min([shows, *(o.shows for o in known)])
    reference, calibrators, own = (
        [o.showing(shows) for o in some] for some in (fp.reference, null.observations, fp.controls["owner"])
    )
    columns = [_column(m, part, usable, len(parts) > 1, reference, calibrators, own) for m, part in parts]
    if len(parts) > 1:
        copies = {kind: [o.showing(shows) for o in some] for kind, some in fp.controls.items() if kind != "owner"}
        columns = _by_coverage(columns, copies)
    columns = [replace(c, counts=c.counts and not _is_shared(c, null.observations[:LOOKED_AT])) for c in columns]
    return Yardstick(looks, tuple(columns), shows, null.m)


def _by_coverage(columns: Sequence[Column], copies: Mapping[str, Sequence[Observation]]) -> list[Column]:
    """Larger units for members that recognise fewer of the stored copies than the best one; far behind, none counts.

    A member that sees little and strays far would otherwise set a bar that the evidence of the best cannot pass; its
    own evidence must be the stronger for it. The best two always count: one alone could be evaded. All of it is fixed
    by the owner's own copies, before any suspect is seen.
    """
    share = [_coverage(column, copies) for column in columns]
    ranked = sorted((s for s, c in zip(share, columns, strict=True) if not c.exact), reverse=True)
    if not ranked:
        return list(columns)
    least = min([ranked[0] - BEHIND, *ranked[1:2]])
    return [
        c if c.exact else replace(c, tail=c.tail * (1 + STRETCH * (ranked[0] - s)), counts=s >= least)
        for s, c in zip(share, columns, strict=True)
    ]


def _is_shared(column: Column, unrelated: Sequence[Observation]) -> bool:
    """Whether an exact test of weights rejects H0 of models that are unrelated by declaration.

    Then they and the owner's model have an ancestor in common, a public one, and what a suspect shares with the owner
    says nothing either: the question is whether it is independent given that ancestor, which only the rank answers.
    """
    if not (column.exact and column.method.reads):
        return False
    found = (column.significance(column.path(o, len(column.prefixes))) for o in unrelated)
    return any(s.p is not None and s.p <= SHARED for s in found)


def _coverage(column: Column, copies: Mapping[str, Sequence[Observation]]) -> float:
    """The share of stored copies, every kind alike, that come halfway from spent models to the owner's own score.

    The null has no part in it: units that hang on it would treat its models and the suspect differently.
    """
    if column.exact or column.scale is None:
        return 0.0
    halfway = (column.own[column.first :] + column.scale.mean) / 2
    found = [
        [bool((p[column.first :] >= halfway).any()) for p in _paths(column, some)] for some in copies.values() if some
    ]
    return float(np.mean([np.mean(kind) for kind in found])) if found else 0.0


def _looks(fp: Fingerprint, lost: frozenset[str], reads: bool) -> tuple[tuple[int, ...], list[tuple[str, ...]]]:
    """The looks at which something new arrived, and what had arrived."""
    looks, usable = [], list[tuple[str, ...]]()
    for look in fp.schedule:
        arrived = tuple(i for i in fp.probes.ids[:look] if i not in lost)
        if (arrived or reads) and (not usable or len(arrived) > len(usable[-1])):
            looks.append(look)
            usable.append(arrived)
    if not usable and not len(fp.probes):
        raise UsageError(
            "expected a suspect whose weights are open, got one behind an interface: no member asks anything"
        )
    if not usable:
        raise ProtocolError("expected at least one answer that arrived, got none: ask the suspect again")
    return tuple(looks), usable


def _column(
    method: "Method",
    fp: Fingerprint,
    usable: Sequence[tuple[str, ...]],
    member: bool,
    reference: Sequence[Observation],
    calibrators: Sequence[Observation],
    own: Sequence[Observation],
) -> Column:
    mine = frozenset(fp.probes.ids)
    prefixes = tuple(tuple(i for i in arrived if i in mine) for arrived in usable)
    least = min(LEAST_ANSWERS, len(mine)) if member else 0
    first = next((at for at, p in enumerate(prefixes) if len(p) >= least), len(prefixes))
    blank = Column(method, fp, prefixes, first, method.is_exact, None, np.empty(0), np.empty((0, len(prefixes))))
    if method.is_exact:
        return blank
    sizes = np.array([len(p) for p in prefixes[first:]])
    scale = method.scale(_paths(blank, reference)[:, first:], sizes) if len(sizes) else None
    raw = _strongest_per_root(calibrators, _paths(blank, calibrators))
    column = replace(blank, scale=scale, own=_paths(blank, own)[0], raw=raw)
    return replace(column, tail=_reach(column, reference)) if member and len(reference) > 1 else column


def _reach(column: Column, spent: Sequence[Observation]) -> float:
    """The member's unit: what one innocent model in a thousand would reach, or half of the owner's own score if larger.

    The first is read off the spent models by an exponential tail above their upper quartile: members differ in how far
    innocent models stray, and a long tail in one would set the bar for all the others. The second is where a match of
    that member begins anyway (see ``convicts``). Both are fixed before any suspect is seen.
    """
    highest = np.sort(column.standardised(_paths(column, spent)).max(axis=1))
    own = column.standardised(column.own).max()
    if not np.isfinite([*highest, own]).all():
        return 1.0
    quartile = float(np.quantile(highest, 0.75))
    excess = float((highest[highest >= quartile] - quartile).mean())
    return max(1.0, quartile + excess * RARE, float(own) / 2)


def _paths(column: Column, observations: Sequence[Observation]) -> Array:
    """Scores (models, looks); an empty set of models gives an empty array of that width."""
    rows = [column.path(o, len(column.prefixes)) for o in observations]
    return np.array(rows, dtype=float).reshape(len(rows), len(column.prefixes))


def _strongest_per_root(seen: Sequence[Observation], paths: Array) -> Array:
    """One row per independent training: of several models with one root the highest score counts at each look."""
    rows: dict[str, Array] = {}
    for observation, path in zip(seen, paths, strict=True):
        root = observation.subject.root
        rows[root] = np.maximum(rows[root], path) if root in rows else path
    return np.array(list(rows.values())).reshape(len(rows), paths.shape[1])


@lru_cache(maxsize=16)
def powers(stick: Yardstick, fp: Fingerprint, alpha: float) -> Mapping[str, float]:
    """Share of the stored copies of each kind that would be convicted; with a null too small, at its smallest level."""
    kinds = sorted(fp.controls, key=lambda kind: (_place(fp.threats, kind), kind))
    share = RANK_SHARE if stick.exact else 1.0
    level = max(alpha, 1 / (share * (1 + stick.m))) if stick.ranked and stick.m else alpha
    return {kind: float(np.mean([stick.convicts(stick.path(o), level) for o in fp.controls[kind]])) for kind in kinds}


def _place(threats: Sequence[str], kind: str) -> int:
    """Kinds are told in the order of the threat list, whatever file the fingerprint came from."""
    return threats.index(kind) if kind in threats else len(threats)
