"""What two checkpoints are to each other, and what says so."""

from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

import numpy as np

from minutia.core.digest import Array
from minutia.core.verdict import Outcome

SCHEMA = "minutia.comparison/1"
Relation = Literal["derived", "shared ancestor or initialisation", "unrelated", "undecided"]
LEAST = 1e-12
"""No p-value is given below this: nobody's assumptions hold any further."""
RELATED = 0.1
"""Share of units from which on a layer is called related: independent models reach half of it at most."""


@dataclass(frozen=True)
class Kinship:
    """Matched rows of one layer: their median ``cosine``, and the regression slopes of either on the other.

    ``there`` is the slope of the second's weights on the first's: 1 where the second is the first and changes that
    have nothing to do with it. Two that grew from a common start have both slopes below 1, for neither holds what the
    other has learnt.

    >>> parent = np.eye(2)
    >>> Kinship.of(parent, parent + np.array([[0.0, 0.5], [0.5, 0.0]])).there
    1.0
    """

    cosine: float
    there: float
    back: float

    @classmethod
    def of(cls, first: Array, second: Array) -> Self:
        """Of matched rows (n, d) of both."""
        inner = np.sum(first * second, axis=1, dtype=np.float64)
        sizes = [np.sum(rows * rows, axis=1, dtype=np.float64) for rows in (first, second)]
        cosine = inner / np.sqrt(np.maximum(sizes[0] * sizes[1], 1e-300))
        slopes = (float(inner.sum() / max(size.sum(), 1e-300)) for size in sizes)
        return cls(float(np.median(cosine)), *slopes)


@dataclass(frozen=True)
class LayerMatch:
    """One layer of the first and its partner in the second: the share of units that match, and how alike they are.

    ``kinship`` is None where no unit matches.
    """

    first: int
    second: int
    name: str
    share: float
    kinship: Kinship | None = None

    @property
    def related(self) -> bool:
        """Whether more units match than independent models' may."""
        return self.share > RELATED and self.kinship is not None


@dataclass(frozen=True)
class Comparison:
    """What two checkpoints are to each other.

    ``null`` is the kind of null that decided: ``exact`` (order of units, turned streams) or ``assumed`` (shares
    against an allowance and against mismatched layers); ``test`` names it, ``tests`` holds the p-value of each that
    was run, before alpha was split among them. ``strip`` tells layer by layer; ``merged`` is the share of one in the
    other where it looks like an average. ``baselines`` are weak measures that never decide; ``notes`` say in words
    what was not, or could not be, compared.

    >>> Comparison("unrelated", 1.0, "exact", "unit order", "two trainings", 0.01).outcome
    'no-match'
    """

    relation: Relation
    p_value: float
    null: Literal["exact", "assumed", "none"]
    test: str
    h0: str
    alpha: float
    tests: tuple[tuple[str, float], ...] = ()
    strip: tuple[LayerMatch, ...] = ()
    merged: float | None = None
    baselines: tuple[tuple[str, float | None], ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def copied(self) -> tuple[str, ...]:
        """Names of the related layers of a derived one where others are not: those that were taken over."""
        related = [match.name for match in self.strip if match.related]
        return tuple(related) if self.relation == "derived" and len(related) < len(self.strip) else ()

    @property
    def outcome(self) -> Outcome:
        """Whether one was made from the other: a shared ancestor alone says neither yes nor no."""
        known: dict[Relation, Outcome] = {"derived": "match", "unrelated": "no-match"}
        return known.get(self.relation, "inconclusive")

    @property
    def exit_code(self) -> int:
        """0 derived, 1 unrelated, 3 otherwise."""
        return {"match": 0, "no-match": 1, "inconclusive": 3}[self.outcome]

    def plain(self) -> dict[str, Any]:
        """As one JSON-ready mapping with a schema version; what was not measured is None."""
        measured = bool(self.tests)
        return {
            "schema": SCHEMA,
            "outcome": self.outcome,
            "relation": self.relation,
            "question": "origin",
            "h0": self.h0,
            "p_value": self.p_value if measured else None,
            "null": {"kind": self.null, "test": self.test},
            "alpha": self.alpha,
            "tests": [{"test": test, "p_value": p} for test, p in self.tests],
            "layers": [asdict(match) | {"related": match.related} for match in self.strip],
            "copied": list(self.copied),
            "merged": self.merged,
            "baselines": dict(self.baselines),
            "notes": list(self.notes),
        }


@dataclass(frozen=True)
class Side:
    """One of the two checkpoints: where it lies, how many tensors and bytes it holds, how many of them were read."""

    spec: str
    tensors: int
    nbytes: int
    bytes_read: int
    formats: tuple[str, ...] = ()


@dataclass(frozen=True)
class Compatibility:
    """What two checkpoints of strangers may share as well: it says that they fit, never that they are related.

    ``shapes`` of ``tensors`` have one name and shape in both; None where a file that would tell is not there.
    """

    shapes: int
    tensors: int
    config: bool | None = None
    vocabulary: bool | None = None


@dataclass(frozen=True)
class Compared:
    """A comparison with the files that it was made from; None where sketches do not tell whether they fit."""

    comparison: Comparison
    first: Side
    second: Side
    compatibility: Compatibility | None

    def plain(self) -> dict[str, Any]:
        """As one JSON-ready mapping with a schema version."""
        fits = None if self.compatibility is None else asdict(self.compatibility)
        return self.comparison.plain() | {
            "first": asdict(self.first),
            "second": asdict(self.second),
            "compatibility": fits,
        }
