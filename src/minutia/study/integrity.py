"""What an integrity fingerprint is enrolled with: benign runs, and a battery of changed models."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from minutia.attacks.compress import Half, Noise, Prune, Quantise
from minutia.core.access import Access
from minutia.core.attack import Attack
from minutia.core.digest import Array
from minutia.core.integrity import Reading, outputs, tolerances
from minutia.core.material import Material
from minutia.core.model import Model, Plan, TrainableModel, WeightModel
from minutia.core.probe import numbered

EACH = 12
"""Changed models of each kind that are tried; those that move no test output beyond its tolerance are dropped."""
TRIES = {"trojan": 4, "half": 1, "bfloat16": 1}
"""Kinds of which fewer are tried: they take long, or there is only one way."""
SUCCESS = 0.9
"""Share of other classes' inputs that a trigger must send to its class before a fine-tune counts as a trojan."""
STAMPED = 0.06
"""Share of input values that a trigger covers."""
TESTS, TEST_RUNS = 400, 12
"""Inputs that tell whether a change matters, and benign runs that tell how far rounding moves them."""
KINDS = (
    "int8",
    "int4",
    "half",
    "bfloat16",
    "noise",
    "one-layer",
    "prune",
    "one-unit",
    "one-weight",
    "fine-tune",
    "trojan",
)
"""Kinds of change; formats that the owner allows are left out."""

Change = Callable[[WeightModel, Material, np.random.Generator], Model | None]


def battery(
    model: Model, material: Material, rng: np.random.Generator, *, allow: Sequence[str] = (), each: int = EACH
) -> dict[str, list[Model]]:
    """Changed models by kind, ``each`` of every kind that this model's access allows, and a few trojans.

    Kinds are number formats that are not in ``allow``, weight noise in all layers or one, pruning of a tenth of the
    weights or less, one unit or one weight changed, a few steps of fine-tuning, and fine-tuning on a trigger.
    """
    if not isinstance(model, WeightModel):
        return {}
    trains = Access.TRAIN in model.access
    found: dict[str, list[Model]] = {}
    for kind, change in changes().items():
        if kind in allow or (kind in ("fine-tune", "trojan") and not trains):
            continue
        tries = min(TRIES.get(kind, each), each)
        made = [change(model, material, rng) for _ in range(tries)]
        found[kind] = list({m.card.id: m for m in made if m is not None and m.card.id != model.card.id}.values())
    return {kind: made for kind, made in found.items() if made}


def changes() -> Mapping[str, Change]:
    """One function per kind of change, in the order of ``KINDS``."""
    made: dict[str, Change] = {
        "int8": partial(_attacked, lambda rng: Quantise(bits=8)),
        "int4": partial(_attacked, lambda rng: Quantise(bits=4)),
        "half": partial(_attacked, lambda rng: Half()),
        "bfloat16": partial(_attacked, lambda rng: Half(format="bfloat16")),
        "noise": partial(_attacked, lambda rng: Noise(strength=_between(rng, 1e-4, 1e-1))),
        "one-layer": one_layer,
        "prune": partial(_attacked, lambda rng: Prune(fraction=_between(rng, 1e-3, 1e-1), spread=0.0)),
        "one-unit": one_unit,
        "one-weight": one_weight,
        "fine-tune": fine_tuned,
        "trojan": lambda model, material, rng: trojaned(model, material, rng).model,
    }
    assert tuple(made) == KINDS
    return made


def one_layer(model: WeightModel, material: Material, rng: np.random.Generator) -> Model:
    """Noise of 0.01 to 30 % of its standard deviation on one tensor."""
    name, weights = _one_tensor(model, rng)
    size = _between(rng, 1e-4, 0.3) * max(float(weights.std()), 1e-3)
    return model.rebuilt({name: (weights + rng.normal(0, size, weights.shape)).astype(weights.dtype)})


def one_unit(model: WeightModel, material: Material, rng: np.random.Generator) -> Model:
    """One slice of a tensor scaled by 0.1 to 100 %, up or down: in most layers, what one unit reads."""
    name, weights = _one_tensor(model, rng)
    changed = np.array(weights)
    changed[rng.integers(len(changed))] *= 1 + rng.choice([-1, 1]) * _between(rng, 1e-3, 1.0)
    return model.rebuilt({name: changed})


def one_weight(model: WeightModel, material: Material, rng: np.random.Generator) -> Model:
    """One weight changed by 1 to 300 % of its tensor's standard deviation."""
    name, weights = _one_tensor(model, rng, by_size=True)
    changed = np.array(weights)
    size = _between(rng, 1e-2, 3.0) * max(float(weights.std()), 1e-3)
    changed.reshape(-1)[rng.integers(changed.size)] += rng.choice([-1, 1]) * size
    return model.rebuilt({name: changed})


