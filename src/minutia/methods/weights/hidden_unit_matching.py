"""Hidden-unit matching: whether the hidden units of two networks are the same, in the same order or in another."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from minutia.core.access import Access
from minutia.core.answers import Observation
from minutia.core.digest import Array
from minutia.core.errors import UsageError
from minutia.core.fingerprint import Fingerprint
from minutia.core.material import Material
from minutia.core.method import Enrolment, Method
from minutia.core.model import Model
from minutia.core.probe import numbered
from minutia.core.units import layered
from minutia.methods.weights.links import Links
from minutia.methods.weights.routes import Matching
from minutia.stats.matching import order_p, share_p
from minutia.stats.nulls import Significance

LEAST = 1e-12
"""No p-value is printed below this: nobody's assumptions hold any further."""
ALLOWANCE = 0.5
"""Share of units that may agree in independent networks, for they learn partly the same features."""
MEASURED = 0.01
"""Upper 95 % bound on the rate of p <= 0.01 among independent suspects: none of 372, for each of three owners."""
DRAW = 1904
"""Seed of the random orders that rank correlations are compared with."""


@dataclass(frozen=True)
class _ByUnits(Method, ABC):
    """What both tests share: they read weights, ask nothing, and compare hidden units."""

    source = "Zhu, Ahmed, Kuditipudi, Liang, ICML 2025, arXiv 2502.12292"
    owner_needs = Access.WEIGHTS | Access.FEATURES
    suspect_needs = Access.WEIGHTS | Access.FEATURES
    reads = Access.WEIGHTS | Access.FEATURES
    is_exact = True

    def enrol(self, model: Model, material: Material, rng: np.random.Generator) -> Enrolment:
        """Keep the owner's weights by unit; there is nothing to ask."""
        probes = numbered(np.empty((0, *material.inputs.shape[1:]), np.float32), {"channel": "weights"})
        return Enrolment(probes, self.read(model, {}))

    def read(self, model: Model, arrays: Mapping[str, Array]) -> dict[str, Array]:
        """The weights by hidden unit, batch norms folded in."""
        return Links.of(*layered(model, self.name)).arrays(self.name)

    def score(self, fp: Fingerprint, observation: Observation) -> float:
        """Minus the decimal logarithm of the p-value, at most 12; NaN where the suspect's weights are not open."""
        mine, theirs = (Links.from_arrays(a, self.name) for a in (fp.arrays, observation.arrays))
        if mine is None or theirs is None:
            return float("nan")
        return float(0.0 - np.log10(max(LEAST, self.p_value(Matching.of(mine, theirs)))))

    def path(self, fp: Fingerprint, observation: Observation, prefixes: Sequence[Sequence[str]]) -> Array:
        """The same at every look: weights are read once."""
        return np.full(len(prefixes), self.score(fp, observation))

    def exact(self, fp: Fingerprint, path: Array, sizes: Array) -> Significance | None:
        """The p-value, with the least that the owner's units can give."""
        floor = _floor(self, fp)
        return self.significance(max(floor, min(1.0, float(10.0 ** -path[-1]))), floor)

    @abstractmethod
    def p_value(self, matching: Matching) -> float:
        """What a matching of the owner's units with a suspect's is worth."""

    @abstractmethod
    def significance(self, p: float, floor: float) -> Significance:
        """The p-value with its kind."""


@lru_cache(maxsize=16)
def _floor(method: _ByUnits, fp: Fingerprint) -> float:
    """What the owner's own units are worth."""
    mine = Links.from_arrays(fp.arrays, method.name)
    assert mine is not None
    return max(LEAST, method.p_value(Matching.of(mine, mine)))


@dataclass(frozen=True)
class UnitOrder(_ByUnits):
    """The order test: every hidden unit is matched to the most similar one, and many stand in each other's place.

    H0: the suspect started from a random initialisation of its own, drawn unit by unit, and its training treats hidden
    units alike. Then the order of its units is random given everything else: in G groups, K or more units keep their
    place with a probability of at most G^K / K!, exactly and without other models. Units are compared by their incoming
    weights, with batch norms folded in and inputs in the order found for the groups before; the output layer, whose
    order is that of the classes, is left out. Where widths differ, the ranks of partners' places are compared instead.

    Fails with a shared seed or a public ancestor, and for layers in which places matter by construction. Evaded by
    shuffling units; ``unit_matching`` does not mind.

    Source: Zhu, Ahmed, Kuditipudi, Liang, "Independence Tests for Language Models", ICML 2025, arXiv 2502.12292. Other
    than there, p-values are exact: the asymptotic ones of a rank correlation are 0 for eight units in order.

    >>> UnitOrder().key
    'unit_order()@1'
    """

    name = "unit_order"
    h0 = "the suspect started from a random initialisation of its own, and its training treats hidden units alike"

    def p_value(self, matching: Matching) -> float:
        """Of the places in which partners stand."""
        return order_p(matching.orders(), np.random.default_rng(DRAW))

    def significance(self, p: float, floor: float) -> Significance:
        """Exact: the order is drawn by the suspect's own initialisation."""
        return Significance(p, floor, "exact")


@dataclass(frozen=True)
class UnitMatching(_ByUnits):
    """The in/out test: hidden units are matched twice, by weights that have nothing to do with each other.

    H0: the suspect was trained independently, and at most ``ALLOWANCE`` of its units are matched alike by what makes
    them and by what reads them. A copy's units are matched alike in any order and at any positive scale; where
    activations are odd or otherwise not homogeneous, of either sign. Batch norms are folded in. The last group is
    matched by two halves of what makes it, because its readers are the classes, which a thief may train anew and by
    which independent networks are alike. A network with one hidden layer has no two routes and is refused.

    Independent networks learn partly the same features, so agreement by chance is no null: of the 76 units of a small
    convolutional network 3 are matched alike by chance, 13 on average and 31 at most in 6,000 pairs of independent
    networks of one recipe, and all but one at least in copies. The p-value is the binomial tail at the allowance. It is
    assumed, not exact: how much independent networks agree was measured on small ones.

    Source: phi_MATCH of Zhu, Ahmed, Kuditipudi, Liang, "Independence Tests for Language Models", ICML 2025, arXiv
    2502.12292. Other than there, agreement is held against an allowance and not against random orders, by which
    independent networks are accused; the routes through other hidden units are ours.

    >>> UnitMatching().key
    'unit_matching()@1'
    """

    name = "unit_matching"
    h0 = "the suspect was trained independently, and fewer than half of its hidden units match mine alike by two routes"

    def enrol(self, model: Model, material: Material, rng: np.random.Generator) -> Enrolment:
        """Keep the owner's weights by unit; refuse a network whose hidden units have no two routes."""
        enrolled = super().enrol(model, material, rng)
        mine = Links.from_arrays(enrolled.arrays, self.name)
        if mine is None or not Matching.of(mine, mine).agreement()[1]:
            raise UsageError(
                f"expected two or more hidden layers in a row for {self.name}, got fewer in {model.spec}: "
                "use unit_order, which needs one"
            )
        return enrolled

    def p_value(self, matching: Matching) -> float:
        """Of the units that are matched alike."""
        return share_p(*matching.agreement(), ALLOWANCE)

    def significance(self, p: float, floor: float) -> Significance:
        """Assumed, with the bound that was measured."""
        return Significance(p, floor, "assumed", measured_bound=MEASURED)
