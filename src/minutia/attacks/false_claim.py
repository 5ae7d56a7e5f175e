"""False claims: an accuser files a fingerprint that innocent models match."""

from abc import ABC
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from minutia.attacks.crafting import away_from, gradients, made_up, no_text, probabilities, varied
from minutia.core.access import Access, require
from minutia.core.answers import Observation
from minutia.core.attack import Claim
from minutia.core.digest import Array
from minutia.core.errors import ModelError, UsageError
from minutia.core.fingerprint import THREATS, Fingerprint
from minutia.core.material import Material
from minutia.core.method import Method, looks_for
from minutia.core.model import GradientModel, Model
from minutia.core.probe import numbered

HALVINGS = 12
"""Bisections to the boundary between two inputs: closer than any grey level."""


@dataclass(frozen=True)
class _Forged(Claim, ABC):
    """File chosen points under the name of a method, with the accuser's true answers and nothing that hurts him."""

    kind = "false-claim"
    probes: int = 100

    def filed(self, method: Method, model: Model, points: Array, rng: np.random.Generator) -> Fingerprint:
        """The fingerprint of these points (n, *shape): no spent models, no copies, a seed that made none of them."""
        if len(points) < self.probes:
            raise ModelError(
                f"expected {self.probes} points that serve {self.name}, got {len(points)}: "
                "give more inputs or a larger strength or pool, or ask for fewer probes"
            )
        asked = numbered(points[: self.probes], {"channel": "array"})
        answers = model.ask(asked)
        return Fingerprint(
            method=method.key,
            question=method.question,
            owner=model.card,
            probes=asked,
            answers=answers,
            arrays={},
            controls={"owner": (Observation(model.card, asked.ids, answers, asked.digest),)},
            reference=(),
            spent=frozenset(),
            schedule=looks_for(len(asked)),
            threats=THREATS,
            binds=("content", "order", "channel"),
            seed=int(rng.integers(2**31)),
        )


