"""What every method, model and attack must do, as small checks that authors run on plug-ins of their own.

``check_method(MyMethod())``, ``check_attack(MyAttack())`` and ``check_model(my_model, probes)`` return if all is well
and raise a ``ContractError`` that says what the plug-in must do. The material is toy models in numpy.

>>> from minutia.catalog import method
>>> check_method(method("noise_agreement(probes=20)"))
"""

import copy
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass, replace
from functools import cached_property, lru_cache, partial
from inspect import cleandoc, get_annotations
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np

from minutia import catalog
from minutia.core.access import Access
from minutia.core.answers import Answers, Observation, Status
from minutia.core.attack import Attack
from minutia.core.digest import Array, content_digest
from minutia.core.errors import MinutiaError, NullError, ProtocolError
from minutia.core.fingerprint import Fingerprint, Null
from minutia.core.mark import Mark
from minutia.core.material import Disclosed, Material
from minutia.core.method import Method
from minutia.core.model import GradientModel, Model, ModelCard, Plan, TrainableModel, WeightModel
from minutia.core.probe import ProbeSet, numbered
from minutia.core.units import LayeredModel, permuted
from minutia.models.toy import ToyClassifier
from minutia.storage.files import load_fingerprint, load_null, save_fingerprint, save_null

NOISE = 1e-9
"""Differences between scores below this are float noise."""
COLUMNS = {"scores": Access.SCORES | Access.TOP_K, "logits": Access.LOGITS, "text": Access.TEXT, "usage": Access.USAGE}
NOT_ON_TOYS = ("fold_norms",)
"""Attacks that need what the toy classifier does not have (batch norms): give ``check_attack`` a bench that has it."""
ABILITIES = {
    Access.GRADIENTS: (GradientModel, ("linearise",)),
    Access.FEATURES: (LayeredModel, ("units", "features")),
    Access.WEIGHTS: (WeightModel, ("tensors", "rebuilt")),
    Access.TRAIN: (TrainableModel, ("tensors", "rebuilt", "trained")),
}


class ContractError(AssertionError):
    """A plug-in breaks a rule; the message names the plug-in, the rule and the remedy."""


@dataclass(frozen=True, eq=False)
class Bench:
    """What plug-ins are tried on: the owner's model, material to enrol it, a thief's own, and innocent models."""

    owner: Model
    material: Material
    thief: Material
    innocents: tuple[Model, ...]


class Check(NamedTuple):
    """One rule for one installed plug-in; ``run`` raises a ContractError if it is broken."""

    group: str
    plugin: str
    rule: str
    run: Callable[[], None]

    def __str__(self) -> str:
        return f"{self.group}-{self.plugin}-{self.rule}"


def check_method(method: Method, bench: Bench | None = None) -> None:
    """Run every check of a method; ``bench`` for methods that need other models than toy classifiers."""
    trial = _Trial(method, bench or _bench_for(method))
    for rule in METHOD_RULES:
        _run(rule, trial)


def check_attack(attack: Attack, bench: Bench | None = None) -> None:
    """Run every check of an attack."""
    trial = _Raid(attack, bench or toy_bench())
    for rule in ATTACK_RULES:
        _run(rule, trial)


def check_model(model: Model, probes: ProbeSet) -> None:
    """Run every check of a model; it is asked these probes, at least three, several times and in several orders."""
    for rule in MODEL_RULES:
        _run(rule, _Asked(model, probes))


def all_checks() -> list[Check]:
    """Every rule for every installed method and attack with default parameters, and for the toy classifier.

    Models of other kinds need a file or an address: give one to ``check_model``.

    >>> sorted({check.group for check in all_checks()})
    ['attacks', 'methods', 'models']
    """
    rules: Mapping[str, Sequence[Callable[[Any], None]]] = {"methods": METHOD_RULES, "attacks": ATTACK_RULES}
    plugins = [(group, name) for group in rules for name in catalog.names(group)]
    plugins = [(group, name) for group, name in plugins if name not in NOT_ON_TOYS]
    named = [Check(g, n, "its_name_is_registered", partial(_its_name_is_registered, g, n)) for g, n in plugins]
    ruled = [*((g, n, rules[g]) for g, n in plugins), ("models", "toy", MODEL_RULES)]
    return named + [Check(g, n, r.__name__, partial(_run_installed, r, g, n)) for g, n, some in ruled for r in some]


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
        derived=[_noisy(owner, seed) for seed in range(2)],
        controls={"noise": [_noisy(owner, seed) for seed in range(2, 5)]},
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
    copies = [_noisy(owner, seed) for seed in range(300, 312)]
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
    controls = {"noise": [_noisy(owner, seed) for seed in range(2, 5)]}
    derived = [_noisy(owner, seed) for seed in range(2)]
    unrelated = [trained(seed) for seed in range(10, 16)]
    more = replace(material, unrelated=unrelated, derived=derived, controls=controls)
    return replace(bench, owner=owner, material=more, innocents=tuple(trained(seed) for seed in range(100, 112)))


