"""The portfolio: several methods asked at once and judged together by one p-value."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from minutia.core.access import Access, names
from minutia.core.answers import Observation
from minutia.core.digest import Array
from minutia.core.errors import ModelError, UsageError
from minutia.core.fingerprint import Fingerprint, Part, own_arrays
from minutia.core.material import Material
from minutia.core.method import Enrolment, Method
from minutia.core.model import Model
from minutia.core.probe import ProbeSet, numbered

BLOCK = 6
"""Probes of one member that are asked in a row: fewer say nothing by themselves."""
LEAST_TO_PART = 4
"""Unrelated models below which none is kept apart: members that learn then say that they need more."""
PATIENCE = 12
"""Probes after which a member's next block counts half: members take turns, the most telling one first."""


@dataclass(frozen=True)
class Portfolio(Method):
    """Several methods on one suspect: the union of their probes is asked once, and one p-value decides.

    H0: the suspect was trained without the owner's model. Every member is enrolled that the owner's access, the data
    and the models at hand allow; the others are named with the reason. Probes are asked in blocks, the members with
    the most evidence per query first. The verdict ranks the largest standardised score over members and looks among
    that of the null models; members that need no null enter as e-values among themselves and get a tenth of alpha. A
    member that is broken or evaded costs power and nothing else: the others still speak.

    Source: the joint maximum of Westfall and Young, "Resampling-Based Multiple Testing", Wiley 1993; Vovk and Wang,
    Annals of Statistics 49(3), 2021 (e-values).
    """

    name = "portfolio"
    h0 = "the suspect was trained without my model: it is one more model of the null's population"
    source = "Westfall and Young, Wiley 1993"
    owner_needs = Access.LABELS
    suspect_needs = Access.LABELS

    methods: tuple[Method, ...] = ()

    def __post_init__(self) -> None:
        keys = [method.key for method in self.methods]
        inner = [m for m in self.methods if isinstance(m, Portfolio) or m.question != "origin"]
        if len(keys) < 2 or len(set(keys)) < len(keys) or inner:
            raise UsageError(f"expected two or more different methods for the question 'origin', got {'+'.join(keys)}")
        reads = Access(0)
        for method in self.methods:
            reads |= method.reads
        object.__setattr__(self, "reads", reads)
        object.__setattr__(self, "learns", any(method.learns for method in self.methods))
        object.__setattr__(self, "serves", frozenset().union(*(method.serves for method in self.methods)))

    @property
    def key(self) -> str:
        """The keys of the members, joined by a plus."""
        return "+".join(method.key for method in self.methods)

    def enrol(self, model: Model, material: Material, rng: np.random.Generator) -> Enrolment:
        """Enrol every member that can be, and put their probes into one order."""
        fit, screen = _parted(material)
        made: dict[int, Enrolment] = {}
        why = [""] * len(self.methods)
        for place, (method, own) in enumerate(zip(self.methods, rng.spawn(len(self.methods)), strict=True)):
            found = _enrolled(method, model, fit, own)
            if isinstance(found, str):
                why[place] = found
            else:
                made[place] = found
        if not made:
            raise UsageError(
                f"expected a model that some method of the portfolio can enrol, got {model.spec}: {why[0]}"
            )
        nothing = np.empty(0)
        order = turns([_value(made[i].probes, screen, model) if i in made else nothing for i in range(len(why))])
        content = [made[place].probes.content[row] for place, row in order]
        empty = np.empty((0, *material.inputs.shape[1:]), np.float32)
        probes = numbered(np.array(content) if content else empty, {"channel": "array"})
        arrays = {f"{place}.{name}": array for place, found in made.items() for name, array in found.arrays.items()}
        rows = [tuple(i for i, (member, _) in enumerate(order) if member == place) for place in range(len(why))]
        members = tuple(Part(m.key, *part) for m, part in zip(self.methods, zip(rows, why, strict=True), strict=True))
        fitted = frozenset(m.card.root for m in fit.unrelated) if screen.unrelated else frozenset[str]()
        return Enrolment(probes, arrays, fitted, members)

    def columns(self, fp: Fingerprint) -> Sequence[tuple[Method, Fingerprint]]:
        """Every enrolled member with its part of the fingerprint."""
        return _columns(self, fp)

    def read(self, model: Model, arrays: Mapping[str, Array]) -> dict[str, Array]:
        """What the members read off weights that are open."""
        found: dict[str, Array] = {}
        for place, method in enumerate(self.methods):
            if method.reads and method.reads in model.access:
                found |= method.read(model, own_arrays(arrays, place))
        return found

    def score(self, fp: Fingerprint, observation: Observation) -> float:
        """A portfolio has a score only beside a null."""
        raise UsageError("expected one method to score with, got a portfolio: judge it, or score its members")


@lru_cache(maxsize=32)
def _columns(portfolio: Portfolio, fp: Fingerprint) -> tuple[tuple[Method, Fingerprint], ...]:
    """Cut once: every look of a verdict asks for them."""
    known = {method.key: method for method in portfolio.methods}
    return tuple((known[part.method], fp.member(i)) for i, part in enumerate(fp.members) if not part.why)


def turns(values: Sequence[Array]) -> list[tuple[int, int]]:
    """The order of asking, as (member, row): blocks of each member in its own order, the most telling block first.

    ``values`` hold for each member what each of its probes is worth. What a member is worth falls the more of it has
    been asked, so that all get their turn.

    >>> turns([np.ones(7), np.full(6, 0.8)])[5:8]
    [(0, 5), (1, 0), (1, 1)]
    """
    taken, order = [0] * len(values), list[tuple[int, int]]()
    while left := [m for m, v in enumerate(values) if taken[m] < len(v)]:
        best = max(left, key=lambda m: values[m][taken[m] : taken[m] + BLOCK].mean() * 0.5 ** (taken[m] / PATIENCE))
        upto = min(taken[best] + BLOCK, len(values[best]))
        order += [(best, row) for row in range(taken[best], upto)]
        taken[best] = upto
    return order


def _parted(material: Material) -> tuple[Material, Material]:
    """Models for members to fit on, with those that screen kept apart; with too few, nobody screens."""
    if len({m.card.root for m in material.unrelated}) < LEAST_TO_PART:
        return material, replace(material, unrelated=(), derived=(), surrogates=())
    fit, screen = material.parted()
    return replace(fit, screening=screen), screen


def _enrolled(method: Method, model: Model, material: Material, rng: np.random.Generator) -> Enrolment | str:
    """One member enrolled, or why it cannot be."""
    try:
        return _missing(method, model, material) or method.enrol(model, material, rng)
    except (ModelError, UsageError) as error:
        return str(error)


def _value(probes: ProbeSet, screen: Material, model: Model) -> Array:
    """How much more often copies than innocent models give the owner's label (n,), on models that only screen."""
    if not len(probes):
        return np.empty(0)
    own = model.ask(probes).labels
    copies, innocents = (
        [m.ask(probes).labels == own for m in some]
        for some in ((*screen.derived, *screen.surrogates), screen.unrelated)
    )
    rate = np.mean(copies, axis=0) if copies else np.ones(len(own))
    common = np.mean(innocents, axis=0) if innocents else np.zeros(len(own))
    return np.asarray(np.maximum(rate - common, 0.0))


def _missing(method: Method, model: Model, material: Material) -> str:
    """Why a method cannot enrol a model; empty if it can."""
    if method.owner_needs not in model.access:
        lacking = names(method.owner_needs & ~model.access)
        return f"the owner's model does not give {', '.join(lacking)}"
    if material.content not in method.serves:
        return f"it does not serve {material.content} data"
    return ""