@dataclass(frozen=True)
class Transferable(_Forged):
    """Adversarial examples that every model of the task gets wrong in the same way, filed as one's own boundary.

    From ``oversample`` times as many inputs as needed, ``steps`` signed steps of ``rate`` inside a cube of ``strength``
    (both in units of the input range) follow the loss of the accuser's model plus the mean loss of two thirds of his
    surrogates (``Material.unrelated``). ``target`` is the wrong class that the ensemble finds likeliest (nearest), any
    other (random), or none (away: only leave the true class). Kept is what most of the remaining surrogates answer
    like the accuser, and not like the truth; what all of them do comes first.

    A fixed threshold on the match rate accuses whoever solves the task. A rank among models that the judge trained
    himself keeps its level, because those match as well.

    Source: Liu, Zhang, Szyller, Ren, Asokan, "False Claims against Model Ownership Resolution", USENIX Security 2024,
    arXiv 2304.06607. The presets are the public CIFAR-10 settings, without and with a target: 50 probes, 100 steps of
    .03, a radius of 16/255.

    >>> Transferable.from_key("transferable/false-claims").steps
    100
    """

    name = "transferable"
    source = "Liu, Zhang, Szyller, Ren, Asokan, USENIX Security 2024, arXiv 2304.06607"
    needs = Access.LABELS | Access.GRADIENTS
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "false-claims": {"probes": 50, "steps": 100, "rate": 0.03, "strength": 16 / 255, "target": "away"},
        "false-claims-targeted": {"probes": 50, "steps": 100, "rate": 0.03, "strength": 16 / 255, "target": "random"},
    }
    steps: int = 40
    rate: float = 0.02
    strength: float = 0.2
    target: str = "nearest"
    oversample: int = 8

    def __post_init__(self) -> None:
        if self.target not in ("nearest", "random", "away"):
            raise UsageError(f"expected target nearest, random or away, got {self.target!r}")
        if min(self.probes, self.steps, self.oversample) < 1 or min(self.rate, self.strength) <= 0:
            raise UsageError(f"expected positive probes, steps, rate, strength and oversample, got {self}")

    def forge(
        self, model: Model, material: Material, method: Method, rng: np.random.Generator, accused: Model | None
    ) -> Fingerprint:
        """Craft on some surrogates, choose by the others, file."""
        no_text(self.name, material)
        surrogates = _surrogates(self, material)
        crafting = surrogates[: max(1, len(surrogates) * 2 // 3)]
        wanted = self.probes * self.oversample
        rows = rng.choice(len(material.inputs), wanted, replace=wanted > len(material.inputs))
        ensemble = [_differentiable(self, m) for m in (model, *crafting)]
        crafted = self.craft(ensemble, material.inputs[rows], material.labels[rows], material, rng)
        points, first = np.unique(material.stored(crafted), axis=0, return_index=True)
        own, agreed = _agreement(model, surrogates[len(crafting) :] or crafting, points)
        best = np.lexsort((rng.random(len(points)), -agreed))
        kept = (own >= 0) & (own != material.labels[rows][first]) & (agreed > 0.5)
        return self.filed(method, model, points[best[kept[best]]], rng)

    def craft(
        self,
        ensemble: Sequence[GradientModel],
        starts: Array,
        truth: Array,
        material: Material,
        rng: np.random.Generator,
    ) -> Array:
        """Points (n, *shape) near the starts that the ensemble, its first model above all, gets wrong."""
        low, high = material.bounds
        reach, pace = self.strength * (high - low), self.rate * (high - low)
        least, most = np.maximum(starts - reach, low), np.minimum(starts + reach, high)
        away = self.target == "away"
        goal = truth if away else self._goal(ensemble, starts, truth, rng)
        points = np.array(starts, np.float32)
        for _ in range(self.steps):
            step = np.sign(_uphill(ensemble, points, goal)) * (pace if away else -pace)
            points = np.clip(points + step, least, most).astype(np.float32)
        return points

    def _goal(self, ensemble: Sequence[GradientModel], starts: Array, truth: Array, rng: np.random.Generator) -> Array:
        """The wrong class that each point is driven to."""
        mean = np.mean([probabilities(m.linearise(starts)[0]) for m in ensemble], axis=0)
        if self.target == "random":
            return (truth + rng.integers(1, mean.shape[1], len(truth))) % mean.shape[1]
        mean[np.arange(len(truth)), truth] = -1
        return mean.argmax(axis=1)


@dataclass(frozen=True)
class PostHoc(_Forged):
    """Probes chosen after the accused was asked: those on which it happens to answer as the accuser's model does.

    Of ``pool`` candidates (natural inputs, variations of them, inputs out of nothing, and points on the accuser's own
    boundary, a quarter each) those stay on which the accused agrees with the accuser; where fewest of his surrogates
    (``Material.unrelated``) agree come first. Innocent models then match rarely and the accused always.

    This voids every test that ranks the suspect among other models, because the probes depend on the suspect: no null
    set, however large, repairs it. Only a commitment to the probes that is dated before the suspect's release does.

    Source: post-hoc keys, as discussed by Liu, Zhang, Szyller, Ren, Asokan, USENIX Security 2024, arXiv 2304.06607,
    against which they demand time stamps; the search is ours.

    >>> PostHoc().key
    'post_hoc(pool=4000,probes=100)'
    """

    name = "post_hoc"
    source = "after Liu, Zhang, Szyller, Ren, Asokan, USENIX Security 2024, arXiv 2304.06607"
    needs = Access.LABELS
    tailored = True
    pool: int = 4000

    def __post_init__(self) -> None:
        if self.probes < 1 or self.pool < 4:
            raise UsageError(f"expected 1 or more probes and a pool of 4 or more, got {self}")

    def forge(
        self, model: Model, material: Material, method: Method, rng: np.random.Generator, accused: Model | None
    ) -> Fingerprint:
        """Ask the accused the whole pool, keep what suits, file."""
        if accused is None:
            raise UsageError(f"expected the accused model for {self.name}, got none: it chooses probes by its answers")
        require(self.name, Access.LABELS, accused.spec, accused.access)
        surrogates = _surrogates(self, material)
        points = np.unique(self.candidates(model, material, rng), axis=0)
        own, agreed = _agreement(model, surrogates, points)
        suits = (own >= 0) & (accused.ask(numbered(points, {})).labels == own)
        best = np.lexsort((rng.random(len(points)), agreed))
        return self.filed(method, model, points[best[suits[best]]], rng)

    def candidates(self, model: Model, material: Material, rng: np.random.Generator) -> Array:
        """About ``pool`` points (n, *shape) of four kinds, of texts three."""
        count = -(-self.pool // 4)
        one, other = (material.inputs[rng.integers(len(material.inputs), size=count)] for _ in range(2))
        parts = [one, varied(material, material.inputs, count, rng), made_up(material, count, rng)]
        if material.content != "text":  # there is nothing between two tokens
            parts.append(_boundary(model, one, other))
        return material.stored(np.concatenate(parts))


def _surrogates(claim: Claim, material: Material) -> list[Model]:
    """The accuser's other models of the task; he needs inputs as well."""
    if not len(material.inputs):
        raise UsageError(f"expected inputs to start from for {claim.name}, got none: give data of the task")
    if not material.unrelated:
        raise UsageError(
            f"expected models of the task besides the accuser's own for {claim.name}, got none: "
            "give some as unrelated models"
        )
    return list(material.unrelated)


def _differentiable(claim: Claim, model: Model) -> GradientModel:
    require(claim.name, claim.needs, model.spec, model.access)
    assert isinstance(model, GradientModel)
    return model


def _agreement(model: Model, others: Sequence[Model], points: Array) -> tuple[Array, Array]:
    """A model's labels (n,), and the share (n,) of other models that give the same."""
    probes = numbered(points, {})
    own = model.ask(probes).labels
    return own, np.mean([m.ask(probes).labels == own for m in others], axis=0)


def _uphill(ensemble: Sequence[GradientModel], points: Array, labels: Array) -> Array:
    """Where the cross-entropy with ``labels`` rises: that of the first model, plus the mean of the others'."""
    first, *others = [gradients(m, points, away_from(labels)) for m in ensemble]
    return first + np.mean(others, axis=0)


def _boundary(model: Model, one: Array, other: Array) -> Array:
    """Points on the lines from ``one`` to ``other`` where the model's label changes first, as bisection finds it."""
    wide = (-1, *[1] * (one.ndim - 1))
    near, far = np.zeros(len(one)), np.ones(len(one))
    label = model.ask(numbered(one, {})).labels
    for _ in range(HALVINGS):
        middle = (near + far) / 2
        points = one + middle.reshape(wide) * (other - one)
        same = model.ask(numbered(points.astype(np.float32), {})).labels == label
        near, far = np.where(same, middle, near), np.where(same, far, middle)
    return one + far.reshape(wide) * (other - one)
