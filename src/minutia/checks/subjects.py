"""What the rules stand on: a plug-in at work, and how a broken rule is told."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from inspect import cleandoc
from typing import Any, NoReturn

import numpy as np

from minutia.checks.benches import Bench
from minutia.core.access import Access
from minutia.core.answers import Answers, Observation, Status
from minutia.core.attack import Attack
from minutia.core.digest import Array, content_digest
from minutia.core.errors import MinutiaError
from minutia.core.fingerprint import Fingerprint, Null
from minutia.core.mark import Mark
from minutia.core.material import Material
from minutia.core.method import Method
from minutia.core.model import GradientModel, Model, ModelCard, TrainableModel, WeightModel
from minutia.core.probe import ProbeSet
from minutia.core.units import LayeredModel

NOISE = 1e-9
"""Differences between scores below this are float noise."""
COLUMNS = {"scores": Access.SCORES | Access.TOP_K, "logits": Access.LOGITS, "text": Access.TEXT, "usage": Access.USAGE}
ABILITIES = {
    Access.GRADIENTS: (GradientModel, ("linearise",)),
    Access.FEATURES: (LayeredModel, ("units", "features")),
    Access.WEIGHTS: (WeightModel, ("tensors", "rebuilt")),
    Access.TRAIN: (TrainableModel, ("tensors", "rebuilt", "trained")),
}


class ContractError(AssertionError):
    """A plug-in breaks a rule; the message names the plug-in, the rule and the remedy."""


@dataclass(frozen=True, eq=False)
class Trial:
    """A method, enrolled once and observed once."""

    method: Method
    bench: Bench

    @property
    def plugin(self) -> Method:
        """What is tried."""
        return self.method

    @cached_property
    def fp(self) -> Fingerprint:
        """The fingerprint of seed 0."""
        return self.extract(seed=0)

    @cached_property
    def null(self) -> Null:
        """Answers of all innocents but the first."""
        seen = tuple(self.method.observe(self.fp, m) for m in self.bench.innocents[1:])
        return Null("unrelated", seen, source="toy models")

    @cached_property
    def suspect(self) -> Observation:
        """Answers of the first innocent."""
        return self.method.observe(self.fp, self.bench.innocents[0])

    @cached_property
    def owner(self) -> Model:
        """The owner's model; where the method is a mark, with the mark of seed 0."""
        return self.enrolled(self.bench.owner)[0]

    def enrolled(self, model: Model, seed: int = 0) -> tuple[Model, Fingerprint]:
        """Any model enrolled, a mark trained in before, and its fingerprint."""
        if isinstance(self.method, Mark):
            return self.method.embed(model, self.bench.material, seed=seed)
        return model, self.method.extract(model, self.bench.material, seed=seed)

    def extract(self, seed: int) -> Fingerprint:
        """The owner's fingerprint of one seed."""
        return self.enrolled(self.bench.owner, seed)[1]

    def score(self, seen: Observation) -> float:
        """The score of an observation."""
        return self.method.score(self.fp, seen)


@dataclass(frozen=True, eq=False)
class Raid:
    """An attack on the owner's model with the thief's material."""

    attack: Attack
    bench: Bench

    @property
    def plugin(self) -> Attack:
        """What is tried."""
        return self.attack

    @cached_property
    def copy(self) -> Model:
        """The copy of seed 0."""
        return self.apply(0)

    def apply(self, seed: int) -> Model:
        """The copy of one seed."""
        return self.attack.apply(self.bench.owner, self.bench.thief, np.random.default_rng(seed))


@dataclass(frozen=True, eq=False)
class Asked:
    """A model and what it answered to some probes."""

    model: Model
    probes: ProbeSet

    @cached_property
    def answers(self) -> Answers:
        """What the model answered first."""
        return self.model.ask(self.probes)