# --- rules that methods and attacks share


def parameters_are_fields(trial: "_Trial | _Raid") -> None:
    """Every parameter is a field of a frozen dataclass, has a plain default, and changes the key."""
    plugin = trial.plugin
    frozen = is_dataclass(plugin) and getattr(plugin, "__dataclass_params__").frozen  # noqa: B009 - not in the stubs
    _must(frozen, plugin, "must be a frozen dataclass: decorate the class with @dataclass(frozen=True)")
    known = {f.name: f for f in fields(plugin)}
    for cls in type(plugin).__mro__:
        for name, kind in get_annotations(cls).items():
            loose = name not in known and "ClassVar" not in str(kind) and issubclass(cls, Method | Attack)
            _must(not loose, plugin, f"{name!r} of {cls.__name__} is no field: decorate the class, or say ClassVar")
    _must(set(vars(plugin)) <= set(known), plugin, f"must hold no state but its fields, got {sorted(vars(plugin))}")
    for name, field in known.items():
        plain = field.default is not MISSING and isinstance(field.default, bool | int | float | str)
        _must(plain, plugin, f"field {name!r} needs a default of type int, float, str or bool: it is spelled in keys")
        other = copy.copy(plugin)
        object.__setattr__(other, name, _another(getattr(plugin, name)))
        _must(other.key != plugin.key, plugin, f"field {name!r} must change the key: do not override ``key``")


def the_key_comes_back(trial: "_Trial | _Raid") -> None:
    """``from_key`` rebuilds the plug-in from its key: a fingerprint or a threat list names it by nothing else."""
    plugin = trial.plugin
    again = type(plugin).from_key(plugin.key)
    fine = again == plugin and again.key == plugin.key
    _must(fine, plugin, f"from_key(key) must give the same plug-in, got {again.key} for {plugin.key}")


def it_is_documented(trial: "_Trial | _Raid") -> None:
    """The docstring names the source and holds an example that runs; H0 is written in words."""
    plugin, cls = trial.plugin, type(trial.plugin)
    text = cleandoc(cls.__doc__ or "")
    _must("Source:" in text and bool(cls.source), plugin, "must name its source, in the docstring and as ``source``")
    texts = [text, *(str(getattr(cls, name).__doc__) for name in vars(cls) if callable(getattr(cls, name)))]
    _must(any(">>>" in t for t in texts), plugin, "must show a doctest in its docstring")
    if isinstance(plugin, Method):
        _must("H0" in text and bool(plugin.h0), plugin, "must say in words what H0 is, in the docstring and as ``h0``")


# --- methods


def the_sealed_part_is_untouched(trial: "_Trial") -> None:
    """Extracting, verifying and judging are the same for all: no method marks its own homework."""
    for name in ("extract", "verify", "judge", "from_key"):
        own = any(name in vars(cls) for cls in type(trial.method).__mro__ if cls not in Method.__mro__)
        _must(not own, trial.method, f"must not override {name!r}: write the hooks enrol, score, observe and path")


def the_same_seed_gives_the_same_digest(trial: "_Trial") -> None:
    """Extraction repeats: all randomness comes from the generator that ``enrol`` is given."""
    again = trial.extract(seed=0)
    _must(again.digest == trial.fp.digest, trial.method, "must use no randomness but ``rng``: seed 0 gave two digests")


def another_seed_gives_other_probes(trial: "_Trial") -> None:
    """Where the generator is used at all, it must matter; a method that never draws is exempt."""
    rng = np.random.default_rng(0)
    before = str(rng.bit_generator.state)
    trial.method.enrol(trial.owner, trial.bench.material, rng)
    if str(rng.bit_generator.state) != before:
        other = trial.extract(seed=1).probes.digest
        _must(other != trial.fp.probes.digest, trial.method, "must draw other probes from another seed")


