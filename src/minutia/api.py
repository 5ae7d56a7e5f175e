"""What minutia does, as straight lines: extract, observe a null, verify."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from minutia import catalog
from minutia.core import integrity
from minutia.core.access import Access, require
from minutia.core.attack import Attack
from minutia.core.comparison import Compared, Compatibility, Side
from minutia.core.errors import FileError, ModelError, UsageError
from minutia.core.fingerprint import THREATS, Fingerprint, Null
from minutia.core.journal import Journal
from minutia.core.mark import Mark
from minutia.core.material import Material
from minutia.core.method import Method
from minutia.core.model import Model, ModelCard, WeightModel
from minutia.core.verdict import Verdict
from minutia.methods.weights import comparison, forest
from minutia.methods.weights.forest import Forest
from minutia.methods.weights.order_sketch import SKETCHED, UnitSketch, compare_sketches
from minutia.methods.weights.streams import Stream
from minutia.models import reruns
from minutia.models.checkpoint import Checkpoint, open_checkpoint
from minutia.models.checkpoint_folders import checkpoints_in
from minutia.models.metered import Metered
from minutia.models.stability import RepeatNoise, repeat_noise
from minutia.storage import manifest
from minutia.storage.commitment import commitment
from minutia.storage.data import Dataset
from minutia.storage.files import load_null, save_null, write_atomically
from minutia.storage.models import Entry, ModelStore, weights_file
from minutia.study import integrity as battery
from minutia.study import population, zoo
from minutia.study.population import Recipe

UNLEARN = "unlearn"
FEW = 10
CRAFT_CHANGES = 4


def build_null(
    store: ModelStore,
    recipe: Recipe,
    *,
    calibrators: int = 111,
    spent: int = 80,
    spent_halves: int = 20,
    checkpoints: int = 0,
    seed: int = 0,
    jobs: int = 0,
    progress: zoo.Progress | None = None,
) -> list[Entry]:
    """Train unrelated models of one rung: calibrators that will decide, and spent ones that screen probes.

    ``spent_halves`` more are trained on each half of the data, so that methods that learn do not take models of other
    data for copies, and ``checkpoints`` states along every spent training are kept, which count as one model with it.
    Every model has its own seed; the same call after a kill continues. Returns all entries of the
    store.
    """
    store.check_population(recipe.plain())
    tasks = population.null_tasks(recipe, calibrators, spent, seed) + population.half_tasks(recipe, spent_halves, seed)
    tasks += zoo.checkpoint_tasks([task for task in tasks if task.role == "spent"], checkpoints)
    made = zoo.build(store, tasks, jobs=jobs, progress=progress)
    if len({entry.card.id for entry in made}) < len(made):
        raise ModelError(
            f"expected {len(made)} different models, got equal ones: does the factory or the training function of "
            f"{recipe.like} fix its own seed, or does training break down?"
        )
    return store.listed(recipe.plain(), made)


def collect_null(store: ModelStore, specs: Sequence[str], *, rung: str, spent: int = 0) -> list[Entry]:
    """Register finished unrelated models instead of training them; the last ``spent`` of them screen probes.

    Models of equal content count once. The rung is what the user declares; only he knows where they come from.
    """
    store.check_population({"rung": rung, "like": "collected"})
    cards: dict[str, tuple[str, ModelCard]] = {}
    for spec in specs:
        found = catalog.model(spec)
        cards.setdefault(found.card.id, (spec, found.card))
    if spent > len(cards):
        raise UsageError(f"expected {spent} or more different models, got {len(cards)}: equal content counts once")
    roles = ["calibrator"] * (len(cards) - spent) + ["spent"] * spent
    entries = [Entry(r, rung, spec, card, None) for r, (spec, card) in zip(roles, cards.values(), strict=True)]
    return store.listed({"rung": rung, "like": "collected", "data": "unknown", "plan": {}}, entries)


def extract(
    model: Model,
    data: Dataset,
    method: Method,
    *,
    unrelated: ModelStore | None = None,
    derived: ModelStore | None = None,
    copies: int = 9,
    surrogates: int = 4,
    student: str = "",
    attack_data: str = "",
    threats: tuple[str, ...] = THREATS,
    reserve_for: Fingerprint | None = None,
    seed: int = 0,
    jobs: int = 0,
    progress: zoo.Progress | None = None,
) -> Fingerprint:
    """Enrol a model: screen with spent models, order with some copies, keep others as controls.

    ``copies`` of each kind of theft in ``threats`` are made in ``derived`` (0: none) if the model can be trained;
    two more of each kind that keeps weights help to order the probes and are never controls. A method that learns gets
    ``surrogates`` copies of every way of copying instead and half as many on each half of the data, some of them with
    the architecture ``student``, where one is given. ``attack_data`` is what they are trained on, by default the
    owner's own data.

    ``reserve_for`` is an earlier fingerprint of the model whose probes may become known: further copies unlearn them,
    so that this one still recognises a thief who did.
    """
    able = () if method.owner_needs in model.access else catalog.methods_for(model.access)
    require(method.name, method.owner_needs, model.spec, model.access, instead=able)
    store = derived or unrelated
    makes = bool(copies) and store is not None and Access.TRAIN | Access.WEIGHTS in model.access
    if reserve_for is not None:
        _check_reserve(reserve_for, model, makes)
        threats = tuple(dict.fromkeys([*threats, UNLEARN]))
    made: list[Entry] = []
    if makes and store is not None:
        population.threat_attacks(threats)  # an unknown kind is refused before anything is stored
        thief, known = attack_data or data.spec, population.kept_in(store, reserve_for) if reserve_for else ""
        parent = population.owner_entry(store, model)
        tasks = population.copy_tasks(parent, thief, copies, seed, threats, known)
        if method.learns and surrogates:
            tasks = [task for task in tasks if task.role == "control"]
            tasks += population.surrogate_tasks(parent, thief, surrogates, seed, student=student)
            tasks += population.knowing_tasks(parent, thief, surrogates, seed, known) if known else []
        made = zoo.build(store, tasks, jobs=jobs, progress=progress)
    material = Material(
        data.inputs,
        data.labels,
        unrelated=_opened(unrelated, "spent"),
        derived=[zoo.open_entry(store, e) for e in made if e.role == "craft"] if store else (),
        surrogates=[zoo.open_entry(store, e) for e in made if e.role == "surrogate"] if store else (),
        controls=_by_kind(store, [e for e in made if e.role == "control"]),
        bounds=data.bounds,
        levels=data.levels,
        content=data.content,
        held_out=(data.test_inputs, data.test_labels),
    )
    measured = zoo.held_out(model, data.test_inputs, data.test_labels)
    model.card = replace(model.card, fidelity={**model.card.fidelity, **measured})
    return method.extract(model, material, seed=seed, threats=threats)


def build_copies(
    store: ModelStore,
    model: Model,
    data: str,
    copies: int,
    *,
    threats: tuple[str, ...] = THREATS,
    seed: int = 0,
    jobs: int = 0,
    progress: zoo.Progress | None = None,
) -> list[Entry]:
    """Copies of a model per kind of theft in the threat list: controls, and a few to order probes with."""
    population.threat_attacks(threats)  # an unknown kind is refused before anything is stored
    tasks = population.copy_tasks(population.owner_entry(store, model), data, copies, seed, threats)
    return zoo.build(store, tasks, jobs=jobs, progress=progress)


def observe_null(fp: Fingerprint, store: ModelStore, *, progress: zoo.Progress | None = None) -> Null:
    """Ask every calibrator of a store the fingerprint's probes."""
    header, entries = store.manifest()
    chosen = [e for e in entries if e.role == "calibrator"]
    method, seen = catalog.method(fp.method), []
    for done, entry in enumerate(chosen):
        if progress is not None:
            progress(done, len(chosen), "observing")
        seen.append(method.asked(zoo.open_entry(store, entry), fp.probes, fp.arrays))
    source = f"{len(seen)} models like {header['like']} on {header['data']}"
    null = Null("unrelated", tuple(seen), header["rung"], source) if seen else Null.none()
    null.check(fp)
    return null


