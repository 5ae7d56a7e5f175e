"""The zoo: models of known origin, trained as jobs, stored by content, resumed after a kill."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from time import perf_counter
from typing import Self

import numpy as np

from minutia import catalog
from minutia.core.answers import Status
from minutia.core.digest import Array, canonical_json, sha256
from minutia.core.errors import FileError, ModelError, UsageError
from minutia.core.material import Disclosed, Material
from minutia.core.model import JointlyTrainable, Model, ModelCard, Plan, TrainableModel, WeightModel
from minutia.core.probe import numbered
from minutia.storage.data import load_dataset
from minutia.storage.files import load_fingerprint
from minutia.storage.models import Entry, ModelStore, load_weights, weights_file
from minutia.study.battery import knows_probes
from minutia.study.engines import Local
from minutia.study.work import Engine, Made, Progress, perform

DATA_ONLY = ("onnx", "replay", "toy")
"""Kinds of models that are opened without running anybody's code."""


@dataclass(frozen=True)
class Task:
    """One model to make: trained from scratch, fine-tuned from a stored ancestor, or an attack on a stored parent.

    Plain values, so it has a digest. ``role`` says what the model is for (owner, calibrator, spent, craft, control,
    suspect, …), ``kind`` the rung of an unrelated model or the kind of theft. Equal tasks give equal weights on one
    machine. A ``parent`` without an ``attack`` is a public ancestor: its children count as independent of one another,
    because the question is then whether a suspect is independent *given* that ancestor.

    ``stopped`` is the epoch after which a training from scratch is left: a checkpoint, whose root is that of the whole
    training. Attacks may use ``foreign`` data, a ``companion`` model of the thief, a ``student`` architecture, and
    ``disclosed``, the file of a fingerprint whose probes the thief knows.
    """

    role: str
    kind: str
    spec: str
    data: str
    seed: int
    plan: Plan = Plan()
    attack: str = ""
    parent: Entry | None = None
    foreign: str = ""
    companion: Entry | None = None
    student: str = ""
    disclosed: str = ""
    stopped: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.stopped <= self.plan.epochs or (self.stopped and self.plan.schedule != "constant"):
            raise UsageError(
                f"expected a checkpoint at one of {self.plan.epochs} epochs of a constant learning rate, got epoch "
                f"{self.stopped} of {self.plan.schedule}: another schedule depends on where it ends"
            )

    @cached_property
    def digest(self) -> str:
        """Digest of everything that changes the result, the data's content included."""
        models = [entry.card.id if entry else None for entry in (self.parent, self.companion)]
        known = [load_dataset(spec).digest for spec in self.data_sets]
        named = [self.role, self.kind, self.spec, self.seed, self.plan.plain(), self.attack]
        known += [f"stopped after {self.stopped}"] if self.stopped else []
        return sha256(canonical_json([*named, *models, self.student, self.disclosed, *known]).encode())

    @property
    def data_sets(self) -> tuple[str, ...]:
        """Specs of the data sets it loads."""
        return (self.data, self.foreign) if self.foreign else (self.data,)

    @property
    def label(self) -> str:
        """What is being made."""
        return self.kind

    @property
    def bundle(self) -> str:
        """Trainings from scratch that differ in nothing but the seed can share a worker, and perhaps a batch."""
        if self.parent is not None:
            return ""
        return canonical_json([self.spec, self.plan.plain(), self.data, self.stopped])

    @property
    def files(self) -> tuple[str, ...]:
        """Weights and fingerprints that it reads."""
        entries = (self.parent, self.companion)
        return (*weight_files(e for e in entries if e), *((self.disclosed,) if self.disclosed else ()))

    @classmethod
    def make(cls, root: Path, jobs: Sequence[Self]) -> list[Made]:
        """Train or attack, measure what it cost, hand over the weights."""
        if jobs[0].parent is None:
            return [_kept(task, made) for task, made in zip(jobs, _trained(jobs), strict=True)]
        return [_kept(task, _attacked(root, task) if task.attack else _tuned(root, task)) for task in jobs]


def build(
    store: ModelStore,
    tasks: Sequence[Task],
    *,
    jobs: int = 0,
    progress: Progress | None = None,
    engine: Engine | None = None,
) -> list[Entry]:
    """Make all models that are not there yet and return their entries in the order of the tasks.

    The same call after a kill continues where it stopped and gives the same entries.
    """
    if engine is not None:
        return [Entry.from_plain(v["entry"]) for v in perform(store, tasks, engine, progress=progress)]
    with Local(jobs) as own:
        return build(store, tasks, progress=progress, engine=own)