def extraction_changes_nothing(trial: "_Trial") -> None:
    """The owner's model and the material are read, never written."""
    before = _state(trial.bench.owner), _contents(trial.bench.material)
    trial.extract(seed=0)
    after = _state(trial.bench.owner), _contents(trial.bench.material)
    _must(before == after, trial.method, "must leave the model and the material as they are: copy before changing")


def its_needs_are_honest(trial: "_Trial") -> None:
    """What ``owner_needs`` and ``suspect_needs`` name is enough."""
    method, bench = trial.method, trial.bench
    fp = trial.enrolled(_Veiled(bench.owner, method.owner_needs))[1]
    shown = Access.LABELS | method.suspect_needs if Access.TEXT not in method.suspect_needs else method.suspect_needs
    seen = [method.observe(fp, _Veiled(m, shown)) for m in bench.innocents]
    null = Null("unrelated", tuple(seen[1:]))
    verdict = method.judge(fp, seen[0], null, alpha=0.1)
    _must(verdict.score is not None, method, "must score what ``suspect_needs`` names: add what it reads to it")


def probes_are_what_arrives(trial: "_Trial") -> None:
    """Array probes are float32, inside the valid box, and unchanged by ``Material.stored``."""
    probes, material = trial.fp.probes, trial.bench.material
    _must(len(probes) > 0 or bool(trial.method.reads), trial.method, "must return a probe, or read the weights")
    if not isinstance(probes.content, np.ndarray):
        return
    stored = material.stored(probes.array)
    shaped = probes.array.shape[1:] == material.inputs.shape[1:]
    _must(shaped, trial.method, f"must make probes like {material.inputs.shape[1:]}, got {probes.array.shape[1:]}")
    same = probes.array.dtype == np.float32 and np.array_equal(stored, probes.array)
    _must(same, trial.method, "must return probes as ``material.stored`` leaves them: that is what a suspect receives")


def scoring_is_pure(trial: "_Trial") -> None:
    """Judging twice, and judging after a trip through files, gives the same verdict."""
    method, fp, null, seen = trial.method, trial.fp, trial.null, trial.suspect
    first = method.judge(fp, seen, null, alpha=0.1)
    again = method.judge(replace(fp), replace(seen), replace(null), alpha=0.1)
    _must(first == again, method, "must give one verdict for one observation: scoring must not draw, keep or change")
    with tempfile.TemporaryDirectory() as folder:
        save_fingerprint(fp, Path(folder, "fp"))
        save_null(null, Path(folder, "null"))
        save_null(Null("unrelated", (seen,)), Path(folder, "seen"))
        (kept,) = load_null(Path(folder, "seen")).observations
        read = method.judge(load_fingerprint(Path(folder, "fp")), kept, load_null(Path(folder, "null")), alpha=0.1)
    _must(first == read, method, "must judge from stored arrays alone: keep what it needs in ``Enrolment.arrays``")


def the_path_is_the_score_of_prefixes(trial: "_Trial") -> None:
    """``path`` is only faster: at every look it equals the score of what was asked until then."""
    fp = trial.fp
    prefixes = [fp.probes.ids[:look] for look in fp.schedule]
    for seen in (*fp.controls["owner"], *trial.null.observations):
        slow = [trial.method.score(fp, seen.only(ids)) for ids in prefixes]
        fast = trial.method.path(fp, seen, prefixes)
        fine = np.shape(fast) == np.shape(slow) and np.allclose(fast, slow, rtol=0, atol=NOISE)
        _must(fine, trial.method, "``path`` must equal ``score`` of ``observation.only(prefix)`` at every look")


def the_owner_scores_highest(trial: "_Trial") -> None:
    """The owner's own model, asked again, is at least as close as any innocent one: larger means closer.

    Whether data was used is exempt: an honest model of the same data uses it as much as the owner's does.
    """
    if trial.method.question == "data-use":
        return
    own = trial.score(trial.fp.controls["owner"][0])
    best = max(trial.score(seen) for seen in trial.null.observations)
    _must(own >= best - NOISE, trial.method, f"must score its own model highest, got {own:g} and an innocent {best:g}")


def refusing_never_helps(trial: "_Trial") -> None:
    """Refused, truncated and invalid answers count as no match, whichever questions a suspect chooses for them."""
    rng = np.random.default_rng(0)
    for seen in (*trial.fp.controls["owner"], *trial.null.observations[:3]):
        unlike = np.flatnonzero(seen.answers.labels != trial.fp.answers.labels)
        for rows in (unlike, rng.permutation(len(seen.asked))[::3], np.arange(len(seen.asked))):
            for status in (Status.REFUSED, Status.TRUNCATED, Status.INVALID):
                hidden = trial.score(_without(seen, rows, status))
                fine = hidden <= trial.score(seen) + NOISE
                _must(fine, trial.method, f"must count {status.name} as no match: hiding answers raised the score")