def null_from(fp: Fingerprint, paths: Sequence[Path]) -> Null:
    """One null from null files and stores of models; a store's answers are kept in it for the next time."""
    null = Null.none()
    for path in paths:
        null = null.joined(_from_store(fp, path) if path.is_dir() else load_null(path))
    return null


def attack(model: Model, chosen: Attack, material: Material, *, seed: int = 0) -> Model:
    """Make a thief's copy; its card says what it cost. The original is untouched, the seed fixes the copy."""
    return chosen.apply(model, material, np.random.default_rng(seed))


def save_copy(model: WeightModel, path: Path) -> str:
    """Write a copy's weights as safetensors and return the spec that opens it."""
    place = zoo.architecture(model.spec)
    write_atomically(path, weights_file(dict(model.tensors()))[1], private=False)
    return f"{place}{'&' if '?' in place else '?'}weights={path}"


def verify(
    fp: Fingerprint,
    suspect: Model,
    null: Null,
    *,
    alpha: float = 0.01,
    early: bool = True,
    only: Access | None = None,
    max_queries: int = 0,
    journal: Journal | None = None,
    transcript: Path | None = None,
) -> Verdict:
    """Was the suspect made from the enrolled model? H0: it was trained without it.

    The suspect is metered: budget, retries, journal and transcript; ``only`` hides what else it would return.
    See ``Method.verify`` for early stopping.
    """
    method = catalog.method(fp.method)
    if method.question == "integrity":
        raise UsageError(f"expected a fingerprint for the question of origin, got one of {method.name}: minutia check")
    metered = Metered(suspect, only=only, max_queries=max_queries or None, journal=journal, transcript=transcript)
    return method.verify(fp, metered, null, alpha=alpha, early=early, budget=max_queries)