def try_build(
    store: ModelStore, tasks: Sequence[Task], engine: Engine, progress: Progress | None = None
) -> list[Entry | str]:
    """As ``build``, with the reason in place of a model that could not be made."""
    found = perform(store, tasks, engine, progress=progress, tolerant=True)
    return [v["failed"] if "failed" in v else Entry.from_plain(v["entry"]) for v in found]


def weight_files(entries: Iterable[Entry]) -> tuple[str, ...]:
    """Names of the entries' weights in the store."""
    return tuple(dict.fromkeys(e.weights for e in entries if e.weights))


def open_entry(store: ModelStore, entry: Entry) -> Model:
    """Open a stored model: its architecture from the spec, its weights from the store, its card from the entry."""
    kind = entry.spec.partition(":")[0]
    if kind not in DATA_ONLY and not store.own:
        raise FileError(
            f"expected models that are data, got code ({entry.spec}) named by {store.root}, a store that was not made "
            "here: read that code first, then 'minutia null trust' the store"
        )
    return opened(store.root, entry)


def unrelated_tasks(spec: str, data: str, count: int, *, role: str, rung: str, plan: Plan, seed: int) -> list[Task]:
    """Independent trainings from scratch; every role and rung draws its own seeds."""
    return [Task(role, rung, spec, data, seed_of(seed, role, rung, i), plan) for i in range(count)]


def checkpoint_tasks(whole: Iterable[Task], count: int) -> list[Task]:
    """States along these trainings, ``count`` of each, evenly spaced before its end; of few epochs there are fewer."""
    found = []
    for task in whole:
        epochs = {round(task.plan.epochs * k / (count + 1)) for k in range(1, count + 1)}
        found += [replace(task, stopped=e) for e in sorted(epochs) if 0 < e < task.plan.epochs]
    return found


def derived_tasks(
    parent: Entry, data: str, attacks: Iterable[str], copies: int, *, role: str, seed: int, disclosed: str = ""
) -> list[Task]:
    """Copies of one parent, several per attack; data is the attacker's own, ``disclosed`` the probes he knows."""
    spec = architecture(parent.spec)
    return [
        Task(
            role,
            catalog.attack(key).kind,
            spec,
            data,
            seed_of(seed, role, key, i),
            Plan(),
            key,
            parent,
            disclosed=disclosed if knows_probes(key) else "",
        )
        for key in attacks
        for i in range(copies)
    ]


def architecture(spec: str) -> str:
    """A spec without its weights file, which may move while copies of the model stay.

    >>> architecture("torch:nets:small?weights=a.safetensors&train=nets:fit")
    'torch:nets:small?train=nets:fit'
    """
    place, _, query = spec.partition("?")
    kept = [option for option in query.split("&") if option and not option.startswith("weights=")]
    return f"{place}?{'&'.join(kept)}" if kept else place


def held_out(model: Model, inputs: Array, labels: Array) -> dict[str, float]:
    """Accuracy, and mean confidence where scores are known, on inputs that no model was trained on."""
    if not len(labels):
        return {}
    answers = model.ask(numbered(inputs, {}))
    found = {"accuracy": float(np.mean(answers.labels == labels))}
    if answers.scores is not None and (answers.status == Status.OK).all():
        found["confidence"] = float(answers.scores.max(axis=1).mean())
    return found


def opened(root: Path, entry: Entry) -> Model:
    """Architecture from the spec, weights from the store if they are kept there."""
    found = catalog.model(entry.spec)
    if entry.weights is not None:
        assert isinstance(found, WeightModel)
        found = found.rebuilt(load_weights(root, entry.weights))
    if found.card.id != entry.card.id:
        raise ModelError(
            f"expected the model {entry.card.id[:19]}… under {entry.spec}, got {found.card.id[:19]}…: its file or code "
            "was changed since, or its spec does not build it; open it as KIND:… or collect it again"
        )
    found.card = entry.card
    return found


def seed_of(*parts: object) -> int:
    """A seed from plain parts: stable over processes and versions of Python."""
    return int(sha256(canonical_json(list(parts)).encode())[7:15], 16)


