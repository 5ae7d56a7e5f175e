"""The meta-classifier: which answers tell copies from innocent models is learnt from many of both."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from minutia.core.access import Access, require
from minutia.core.answers import Answers, Observation
from minutia.core.digest import Array
from minutia.core.errors import UsageError
from minutia.core.fingerprint import Fingerprint
from minutia.core.material import Material
from minutia.core.method import Enrolment
from minutia.core.model import GradientModel, Model
from minutia.core.probe import numbered
from minutia.methods.classifiers.crafting import ascend, lead, lead_slope, pulled
from minutia.methods.classifiers.ensembles import (
    answered,
    by_recipe,
    candidates,
    differentiable,
    enough,
    roots,
)
from minutia.methods.classifiers.learnt_probes import learn, readable
from minutia.methods.classifiers.stepwise import Stepwise, rows_of
from minutia.methods.classifiers.verifiers import Verifier

LEAST_COPIES = 12
LEAST_INNOCENTS = 20
CLIP = 4.0
"""Log-odds beyond this count as this: how sure a model is of a clear case says nothing."""
KEEP = 0.85
"""Share of candidates that survives each round of elimination."""
MODES = ("linear", "metav", "liteguard")
FIRST = 1200
"""Candidates that enter the elimination, those that tell best one by one."""


@dataclass(frozen=True)
class MetaClassifier(Stepwise):
    """A verifier learnt from copies and innocent models, on probes that were chosen because they tell them apart.

    H0: the suspect was trained without the owner's model. The owner makes copies in every way he can think of
    (``Material.derived``, ``.surrogates``) and innocent models (``.unrelated``). Candidates are natural, mixed, cut,
    noisy and random inputs, and, where models give gradients, such as were moved until copies keep the owner's label
    and innocent models give another (``crafted`` of them, ``steps`` steps, ``ensemble`` models of each side per step,
    kinds of copy that lag behind more often). Elimination by a shrinkage discriminant leaves ``probes`` of them, the
    most telling first; a discriminant is stored for every prefix. A probe's feature is whether the suspect gives the
    owner's label and, where scores are shown, also its clipped log-odds. Models that are fitted on never set the scale.

    ``mode`` names the loop: "linear" is the above; "metav" moves the probes and trains one small network over all
    answers at the same time; "liteguard" trains one for every probe, and averages what they say. The networks read
    probabilities, and labels as certain ones.

    Source: the plain verifier of Pan, Yan, Zhang, Yang, "MetaV", KDD 2022, arXiv 2201.07391, with linear discriminant
    analysis (R. A. Fisher, Annals of Eugenics 7, 1936) shrunk as by Ledoit and Wolf, J. Multivariate Analysis 88,
    2004; elimination as in Guyon, Weston, Barnhill, Vapnik, Machine Learning 46, 2002. "LiteGuard", ICLR 2026, arXiv
    2603.24982 (local verifiers, checkpoints).

    >>> MetaClassifier(probes=50).key
    "metaclassifier(crafted=400,ensemble=12,hidden=32,mode='linear',pool=4000,probes=50,shrinkage=0.6,steps=200)@1"
    """

    name = "metaclassifier"
    source = "Pan, Yan, Zhang, Yang, KDD 2022, arXiv 2201.07391"
    learns = True

    mode: str = "linear"
    probes: int = 100
    pool: int = 4000
    crafted: int = 400
    steps: int = 200
    ensemble: int = 12
    shrinkage: float = 0.6
    hidden: int = 32

    def __post_init__(self) -> None:
        if self.mode not in MODES or self.hidden < 1:
            raise UsageError(f"expected mode {', '.join(MODES)} and hidden units, got {self.mode!r} and {self.hidden}")
        if self.probes < 2 or self.pool < self.probes or min(self.crafted, self.steps, self.ensemble - 1) < 0:
            raise UsageError(f"expected 2 or more probes, a pool that holds as many, and counts from 0, got {self}")
        if not 0 < self.shrinkage <= 1:
            raise UsageError(f"expected a shrinkage in (0, 1], got {self.shrinkage}")

    def enrol(self, model: Model, material: Material, rng: np.random.Generator) -> Enrolment:
        """Make candidates, ask everybody, eliminate, fit a discriminant for every prefix."""
        fit, _ = material.parted()
        copies = [*fit.derived, *fit.surrogates]
        enough(copies, LEAST_COPIES, "copies to learn from", "make more of them, 'minutia extract --copies 9'")
        enough(
            fit.unrelated,
            LEAST_INNOCENTS,
            "unrelated models to learn from (a quarter of what is given only sets the scale)",
            "'minutia null build --spent 80' trains more",
        )
        points = candidates(material, self.pool, rng)
        own = answered(model, points).labels
        points, own = points[own >= 0], own[own >= 0]
        known = self._features(copies, fit.unrelated, points, own, scored=False)
        fitted = roots(fit.unrelated)
        if self.mode != "linear":
            require(f"{self.name}(mode={self.mode})", Access.GRADIENTS, model.spec, model.access)
            assert isinstance(model, GradientModel)
            best = points[np.argsort(-separation(*known), kind="stable")[: self.probes]]
            made, verifier = learn(
                model,
                copies,
                fit.unrelated,
                best,
                material,
                self.steps,
                self.ensemble,
                self.hidden,
                self.mode == "liteguard",
                rng,
            )
            return Enrolment(numbered(made, {"channel": "array"}), verifier.arrays(), fitted)
        if self.crafted and isinstance(model, GradientModel):
            best = np.argsort(-separation(*known), kind="stable")[: self.crafted]
            made = self.craft(model, copies, fit.unrelated, points[best], own[best], material, rng)
            labels = answered(model, made).labels
            fresh, labels = made[labels >= 0], labels[labels >= 0]
            points, own = np.concatenate([points, fresh]), np.concatenate([own, labels])
            more = self._features(copies, fit.unrelated, fresh, labels, scored=False)
            known = np.concatenate([known[0], more[0]], axis=1), np.concatenate([known[1], more[1]], axis=1)
        order = eliminate(*known, self.probes, self.shrinkage)
        points, own = points[order], own[order]
        arrays = {"labels": self._verifiers(known[0][:, order], known[1][:, order])}
        arrays["scores"] = self._verifiers(*self._features(copies, fit.unrelated, points, own, scored=True))
        return Enrolment(numbered(points, {"channel": "array"}), arrays, fitted)

    def craft(
        self,
        model: GradientModel,
        copies: Sequence[Model],
        innocents: Sequence[Model],
        starts: Array,
        own: Array,
        material: Material,
        rng: np.random.Generator,
    ) -> Array:
        """Move starts (n, *shape) until copies keep the owner's label and innocent models give another."""
        kinds, others = (by_recipe(differentiable(some, model, starts)) for some in (copies, innocents))
        if not kinds or not others or material.content == "text":
            return starts[:0]
        lag = np.ones(len(kinds))

        def gradient(at: Array) -> Array:
            found = self.ensemble / 2 * pulled(model, at, lambda z: _margin(z, own, 1)[1])
            for kind in rng.choice(len(kinds), self.ensemble, p=lag / lag.sum()):
                one = kinds[kind][rng.integers(len(kinds[kind]))]
                logits, pull_back = one.linearise(at)
                loss, slope = _margin(logits.astype(np.float64), own, 1)
                lag[kind] = 0.9 * lag[kind] + 0.1 * (loss.mean() + 1e-3)
                found += pull_back(slope.astype(np.float32))
            for place in rng.integers(0, sum(map(len, others)), self.ensemble):
                one = [m for group in others for m in group][place]
                found += pulled(one, at, lambda z: _margin(z, own, -1)[1])
            return found

        low, high = material.bounds
        rate = 0.01 * (high - low)
        return material.stored(ascend(starts, gradient, self.steps, rate, lambda x: np.clip(x, low, high)))

    def path(self, fp: Fingerprint, observation: Observation, prefixes: Sequence[Sequence[str]]) -> Array:
        """The discriminant of every look: that of the prefix which ends with the last probe that arrived.

        Probes that were lost count as halfway between what copies and innocents do.
        """
        if self.mode != "linear":
            return self._networks(fp, observation, [rows_of(fp, prefix) for prefix in prefixes])
        scored = observation.answers.scores is not None
        weights = fp.arrays["scores" if scored else "labels"]
        longest = prefixes[-1]
        rows = rows_of(fp, longest)
        seen = np.full(len(fp.probes), np.nan)
        seen[rows] = features(observation.only(longest).answers, fp.answers.labels[rows], scored)
        found = []
        for prefix in prefixes:
            mine = rows_of(fp, prefix)
            line = weights[mine.max()]
            found.append(float(line[-1] + np.sum(line[mine] * (seen[mine] - 0.5))))
        return np.array(found)

    def _networks(self, fp: Fingerprint, observation: Observation, prefixes: Sequence[Array]) -> Array:
        """What the networks say of every prefix; probes that were not asked read as no opinion."""
        verifier, asked = Verifier.of(fp.arrays), observation.only([fp.probes.ids[r] for r in prefixes[-1]])
        classes = int(verifier.first[0].size / verifier.shift[0].size) // (
            1 if len(verifier.offset) > 1 else self.probes
        )
        seen = np.zeros((len(prefixes), len(fp.probes), classes))
        read = readable(asked.answers.probabilities(classes))
        for line, prefix in zip(seen, prefixes, strict=True):
            line[prefix] = read[: len(prefix)]
        odds = verifier(seen)
        if len(verifier.offset) == 1:
            return np.asarray(odds[:, 0])
        return np.array([np.tanh(o[rows] / 2).mean() for o, rows in zip(odds, prefixes, strict=True)])

    def _features(
        self, copies: Sequence[Model], innocents: Sequence[Model], points: Array, own: Array, *, scored: bool
    ) -> tuple[Array, Array]:
        """Features of copies (a, n) and innocent models (b, n)."""
        found = [
            np.array([features(answered(m, points), own, scored) for m in some], dtype=np.float32).reshape(-1, len(own))
            for some in (copies, innocents)
        ]
        return found[0], found[1]

    def _verifiers(self, copies: Array, innocents: Array) -> Array:
        """A discriminant for every prefix: row n - 1 holds weights of the first n probes, zeros, and the offset."""
        count = copies.shape[1]
        lines = np.zeros((count, count + 1), np.float32)
        for n in range(1, count + 1):
            weights = discriminant(copies[:, :n], innocents[:, :n], self.shrinkage)
            innocent = (innocents[:, :n] - 0.5) @ weights
            size = float(((copies[:, :n] - 0.5) @ weights).mean() - innocent.mean()) or 1.0
            lines[n - 1, :n] = weights / size
            lines[n - 1, -1] = -innocent.mean() / size
        return lines