def noise(
    fp: Fingerprint, suspect: Model, repeats: int, *, only: Access | None = None, journal: Journal | None = None
) -> RepeatNoise:
    """How noisy a suspect's answers are: ten probes asked ``repeats`` times over, apart from those that judge it."""
    return repeat_noise(Metered(suspect, only=only, journal=journal), fp.probes, repeats, few=FEW)


def enrol_integrity(
    model: Model, data: Dataset, method: Method, *, allow: Sequence[str] = (), seed: int = 0
) -> Fingerprint:
    """Enrol a model so that ``check`` can tell whether a download of it was changed.

    It is run again in all ways that count as benign, ``allow`` naming number formats among them; changed models of many
    kinds are made, some to choose probes and others to measure the power. Digests of its files are kept as well.
    """
    require(method.name, method.owner_needs, model.spec, model.access)
    material = _material(data)
    rng = np.random.default_rng([seed, 13])
    benign = reruns.reruns(model, data.inputs[: reruns.MOST_ROWS], rng, allow=allow)
    crafted = battery.battery(model, material, rng, allow=allow, each=CRAFT_CHANGES)
    changed = battery.battery(model, material, rng, allow=allow)
    changed = battery.mattering(model, changed, data.test_inputs if material.held_out else data.inputs, benign)
    kept = {m.card.id for made in changed.values() for m in made}
    derived = [m for made in crafted.values() for m in made if m.card.id not in kept]
    material = replace(material, derived=derived, controls={"benign": benign, **changed})
    threats = tuple(kind for kind in battery.KINDS if kind not in allow)
    fp = method.extract(model, material, seed=seed, threats=threats)
    files = model_files(model)
    return replace(fp, arrays={**fp.arrays, manifest.ARRAY: manifest.manifest_of(files).array()}) if files else fp


def check(
    fp: Fingerprint, suspect: Model, *, alpha: float = 0.01, only: Access | None = None, max_queries: int = 0
) -> Verdict:
    """Is the suspect the enrolled model, unchanged? H0: it is.

    Nothing is asked if the suspect lies in files alone and every file is the recorded one. ``only`` hides what else the
    suspect would return.
    """
    method = catalog.method(fp.method)
    if method.question != "integrity":
        raise UsageError(
            f"expected a fingerprint of an integrity method such as sensitive_samples, got one of {method.name}: "
            "minutia verify judges it"
        )
    files, recorded = model_files(suspect), recorded_files(fp)
    same = bool(files) and recorded is not None and manifest.same(manifest.manifest_of(files), recorded)
    if same and suspect.spec.partition(":")[0] in zoo.DATA_ONLY:
        return integrity.identical(method, fp, suspect.card, alpha=alpha)
    metered = Metered(suspect, only=only, max_queries=max_queries or None)
    verdict = method.verify(fp, metered, Null.none(), alpha=alpha, budget=max_queries)
    if not files or recorded is None:
        return verdict
    return integrity.flagged(verdict, "files-identical" if same else "files-differ")