def thief(
    data: str,
    *,
    foreign: str = "",
    student: str = "",
    companion: Model | None = None,
    disclosed: Path | None = None,
) -> Material:
    """What a thief may use: his data with held-out inputs to measure on, and whatever else he is given.

    ``disclosed`` is the file of a fingerprint whose probes he knows; see ``Material`` for the others.
    """
    own, other = load_dataset(data), load_dataset(foreign) if foreign else None
    known = load_fingerprint(disclosed) if disclosed else None
    return Material(
        own.inputs,
        own.labels,
        bounds=own.bounds,
        levels=own.levels,
        content=own.content,
        held_out=(own.test_inputs, own.test_labels),
        foreign=(other.inputs, other.labels) if other else None,
        companion=companion,
        student=catalog.model(student) if student else None,
        disclosed=Disclosed(known.probes.array, known.answers.labels) if known else None,
    )


def _kept(task: Task, made: Model) -> Made:
    """The finished model: its entry for the journal, its weights as a file."""
    assert isinstance(made, WeightModel)
    tensors = dict(made.tensors())
    data = load_dataset(task.data)
    measured = held_out(made, data.test_inputs, data.test_labels)
    if task.attack and "accuracy" not in made.card.fidelity:  # other classes: right and wrong mean another thing
        measured.pop("accuracy", None)
    if not all(np.isfinite(w).all() for w in tensors.values()):
        measured["diverged"] = 1.0
    card = replace(made.card, fidelity={**made.card.fidelity, **measured})
    name, content = weights_file(tensors)
    entry = Entry(task.role, task.kind, architecture(made.spec), card, name)
    return Made({"entry": entry.plain()}, {name: content})


def _trained(tasks: Sequence[Task]) -> list[TrainableModel]:
    """Trainings from scratch, many at a time where that is faster; a root names the recipe, the data and the seed."""
    first = tasks[0]
    data, blank = load_dataset(first.data), catalog.model(first.spec)
    if not isinstance(blank, TrainableModel):
        raise UsageError(f"expected a model that can be trained, got {first.spec}: collect finished models instead")
    plan, seeds = replace(first.plan, reset="everything"), [task.seed for task in tasks]
    plan = replace(plan, epochs=first.stopped) if first.stopped else plan
    started = perf_counter()
    if isinstance(blank, JointlyTrainable) and blank.joint:
        made = list(blank.trained_many(data.inputs, data.labels, plan, seeds))
    else:
        made = [blank.trained(data.inputs, data.labels, plan, seed) for seed in seeds]
    cost = {"seconds": (perf_counter() - started) / len(made), "steps": float(plan.steps(len(data.inputs)))}
    recipe = canonical_json([architecture(first.spec), data.digest, first.plan.plain()])
    for one, seed in zip(made, seeds, strict=True):
        root = sha256(canonical_json([recipe, seed]).encode())
        own = f"{recipe}, epoch {first.stopped}" if first.stopped else recipe
        one.card = ModelCard(one.card.id, root, own, fidelity=cost)
    return made


def _tuned(root: Path, task: Task) -> TrainableModel:
    """A child of a public ancestor: trained further on its own data, a root of its own."""
    assert task.parent is not None
    data, parent = load_dataset(task.data), opened(root, task.parent)
    if not isinstance(parent, TrainableModel):
        raise UsageError(f"expected an ancestor that can be trained, got {task.parent.spec}: name one that can")
    started = perf_counter()
    made = parent.trained(data.inputs, data.labels, task.plan, task.seed)
    cost = {"seconds": perf_counter() - started, "steps": float(task.plan.steps(len(data.inputs)))}
    recipe = canonical_json([parent.card.id, data.digest, task.plan.plain()])
    own = sha256(canonical_json([recipe, task.seed]).encode())
    made.card = ModelCard(made.card.id, own, recipe, (parent.card.id,), cost)
    return made


def _attacked(root: Path, task: Task) -> Model:
    """An attack on a stored parent with the attacker's own material."""
    assert task.parent is not None
    material = thief(
        task.data,
        foreign=task.foreign,
        student=task.student,
        companion=opened(root, task.companion) if task.companion else None,
        disclosed=root / task.disclosed if task.disclosed else None,
    )
    return catalog.attack(task.attack).apply(opened(root, task.parent), material, np.random.default_rng(task.seed))