def the_order_of_the_null_is_irrelevant(trial: "_Trial") -> None:
    """Null models are a set: in another order they give the same verdict."""
    null = trial.null
    for seen in (trial.suspect, *trial.fp.controls["owner"]):
        straight, turned = (
            replace(trial.method.judge(trial.fp, seen, given, alpha=0.1), null_digest="")
            for given in (null, replace(null, observations=null.observations[::-1]))
        )
        _must(straight == turned, trial.method, "must not depend on the order of the null models")


def spent_models_cannot_calibrate(trial: "_Trial") -> None:
    """A null model that screened the probes is refused with a NullError."""
    spent = tuple(trial.method.observe(trial.fp, m) for m in trial.bench.material.unrelated[:1])
    null = replace(trial.null, observations=trial.null.observations + spent)
    message = "must record the models it was given as spent: a null with one of them was accepted"
    _refused(lambda: trial.method.judge(trial.fp, trial.suspect, null), NullError, trial.method, message)


def other_probes_are_another_experiment(trial: "_Trial") -> None:
    """An observation of other probes is refused with a ProtocolError."""
    foreign = replace(trial.suspect, protocol="sha256:" + 64 * "0")
    message = "must refuse an observation of other probes"
    _refused(lambda: trial.method.judge(trial.fp, foreign, trial.null), ProtocolError, trial.method, message)


def p_never_falls_below_its_floor(trial: "_Trial") -> None:
    """No score, however high, is worth more than 1/(m+1); an exact null has a floor of its own."""
    floor = 0.0 if trial.method.is_exact else 1 / (1 + trial.null.m)
    for seen in (*trial.fp.controls["owner"], trial.suspect):
        found = trial.method.judge(trial.fp, seen, trial.null, alpha=0.1)
        fine = found.p_value is not None and found.p_floor is not None and found.p_value >= found.p_floor >= floor
        _must(fine, trial.method, f"must give p >= {floor:g}, got {found.p_value} with the floor {found.p_floor}")


# --- attacks


def the_original_is_untouched(raid: "_Raid") -> None:
    """Model in, new model out: neither the victim nor the thief's data is changed."""
    before = _state(raid.bench.owner), _contents(raid.bench.thief)
    made = raid.apply(0)
    after = _state(raid.bench.owner), _contents(raid.bench.thief)
    _must(before == after, raid.attack, "must leave the victim and the data as they are: use ``model.rebuilt``")
    _must(made is not raid.bench.owner, raid.attack, "must return a new model, got the victim itself")


def the_copy_differs(raid: "_Raid") -> None:
    """An attack that changes nothing is not a test."""
    same = _state(raid.copy)[0] == _state(raid.bench.owner)[0]
    _must(not same, raid.attack, "must change the model, got the same weights and answers")


def the_copy_answers_alike(raid: "_Raid") -> None:
    """The copy takes the same inputs and names the same classes; only a server may keep its scores to itself."""
    probes = numbered(raid.bench.thief.inputs[:8], {})
    before, after = (m.ask(probes).scores for m in (raid.bench.owner, raid.copy))
    silent = after is None and raid.attack.serving
    fine = before is None or silent or (after is not None and after.shape == before.shape)
    _must(fine, raid.attack, "must give a model of the same inputs and classes")


def a_server_is_a_model(raid: "_Raid") -> None:
    """What is served answers like any model: the same in every order and batch, and what ``access`` says."""
    if raid.attack.serving:
        check_model(raid.copy, numbered(raid.bench.thief.inputs[:24], {}))


def the_card_tells_its_origin(raid: "_Raid") -> None:
    """A copy descends from its victim: the same root, the victim as its only parent, an id of its own."""
    card, victim = raid.copy.card, raid.bench.owner.card
    fine = card.parents == (victim.id,) and card.root == victim.root and card.id != victim.id
    _must(fine, raid.attack, f"must keep the root {victim.root[:19]} and name the parent {victim.id[:19]}, got {card}")


