"""Material: everything extraction or an attack may use besides the model itself."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from minutia.core.digest import Array
from minutia.core.errors import UsageError
from minutia.core.model import Model


@dataclass(frozen=True, eq=False)
class Disclosed:
    """Probes that a thief got to know, inputs (n, *shape), with the labels that convict (n,)."""

    inputs: Array
    labels: Array


@dataclass(frozen=True, eq=False)
class Material:
    """Inputs (n, *shape) with labels (n,), and models by role.

    ``held_out`` are further inputs and labels that the model was not trained on.
    ``unrelated`` are spent: they screen probes and can never calibrate. ``derived`` are copies that keep the owner's
    weights, ``surrogates`` such as learnt his answers; both help to choose probes and to fit verifiers. ``controls``
    are other copies per kind of theft, kept in the fingerprint to say what is ruled out. ``screening`` holds models to
    screen with, where they were parted already.
    ``bounds`` is the valid input box, ``levels`` the number of grey levels inputs are stored with (None: float).
    ``content`` says what inputs are: image, tabular, or text (numbers of tokens).

    Some attacks use more: ``foreign`` inputs with labels of another domain, ``companion``, a model the thief made
    without the victim, ``student``, another architecture that he can train, and ``disclosed`` probes.
    """

    inputs: Array
    labels: Array
    unrelated: Sequence[Model] = ()
    derived: Sequence[Model] = ()
    surrogates: Sequence[Model] = ()
    controls: Mapping[str, Sequence[Model]] = field(default_factory=dict)
    screening: "Material | None" = None
    bounds: tuple[float, float] = (0.0, 1.0)
    levels: int | None = None
    held_out: tuple[Array, Array] | None = None
    content: str = "image"
    foreign: tuple[Array, Array] | None = None
    companion: Model | None = None
    student: Model | None = None
    disclosed: Disclosed | None = None

    def __post_init__(self) -> None:
        if len(self.inputs) != len(self.labels):
            raise UsageError(f"expected one label per input, got {len(self.inputs)} inputs, {len(self.labels)} labels")
        crafted = {m.card.id for m in (*self.derived, *self.surrogates)}
        leaked = [m.card.id for copies in self.controls.values() for m in copies if m.card.id in crafted]
        if leaked:
            raise UsageError(
                f"expected copies for ordering and for control to differ, got {leaked[0]} in both: "
                "a control that helped to choose the probes rules out too much"
            )

    def parted(self) -> tuple["Material", "Material"]:
        """Models to fit on and models to screen with: every fourth of each role is kept apart, split by root.

        Probes that were crafted on one part must be screened on the other: on the models that crafted them every probe
        looks perfect. Several models of one root stay together; of copies, which all share the owner's root, every
        fourth is kept. Raises UsageError for fewer than 4 unrelated models, which cannot be parted.

        >>> from minutia.models.toy import ToyClassifier
        >>> some = [ToyClassifier.fresh((2, 3), seed=i) for i in range(8)]
        >>> fit, screen = Material(np.zeros((1, 2)), np.zeros(1), unrelated=some).parted()
        >>> len(fit.unrelated), len(screen.unrelated)
        (6, 2)
        """
        if self.screening is not None:
            return self, self.screening
        roots = list(dict.fromkeys(m.card.root for m in self.unrelated))
        if len(roots) < 4:
            raise UsageError(
                f"expected 4 or more unrelated models to fit on some and screen with others, got {len(roots)}: "
                "train more of them (60 and more are better), 'minutia null build --spent 80'"
            )
        kept = set(roots[3::4])
        screening = [m for m in self.unrelated if m.card.root in kept]
        fitting = [m for m in self.unrelated if m.card.root not in kept]
        return (
            replace(self, unrelated=fitting, derived=_others(self.derived), surrogates=_others(self.surrogates)),
            replace(self, unrelated=screening, derived=self.derived[3::4], surrogates=self.surrogates[3::4]),
        )

    def stored(self, inputs: Array) -> Array:
        """Clip to the valid box and round to the stored grey levels: what a suspect will really receive.

        >>> m = Material(np.zeros((1, 1)), np.zeros(1), levels=3)
        >>> m.stored(np.array([0.3, 1.7])).tolist()
        [0.5, 1.0]
        """
        low, high = self.bounds
        clipped = np.clip(inputs, low, high)
        if self.levels is not None:
            steps = np.round((clipped - low) / (high - low) * (self.levels - 1))
            clipped = low + steps / (self.levels - 1) * (high - low)
        if self.content == "text":  # 14.999999 would be read as another token
            clipped = np.round(clipped)
        return clipped.astype(np.float32)


def _others(copies: Sequence[Model]) -> list[Model]:
    return [copy for place, copy in enumerate(copies) if place % 4 != 3]
