"""Shared by methods whose probes lie near a decision boundary: what survives storage, and in which order to ask."""

from collections import Counter
from collections.abc import Hashable, Sequence

import numpy as np

from minutia.core.digest import Array
from minutia.core.model import Model, WeightModel
from minutia.core.probe import numbered

GOOD = 0.6
"""Probes with this share of the best one's evidence are as good as any: turns over facets count more."""


def in_turns(
    bits: Array, innocents: Array, facets: Array, count: int, tolerated: float, rng: np.random.Generator
) -> Array:
    """Rows of the ``count`` most informative probes, facets taking turns.

    What more than a share ``tolerated`` of ``innocents`` (b, n) match comes only if nothing else is left. Probes on one
    facet are matched or missed together, so evidence counts double only across facets: each look should see as many as
    it can. ``bits`` (n,) is the evidence of each probe, ``facets`` (n, 2) the owner's label there and the one it meets.
    """
    rate = innocents.mean(axis=0) if len(innocents) else np.zeros(len(bits))
    tier = 2 * (rate > tolerated) + (bits < GOOD * bits.max())
    best = np.lexsort((rng.random(len(bits)), -bits, tier))
    on_facet = turns(best, list(zip(tier, facets[:, 0], facets[:, 1], strict=True)))
    by_facet = best[np.lexsort((on_facet[best], tier[best]))]
    on_label = turns(by_facet, list(zip(tier, facets[:, 0], strict=True)))
    return best[np.lexsort((on_label[best], tier[best]))][:count]


def turns(order: Array, groups: Sequence[Hashable]) -> Array:
    """How many of its own group come before each item in this order.

    >>> turns(np.array([2, 0, 1]), ["a", "b", "a"]).tolist()
    [1, 0, 0]
    """
    places, seen = np.zeros(len(order), dtype=int), Counter[Hashable]()
    for item in order:
        places[item] = seen[groups[item]]
        seen[groups[item]] += 1
    return places


def agreed_labels(model: Model, points: Array) -> Array:
    """The owner's labels (n,), -1 where they depend on the batch they are asked in."""
    if not len(points):
        return np.empty(0, dtype=int)
    together = model.ask(numbered(points, {})).labels
    apart = np.concatenate([model.ask(numbered(part, {})).labels for part in np.array_split(points, 7) if len(part)])
    return np.where(together == apart, together, -1)


def margins(logits: Array) -> Array:
    """Distance between the two largest logits (n,).

    >>> margins(np.array([[1.0, 5.0, 3.5]])).tolist()
    [1.5]
    """
    top = np.partition(logits, -2, axis=1)[:, -2:]
    return np.asarray(top[:, 1] - top[:, 0])


def noisy_twins(model: Model, rng: np.random.Generator, count: int = 8, strength: float = 0.1) -> list[Model]:
    """Copies of the owner's weights with noise, to estimate which answers a copy keeps; none without weights."""
    if not isinstance(model, WeightModel):
        return []
    weights = dict(model.tensors())
    twins: list[Model] = []
    for _ in range(count):
        noise = {n: rng.normal(0, strength * float(w.std()), w.shape) for n, w in weights.items()}
        twins.append(model.rebuilt({n: (w + noise[n]).astype(w.dtype) for n, w in weights.items()}))
    return twins
