"""Attacks: what a thief does to a model so that it is no longer recognised."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Self, final

import numpy as np

from minutia.core.access import Access, require
from minutia.core.errors import UsageError
from minutia.core.keys import configured, key_of, split_key
from minutia.core.material import Material
from minutia.core.model import Model


@dataclass(frozen=True)
class Attack(ABC):
    """Model in, new model out; the original is untouched and the card of the copy tells what it cost.

    Fields are parameters. ``kind`` groups attacks in a threat list ("prune", "distil", …); ``keeps_weights`` is
    False where the copy starts from fresh weights and only learns from answers.
    """

    name: ClassVar[str]
    kind: ClassVar[str]
    needs: ClassVar[Access]
    keeps_weights: ClassVar[bool] = True
    source: ClassVar[str] = ""

    @property
    def key(self) -> str:
        """Name with every parameter: two attacks with one key do the same."""
        return key_of(self)

    @classmethod
    def from_key(cls, key: str) -> Self:
        """Build from ``name(parameter=value,…)``."""
        name, parameters, version = split_key(key)
        if (name, version) != (cls.name, 1):
            raise UsageError(f"expected parameters of {cls.name}, got {key!r}: keys of attacks have no other version")
        built: Self = configured(cls, cls.name, parameters)
        return built

    @final
    def apply(self, model: Model, material: Material, rng: np.random.Generator) -> Model:
        """Attack the model with the attacker's own material; the generator fixes the result."""
        require(self.name, self.needs, model.spec, model.access)
        return self.run(model, material, rng)

    @abstractmethod
    def run(self, model: Model, material: Material, rng: np.random.Generator) -> Model:
        """Return the attacked copy with a card that names its parent."""