def compare(first: str, second: str, *, alpha: float = 0.01, seed: int = 0, weak: bool = False) -> Compared:
    """Whether two checkpoints descend from one training, from the files alone: paths, ``https://`` or ``hf://``.

    Nothing in them is executed and only some rows are read. Tokens are matched by their strings where both have a
    ``tokenizer.json`` beside them. ``weak`` adds measures that decide nothing and read whole matrices. Either may be a
    file of ``sketch``, whose seed counts then. FileError for files that cannot be read, UsageError for files without
    layers to compare.
    """
    with open_checkpoint(first) as one, open_checkpoint(second) as two:
        if any(SKETCHED in held.metadata for held in (one, two)):
            return _by_sketches(one, two, alpha)
        words = [one.vocabulary(), two.vocabulary()]
        tokens = (words[0], words[1]) if words[0] and words[1] else None
        found = comparison.compare(one, two, seed=seed, alpha=alpha, tokens=tokens, weak=weak)
        sides = [_side(held) for held in (one, two)]
        return Compared(found, sides[0], sides[1], _compatibility(one, two, tokens))


def lineage(
    places: Sequence[str], *, alpha: float = 0.01, seed: int = 0, progress: zoo.Progress | None = None
) -> Forest:
    """Who was made from whom among checkpoints: paths, folders of them, ``https://``, ``hf://`` or ``s3://``.

    Names are those of files and subfolders. FileError for what cannot be read, UsageError for fewer than two.
    """
    specs = checkpoints_in(places)
    with ExitStack() as stack:
        named = {}
        for done, (name, spec) in enumerate(specs.items()):
            if progress is not None:
                progress(done, len(specs), name)
            named[name] = stack.enter_context(open_checkpoint(spec))
        return forest.lineage(named, seed=seed, alpha=alpha)


def sketch(spec: str, path: Path, *, seed: int = 0) -> Side:
    """Write a sketch of a checkpoint's hidden units, by which others can be compared when the weights are away.

    It tells whether units kept their order, nothing else; about 2 MB. Same seed, same file.
    """
    from safetensors.numpy import save

    with open_checkpoint(spec) as held:
        made = UnitSketch.of(Stream.of(held, spec), seed)
        write_atomically(path, save(made.arrays(), made.metadata()))
        return _side(held)


def _by_sketches(first: Checkpoint, second: Checkpoint, alpha: float) -> Compared:
    """The comparison of a sketch with another, or with a checkpoint of which one is made."""
    stored = [
        UnitSketch.read(held, held.metadata, held.spec) if SKETCHED in held.metadata else None
        for held in (first, second)
    ]
    seed = next(found.seed for found in stored if found is not None)
    one, two = (
        found or UnitSketch.of(Stream.of(held, held.spec), seed)
        for found, held in zip(stored, (first, second), strict=True)
    )
    found = compare_sketches(one, two, alpha)
    return Compared(found, _side(first), _side(second), None)


def recorded_files(fp: Fingerprint) -> manifest.Manifest | None:
    """The digests of the enrolled model's files; None where it did not come from files."""
    found = fp.arrays.get(manifest.ARRAY)
    return None if found is None else manifest.Manifest.from_array(found)


def model_files(model: Model) -> list[Path]:
    """The files that hold a model, the main one first: weights, and code where the spec names it as a file."""
    own = getattr(model, "files", None)
    if own is not None:
        return [Path(path) for path in own]
    place, _, query = model.spec.partition("?")
    kind, _, rest = place.partition(":")
    weights = [o.partition("=")[2] for o in query.split("&") if o.startswith("weights=")]
    code = rest.rpartition(":")[0]
    named = [*([rest] if kind in zoo.DATA_ONLY and kind != "replay" else []), *weights]
    found = [Path(name) for name in named if Path(name).is_file()]
    return [*found, Path(code)] if found and code.endswith(".py") else found


@dataclass(frozen=True)
class Opened:
    """Whether a fingerprint opens a commitment, and whether its probes and labels are those that its key gives."""

    committed: bool
    redrawn: bool