def features(answers: Answers, own: Array, scored: bool) -> Array:
    """What each probe (n,) tells: 1 where the owner's label is given; with scores half of it is the clipped log-odds.

    >>> features(Answers.from_labels(np.array([1, 2])), np.array([1, 1]), scored=False).tolist()
    [1.0, 0.0]
    """
    match = ((answers.labels == own) & (answers.labels >= 0)).astype(float)
    if not scored or answers.scores is None:
        return match
    classes = max(answers.scores.shape[1], int(own.max(initial=0)) + 1)
    given = answers.probabilities(classes)[np.arange(len(own)), own]
    odds = np.log(np.clip(given, 1e-6, 1)) - np.log(np.clip(1 - given, 1e-6, 1))
    return np.where(answers.labels >= 0, match / 2 + (np.clip(odds, -CLIP, CLIP) / CLIP + 1) / 4, 0.0)


def separation(copies: Array, innocents: Array) -> Array:
    """How well each feature (n,) tells copies (a, n) from innocents (b, n): difference of means in deviations.

    >>> separation(np.ones((3, 1)), np.zeros((3, 1))).round(1).tolist()
    [7.1]
    """
    spread = np.sqrt(copies.var(axis=0) + innocents.var(axis=0) + 0.02)
    return np.asarray((copies.mean(axis=0) - innocents.mean(axis=0)) / spread)


