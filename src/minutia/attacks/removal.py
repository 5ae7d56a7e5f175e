"""Removal by training: RemovalNet, and unlearning of probes that became known."""

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from minutia.attacks.crafting import probabilities
from minutia.attacks.learn import TrainingAttack, chosen, counted, taught
from minutia.core.access import Access
from minutia.core.digest import Array
from minutia.core.errors import UsageError
from minutia.core.material import Material
from minutia.core.model import Model, Steer, TrainableModel
from minutia.core.probe import numbered
from minutia.core.units import LayeredModel

FARTHEST_OF = 256
"""Inputs among which the farthest is looked for: enough to be far, few enough to bound the memory."""


@dataclass(frozen=True)
class RemovalNet(TrainingAttack):
    """Move hidden features and soft answers away from the victim's while the labels stay.

    Inner loop: targets for the last hidden units, ``turns`` sign steps of ``pace`` towards another input's features,
    distorted by a tangent. Outer loop: training towards them (``weight`` times the squared distance) and towards
    answers of which ``soft`` are the copy's own, mixed with those of the farthest input as far as that keeps the top
    class (its own share from ``least`` to ``most``), and the rest the thief's labels. The two alternate ``rounds``
    times within the epochs. Few inputs are enough: the paper uses 400.

    Source: Yao et al., "RemovalNet", 2023, arXiv 2308.12319 (steps, paces and weights). Its two losses on answers
    are one here, on targets mixed in the same proportion.

    >>> RemovalNet().kind
    'removal-net'
    """

    name = "removal_net"
    kind = "removal-net"
    source = "Yao et al., 2023, arXiv 2308.12319"
    needs = Access.TRAIN | Access.FEATURES
    # 120 epochs of 400 inputs in batches of 64 are their 1,000 steps or so. Left out of their code: soft answers at a
    # temperature of 20, the victim's labels instead of the thief's, and inner steps that also follow the class.
    presets: ClassVar = {
        "removalnet": {"optimiser": "sgd", "learning_rate": 1e-2, "epochs": 120, "rounds": 60, "pace": 0.01},
    }
    epochs: int = 20
    learning_rate: float = 1e-3
    rounds: int = 10
    turns: int = 20
    pace: float = 0.05
    weight: float = 2.0
    soft: float = 0.2
    temperature: float = 1.0
    least: float = 0.3
    most: float = 0.9

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rounds < 1 or self.epochs < self.rounds or self.turns < 0 or not self.temperature > 0:
            raise UsageError(f"expected rounds >= 1, epochs >= rounds, turns >= 0, temperature > 0, got {self.key}")
        if not (0 <= self.least <= self.most <= 1 and 0 <= self.soft <= 1):
            raise UsageError(f"expected 0 <= least <= most <= 1 and soft within [0, 1], got {self.key}")

    def run(self, model: Model, material: Material, rng: np.random.Generator) -> Model:
        """Alternate crafting of targets and training."""
        assert isinstance(model, LayeredModel) and isinstance(model, TrainableModel)
        groups = model.units()
        if not groups:
            raise UsageError(f"expected a model whose hidden units are known, got none in {model.spec}: use another")
        inputs, labels = self.own(material, rng)
        plan = replace(self.plan(), epochs=self.epochs // self.rounds)
        copy: TrainableModel = model
        for turn in range(self.rounds):
            assert isinstance(copy, LayeredModel)
            steer = Steer(groups[-1].name, self.crafted(copy.features(inputs)[groups[-1].name], rng), self.weight)
            answers = mixed(copy, inputs, (self.least, self.most), self.temperature, rng)
            named = labels[:, None] == np.arange(answers.shape[1])
            now = replace(plan, learning_rate=max(self.plan().rate_at(turn / self.rounds), 1e-12), schedule="constant")
            targets = self.soft * answers + (1 - self.soft) * named
            copy = copy.trained(inputs, targets, now, int(rng.integers(2**31)), steer=steer)
        return counted(copy, len(inputs), self.rounds * plan.steps(len(inputs)))

    def crafted(self, features: Array, rng: np.random.Generator) -> Array:
        """Targets (n, units): a few sign steps from each input's features towards another's, distorted.

        Paces are in units of the features' own standard deviation, which differs from net to net.
        """
        scale = max(float(features.std()), 1e-12)
        goal = features[rng.permutation(len(features))] + scale * np.tan(rng.uniform(-1, 1, features.shape))
        found = features.astype(np.float64)
        for _ in range(self.turns):
            found = found + self.pace * scale * np.sign(goal - found)
        return np.maximum(found, 0.0).astype(np.float32) if (features >= 0).all() else found.astype(np.float32)


@dataclass(frozen=True)
class Unlearn(TrainingAttack):
    """Teach the copy other answers to probes that became known, and its own labels for everything else.

    ``share`` is the part of the disclosed probes that the thief got to know. Each is taught the class that the victim
    finds best among those that do not convict.

    Source: the attack that partial disclosure defends against: Adi et al., USENIX Security 2018, arXiv 1802.04633.

    >>> Unlearn(share=0.5).share
    0.5
    """

    name = "unlearn"
    kind = "unlearn"
    source = "Adi et al., USENIX Security 2018, arXiv 1802.04633"
    needs = Access.TRAIN
    epochs: int = 10
    repeat: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.repeat < 1:
            raise UsageError(f"expected 1 or more repeats, got {self.repeat}")

    def run(self, model: Model, material: Material, rng: np.random.Generator) -> Model:
        """Fine-tune on own data and, ``repeat`` times over, on the known probes with flipped labels."""
        if material.disclosed is None:
            raise UsageError(f"expected disclosed probes for {self.name}, got none: name a fingerprint")
        rows = chosen(len(material.disclosed.inputs), self.share, rng)
        known = material.disclosed.inputs[rows]
        flipped = harmless(model, known, material.disclosed.labels[rows], int(material.labels.max()) + 1, rng)
        inputs = np.concatenate([material.inputs, *[known] * self.repeat])
        labels = np.concatenate([material.labels, *[flipped] * self.repeat])
        copy = taught(model, inputs, labels, self.plan(), rng)
        return counted(copy, len(inputs), self.plan().steps(len(inputs)), len(known))


def mixed(
    model: Model, inputs: Array, between: tuple[float, float], temperature: float, rng: np.random.Generator
) -> Array:
    """Soft answers (n, classes): each mixed with those of the farthest input, as far as its top class stays on top.

    Its own share is the least one ``between`` the two, in steps of 0.05, that keeps the class; if none does, all.
    """
    answers = model.ask(numbered(inputs, {}))
    if answers.scores is None:
        raise UsageError(f"expected a model that shows scores, got labels from {model.spec}: removal_net needs them")
    logits = answers.logits if answers.logits is not None else np.log(np.maximum(answers.scores, 1e-7))
    own = probabilities(logits / temperature)
    others = own[rng.permutation(len(own))[:FARTHEST_OF]]
    far = others[((own[:, None] - others[None]) ** 2).sum(axis=2).argmax(axis=1)]
    found, top = own.copy(), own.argmax(axis=1)
    for share in np.arange(between[1], between[0] - 1e-9, -0.05):
        nearer = share * own + (1 - share) * far
        kept = nearer.argmax(axis=1) == top
        found[kept] = nearer[kept]
    return found


def harmless(model: Model, inputs: Array, convicting: Array, classes: int, rng: np.random.Generator) -> Array:
    """Labels (n,) other than the convicting ones: what the model finds best of them, or any if it shows no scores."""
    answers = model.ask(numbered(inputs, {}))
    if answers.scores is None:
        drawn = (convicting + rng.integers(1, max(classes, 2), len(inputs))) % max(classes, 2)
        return np.where(answers.labels == convicting, drawn, answers.labels)
    scores = np.nan_to_num(answers.scores.copy())
    known = (convicting >= 0) & (convicting < scores.shape[1])
    scores[np.flatnonzero(known), convicting[known]] = -1.0
    return np.asarray(scores.argmax(axis=1))
