"""Who is trained around an owner: unrelated models of his recipe, and copies of his model in many ways, as tasks."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from minutia import catalog
from minutia.core.errors import UsageError
from minutia.core.fingerprint import HARDEST_RUNG, THREATS, Fingerprint
from minutia.core.model import Model, Plan, WeightModel
from minutia.storage.data import halves, load_dataset
from minutia.storage.files import fingerprint_bytes
from minutia.storage.models import Entry, ModelStore
from minutia.study import zoo
from minutia.study.battery import KNOWING, SURROGATES

HALF_RUNG = "half of the data, same recipe"
CRAFT_COPIES = 2
"""Copies of each kind that keeps weights which help to order probes, where no method learns from more."""


@dataclass(frozen=True)
class Recipe:
    """How the models of a null are made: the owner's architecture, data and plan, and the rung this amounts to."""

    like: str
    data: str
    plan: Plan = Plan()
    rung: str = HARDEST_RUNG

    def plain(self) -> dict[str, object]:
        """As plain data for the manifest."""
        content = load_dataset(self.data).digest
        plan = self.plan.plain()
        return {"like": self.like, "data": self.data, "data_digest": content, "plan": plan, "rung": self.rung}


def null_tasks(recipe: Recipe, calibrators: int, spent: int, seed: int) -> list[zoo.Task]:
    """The trainings that make a null."""
    return [
        task
        for role, count in (("calibrator", calibrators), ("spent", spent))
        for task in zoo.unrelated_tasks(
            recipe.like, recipe.data, count, role=role, rung=recipe.rung, plan=recipe.plan, seed=seed
        )
    ]


def half_tasks(recipe: Recipe, count: int, seed: int) -> list[zoo.Task]:
    """Spent models that know half of the data, ``count`` for each half."""
    return [
        task
        for half in halves(recipe.data)
        for task in zoo.unrelated_tasks(
            recipe.like, half, count, role="spent", rung=HALF_RUNG, plan=recipe.plan, seed=seed
        )
    ]


def copy_tasks(
    owner: Entry, data: str, copies: int, seed: int, threats: tuple[str, ...] = THREATS, disclosed: str = ""
) -> list[zoo.Task]:
    """The attacks that make controls and copies for ordering; their seeds never meet."""
    keys = threat_attacks(threats)
    keeping = [key for key in keys if catalog.attack(key).keeps_weights]
    controls = zoo.derived_tasks(owner, data, keys, copies, role="control", seed=seed, disclosed=disclosed)
    return controls + zoo.derived_tasks(
        owner, data, keeping, CRAFT_COPIES, role="craft", seed=seed, disclosed=disclosed
    )


def surrogate_tasks(
    owner: Entry, data: str, count: int, seed: int, *, student: str = "", foreign: str = ""
) -> list[zoo.Task]:
    """Copies of one owner in many ways, for methods that learn what copies have in common.

    ``count`` of each way are made with the data, and half as many with each half of it: together with unrelated models
    of these halves they teach what is the owner's and what is the data's. Ways that need another architecture are left
    out without ``student``.
    """
    keys = [key for key in SURROGATES if student or "student=other" not in key]
    return [
        replace(task, student=student, foreign=foreign) for task in _on_whole_and_halves(owner, data, keys, count, seed)
    ]


def knowing_tasks(owner: Entry, data: str, count: int, seed: int, disclosed: str) -> list[zoo.Task]:
    """Copies as thieves make them who know the probes of a fingerprint, ``disclosed``, a file in the store."""
    return _on_whole_and_halves(owner, data, KNOWING, count, seed, disclosed)


def _on_whole_and_halves(
    owner: Entry, data: str, keys: Sequence[str], count: int, seed: int, disclosed: str = ""
) -> list[zoo.Task]:
    """Copies that methods learn from: such as keep the weights, and surrogates that learnt the answers."""
    parts = [(data, count, seed)]
    parts += [(half, count // 2, zoo.seed_of(seed, "half", place)) for place, half in enumerate(halves(data))]
    found = []
    for part, number, own in parts:
        for chosen in map(catalog.attack, keys):
            role = "craft" if chosen.keeps_weights else "surrogate"
            found += zoo.derived_tasks(owner, part, [chosen.key], number, role=role, seed=own, disclosed=disclosed)
    return found


def kept_in(store: ModelStore, fp: Fingerprint) -> str:
    """The file of a fingerprint inside a store, where the makers of copies find it."""
    name = f"fingerprints/{fp.digest.removeprefix('sha256:')}.safetensors"
    store.save_file(name, fingerprint_bytes(fp))
    return name


def threat_attacks(threats: tuple[str, ...] = THREATS) -> list[str]:
    """Installed attacks, with their default parameters, of these kinds of theft; a kind without any is refused."""
    known = [catalog.attack(name) for name in catalog.names("attacks")]
    unknown = set(threats) - {a.kind for a in known}
    if unknown:
        raise UsageError(
            f"expected kinds of theft that an attack makes ({', '.join(sorted({a.kind for a in known}))}), "
            f"got {sorted(unknown)[0]!r}: 'minutia attacks' lists them"
        )
    return [a.key for kind in threats for a in known if a.kind == kind]


def owner_entry(store: ModelStore, model: Model) -> Entry:
    """The owner's model as a parent of copies: its architecture by spec, its weights kept in the store."""
    weights = store.save_weights(model) if isinstance(model, WeightModel) else None
    return Entry("owner", "owner", zoo.architecture(model.spec), model.card, weights)