def the_same_seed_gives_the_same_copy(raid: "_Raid") -> None:
    """The generator fixes the result: there is no other randomness."""
    fine = raid.apply(0).card.id == raid.copy.card.id and _state(raid.apply(0))[0] == _state(raid.copy)[0]
    _must(fine, raid.attack, "must use no randomness but ``rng``: seed 0 gave two copies")


def another_seed_gives_another_copy(raid: "_Raid") -> None:
    """Nine equal copies are one control, not nine; an attack that never draws from the generator is exempt."""
    rng = np.random.default_rng(0)
    before = str(rng.bit_generator.state)
    raid.attack.apply(raid.bench.owner, raid.bench.thief, rng)
    if str(rng.bit_generator.state) != before:
        _must(raid.apply(1).card.id != raid.copy.card.id, raid.attack, "must give another copy for another seed")


# --- models


def one_row_per_probe(asked: "_Asked") -> None:
    """Answers have one row per probe; a row that is OK holds an answer, any other holds no label."""
    answers, model = asked.answers, asked.model
    _must(len(answers) == len(asked.probes), model, f"must give {len(asked.probes)} rows, got {len(answers)}")
    fine = answers.labels.dtype == np.int64 and answers.status.dtype == np.uint8
    _must(fine, model, f"must use int64 labels and uint8 status, got {answers.labels.dtype}, {answers.status.dtype}")
    named = (answers.labels >= 0) | (answers.text is not None)
    fine = bool(named[answers.status == Status.OK].all())
    _must(fine, model, "must answer where it says OK: say INVALID or REFUSED where there is no answer")
    if answers.scores is not None:
        rows = np.flatnonzero(answers.labels >= 0)
        best = answers.scores[rows].max(axis=1) if len(rows) else np.empty(0)
        fine = bool((answers.scores[rows, answers.labels[rows]] >= best - 1e-6).all())
        _must(fine, model, "must name the class that it scores highest: use Answers.from_scores")


def the_order_of_rows_is_kept(asked: "_Asked") -> None:
    """Asked in another order, every probe gets the answer it got before."""
    turned = np.arange(len(asked.probes))[::-1]
    for rows in (turned, turned[:-1]):
        again = asked.model.ask(asked.probes.take(rows))
        same = np.array_equal(again.labels, asked.answers.labels[rows])
        _must(same, asked.model, "must answer in the order of the probes")


def batches_do_not_matter(asked: "_Asked") -> None:
    """Labels do not depend on what else is in the batch: a suspect is asked in other batches than the owner."""
    for parts in (2, len(asked.probes)):
        rows = np.array_split(np.arange(len(asked.probes)), parts)
        labels = np.concatenate([asked.model.ask(asked.probes.take(r)).labels for r in rows])
        same = np.array_equal(labels, asked.answers.labels)
        _must(same, asked.model, f"must give the same labels in {parts} batches: switch training mode off")


def an_empty_batch_is_no_crash(asked: "_Asked") -> None:
    """No probes give no answers, or an error that minutia raises on purpose."""
    try:
        found = len(asked.model.ask(asked.probes.take([])))
    except MinutiaError:
        return
    _must(found == 0, asked.model, f"must give no rows for no probes, got {found}")


def access_is_truthful(asked: "_Asked") -> None:
    """``access`` names what is always there, and all of it: methods negotiate by nothing else."""
    model, answers = asked.model, asked.answers
    if not (answers.status == Status.OK).any():
        return
    for name, needs in COLUMNS.items():
        given = getattr(answers, name) is not None
        message = f"must claim {needs.name} exactly where it returns {name}, got access {model.access} and {given}"
        _must(given == bool(needs & model.access), model, message)
    labelled = bool((answers.labels >= 0).any())
    _must(labelled == (Access.LABELS in model.access), model, "must claim LABELS exactly where it names classes")
    for needs, (protocol, names) in ABILITIES.items():
        able = needs not in model.access or isinstance(model, protocol)
        _must(able, model, f"claims {needs.name} and must then have {', '.join(names)}")


def the_card_names_the_model(asked: "_Asked") -> None:
    """The card says who the model is: nulls are counted by its root, journals keyed by its id."""
    model, card = asked.model, asked.model.card
    _must(bool(model.spec and card.id and card.root), model, "must have a spec and a card with id and root")
    _must(card.id not in card.parents, model, "must not be its own parent")
    _must(ModelCard.from_plain(card.plain()) == card, model, "must have a card of plain data")


