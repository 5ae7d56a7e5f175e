"""Rare errors (soft-LiRA): answers that the owner's model gives and hardly any innocent model does."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from minutia.core.answers import Answers, Observation
from minutia.core.digest import Array
from minutia.core.errors import ModelError, UsageError
from minutia.core.fingerprint import Fingerprint
from minutia.core.material import Material
from minutia.core.method import Enrolment
from minutia.core.model import Model
from minutia.core.probe import numbered
from minutia.methods.classifiers.ensembles import (
    GROUP,
    SPREAD,
    answered,
    mixed,
    natural_inputs,
    roots,
    rows_by_recipe,
)
from minutia.methods.classifiers.stepwise import Stepwise, mean_growth, rows_of, steadied
from minutia.stats.sequential import Standardiser

POOLS = ("natural", "mixed", "noise")
LEARNT = ("mean", "spread", "match", "miss", "scores.base", "scores.gain", "labels.base", "labels.gain")
"""What is stored of every probe."""
CLIP = 3.0
"""Deviations beyond this count as this: no single probe may carry the score."""
TINY = 1e-4
"""Probabilities are held this far from 0 and 1 before their logit is taken."""
BLUR = 0.3
"""Added to the shadows' deviation of every logit: few shadows that agree by luck are no measure of how others vary."""
SHARED = 0.75
"""Weight of what two probes have in common when the next one is chosen."""
HARD = 0.25
"""Quantile of the copies whose score counts as 1: as much of a copy as those that are hard to tell."""
USUAL = 0.5
"""Share of the shadows of one recipe that may answer as the owner does."""
BEYOND = 0.1
"""What counts of a score above 1: the owner's own must not make half of the way to it unreachable for his copies."""
OWN = 0.05
"""Variance that every probe is taken to have at least."""
LEAST_SPREAD = 0.05
"""Smallest deviation of a score among spent models that is believed, in units of what copies gain."""