class Veiled:
    """A model that shows no more than some access."""

    def __init__(self, model: Model, access: Access) -> None:
        self.spec, self.card, self.access = model.spec, model.card, model.access & access
        self._model = model
        for needs, (_, names) in ABILITIES.items():
            for name in names if needs in access else ():
                setattr(self, name, getattr(model, name))

    def ask(self, probes: ProbeSet) -> Answers:
        """Answers without the columns that are hidden."""
        answers = self._model.ask(probes)
        hidden: dict[str, Any] = {name: None for name, needs in COLUMNS.items() if not needs & self.access}
        return replace(answers, **hidden)


def must(fulfilled: bool, plugin: object, message: str) -> None:
    """Raise a ContractError that names the plug-in unless something is so."""
    if not fulfilled:
        raise ContractError(f"{called(plugin)}: {message}")


def refused(call: Callable[[], object], kind: type[MinutiaError], plugin: object, message: str) -> None:
    """Raise a ContractError unless a call is refused by an error of this kind."""
    try:
        call()
    except kind:
        return
    raise ContractError(f"{called(plugin)}: {message}")


def called(plugin: object) -> str:
    """The name of a plug-in, its spec or that of its class."""
    return str(getattr(plugin, "name", None) or getattr(plugin, "spec", None) or type(plugin).__name__)


def run_rule(rule: Callable[[Any], None], subject: Trial | Raid | Asked) -> None:
    """Run one rule; whatever else a plug-in raises breaks the contract as well."""
    try:
        rule(subject)
    except ContractError:
        raise
    except Exception as error:
        _broken(rule, subject, error)


def _broken(rule: Callable[[Any], None], subject: Trial | Raid | Asked, error: Exception) -> NoReturn:
    plugin = subject.model if isinstance(subject, Asked) else subject.plugin
    what = f"raised {type(error).__name__} ({error}) where {rule.__name__.replace('_', ' ')}"
    raise ContractError(f"{called(plugin)}: {what}: {cleandoc(rule.__doc__ or '')}") from error


def another(value: object) -> object:
    """Some other value of the same type."""
    if isinstance(value, bool):
        return not value
    return value + 1 if isinstance(value, int | float) else f"{value}x"


def state(model: Model) -> tuple[str, ModelCard]:
    """Everything that may not change about a model: its weights if they are open, else its answers, and its card."""
    if isinstance(model, WeightModel):
        return content_digest({}, dict(model.tensors())), model.card
    return "", model.card


def contents(material: Material) -> list[str]:
    """Digests of everything that material holds: inputs with labels of every role, and models of every role."""
    known = material.disclosed
    pairs = [(material.inputs, material.labels), material.held_out, material.foreign]
    pairs.append(None if known is None else (known.inputs, known.labels))
    some = [*material.unrelated, *material.derived, *(m for copies in material.controls.values() for m in copies)]
    models = [m for m in (*some, material.companion, material.student) if m is not None]
    digests = [content_digest({}, {"inputs": x, "labels": y}) for x, y in filter(None, pairs)]
    return [*digests, *(state(m)[0] for m in models)]


def same_answers(first: Answers, second: Answers) -> bool:
    """Whether two sets of answers are equal to the last bit, NaN included."""
    one, two = first.arrays(), second.arrays()
    return one.keys() == two.keys() and all(np.array_equal(one[n], two[n], equal_nan=n in COLUMNS) for n in one)


def without(seen: Observation, rows: Array, status: Status) -> Observation:
    """The same observation with no answer in some rows."""
    columns = {name: column.copy() for name, column in seen.answers.arrays().items()}
    columns["status"][rows] = status
    columns["labels"][rows] = -1
    for name in ("scores", "logits"):
        if name in columns:
            columns[name][rows] = np.nan
    return replace(seen, answers=Answers.from_arrays(columns))


def overwrite(arrays: Iterable[Array]) -> None:
    """Write zeros into arrays that allow it."""
    for array in arrays:
        if array.flags.writeable:
            array[...] = 0
