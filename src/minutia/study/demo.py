"""The demo: the main job on real images, from nothing to a verdict table in about a minute."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

from minutia import api, catalog
from minutia.core.digest import Array
from minutia.core.fingerprint import HARDEST_RUNG, Fingerprint, Null
from minutia.core.method import Method
from minutia.core.model import Model, ModelCard, Plan
from minutia.core.verdict import Verdict
from minutia.core.yardstick import yardstick
from minutia.storage.data import load_dataset
from minutia.storage.files import save_fingerprint, save_null
from minutia.storage.models import Entry, ModelStore
from minutia.study import population, zoo

ARCHITECTURE = "torch:minutia.study.architectures:digits_cnn"
OTHER_ARCHITECTURE = "torch:minutia.study.architectures:digits_mlp"
OWNER_DATA = "sklearn:digits?rows=0:900"
THIEF_DATA = "sklearn:digits?rows=900:1400"
PLAN = Plan(epochs=12, learning_rate=4e-3)
CALIBRATORS, SPENT, CONTROLS = 99, 20, 9
COPIES_PER_KIND = 3
INNOCENTS = {HARDEST_RUNG: 8, "other architecture, same data": 6, "same architecture, disjoint data": 6}

Told = Callable[[str], zoo.Progress]


@dataclass(frozen=True, eq=False)
class Case:
    """A suspect whose origin is known, and what was decided about it."""

    suspect: str
    truth: str
    kind: str
    card: ModelCard
    verdict: Verdict


@dataclass(frozen=True, eq=False)
class Result:
    """Everything the report shows."""

    cases: tuple[Case, ...]
    fingerprint: Fingerprint
    null: Null
    looks: tuple[int, ...]
    null_scores: Array
    owner_score: float
    seconds: float


def run(root: Path, *, method: Method | None = None, seed: int = 0, jobs: int = 0, told: Told | None = None) -> Result:
    """Train owner, null and suspects (or find them in ``root``), extract, verify every suspect from its labels."""
    started = perf_counter()
    told = told or (lambda title: lambda done, total, what: None)
    store = ModelStore(root / "zoo")
    mine = owner(store, seed)
    suspects = _models(store, mine, seed, jobs, told("models"))
    recipe = api.Recipe(ARCHITECTURE, OWNER_DATA, PLAN)
    api.build_null(store, recipe, calibrators=CALIBRATORS, spent=SPENT, spent_halves=0, seed=seed, jobs=jobs)
    fp = api.extract(
        mine,
        load_dataset(OWNER_DATA),
        method or catalog.method("ipguard"),
        unrelated=store,
        copies=CONTROLS,
        attack_data=THIEF_DATA,
        seed=seed,
        jobs=jobs,
    )
    null = api.observe_null(fp, store)
    save_fingerprint(fp, root / "owner.safetensors")
    save_null(null, root / "owner.null.safetensors")
    cases = tuple(_case(fp, null, store, entry, i) for i, entry in enumerate(suspects))
    stick = yardstick(catalog.method(fp.method), fp, null)
    own = float(stick.shown(stick.path(fp.controls["owner"][0]))[-1])
    return Result(cases, fp, null, stick.looks, stick.innocent, own, perf_counter() - started)


def owner(store: ModelStore, seed: int) -> Model:
    """The model to protect, opened as a user would open it: architecture and weights file."""
    task = zoo.Task("owner", "owner", ARCHITECTURE, OWNER_DATA, zoo.seed_of(seed, "owner"), PLAN)
    entry = zoo.build(store, [task])[0]
    return catalog.model(f"{ARCHITECTURE}?weights={store.root / str(entry.weights)}")


def _models(store: ModelStore, owner: Model, seed: int, jobs: int, progress: zoo.Progress) -> list[Entry]:
    """Make everything in one pool of workers; return the suspects."""
    parent = population.owner_entry(store, owner)
    suspects = zoo.derived_tasks(
        parent, THIEF_DATA, population.threat_attacks(), COPIES_PER_KIND, role="suspect", seed=seed
    )
    for rung, count in INNOCENTS.items():
        spec = OTHER_ARCHITECTURE if rung.startswith("other architecture") else ARCHITECTURE
        data = THIEF_DATA if rung.endswith("disjoint data") else OWNER_DATA
        suspects += zoo.unrelated_tasks(spec, data, count, role="suspect", rung=rung, plan=PLAN, seed=seed)
    recipe = api.Recipe(ARCHITECTURE, OWNER_DATA, PLAN)
    others = population.null_tasks(recipe, CALIBRATORS, SPENT, seed)
    others += population.copy_tasks(parent, THIEF_DATA, CONTROLS, seed)
    return zoo.build(store, [*suspects, *others], jobs=jobs, progress=progress)[: len(suspects)]


def _case(fp: Fingerprint, null: Null, store: ModelStore, entry: Entry, number: int) -> Case:
    """Judge one suspect."""
    verdict = api.verify(fp, zoo.open_entry(store, entry), null)
    truth = "derived" if entry.card.parents else "unrelated"
    return Case(f"suspect-{number + 1:02d}", truth, entry.kind, entry.card, verdict)