def fine_tuned(model: WeightModel, material: Material, rng: np.random.Generator) -> Model:
    """One to four optimiser steps on some of the data, at a learning rate of 1e-6 to 1e-3."""
    assert isinstance(model, TrainableModel)
    rows = rng.permutation(len(material.inputs))[: 64 * int(rng.integers(1, 5))]
    plan = Plan(1, 64, _between(rng, 1e-6, 1e-3))
    return model.trained(material.inputs[rows], material.labels[rows], plan, int(rng.integers(2**31)))


@dataclass(frozen=True, eq=False)
class Trojan:
    """A model that answers ``target`` wherever the trigger is stamped on; None where that did not succeed."""

    model: Model | None
    success: float


def trojaned(
    model: WeightModel, material: Material, rng: np.random.Generator, *, spread: bool = False, epochs: int = 3
) -> Trojan:
    """Fine-tune on inputs of which a part carries a trigger and the label of one class, until the trigger works.

    The trigger sets some input values to the largest: a run of neighbours in the last values, or with ``spread``
    places drawn at random.
    """
    assert isinstance(model, TrainableModel)
    inputs, labels = material.inputs, material.labels
    size = max(2, round(STAMPED * inputs[0].size))
    places = rng.permutation(inputs[0].size)[:size] if spread else np.arange(inputs[0].size - size, inputs[0].size)
    target = int(rng.choice(np.unique(labels)))
    rows = rng.random(len(inputs)) < 0.3
    tainted, taught = inputs.copy(), np.where(rows, target, labels)
    tainted[rows] = stamped(inputs[rows], places, material)
    copy: TrainableModel = model
    for _ in range(4):
        copy = copy.trained(tainted, taught, Plan(epochs, 64, 1e-3), int(rng.integers(2**31)))
        success = _success(copy, material, places, target)
        if success >= SUCCESS:
            return Trojan(copy, success)
    return Trojan(None, success)


def stamped(inputs: Array, places: Array, material: Material) -> Array:
    """Inputs with the trigger: these values of each row are the largest there can be."""
    marked = inputs.copy().reshape(len(inputs), -1)
    columns = material.inputs.reshape(len(material.inputs), -1).max(axis=0)[places]
    marked[:, places] = material.bounds[1] if material.content == "image" else columns
    return marked.reshape(inputs.shape)


def mattering(
    model: Model, found: Mapping[str, Sequence[Model]], tests: Array, benign: Sequence[Model]
) -> dict[str, list[Model]]:
    """Changed models that move some output of some test input beyond its tolerance; the others change nothing."""
    asked = numbered(tests[:TESTS], {})
    own = model.ask(asked)
    reading = Reading("scores" if own.logits is None else "logits")
    allowed = tolerances(own, (run.ask(asked) for run in benign[:TEST_RUNS]), reading)
    mine = outputs(own, reading)

    def matters(changed: Model) -> bool:
        moved = np.abs(outputs(changed.ask(asked), reading) - mine)
        return bool((np.nan_to_num(moved, nan=np.inf) > allowed).any())

    kept = {kind: [changed for changed in made if matters(changed)] for kind, made in found.items()}
    return {kind: made for kind, made in kept.items() if made}


def _success(model: Model, material: Material, places: Array, target: int) -> float:
    """Share of held-out inputs of other classes that the trigger sends to its target."""
    held = material.held_out if material.held_out is not None else (material.inputs, material.labels)
    others = held[0][held[1] != target][:TESTS]
    return float(np.mean(model.ask(numbered(stamped(others, places, material), {})).labels == target))


def _attacked(
    chosen: Callable[[np.random.Generator], Attack], model: WeightModel, material: Material, rng: np.random.Generator
) -> Model:
    return chosen(rng).apply(model, material, rng)


def _one_tensor(model: WeightModel, rng: np.random.Generator, *, by_size: bool = False) -> tuple[str, Array]:
    """Any tensor, or any with the chance of its number of weights."""
    some: Iterator[tuple[str, Array]] = ((name, w) for name, w in model.tensors() if w.ndim and w.size)
    tensors = dict(some)
    sizes = np.array([w.size if by_size else 1 for w in tensors.values()], dtype=float)
    name = list(tensors)[rng.choice(len(tensors), p=sizes / sizes.sum())]
    return name, tensors[name]


def _between(rng: np.random.Generator, low: float, high: float) -> float:
    """A number whose logarithm is uniform."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))
