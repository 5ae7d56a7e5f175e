"""The zoo: models of known origin, trained in several processes, stored by content, resumed after a kill."""

import os
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing import get_context, resource_tracker
from pathlib import Path
from threading import Event, Thread
from time import perf_counter

import numpy as np

from minutia import catalog
from minutia.core.answers import Status
from minutia.core.digest import Array, canonical_json, sha256
from minutia.core.errors import FileError, ModelError, UsageError
from minutia.core.material import Material
from minutia.core.model import Model, ModelCard, Plan, TrainableModel, WeightModel
from minutia.core.probe import numbered
from minutia.storage.data import load_dataset
from minutia.storage.models import Entry, ModelStore, load_weights, save_weights

DATA_ONLY = ("onnx", "replay", "toy")
"""Kinds of models that are opened without running anybody's code."""
Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Task:
    """One model to make: trained from scratch, or an attack on a stored parent. Plain values, so it has a digest.

    ``role`` says what the model is for (owner, calibrator, spent, craft, control, suspect), ``kind`` the rung of an
    unrelated model or the kind of theft. Equal tasks give equal weights on one machine.
    """

    role: str
    kind: str
    spec: str
    data: str
    seed: int
    plan: Plan = Plan()
    attack: str = ""
    parent: Entry | None = None

    @property
    def digest(self) -> str:
        """Digest of everything that changes the result, the data's content included."""
        parent = self.parent.card.id if self.parent else None
        fields = [self.role, self.kind, self.spec, self.seed, self.plan.plain(), self.attack, parent]
        return sha256(canonical_json([*fields, load_dataset(self.data).digest]).encode())


def build(store: ModelStore, tasks: Sequence[Task], *, jobs: int = 0, progress: Progress | None = None) -> list[Entry]:
    """Make all models that are not there yet and return their entries in the order of the tasks.

    Each worker process uses one thread. A task is journalled after its weights are on disk, so the same call after
    a kill continues where it stopped and gives the same entries.
    """
    named = {task.digest: task for task in tasks}
    done = store.finished(named)
    todo = [task for digest, task in named.items() if digest not in done]
    _tell(progress, len(done), len(named), "")
    for task, entry in _made(store.root, todo, jobs or min(os.cpu_count() or 1, 8)):
        store.finish(task.digest, entry)
        done[task.digest] = entry
        _tell(progress, len(done), len(named), task.kind)
    return [done[task.digest] for task in tasks]


def open_entry(store: ModelStore, entry: Entry) -> Model:
    """Open a stored model: its architecture from the spec, its weights from the store, its card from the entry."""
    kind = entry.spec.partition(":")[0]
    if kind not in DATA_ONLY and not store.own:
        raise FileError(
            f"expected models that are data, got code ({entry.spec}) named by {store.root}, a store that was not made "
            "here: read that code first, then 'minutia null trust' the store"
        )
    return _opened(store.root, entry)


def unrelated_tasks(spec: str, data: str, count: int, *, role: str, rung: str, plan: Plan, seed: int) -> list[Task]:
    """Independent trainings from scratch; every role and rung draws its own seeds."""
    return [Task(role, rung, spec, data, seed_of(seed, role, rung, i), plan) for i in range(count)]


def derived_tasks(parent: Entry, data: str, attacks: Iterable[str], copies: int, *, role: str, seed: int) -> list[Task]:
    """Copies of one parent, several per attack; data is the attacker's own."""
    spec = architecture(parent.spec)
    return [
        Task(role, catalog.attack(key).kind, spec, data, seed_of(seed, role, key, i), Plan(), key, parent)
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


def _tell(progress: Progress | None, done: int, total: int, what: str) -> None:
    if progress is not None:
        progress(done, total, what)


def _made(root: Path, todo: Sequence[Task], jobs: int) -> Iterable[tuple[Task, Entry]]:
    """Run the tasks; in this process if there is little to do, else in several with one thread each."""
    if len(todo) < 4 or jobs == 1:
        yield from ((task, _make(str(root), task)) for task in todo)
        return
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), initializer=_one_thread) as pool:
        with _deaf_to_ctrl_c():
            running: dict[Future[Entry], Task] = {pool.submit(_make, str(root), t): t for t in todo}
        try:
            for future in as_completed(running):
                yield running[future], future.result()
        except BrokenProcessPool as error:
            raise ModelError(
                "expected every worker process to finish, got one that was killed (out of memory?): "
                "run the same command again, finished models are kept"
            ) from error
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)  # waits: leaving the block would take the cancelling back
            raise


@contextmanager
def _deaf_to_ctrl_c() -> Iterator[None]:
    """Processes started inside never see Ctrl-C, which reaches the whole group: the parent ends their work."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    resource_tracker.ensure_running()  # it would lift the block while it starts
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _one_thread() -> None:
    """Several processes with several threads each would only wait for one another; read when torch is loaded."""
    os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")
    Thread(target=_leave_with, args=(os.getppid(),), daemon=True).start()


def _leave_with(parent: int) -> None:
    """End this worker when its parent is gone: nobody would note what it makes."""
    while os.getppid() == parent:
        Event().wait(1.0)
    os._exit(1)


def _make(root: str, task: Task) -> Entry:
    """Train or attack, measure what it cost, store the weights."""
    data = load_dataset(task.data)
    made: Model
    fidelity: dict[str, float] = {}
    if task.parent is None:
        made = _trained(task, data.inputs, data.labels)
    else:
        made, fidelity = _attacked(root, task)
    measured = held_out(made, data.test_inputs, data.test_labels)
    card = replace(made.card, fidelity={**fidelity, **measured})
    assert isinstance(made, WeightModel)
    return Entry(task.role, task.kind, task.spec, card, save_weights(Path(root), dict(made.tensors())))


def _trained(task: Task, inputs: Array, labels: Array) -> TrainableModel:
    """A training from scratch; its root names the recipe, the data and the seed."""
    blank = catalog.model(task.spec)
    if not isinstance(blank, TrainableModel):
        raise UsageError(f"expected a model that can be trained, got {task.spec}: collect finished models instead")
    made = blank.trained(inputs, labels, replace(task.plan, reset="everything"), task.seed)
    recipe = canonical_json([architecture(task.spec), load_dataset(task.data).digest, task.plan.plain()])
    made.card = ModelCard(made.card.id, sha256(canonical_json([recipe, task.seed]).encode()), recipe)
    return made


def _attacked(root: str, task: Task) -> tuple[Model, dict[str, float]]:
    """An attack on a stored parent with the attacker's data, and what it changed on held-out data."""
    assert task.parent is not None
    data, parent = load_dataset(task.data), _opened(Path(root), task.parent)
    material = Material(data.inputs, data.labels, bounds=data.bounds, levels=data.levels)
    started = perf_counter()
    made = catalog.attack(task.attack).apply(parent, material, np.random.default_rng(task.seed))
    seconds = perf_counter() - started
    fidelity = {"inputs": float(len(data.inputs)), "seconds": seconds}
    if len(data.test_labels):  # not measured is absent, never 0
        before, after = (m.ask(numbered(data.test_inputs, {})) for m in (parent, made))
        right = float(np.mean(before.labels == data.test_labels))
        fidelity["accuracy_lost"] = right - float(np.mean(after.labels == data.test_labels))
        fidelity["agreement"] = float(np.mean((before.labels == after.labels) & (after.status == Status.OK)))
    return made, fidelity


def _opened(root: Path, entry: Entry) -> Model:
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