@dataclass(frozen=True)
class RareErrors(Stepwise):
    """Inputs that the owner's model answers as at most 1 - ``unlike`` of the shadows do: his errors, and only his.

    H0: the suspect was trained without the owner's model. Shadows are innocent models of the same recipe
    (``Material.unrelated``; 60 and more are better). Candidates are natural inputs, mixtures of two, noisy inputs and
    noise (``pool`` chooses: natural, mixed, noise or all). What is usual for one recipe of shadows is not rare. Those
    are kept that together best separate the owner and his copies, where there are some, from the shadows. Per probe,
    the logit of the suspect's probability of the owner's label is measured in deviations of the shadows and clipped;
    of labels alone, it is the log likelihood ratio of a match between copies and shadows. The score is the mean on a
    scale where shadows have 0 and copies 1; of what lies above 1 a tenth counts. Shadows that chose the probes never
    set the scale of the looks.

    Source: Carlini, Chien, Nasr, Song, Terzis, Tramèr, "Membership Inference Attacks From First Principles", IEEE S&P
    2022, arXiv 2112.03570, whose likelihood ratio against shadows is used here on the owner's errors; errors as probes
    from Godinot, Le Merrer, Penzo, Taïani, Trédan, AAAI 2025, arXiv 2412.13021.

    >>> RareErrors(probes=50).key
    "rare_errors(candidates=6000,pool='all',probes=50,unlike=0.85)@1"
    """

    name = "rare_errors"
    source = "Carlini, Chien, Nasr, Song, Terzis, Tramèr, IEEE S&P 2022, arXiv 2112.03570"
    learns = True

    probes: int = 100
    candidates: int = 6000
    pool: str = "all"
    unlike: float = 0.85

    def __post_init__(self) -> None:
        if self.probes < 2 or self.candidates < self.probes:
            raise UsageError(f"expected 2 or more probes out of as many candidates or more, got {self}")
        if self.pool not in (*POOLS, "all"):
            raise UsageError(f"expected a pool of {', '.join(POOLS)} or all, got {self.pool!r}")
        if not 0.5 <= self.unlike <= 1:
            raise UsageError(f"expected a share of shadows from 0.5 to 1, got {self.unlike}: 0.85 is usual")

    def enrol(self, model: Model, material: Material, rng: np.random.Generator) -> Enrolment:
        """Make candidates, keep the owner's rare answers that tell most together."""
        fit, _ = material.parted()
        points = pooled(material, self.pool, self.candidates, rng)
        own = answered(model, points)
        points, own = points[own.labels >= 0], own.take(np.flatnonzero(own.labels >= 0))
        shadows = [answered(m, points) for m in fit.unrelated]
        groups = recipes(fit.unrelated)
        shared = [np.mean([shadows[i].labels == own.labels for i in group], axis=0) for group in groups]
        rare = np.flatnonzero((shared[0] <= 1 - self.unlike + 1e-9) & (np.max(shared, axis=0) <= USUAL))
        points, own, shadows = points[rare], own.take(rare), [a.take(rare) for a in shadows]
        copies = [own, *(answered(m, points) for m in (*fit.derived, *fit.surrogates))]
        arrays, kept = self._learnt(own.labels, copies, shadows, groups)
        probes = numbered(points[kept], {"channel": "array"})
        return Enrolment(probes, {name: array[kept] for name, array in arrays.items()}, roots(fit.unrelated))

    def _learnt(
        self, own: Array, copies: Sequence[Answers], shadows: Sequence[Answers], groups: Sequence[Sequence[int]]
    ) -> tuple[dict[str, Array], Array]:
        """What each rare answer (n,) is worth, and which of them to ask in which order."""
        outer = np.array([logits_of(a, own) for a in shadows])
        common = _rate(copies, own)
        usual = np.max([_rate([shadows[i] for i in group], own) for group in groups], axis=0)
        arrays = {
            "mean": outer.mean(axis=0),
            "spread": outer.std(axis=0) + BLUR,
            "match": np.log(common / usual),
            "miss": np.log((1 - common) / (1 - usual)),
        }
        sides = [np.array([_worth(arrays, a, own) for a in some]) for some in (copies, shadows)]
        fine = np.flatnonzero((sides[0].mean(axis=0) > sides[1].mean(axis=0)) & (common > usual))
        kept = fine[together(sides[0][:, fine], sides[1][:, fine], self.probes)]
        if len(kept) < 2:
            raise ModelError(
                f"expected a model that answers some inputs as few others do, got {len(kept)} of those: "
                "give more data, more candidates, or use another method"
            )
        for name, hide in (("scores", False), ("labels", True)):
            seen = [[a.showing(0) if hide else a for a in some] for some in (copies, shadows)]
            gained, base = (np.array([_worth(arrays, a, own) for a in some]) for some in seen)
            arrays[f"{name}.base"], arrays[f"{name}.gain"] = base.mean(axis=0), _gain(gained, base, kept)
        return arrays, kept

    def score(self, fp: Fingerprint, observation: Observation) -> float:
        """Where exactly what was asked lies between shadows (0) and copies (1)."""
        return float(self.path(fp, observation, [observation.asked])[0])

    def path(self, fp: Fingerprint, observation: Observation, prefixes: Sequence[Sequence[str]]) -> Array:
        """The score at every look, by running sums over the longest prefix."""
        longest = prefixes[-1] if prefixes else ()
        rows = rows_of(fp, longest)
        answers, known = observation.only(longest).answers, {name: fp.arrays[name][rows] for name in LEARNT}
        kind = "labels" if answers.scores is None else "scores"
        worth = _worth(known, answers, fp.answers.labels[rows])
        running = np.cumsum(worth - known[f"{kind}.base"]) / np.cumsum(known[f"{kind}.gain"])
        return np.where(running > 1, 1 + BEYOND * (running - 1), running)[[len(p) - 1 for p in prefixes]]

    def scale(self, spent: Array, sizes: Array) -> Standardiser:
        """The spent models' deviation at full length, larger at early looks as a mean of fewer answers varies."""
        if len(spent) < 2:
            return super().scale(spent, sizes)
        return steadied(spent, mean_growth(sizes), LEAST_SPREAD)