def gradients_are_derivatives(asked: "_Asked") -> None:
    """The pull-back agrees with differences of the logits, row by row."""
    model = asked.model
    if Access.GRADIENTS not in model.access or not isinstance(model, GradientModel):
        return
    x = np.asarray(asked.probes.array[:16], np.float32)
    logits, pull_back = model.linearise(x)
    same = np.array_equal(logits.argmax(axis=1), asked.answers.labels[: len(x)])
    _must(same, model, "must linearise the function that it answers with")
    rng, axes = np.random.default_rng(0), tuple(range(1, x.ndim))
    slope = np.asarray(rng.normal(size=logits.shape), np.float32)
    step, gradient = 5e-3 * (float(np.ptp(x)) or 1.0), pull_back(slope)
    wrong: list[float] = []
    sizes: list[float] = []
    for _ in range(5):
        direction = np.asarray(rng.normal(size=x.shape), np.float32)
        ahead, behind = (model.linearise(x + sign * step * direction)[0] for sign in (1, -1))
        measured = np.sum((ahead - behind) * slope, axis=1) / (2 * step)
        wrong.extend(np.abs(np.sum(gradient * direction, axis=axes) - measured))
        sizes.extend(np.abs(measured))
    # The median, because a difference across a kink is no derivative.
    fine = bool(np.median(wrong) <= 0.05 * np.median(sizes) + 1e-6)
    _must(fine, model, "``pull_back`` must give d(objective)/d(inputs): it disagrees with differences")
    slope[1:] = 0
    _, pull_back = model.linearise(x)
    _must(not np.any(pull_back(slope)[1:]), model, "must keep rows apart: a row without slope got a gradient")


def rebuilding_changes_nothing(asked: "_Asked") -> None:
    """``rebuilt(tensors())`` answers the same, and whatever is done to a copy leaves the original as it was."""
    model = asked.model
    if Access.WEIGHTS not in model.access or not isinstance(model, WeightModel):
        return
    before, weights = _state(model), dict(model.tensors())
    twin = model.rebuilt(weights)
    _must(_same(twin.ask(asked.probes), asked.answers), model, "``rebuilt(tensors())`` must give the same answers")
    held = twin.rebuilt(weights)
    known = _state(held)
    _overwrite(dict(held.tensors()).values())
    _must(_state(held) == known, model, "``tensors`` must give copies, or arrays that cannot be written to")
    child = model.rebuilt({n: np.asarray(w * 0.5, w.dtype) for n, w in weights.items()})
    card, parent = child.card, model.card
    fine = card.root == parent.root and card.parents == (parent.id,) and card.id != parent.id
    _must(fine, model, f"a rebuilt copy must keep the root, name its parent and have its own id, got {card}")
    untouched = _state(model) == before and _same(model.ask(asked.probes), asked.answers)
    _must(untouched, model, "``rebuilt`` must leave the original as it is")


def training_returns_a_copy(asked: "_Asked") -> None:
    """``trained`` leaves the original as it is, repeats with its seed, and starts a new root only from nothing."""
    model = asked.model
    if Access.TRAIN not in model.access or not isinstance(model, TrainableModel):
        return
    before, inputs = _state(model), asked.probes.array
    labels = np.maximum(asked.answers.labels, 0)
    plan = Plan(1, batch_size=8, learning_rate=1e-2)
    first, again = (model.trained(inputs, labels, plan, seed=0) for _ in range(2))
    _must(_state(model) == before, model, "``trained`` must leave the original as it is")
    _must(_state(first) == _state(again), model, "``trained`` must repeat with the same seed")
    card = first.card
    fine = card.root == model.card.root and card.parents == (model.card.id,)
    _must(fine, model, f"a model that was trained further must keep the root and name its parent, got {card}")
    roots = {model.trained(inputs, labels, replace(plan, reset="everything"), seed).card.root for seed in (1, 2)}
    fine = len(roots) == 2 and model.card.root not in roots
    _must(fine, model, "a training from scratch must start a root of its own for every seed")