def embed(
    model: Model,
    data: Dataset,
    mark: Mark,
    *,
    seed: int,
    derived: ModelStore | None = None,
    copies: int = 9,
    threats: tuple[str, ...] = THREATS,
    jobs: int = 0,
    progress: zoo.Progress | None = None,
) -> tuple[WeightModel, Fingerprint]:
    """Train a mark into a copy of a model and enrol it; ``seed`` is the secret, of 64 or more bits.

    ``copies`` of each kind of theft are made of the marked model in ``derived``, if there is one.
    """
    material = _material(data)
    marked, fp = mark.embed(model, material, seed=seed, threats=threats)
    if derived is not None:
        fp = extract(
            marked, data, mark, derived=derived, copies=copies, threats=threats, seed=seed, jobs=jobs, progress=progress
        )
    return marked, fp


def opens(committed: str, fp: Fingerprint) -> Opened:
    """Check a fingerprint against a commitment made before; both must hold for its p-values to be exact."""
    mark = catalog.method(fp.method)
    if not isinstance(mark, Mark):
        raise UsageError(f"expected the fingerprint of a mark, got one of {mark.name}: 'minutia embed' makes them")
    return Opened(commitment(fp) == committed, mark.redrawn(fp))


def _check_reserve(first: Fingerprint, model: Model, makes: bool) -> None:
    """Refuse a reserve that could not be one: of another model, or without the copies that it must recognise."""
    if first.owner.id != model.card.id:
        raise UsageError(
            f"expected an earlier fingerprint of {model.spec}, got one of {first.owner.id[:19]}…: name its own"
        )
    if not len(first.probes):
        raise UsageError(
            "expected a fingerprint with probes that a thief could unlearn, got one that only reads weights"
        )
    if not makes:
        raise UsageError(
            "expected a model that can be trained and a store for copies that unlearn the first fingerprint, got none: "
            "a reserve needs --derived or --unrelated and --copies 1 or more"
        )


def _side(held: Checkpoint) -> Side:
    infos = [held.info(name) for name in held.names]
    formats = tuple(sorted({info.dtype for info in infos}))
    return Side(held.spec, len(infos), sum(info.nbytes for info in infos), held.bytes_read, formats)


def _compatibility(
    first: Checkpoint, second: Checkpoint, tokens: tuple[tuple[str, ...], tuple[str, ...]] | None
) -> Compatibility:
    """Whether one fits where the other does."""
    shapes = [{name: held.info(name).shape for name in held.names} for held in (first, second)]
    same = len(shapes[0].items() & shapes[1].items())
    config = [held.metadata.get("config.json") for held in (first, second)]
    equal = None if None in config else config[0] == config[1]
    return Compatibility(same, len(shapes[0] | shapes[1]), equal, None if tokens is None else tokens[0] == tokens[1])


def _from_store(fp: Fingerprint, path: Path) -> Null:
    if not (path / "zoo.json").is_file():
        raise FileError(f"expected a null file or a store made by 'minutia null build', got the folder {path}")
    store = ModelStore(path)
    kept = path / "observations" / f"{fp.digest.removeprefix('sha256:')}.safetensors"
    fresh = {e.card.id for e in store.manifest()[1] if e.role == "calibrator"}
    if kept.is_file():
        null = load_null(kept)
        if {o.subject.id for o in null.observations} == fresh:
            return null
    null = observe_null(fp, store)
    save_null(null, kept)
    return null


def _material(data: Dataset) -> Material:
    """The owner's data alone, with held-out inputs where there are some."""
    held = (data.test_inputs, data.test_labels) if len(data.test_labels) else None
    return Material(
        data.inputs, data.labels, bounds=data.bounds, levels=data.levels, content=data.content, held_out=held
    )


def _opened(store: ModelStore | None, role: str) -> list[Model]:
    if store is None:
        return []
    return [zoo.open_entry(store, e) for e in store.manifest()[1] if e.role == role]


def _by_kind(store: ModelStore | None, entries: Sequence[Entry]) -> dict[str, list[Model]]:
    kinds: dict[str, list[Model]] = {}
    for entry in entries:
        assert store is not None
        kinds.setdefault(entry.kind, []).append(zoo.open_entry(store, entry))
    return kinds


def prefix_agreement(first: Fingerprint, second: Fingerprint) -> float | None:
    """Share of common probes with equal answers in two fingerprints; None without common probes."""
    rows = {first.probes.content_id(i): i for i in range(len(first.probes))}
    pairs = [(rows[c], j) for j in range(len(second.probes)) if (c := second.probes.content_id(j)) in rows]
    if not pairs:
        return None
    return float(np.mean([first.answers.labels[i] == second.answers.labels[j] for i, j in pairs]))
