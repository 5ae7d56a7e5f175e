"""The fingerprint and the null: frozen values with a digest."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, NamedTuple

from minutia.core.answers import Answers, Observation, Status
from minutia.core.digest import Array, content_digest
from minutia.core.errors import NullError, ProtocolError, UsageError
from minutia.core.model import ModelCard
from minutia.core.probe import ProbeSet

FORMAT = 1
THREATS = (
    "fine-tune-last",
    "fine-tune-all",
    "retrain-last",
    "prune",
    "quantise",
    "noise",
    "distil",
    "extract-labels",
)
"""The kinds of copy that a fingerprint declares by default; ``no-match`` needs every one of them ruled out."""

HARDEST_RUNG = "same data and recipe, other seed"


class Part(NamedTuple):
    """One method of a portfolio: its key, the rows of the common probes that are its own, and why it is left out."""

    method: str
    rows: tuple[int, ...]
    why: str = ""


@dataclass(frozen=True, eq=False)
class Fingerprint:
    """What the owner enrolled: probes in order of asking, his answers, and the controls.

    ``reference`` are the answers of spent models (they screened the probes and scale the looks), ``spent`` their
    roots. ``controls`` are answers of the owner's model asked again ("owner") and of stored copies per kind.
    ``schedule`` are the looks of the path test, ``threats`` the kinds that ``no-match`` must rule out. ``members`` are
    the methods of a portfolio, whose arrays are named by their place ("0.weights").
    """

    method: str
    question: str
    owner: ModelCard
    probes: ProbeSet
    answers: Answers
    arrays: Mapping[str, Array]
    controls: Mapping[str, tuple[Observation, ...]]
    reference: tuple[Observation, ...]
    spent: frozenset[str]
    schedule: tuple[int, ...]
    threats: tuple[str, ...]
    binds: tuple[str, ...]
    seed: int
    format: int = FORMAT
    members: tuple[Part, ...] = ()

    def __post_init__(self) -> None:
        looks = (0, *self.schedule) if len(self.probes) else (-1, *self.schedule)
        stored = [*self.reference, *(o for some in self.controls.values() for o in some)]
        fine = {
            "answers to all probes": len(self.answers) == len(self.probes),
            "looks that grow to the last probe": looks[-1] == len(self.probes) and list(looks) == sorted(set(looks)),
            "the owner's model asked again": bool(self.controls.get("owner")),
            "stored models that answered its probes": all(_answered(o, self.probes) for o in stored),
        }
        missing = [what for what, found in fine.items() if not found]
        if missing:
            raise UsageError(f"expected a fingerprint with {missing[0]}, got one without: extract it again")

    def header(self) -> dict[str, Any]:
        """Everything but arrays and observations, as plain data."""
        return {
            "format": self.format,
            "method": self.method,
            "question": self.question,
            "owner": self.owner.plain(),
            "ids": list(self.probes.ids),
            "protocol": dict(self.probes.protocol),
            "probes": self.probes.digest,
            "spent": sorted(self.spent),
            "schedule": list(self.schedule),
            "threats": list(self.threats),
            "binds": list(self.binds),
            "seed": self.seed,
            **(
                {"members": [[part.method, list(part.rows), part.why] for part in self.members]} if self.members else {}
            ),
        }

    def member(self, place: int) -> "Fingerprint":
        """One method of a portfolio as a fingerprint of its own, with its probes under their common names."""
        part = self.members[place]
        probes = self.probes.take(part.rows)

        def cut(some: Sequence[Observation]) -> tuple[Observation, ...]:
            return tuple(replace(o.only(probes.ids), protocol=probes.digest) for o in some)

        return replace(
            self,
            method=part.method,
            probes=probes,
            answers=self.answers.take(part.rows),
            arrays=own_arrays(self.arrays, place),
            controls={kind: cut(some) for kind, some in self.controls.items()},
            reference=cut(self.reference),
            schedule=(len(probes),),
            members=(),
        )

    @cached_property
    def digest(self) -> str:
        """Digest of the whole value; the same seed gives the same digest."""
        controls = {k: [o.digest for o in v] for k, v in self.controls.items()}
        observations = {"controls": controls, "reference": [o.digest for o in self.reference]}
        arrays = {f"answers.{k}": v for k, v in self.answers.arrays().items()}
        return content_digest([self.header(), observations], {**arrays, **self.arrays})


@dataclass(frozen=True, eq=False)
class Null:
    """Innocent models' answers to a fingerprint's probes: observations, so that they can be scored again.

    ``source`` says in words where the models come from, ``rung`` which step of the negative ladder they are.
    """

    kind: Literal["unrelated", "benign", "none"]
    observations: tuple[Observation, ...]
    rung: str = HARDEST_RUNG
    source: str = ""

    @classmethod
    def none(cls) -> "Null":
        """No null at all: scores can be shown, nothing can be decided.

        >>> Null.none().m
        0
        """
        return cls("none", (), rung="", source="none given")

    @cached_property
    def m(self) -> int:
        """Number of independently trained models (distinct roots)."""
        return len({o.subject.root for o in self.observations})

    @cached_property
    def digest(self) -> str:
        """Digest of kind, rung and every observation."""
        return content_digest([self.kind, self.rung, [o.digest for o in self.observations]], {})

    def check(self, fingerprint: Fingerprint) -> None:
        """Refuse a null that answered other probes, was spent in crafting, or descends from the owner."""
        for seen in self.observations:
            if seen.protocol != fingerprint.probes.digest:
                raise ProtocolError(
                    f"expected a null observed with probes {fingerprint.probes.digest[:19]}…, got "
                    f"{seen.protocol[:19]}…: run 'minutia null observe' for this fingerprint"
                )
            if seen.asked != fingerprint.probes.ids or (seen.answers.status == Status.FAILED).any():
                raise NullError(
                    f"expected answers of {seen.subject.id} to all probes, got lost ones: observe it again, "
                    "what was lost would count as no match and make the p-value too small"
                )
            if seen.subject.root in fingerprint.spent:
                raise NullError(
                    f"expected calibrators that took no part in crafting, got spent model {seen.subject.root}: "
                    "remove it from the null, it would make the p-value too small"
                )
            if seen.subject.root == fingerprint.owner.root:
                raise NullError(
                    f"expected unrelated models, got {seen.subject.id} that shares the owner's root: "
                    "remove it from the null"
                )

    def joined(self, other: "Null") -> "Null":
        """Both nulls as one population; they must be of one rung.

        >>> Null.none().joined(Null.none()).m
        0
        """
        if not self.observations or not other.observations:
            return other if not self.observations else self
        if (self.kind, self.rung) != (other.kind, other.rung):
            raise NullError(
                f"expected one declared population, got {self.rung!r} and {other.rung!r}: judge with each by itself"
            )
        known = {o.digest for o in self.observations}
        fresh = tuple(o for o in other.observations if o.digest not in known)
        sources = self.source if self.source == other.source else f"{self.source}; {other.source}"
        return Null(self.kind, self.observations + fresh, self.rung, sources)


def own_arrays(arrays: Mapping[str, Array], place: int) -> dict[str, Array]:
    """Of a portfolio's arrays those of one member, under the names that it gave them.

    >>> import numpy as np
    >>> own_arrays({"0.weights": np.zeros(1), "1.weights": np.ones(1)}, 1)
    {'weights': array([1.])}
    """
    mark = f"{place}."
    return {name.removeprefix(mark): array for name, array in arrays.items() if name.startswith(mark)}


def _answered(seen: Observation, probes: ProbeSet) -> bool:
    return seen.asked == probes.ids and seen.protocol == probes.digest