def together(copies: Array, shadows: Array, count: int) -> Array:
    """Columns whose mean tells copies (a, n) from shadows (b, n) best, each the best next to those before it.

    Alone, the best columns are much the same input; errors that shadows do not share say more together. A quarter of
    what shadows vary by is taken to be each column's own, because few of them show what goes together only roughly.

    >>> together(np.ones((2, 3)), np.array([[0.0, 0, 1], [1, 1, 0]]), 2).tolist()
    [0, 2]
    """
    gap = copies.mean(axis=0) - shadows.mean(axis=0)
    sides = [(s - s.mean(axis=0)) / np.sqrt(len(s)) for s in (copies, shadows)]
    rows = np.concatenate(sides)
    alone = np.sum(rows**2, axis=0) + OWN
    left, chosen = np.ones(len(gap), dtype=bool), list[int]()
    total, lead, spread = np.zeros(len(rows)), 0.0, 0.0
    for _ in range(min(count, len(gap))):
        after = spread + alone + 2 * SHARED * (total @ rows)
        worth = np.where(left, (lead + gap) / np.sqrt(np.maximum(after, OWN)), -np.inf)
        best = int(worth.argmax())
        left[best] = False
        chosen.append(best)
        total, lead, spread = total + rows[:, best], lead + gap[best], after[best]
    return np.array(chosen, dtype=int)


def recipes(models: Sequence[Model]) -> list[list[int]]:
    """All models, and by themselves those of each recipe with four or more: the place of each in ``models``.

    What is rare among all may be usual for another architecture, of which there are few.

    >>> recipes([])
    [[]]
    """
    groups = [group for group in rows_by_recipe(models) if GROUP <= len(group) < len(models)]
    return [list(range(len(models))), *groups]


def pooled(material: Material, pool: str, count: int, rng: np.random.Generator) -> Array:
    """Distinct candidates (n, *shape), at most ``count``, as a suspect receives them.

    Of text, where numbers are names, mixtures take each token from one of two inputs, and noise draws every token by
    itself as often as the data holds it.
    """
    natural = natural_inputs(material)
    share = count if pool != "all" else count // len(POOLS)
    some = natural[rng.permutation(len(natural))[:share]]
    first, second = (natural[rng.integers(0, len(natural), share)] for _ in range(2))
    both = mixed(first, second, material, rng)
    made = {"natural": some, "mixed": both, "noise": _noise(natural, share, material, rng)}
    chosen = list(made.values()) if pool == "all" else [made[pool]]
    return np.unique(material.stored(np.concatenate(chosen)), axis=0)


def _noise(natural: Array, count: int, material: Material, rng: np.random.Generator) -> Array:
    """Half of them inputs under noise, half nothing but noise."""
    if material.content == "text":
        return rng.choice(natural.ravel(), (count, *natural.shape[1:]))
    low, high = material.bounds
    some = natural[rng.integers(0, len(natural), count // 2)]
    noisy = some + rng.normal(0, SPREAD * (high - low), some.shape)
    return np.concatenate([noisy, rng.uniform(low, high, (count - len(some), *natural.shape[1:]))])


def logits_of(answers: Answers, own: Array) -> Array:
    """Logits (n,) of the probability given to the owner's label; of labels alone, those of all or nothing.

    >>> logits_of(Answers.from_scores(np.array([[0.5, 0.5], [1.0, 0.0]])), np.array([0, 1])).round(1).tolist()
    [0.0, -9.2]
    """
    classes = int(own.max(initial=1)) + 1 if answers.scores is None else answers.scores.shape[1]
    given = answers.probabilities(classes)[np.arange(len(own)), np.minimum(own, classes - 1)]
    sure = np.clip(np.where(own < classes, given, 0.0), TINY, 1 - TINY)
    return np.asarray(np.log(sure / (1 - sure)))


def _rate(some: Sequence[Answers], own: Array) -> Array:
    """Share of models that give the owner's labels (n,), half a match and half a mismatch added."""
    return np.asarray((np.sum([a.labels == own for a in some], axis=0) + 0.5) / (len(some) + 1))


def _worth(known: Mapping[str, Array], answers: Answers, own: Array) -> Array:
    """What each answer (n,) says; refused and invalid ones say the least that any can."""
    if answers.scores is None:
        return np.where((answers.labels == own) & (answers.labels >= 0), known["match"], known["miss"])
    apart = np.clip((logits_of(answers, own) - known["mean"]) / known["spread"], -CLIP, CLIP)
    return np.where(answers.labels >= 0, apart, -CLIP)


def _gain(copies: Array, shadows: Array, kept: Array) -> Array:
    """How much more than a shadow a copy (of those that are hard to tell) gets from each probe (n,)."""
    each = copies[:, kept].mean(axis=1) - shadows[:, kept].mean()
    hard = float(np.quantile(each, HARD) / each.mean())
    return np.asarray((copies.mean(axis=0) - shadows.mean(axis=0)) * max(hard, 0.5))
