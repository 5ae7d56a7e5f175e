"""Marks: what an owner trains into his model, so that he can prove later that a copy comes from it."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import ClassVar, final

import numpy as np

from minutia.core.access import Access, require
from minutia.core.attack import kept
from minutia.core.errors import ModelError
from minutia.core.fingerprint import THREATS, Fingerprint
from minutia.core.material import Material
from minutia.core.method import Method
from minutia.core.model import Model, TrainableModel


@dataclass(frozen=True)
class Mark(Method, ABC):
    """A fingerprint that is put into the model, by training, instead of found in it.

    Authors write ``marked`` besides the hooks of a method. ``enrol`` and ``marked`` are given generators of the same
    seed and must draw the same secret from them first: what was trained in is what is enrolled. ``redrawn`` tells
    whether a fingerprint holds what its secret gives, which is what a third person checks once the secret is revealed.
    """

    owner_needs = Access.LABELS | Access.WEIGHTS | Access.TRAIN
    suspect_needs = Access.LABELS
    is_exact: ClassVar[bool] = True

    @final
    def embed(
        self, model: Model, material: Material, *, seed: int, threats: tuple[str, ...] = THREATS
    ) -> tuple[TrainableModel, Fingerprint]:
        """Train the mark in, and enrol the marked model; the original is untouched.

        ``seed`` is the secret: draw it with ``secrets.randbits(256)``. The card of the marked model says what it cost:
        accuracy before and after on ``material.held_out``, accuracy lost, agreement, share of triggers learnt.
        """
        require(self.name, self.owner_needs, model.spec, model.access)
        self._check_content(material.content)
        assert isinstance(model, TrainableModel)
        made = self.marked(model, material, np.random.default_rng(seed))
        cost = {**made.card.fidelity, **kept(model, made, material, renamed=False)}
        if cost.get("answered", 1.0) == 0.0:
            raise ModelError(
                f"expected a marked model that answers, got none from {model.spec}: lower the learning rate"
            )
        made.card = replace(made.card, recipe=self.key, fidelity=cost)
        return made, self.extract(made, material, seed=seed, threats=threats)

    @abstractmethod
    def marked(self, model: TrainableModel, material: Material, rng: np.random.Generator) -> TrainableModel:
        """Train the mark into a copy; what it took may stand on the copy's card."""

    @abstractmethod
    def redrawn(self, fp: Fingerprint) -> bool:
        """Whether probes and expected labels are those that the fingerprint's own secret gives; pure."""