def hidden_units_have_no_order(asked: "_Asked") -> None:
    """Units in another order give the same answers, and ``features`` shows the units of every group in their order."""
    model = asked.model
    if Access.FEATURES not in model.access or not isinstance(model, LayeredModel):
        return
    inputs, rng = asked.probes.array, np.random.default_rng(0)
    try:
        groups, seen = model.units(), model.features(inputs)
    except MinutiaError:  # a network whose graph cannot be read says so
        return
    fine = {name: values.shape for name, values in seen.items()} == {g.name: (len(inputs), g.count) for g in groups}
    _must(fine, model, "``features`` must give (n, count) for every group that ``units`` names, and for no other")
    for group in groups:
        order = rng.permutation(group.count)
        twin = model.rebuilt(permuted(dict(model.tensors()), group, order))
        answers = twin.ask(asked.probes)
        same = np.array_equal(answers.labels, asked.answers.labels)
        if answers.scores is not None and asked.answers.scores is not None:
            same = np.allclose(answers.scores, asked.answers.scores, atol=1e-4)
        _must(same, model, f"must name every tensor with units of {group.name}: in another order they answer otherwise")
        shown = twin.features(inputs)[group.name] if isinstance(twin, LayeredModel) else seen[group.name]
        fine = np.allclose(shown, seen[group.name][:, order], rtol=1e-3, atol=1e-4 * np.abs(shown).max(initial=0))
        _must(fine, model, f"``features`` must show the units of {group.name} in the order of their tensors")


SHARED_RULES = (parameters_are_fields, the_key_comes_back, it_is_documented)
METHOD_RULES: tuple[Callable[["_Trial"], None], ...] = (
    *SHARED_RULES,
    the_sealed_part_is_untouched,
    the_same_seed_gives_the_same_digest,
    another_seed_gives_other_probes,
    extraction_changes_nothing,
    its_needs_are_honest,
    probes_are_what_arrives,
    scoring_is_pure,
    the_path_is_the_score_of_prefixes,
    the_owner_scores_highest,
    refusing_never_helps,
    the_order_of_the_null_is_irrelevant,
    spent_models_cannot_calibrate,
    other_probes_are_another_experiment,
    p_never_falls_below_its_floor,
)
ATTACK_RULES: tuple[Callable[["_Raid"], None], ...] = (
    *SHARED_RULES,
    the_original_is_untouched,
    the_copy_differs,
    the_copy_answers_alike,
    a_server_is_a_model,
    the_card_tells_its_origin,
    the_same_seed_gives_the_same_copy,
    another_seed_gives_another_copy,
)
MODEL_RULES: tuple[Callable[["_Asked"], None], ...] = (
    one_row_per_probe,
    the_order_of_rows_is_kept,
    batches_do_not_matter,
    an_empty_batch_is_no_crash,
    access_is_truthful,
    the_card_names_the_model,
    gradients_are_derivatives,
    hidden_units_have_no_order,
    rebuilding_changes_nothing,
    training_returns_a_copy,
)


# --- what the rules stand on


@dataclass(frozen=True, eq=False)
class _Trial:
    """A method, enrolled once and observed once."""

    method: Method
    bench: Bench

    @property
    def plugin(self) -> Method:
        return self.method

    @cached_property
    def fp(self) -> Fingerprint:
        return self.extract(seed=0)

    @cached_property
    def null(self) -> Null:
        seen = tuple(self.method.observe(self.fp, m) for m in self.bench.innocents[1:])
        return Null("unrelated", seen, source="toy models")

    @cached_property
    def suspect(self) -> Observation:
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
        return self.enrolled(self.bench.owner, seed)[1]

    def score(self, seen: Observation) -> float:
        return self.method.score(self.fp, seen)


@dataclass(frozen=True, eq=False)
class _Raid:
    """An attack on the owner's model with the thief's material."""

    attack: Attack
    bench: Bench

    @property
    def plugin(self) -> Attack:
        return self.attack

    @cached_property
    def copy(self) -> Model:
        return self.apply(0)

    def apply(self, seed: int) -> Model:
        return self.attack.apply(self.bench.owner, self.bench.thief, np.random.default_rng(seed))


@dataclass(frozen=True, eq=False)
class _Asked:
    """A model and what it answered to some probes."""

    model: Model
    probes: ProbeSet

    @cached_property
    def answers(self) -> Answers:
        return self.model.ask(self.probes)


class _Veiled:
    """A model that shows no more than some access."""

    def __init__(self, model: Model, access: Access) -> None:
        self.spec, self.card, self.access = model.spec, model.card, model.access & access
        self._model = model
        for needs, (_, names) in ABILITIES.items():
            for name in names if needs in access else ():
                setattr(self, name, getattr(model, name))

    def ask(self, probes: ProbeSet) -> Answers:
        answers = self._model.ask(probes)
        hidden: dict[str, Any] = {name: None for name, needs in COLUMNS.items() if not needs & self.access}
        return replace(answers, **hidden)


def _must(fulfilled: bool, plugin: object, message: str) -> None:
    if not fulfilled:
        raise ContractError(f"{_name(plugin)}: {message}")


