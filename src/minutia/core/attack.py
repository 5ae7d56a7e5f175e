"""Attacks: what a thief does to a model so that it is no longer recognised, and what a false accuser does."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from time import perf_counter
from typing import Any, ClassVar, Self, final

import numpy as np

from minutia.core.access import Access, require
from minutia.core.answers import Status
from minutia.core.errors import UsageError
from minutia.core.fingerprint import Fingerprint
from minutia.core.keys import configured, did_you_mean, key_of, split_key
from minutia.core.material import Material
from minutia.core.method import Method
from minutia.core.model import Model, ModelCard, WeightModel
from minutia.core.probe import numbered

EFFORT = ("inputs", "queries", "steps")
"""What training attacks count on the card: inputs trained on, questions to the victim, optimiser steps."""
NOTED = (*EFFORT, "largest_change")
"""What an attack may put on the card: its effort, and how far at most it moved answers that it promised to keep."""


@dataclass(frozen=True)
class _Parametrised(ABC):
    """Fields are parameters; presets are sets of them as a paper prints them."""

    name: ClassVar[str]
    kind: ClassVar[str]
    source: ClassVar[str] = ""
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}

    @property
    def key(self) -> str:
        """Name with every parameter: two attacks with one key do the same."""
        return key_of(self)

    @classmethod
    def from_key(cls, key: str) -> Self:
        """Build from ``name/preset(parameter=value,…)``; parameters override the preset's."""
        name, parameters, version, preset = split_key(key)
        if (name, version) != (cls.name, 1):
            raise UsageError(f"expected parameters of {cls.name}, got {key!r}: keys of attacks have no other version")
        if preset and preset not in cls.presets:
            known = ", ".join(cls.presets) or "none"
            raise UsageError(
                f"expected a preset of {cls.name} ({known}), got {preset!r}{did_you_mean(preset, cls.presets)}"
            )
        built: Self = configured(cls, cls.name, parameters, cls.presets.get(preset))
        return built


@dataclass(frozen=True)
class Attack(_Parametrised, ABC):
    """Model in, new model out; the original is untouched and the card of the copy tells what it cost.

    ``kind`` groups attacks in a threat list ("prune", "distil", …). ``keeps_weights`` is False where the copy starts
    from fresh weights and only learns from answers. ``serving`` is True where the weights stay as they are and only
    the answers change. ``renames`` is True where the copy's classes have other names, so that labels cannot tell what
    it lost. ``presets`` are parameters as papers print them, by a short name of the paper.
    """

    needs: ClassVar[Access]
    keeps_weights: ClassVar[bool] = True
    serving: ClassVar[bool] = False
    renames: ClassVar[bool] = False

    @final
    def apply(self, model: Model, material: Material, rng: np.random.Generator) -> Model:
        """Attack the model with the attacker's own material; the generator fixes the result.

        The card of the copy names parent, root and attack, and says what it cost: seconds, effort, and, on
        ``material.held_out``, accuracy before and after, accuracy lost and agreement with the parent.
        """
        require(self.name, self.needs, model.spec, model.access)
        started = perf_counter()
        made = self.run(model, material, rng)
        cost = {"seconds": perf_counter() - started, **_effort(model, made)}
        cost |= kept(model, made, material, self.renames)
        if not self.serving:
            cost |= _moved(model, made)
        made.card = ModelCard(made.card.id, model.card.root, self.key, (model.card.id,), cost)
        return made

    @abstractmethod
    def run(self, model: Model, material: Material, rng: np.random.Generator) -> Model:
        """Return the attacked copy; what it took (see ``NOTED``) may stand on its card already."""


@dataclass(frozen=True)
class Chain(Attack):
    """Attacks one after the other, such as pruning and then fine-tuning: ``prune+fine_tune_all``."""

    name = "chain"
    source = "the sources of its steps"
    steps: tuple[Attack, ...] = ()

    def __post_init__(self) -> None:
        if len(self.steps) < 2 or any(isinstance(step, Chain) for step in self.steps):
            raise UsageError(f"expected two or more attacks in a chain, got {len(self.steps)}")
        whole = {
            "kind": "+".join(step.kind for step in self.steps),
            "needs": self.steps[0].needs,
            "keeps_weights": all(step.keeps_weights for step in self.steps),
            "serving": all(step.serving for step in self.steps),
            "renames": any(step.renames for step in self.steps),
            "name": "+".join(step.name for step in self.steps),
            "source": "; ".join(dict.fromkeys(step.source for step in self.steps)),
        }
        order = [step.serving for step in self.steps]
        if order != sorted(order):
            raise UsageError(f"expected query-time defences at the end of a chain, got {self.key}: reorder its steps")
        for field, value in whole.items():  # what is fixed for a class of attacks depends on the steps here
            object.__setattr__(self, field, value)

    @property
    def key(self) -> str:
        """The keys of the steps, joined by a plus."""
        return "+".join(step.key for step in self.steps)

    def parts(self) -> tuple[Attack | None, Attack | None]:
        """What changes the weights, and what only changes the answers."""
        return (
            chained([step for step in self.steps if not step.serving]),
            chained([step for step in self.steps if step.serving]),
        )

    def run(self, model: Model, material: Material, rng: np.random.Generator) -> Model:
        """Apply every step; the effort of all is added up."""
        made, effort = model, dict.fromkeys(EFFORT, 0.0)
        for step in self.steps:
            made = step.apply(made, material, rng)
            for name in EFFORT:
                effort[name] += made.card.fidelity.get(name, 0.0)
        made.card = ModelCard(made.card.id, model.card.root, self.key, (model.card.id,), effort)
        return made


