"""What plug-ins are tried on: toy models in numpy, with the material that each kind of method needs."""

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from minutia.core.mark import Mark
from minutia.core.material import Disclosed, Material
from minutia.core.method import Method
from minutia.core.model import Model, ModelCard, Plan
from minutia.core.probe import numbered
from minutia.models.toy import ToyClassifier


@dataclass(frozen=True, eq=False)
class Bench:
    """What plug-ins are tried on: the owner's model, material to enrol it, a thief's own, and innocent models."""

    owner: Model
    material: Material
    thief: Material
    innocents: tuple[Model, ...]


@lru_cache(maxsize=1)
def toy_bench() -> Bench:
    """Small trained networks on five overlapping classes of 4x4 images with 256 grey levels."""
    rng = np.random.default_rng(1910)
    labels = rng.integers(0, 5, 480)
    images = rng.random((5, 1, 4, 4))[labels] + rng.normal(0, 0.4, (480, 1, 4, 4))
    inputs = (np.rint(np.clip(images, 0, 1) * 255) / 255).astype(np.float32)

    def trained(seed: int) -> ToyClassifier:
        plan = Plan(8, batch_size=32, learning_rate=1e-2, reset="everything")
        return ToyClassifier.fresh((16, 12, 5)).trained(inputs[:240], labels[:240], plan, seed)

    owner = trained(0)
    material = Material(
        inputs[:240],
        labels[:240],
        unrelated=[trained(seed) for seed in range(10, 16)],
        derived=[noisy(owner, seed) for seed in range(2)],
        controls={"noise": [noisy(owner, seed) for seed in range(2, 5)]},
        levels=256,
        held_out=(inputs[400:], labels[400:]),
    )
    probes = inputs[400:420]
    thief = Material(
        inputs[240:400],
        labels[240:400],
        levels=256,
        held_out=(inputs[400:], labels[400:]),
        foreign=(inputs[:60, :, ::-1].copy(), labels[:60]),
        companion=trained(20),
        student=ToyClassifier.fresh((16, 10, 5)),
        disclosed=Disclosed(probes, owner.ask(numbered(probes, {})).labels),
    )
    return Bench(owner, material, thief, tuple(trained(seed) for seed in range(100, 112)))


@lru_cache(maxsize=1)
def marking_bench() -> Bench:
    """The same with an owner wide enough to learn a mark by heart."""
    bench = toy_bench()
    plan = Plan(8, batch_size=32, learning_rate=1e-2, reset="everything")
    blank, material = ToyClassifier.fresh((16, 256, 5)), bench.material
    return replace(bench, owner=blank.trained(material.inputs, material.labels, plan, seed=0))


@lru_cache(maxsize=1)
def learning_bench() -> Bench:
    """The same with as many models as methods need that learn: noisy copies, students of the owner, and strangers."""
    bench = toy_bench()
    owner, material = bench.owner, bench.material
    assert isinstance(owner, ToyClassifier)
    plan = Plan(8, batch_size=32, learning_rate=1e-2, reset="everything")
    taught = owner.ask(numbered(material.inputs, {})).probabilities(5)

    def student(seed: int) -> ToyClassifier:
        made = owner.trained(material.inputs, taught, plan, seed)
        made.card = ModelCard(made.card.id, owner.card.root, "students", (owner.card.id,))
        return made

    strangers = [owner.trained(material.inputs, material.labels, plan, seed) for seed in range(200, 240)]
    copies = [noisy(owner, seed) for seed in range(300, 312)]
    learnt = [student(seed) for seed in range(400, 412)]
    more = replace(material, unrelated=strangers, derived=copies, surrogates=learnt)
    return replace(bench, material=more)


@lru_cache(maxsize=1)
def layered_bench() -> Bench:
    """The same with two hidden layers, for methods that read weights."""
    bench = toy_bench()
    material = bench.material
    blank = ToyClassifier.fresh((16, 24, 20, 5))
    plan = Plan(8, batch_size=32, learning_rate=1e-2, reset="everything")

    def trained(seed: int) -> ToyClassifier:
        return blank.trained(material.inputs, material.labels, plan, seed)

    owner = trained(0)
    controls = {"noise": [noisy(owner, seed) for seed in range(2, 5)]}
    derived = [noisy(owner, seed) for seed in range(2)]
    unrelated = [trained(seed) for seed in range(10, 16)]
    more = replace(material, unrelated=unrelated, derived=derived, controls=controls)
    return replace(bench, owner=owner, material=more, innocents=tuple(trained(seed) for seed in range(100, 112)))


def bench_for(method: Method) -> Bench:
    """The bench that has what a method needs."""
    if isinstance(method, Mark):
        return marking_bench()
    if method.reads:
        return layered_bench()
    return learning_bench() if method.learns else toy_bench()


def noisy(owner: ToyClassifier, seed: int) -> ToyClassifier:
    """A copy whose weights are a little off."""
    draw = np.random.default_rng(seed).normal
    return owner.rebuilt({n: (w + draw(0, 0.05, w.shape)).astype(w.dtype) for n, w in owner.tensors()})