def _refused(call: Callable[[], object], kind: type[MinutiaError], plugin: object, message: str) -> None:
    try:
        call()
    except kind:
        return
    raise ContractError(f"{_name(plugin)}: {message}")


def _name(plugin: object) -> str:
    return str(getattr(plugin, "name", None) or getattr(plugin, "spec", None) or type(plugin).__name__)


def _run(rule: Callable[[Any], None], subject: "_Trial | _Raid | _Asked") -> None:
    """Run one rule; whatever else a plug-in raises breaks the contract as well."""
    try:
        rule(subject)
    except ContractError:
        raise
    except Exception as error:
        _broken(rule, subject, error)


def _broken(rule: Callable[[Any], None], subject: "_Trial | _Raid | _Asked", error: Exception) -> NoReturn:
    plugin = subject.model if isinstance(subject, _Asked) else subject.plugin
    what = f"raised {type(error).__name__} ({error}) where {rule.__name__.replace('_', ' ')}"
    raise ContractError(f"{_name(plugin)}: {what}: {cleandoc(rule.__doc__ or '')}") from error


def _noisy(owner: ToyClassifier, seed: int) -> ToyClassifier:
    """A copy whose weights are a little off."""
    draw = np.random.default_rng(seed).normal
    return owner.rebuilt({n: (w + draw(0, 0.05, w.shape)).astype(w.dtype) for n, w in owner.tensors()})


def _bench_for(method: Method) -> Bench:
    if isinstance(method, Mark):
        return marking_bench()
    if method.reads:
        return layered_bench()
    return learning_bench() if method.learns else toy_bench()


@lru_cache(maxsize=64)
def _installed(group: str, name: str) -> "_Trial | _Raid | _Asked":
    """A plug-in of the catalogue with default parameters, ready for the rules of its group."""
    bench = toy_bench()
    if group == "methods":
        method = catalog.load(group, name)()
        return _Trial(method, _bench_for(method))
    if group == "attacks":
        return _Raid(catalog.load(group, name)(), bench)
    return _Asked(bench.owner, numbered(bench.thief.inputs[:24], {}))


def _run_installed(rule: Callable[[Any], None], group: str, name: str) -> None:
    _run(rule, _installed(group, name))


def _its_name_is_registered(group: str, name: str) -> None:
    cls = catalog.load(group, name)
    _must(cls.name == name, cls, f"must be registered under its own name, got {name!r} in the entry points")


def _another(value: object) -> object:
    """Some other value of the same type."""
    if isinstance(value, bool):
        return not value
    return value + 1 if isinstance(value, int | float) else f"{value}x"


def _state(model: Model) -> tuple[str, ModelCard]:
    """Everything that may not change about a model: its weights if they are open, else its answers, and its card."""
    if isinstance(model, WeightModel):
        return content_digest({}, dict(model.tensors())), model.card
    return "", model.card


def _contents(material: Material) -> list[str]:
    """Digests of everything that material holds: inputs with labels of every role, and models of every role."""
    known = material.disclosed
    pairs = [(material.inputs, material.labels), material.held_out, material.foreign]
    pairs.append(None if known is None else (known.inputs, known.labels))
    some = [*material.unrelated, *material.derived, *(m for copies in material.controls.values() for m in copies)]
    models = [m for m in (*some, material.companion, material.student) if m is not None]
    digests = [content_digest({}, {"inputs": x, "labels": y}) for x, y in filter(None, pairs)]
    return [*digests, *(_state(m)[0] for m in models)]


def _same(first: Answers, second: Answers) -> bool:
    """Whether two sets of answers are equal to the last bit, NaN included."""
    one, two = first.arrays(), second.arrays()
    return one.keys() == two.keys() and all(np.array_equal(one[n], two[n], equal_nan=n in COLUMNS) for n in one)


def _without(seen: Observation, rows: Array, status: Status) -> Observation:
    """The same observation with no answer in some rows."""
    columns = {name: column.copy() for name, column in seen.answers.arrays().items()}
    columns["status"][rows] = status
    columns["labels"][rows] = -1
    for name in ("scores", "logits"):
        if name in columns:
            columns[name][rows] = np.nan
    return replace(seen, answers=Answers.from_arrays(columns))


def _overwrite(arrays: Iterable[Array]) -> None:
    """Write zeros into arrays that allow it."""
    for array in arrays:
        if array.flags.writeable:
            array[...] = 0