def chained(steps: "list[Attack]") -> Attack | None:
    """One attack of several; none of none."""
    if len(steps) < 2:
        return steps[0] if steps else None
    return Chain(tuple(steps))


def parts(attack: Attack) -> tuple[Attack | None, Attack | None]:
    """What an attack does to the weights, and what it does only to the answers at query time."""
    if isinstance(attack, Chain):
        return attack.parts()
    return (None, attack) if attack.serving else (attack, None)


@dataclass(frozen=True)
class Claim(_Parametrised, ABC):
    """The accuser as attacker: a fingerprint made so that innocent models match it.

    ``tailored`` is True where the accuser must have seen the answers of the model he accuses.
    """

    needs: ClassVar[Access]
    tailored: ClassVar[bool] = False

    @final
    def apply(
        self,
        model: Model,
        material: Material,
        method: Method,
        rng: np.random.Generator,
        *,
        accused: Model | None = None,
    ) -> Fingerprint:
        """Forge a fingerprint that claims to be of ``method``; ``accused`` is the innocent model, if it is known."""
        require(self.name, self.needs, model.spec, model.access)
        return self.forge(model, material, method, rng, accused)

    @abstractmethod
    def forge(
        self, model: Model, material: Material, method: Method, rng: np.random.Generator, accused: Model | None
    ) -> Fingerprint:
        """Return the forged fingerprint: the accuser's probes with his own model's true answers."""


def destroyed(fidelity: Mapping[str, float]) -> bool:
    """Whether a copy kept less than a quarter of its parent's lead over guessing: nobody would steal that.

    Not measured is not destroyed.

    >>> destroyed({"accuracy": 0.2, "accuracy_before": 0.9, "chance": 0.1}), destroyed({"accuracy": 0.2})
    (True, False)
    """
    measured = [fidelity.get(name) for name in ("accuracy", "accuracy_before", "chance")]
    if any(value is None for value in measured):
        return False
    after, before, chance = (float(value or 0.0) for value in measured)
    return after < chance + 0.25 * (before - chance)


def state_of(fidelity: Mapping[str, float]) -> str:
    """What became of a copy: fine, destroyed (see ``destroyed``), or diverged (it holds what is no number).

    >>> state_of({"diverged": 1.0}), state_of({})
    ('diverged', 'fine')
    """
    if fidelity.get("diverged"):
        return "diverged"
    return "destroyed" if destroyed(fidelity) else "fine"


def _effort(model: Model, made: Model) -> dict[str, float]:
    """What the attack itself wrote on the card of its copy; a card that was handed through says nothing."""
    if made.card is model.card:
        return {}
    return {name: made.card.fidelity[name] for name in NOTED if name in made.card.fidelity}


def kept(model: Model, made: Model, material: Material, renamed: bool) -> dict[str, float]:
    """Accuracy and agreement on held-out data; not measured is absent, never 0."""
    if material.held_out is None or not len(material.held_out[1]):
        return {}
    inputs, labels = material.held_out
    asked = numbered(inputs, {})
    before, after = model.ask(asked), made.ask(asked)
    answered = after.status == Status.OK
    found = {"answered": float(answered.mean())}
    resized = before.scores is not None and after.scores is not None and before.scores.shape != after.scores.shape
    if renamed or resized:
        return found  # another label space: right and wrong mean another thing there
    right, still = (float(np.mean(answers.labels == labels)) for answers in (before, after))
    return {
        **found,
        "accuracy_before": right,
        "accuracy": still,
        "accuracy_lost": right - still,
        "agreement": float(np.mean((before.labels == after.labels) & answered)),
        "chance": float(np.bincount(labels).max() / len(labels)),
    }


def _moved(model: Model, made: Model) -> dict[str, float]:
    """Share of weights changed and distance moved relative to the parent's norm, for copies of one architecture."""
    if not (isinstance(model, WeightModel) and isinstance(made, WeightModel)):
        return {}
    mine, other = dict(model.tensors()), dict(made.tensors())
    if {n: w.shape for n, w in mine.items()} != {n: w.shape for n, w in other.items()}:
        return {}
    if not all(np.isfinite(w).all() for w in other.values()):
        return {"diverged": 1.0}
    size = sum(w.size for w in mine.values())
    changed = sum(int(np.count_nonzero(w != other[n])) for n, w in mine.items())
    moved = sum(float(np.sum((w.astype(float) - other[n]) ** 2)) for n, w in mine.items())
    norm = sum(float(np.sum(w.astype(float) ** 2)) for w in mine.values())
    found = {"weights_changed": changed / size, "weight_distance": (moved / norm) ** 0.5 if norm else 0.0}
    return {name: value for name, value in found.items() if np.isfinite(value)}
