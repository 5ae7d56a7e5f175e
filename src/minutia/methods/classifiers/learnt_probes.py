"""Probes and verifier learnt together: MetaV's one verifier for all, LiteGuard's small one for each probe."""

from collections.abc import Sequence

import numpy as np

from minutia.core.digest import Array
from minutia.core.material import Material
from minutia.core.model import GradientModel, Model
from minutia.methods.classifiers.crafting import ascend, softmax
from minutia.methods.classifiers.ensembles import answered, by_recipe, differentiable
from minutia.methods.classifiers.verifiers import Descent, Verifier

SOFTEST = 1e-3
"""Probabilities below this count as this in the features."""
BATCH = 64
REFITS = 400
"""Steps in which the verifier alone is fitted on the finished probes."""


def readable(probabilities: Array) -> Array:
    """Features (…, classes): centred log-probabilities, cut off where they say only how sure a model is.

    >>> readable(np.array([0.5, 0.5])).tolist()
    [0.0, 0.0]
    """
    logs = np.log(np.clip(probabilities, SOFTEST, 1))
    return np.asarray((logs - logs.mean(axis=-1, keepdims=True)) / -np.log(SOFTEST))


def learn(
    model: GradientModel,
    copies: Sequence[Model],
    innocents: Sequence[Model],
    starts: Array,
    material: Material,
    steps: int,
    ensemble: int,
    hidden: int,
    local: bool,
    rng: np.random.Generator,
) -> tuple[Array, Verifier]:
    """Points (n, *shape) and a verifier, from alternating steps on a few models of each side.

    Every kind of copy enters alike. Checkpoints of one training are models like any other here: they help to fit and
    are never counted. At the end the points are stored and the verifier is fitted once more on what is left of them.
    """
    able, others = (differentiable(some, model, starts) for some in (copies, innocents))
    sides = by_recipe([model, *able]), by_recipe(others)
    classes = model.linearise(starts[:1])[0].shape[1]
    verifier = Verifier.fresh(len(starts), classes, hidden, local, rng)
    descent, low, high = Descent(verifier), *material.bounds
    truth = np.repeat([1.0, 0.0], ensemble)

    def gradient(points: Array) -> Array:
        drawn = [
            kinds[k][rng.integers(len(kinds[k]))] for kinds in sides for k in rng.integers(0, len(kinds), ensemble)
        ]
        seen, pulls = zip(*(m.linearise(points) for m in drawn), strict=True)
        probabilities = softmax(np.array(seen, dtype=np.float64))
        slope, weights = verifier.backward(readable(probabilities), truth)
        descent.advance(weights)
        each = zip(pulls, _through(slope, probabilities), strict=True)
        return np.asarray(np.sum([pull(s) for pull, s in each], axis=0))

    # As the verifier grows sure, slopes fall to 1e-7: beside them Adam's usual 1e-8 is no longer nothing.
    moved = ascend(starts, gradient, steps, 0.01 * (high - low), lambda x: np.clip(x, low, high), tiny=1e-12)
    points = material.stored(moved)
    _refit(verifier, [model, *copies], innocents, points, classes, rng)
    return points, verifier


def _through(slope: Array, probabilities: Array) -> Array:
    """The slope in the features as the slope in the logits (models, n, classes)."""
    open_ = (probabilities > SOFTEST) / -np.log(SOFTEST)
    centred = (slope - slope.mean(axis=-1, keepdims=True)) * open_
    return np.asarray(centred - probabilities * centred.sum(axis=-1, keepdims=True), dtype=np.float32)


def _refit(
    verifier: Verifier,
    copies: Sequence[Model],
    innocents: Sequence[Model],
    points: Array,
    classes: int,
    rng: np.random.Generator,
) -> None:
    """Fit the verifier alone on the answers to the stored points, half of every batch copies."""
    sides = [
        readable(np.array([answered(m, points).probabilities(classes) for m in some])) for some in (copies, innocents)
    ]
    descent = Descent(verifier)
    truth = np.repeat([1.0, 0.0], BATCH // 2)
    for _ in range(REFITS):
        seen = np.concatenate([side[rng.integers(0, len(side), BATCH // 2)] for side in sides])
        descent.advance(verifier.backward(seen, truth)[1])