def discriminant(copies: Array, innocents: Array, shrinkage: float) -> Array:
    """Weights (n,) of the linear discriminant of copies (a, n) and innocents (b, n), its covariance shrunk.

    Each side counts half. The covariance is shrunk towards a multiple of the identity, or it could not be inverted.

    >>> w = discriminant(np.array([[1.0, 0], [1, 1]]), np.array([[0.0, 0], [0, 1]]), 0.5)
    >>> bool(w[0] > 0), abs(float(w[1])) < 1e-9
    (True, True)
    """
    means = copies.mean(axis=0), innocents.mean(axis=0)
    sides = [(s - m) / np.sqrt(2 * len(s)) for s, m in zip((copies, innocents), means, strict=True)]
    rows = np.concatenate(sides).astype(np.float64)
    gap = (means[0] - means[1]).astype(np.float64)
    ridge = shrinkage * max(float(np.sum(rows**2)) / rows.shape[1], 1e-9)
    rest = 1 - shrinkage
    if rows.shape[1] <= len(rows):
        return np.linalg.solve(ridge * np.eye(rows.shape[1]) + rest * rows.T @ rows, gap)
    # Fewer models than features: solve among the models instead.
    inner = np.linalg.solve(ridge * np.eye(len(rows)) + rest * rows @ rows.T, rows @ gap)
    return (gap - rest * rows.T @ inner) / ridge


def eliminate(copies: Array, innocents: Array, count: int, shrinkage: float) -> Array:
    """Rows of the features that tell best together, the best first: the weakest leave, round by round."""
    left = np.argsort(-separation(copies, innocents), kind="stable")[: max(FIRST, count)]
    dropped = list[Array]()
    while len(left) > 1:
        weights = discriminant(copies[:, left], innocents[:, left], shrinkage)
        spread = np.concatenate([copies[:, left], innocents[:, left]]).std(axis=0)
        order = left[np.argsort(-np.abs(weights) * spread, kind="stable")]
        keep = min(len(left) - 1, int(KEEP * len(left)))
        keep = count if keep < count < len(left) else max(1, keep)
        dropped.insert(0, order[keep:])
        left = order[:keep]
    return np.concatenate([left, *dropped])[:count]


def _margin(logits: Array, own: Array, sign: int, gap: float = 2.0) -> tuple[Array, Array]:
    """Hinge loss (n,) and its slope in the logits: the owner's label should lead by ``gap`` (1) or be led (-1)."""
    ahead, _ = lead(logits, own)
    return np.maximum(gap - sign * ahead, 0), lead_slope(logits, own, sign > 0, gap)
