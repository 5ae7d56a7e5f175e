"""Everything the catalogue finds passes the contract, and every rule of the contract can fail."""

import copy
import re
from dataclasses import dataclass, replace

import numpy as np
import pytest

from minutia import catalog, checks
from minutia.attacks.compress import Noise
from minutia.attacks.extract import Distil
from minutia.checks import ContractError, all_checks, check_attack, check_method, check_model
from minutia.core.access import Access
from minutia.core.answers import Answers, Status
from minutia.core.attack import Attack
from minutia.core.method import Enrolment, Method
from minutia.core.model import ModelCard
from minutia.core.probe import numbered
from minutia.methods.classifiers.noise_agreement import NoiseAgreement
from minutia.models.toy import ToyClassifier

PROBES = numbered(np.random.default_rng(3).random((24, 1, 4, 4), dtype=np.float32), {})
TOY = ToyClassifier.fresh((16, 12, 5), seed=1)
RULES = {rule.__name__: rule for rule in (*checks.METHOD_RULES, *checks.ATTACK_RULES)}


@pytest.mark.parametrize("check", all_checks(), ids=str)
def test_installed_plug_ins_keep_the_contract(check):
    check.run()


def test_every_plug_in_of_the_catalogue_is_checked():
    seen = {(c.group, c.plugin) for c in all_checks()}
    wanted = {(group, name) for group in ("methods", "attacks") for name in catalog.names(group)}
    assert wanted - seen == {("attacks", name) for name in checks.NOT_ON_TOYS}


@pytest.mark.parametrize(
    "key",
    ["ipguard(probes=10,margin=0,oversample=4,target=least-likely)", "ipguard(probes=2)", "natural_errors(probes=3)"],
)
def test_methods_keep_the_contract_with_other_parameters(key):
    check_method(catalog.method(key))


# --- models of every kind


def _torch(tmp_path):
    pytest.importorskip("torch")
    (tmp_path / "small_net.py").write_text(
        "from torch import nn\n\n\ndef net():\n"
        "    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 5))\n"
    )
    return catalog.model(f"torch:{tmp_path / 'small_net.py'}:net")


def _onnx(tmp_path, probabilities=False, labels=False):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    h, weights = onnx.helper, np.random.default_rng(0).normal(size=(16, 5)).astype(np.float32)
    nodes = [h.make_node("Flatten", ["x"], ["flat"]), h.make_node("MatMul", ["flat", "w"], ["logits"])]
    name, kind = "logits", onnx.TensorProto.FLOAT
    if probabilities:
        nodes.append(h.make_node("Softmax", ["logits"], ["scores"]))
        name = "scores"
    if labels:
        nodes.append(h.make_node("ArgMax", ["logits"], ["labels"], axis=1, keepdims=0))
        name, kind = "labels", onnx.TensorProto.INT64
    graph = h.make_graph(
        nodes,
        "net",
        [h.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", 1, 4, 4])],
        [h.make_tensor_value_info(name, kind, ["n"] if labels else ["n", 5])],
        [onnx.numpy_helper.from_array(weights, "w")],
    )
    proto = h.make_model(graph, opset_imports=[h.make_opsetid("", 13)], ir_version=8)
    (tmp_path / "net.onnx").write_bytes(proto.SerializeToString())
    return catalog.model(f"onnx:{tmp_path / 'net.onnx'}")


def _replayed(tmp_path):
    from minutia.models.metered import Metered

    Metered(TOY, transcript=tmp_path / "said.jsonl").ask(PROBES)
    return catalog.model(f"replay:{tmp_path / 'said.jsonl'}")


def _metered(tmp_path):
    from minutia.models.metered import Metered

    return Metered(TOY, only=Access.LABELS, batch=7)


KINDS = {
    "toy": lambda _: catalog.model("toy:mlp?sizes=16-8-5&seed=2"),
    "torch": _torch,
    "onnx logits": _onnx,
    "onnx probabilities": lambda path: _onnx(path, probabilities=True),
    "onnx labels": lambda path: _onnx(path, labels=True),
    "replay": _replayed,
    "metered": _metered,
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_model_keeps_the_contract(kind, tmp_path):
    check_model(KINDS[kind](tmp_path), PROBES)


def test_a_language_model_keeps_the_contract(tmp_path):
    (tmp_path / "text").write_text("a tale of two cities, told twice over")
    prompts = numbered(("a tale", "of two", "cities"), {"sampling": {"max_tokens": 4}})
    check_model(catalog.model(f"toy:ngram?text={tmp_path / 'text'}"), prompts)


# --- broken methods: one per rule


@dataclass(frozen=True)
class Fine(NoiseAgreement):
    """A method that keeps every rule. H0: made without the owner's model. Source: this file.

    >>> Fine().probes
    30
    """

    name = "fine"
    probes: int = 30


def method(**changes):
    """A dataclass like ``Fine`` with some members changed."""
    return dataclass(frozen=True)(type("Broken", (Fine,), {"__doc__": Fine.__doc__, "name": "broken", **changes}))()


def _draws_again(self, model, material, rng):
    return Fine.enrol(self, model, material, np.random.default_rng())


def _ignores_seed(self, model, material, rng):
    rng.random()
    return Fine.enrol(self, model, material, np.random.default_rng(0))


def _beyond_the_box(self, model, material, rng):
    return Enrolment(numbered(np.float32(rng.normal(size=(30, 1, 4, 4))), {}), {})


def _between_levels(self, model, material, rng):
    return Enrolment(numbered(rng.random((30, 1, 4, 4), dtype=np.float32), {}), {})


def _other_shape(self, model, material, rng):
    return Enrolment(numbered(np.zeros((30, 16), np.float32), {}), {})


def _spoils_data(self, model, material, rng):
    material.inputs[0] = 1 - material.inputs[0]
    return Fine.enrol(self, model, material, rng)


def _reads_scores(self, fp, seen):
    return float(seen.answers.scores.max(axis=1).mean())


def _reads_weights(self, model, material, rng):
    next(model.tensors())
    return Fine.enrol(self, model, material, rng)


def _of_answered(self, fp, seen):
    own = np.array([fp.answers.labels[fp.probes.ids.index(i)] for i in seen.asked])
    answered = seen.answers.labels >= 0
    return float(np.mean(seen.answers.labels[answered] == own[answered])) if answered.any() else 0.0


def _best_so_far(self, fp, seen, prefixes):
    return np.maximum.accumulate(Fine.path(self, fp, seen, prefixes))


def _slow_path(self, fp, seen, prefixes):
    return np.array([self.score(fp, seen.only(p)) for p in prefixes])


def spare_bench():
    """A bench of its own for a plug-in that may spoil the owner or the data."""
    bench = checks.toy_bench()
    material, thief = (
        replace(m, inputs=m.inputs.copy(), labels=m.labels.copy()) for m in (bench.material, bench.thief)
    )
    return replace(bench, owner=ToyClassifier(dict(bench.owner.tensors())), material=material, thief=thief)


BROKEN_METHODS = {
    "the_key_comes_back": method(from_key=classmethod(lambda cls, key: cls(probes=31))),
    "it_is_documented: source": method(__doc__="H0: none.\n\n>>> 1\n1"),
    "it_is_documented: doctest": method(__doc__="H0: none. Source: none."),
    "it_is_documented: h0": method(h0=""),
    "the_sealed_part_is_untouched": method(judge=lambda self, *a, **k: replace(Method.judge(self, *a, **k))),
    "the_same_seed_gives_the_same_digest": method(enrol=_draws_again),
    "another_seed_gives_other_probes": method(enrol=_ignores_seed),
    "extraction_changes_nothing": method(enrol=_spoils_data),
    "its_needs_are_honest: suspect": method(score=_reads_scores, path=_slow_path),
    "its_needs_are_honest: owner": method(enrol=_reads_weights),
    "probes_are_what_arrives: box": method(enrol=_beyond_the_box),
    "probes_are_what_arrives: levels": method(enrol=_between_levels),
    "probes_are_what_arrives: shape": method(enrol=_other_shape),
    "scoring_is_pure: draws": method(
        score=lambda self, fp, seen: float(np.random.default_rng().random()), path=_slow_path
    ),
    "scoring_is_pure: keeps": method(score=lambda self, fp, seen: id(fp) % 997 / 997, path=_slow_path),
    "the_path_is_the_score_of_prefixes": method(path=_best_so_far),
    "the_owner_scores_highest": method(score=lambda self, fp, seen: 1 - Fine.score(Fine(), fp, seen), path=_slow_path),
    "refusing_never_helps": method(score=_of_answered, path=_slow_path),
}


@pytest.mark.parametrize("case", BROKEN_METHODS)
def test_a_broken_method_is_found_out(case):
    _found_out(checks.METHOD_RULES, checks.Trial(BROKEN_METHODS[case], spare_bench()), case.split(":")[0])


class NoField(Fine):
    """Forgets to decorate. H0. Source: none.

    >>> 1
    1
    """

    threshold: float = 0.5


@dataclass(frozen=True)
class NoDefault(Fine):
    """H0. Source: none."""

    bounds: tuple = (0, 1)


@dataclass
class Thawed:
    name = "thawed"
    key = "thawed()"


class HalfKey(Fine):
    """Leaves a parameter out of the key. H0. Source: none."""

    @property
    def key(self):
        return "fine()@1"


@pytest.mark.parametrize("broken", [NoField(), NoDefault(), Thawed(), HalfKey()], ids=lambda p: type(p).__name__)
def test_parameters_outside_the_key_are_found_out(broken):
    with pytest.raises(ContractError, match=r"must|needs|no field"):
        RULES["parameters_are_fields"](checks.Trial(broken, checks.toy_bench()))


SEALED = {
    "spent_models_cannot_calibrate",
    "other_probes_are_another_experiment",
    "p_never_falls_below_its_floor",
    "the_order_of_the_null_is_irrelevant",
}


class Judging(Fine):
    """A method that takes the judging into its own hands. H0. Source: none."""

    def judge(self, fp, observation, null, *, alpha=0.01):
        verdict = Fine.judge(Fine(), replace(fp, method=Fine().key), observation, replace(null, observations=()))
        first = null.observations[0].subject.id
        return replace(verdict, p_value=1e-6, p_floor=1e-6, suspect=ModelCard(first, first))

    def observe(self, fp, suspect, *, reference=None, upto=None):
        return Fine.observe(Fine(), fp, suspect, reference=reference, upto=upto)


@pytest.mark.parametrize("rule", sorted(SEALED - {"other_probes_are_another_experiment"}))
def test_judging_by_oneself_is_found_out(rule):
    _found_out([RULES[rule]], checks.Trial(Judging(), checks.toy_bench()), rule)


def test_a_judge_that_takes_any_observation_is_found_out():
    class Credulous(Fine):
        def judge(self, fp, observation, null, *, alpha=0.01):
            return None

    rule = RULES["other_probes_are_another_experiment"]
    _found_out([rule], checks.Trial(Credulous(), checks.toy_bench()), rule.__name__)


# --- broken attacks


@dataclass(frozen=True)
class FineAttack(Noise):
    """An attack that keeps every rule. Source: this file.

    >>> FineAttack().strength
    0.1
    """

    name = "fine_attack"


def attack(base=FineAttack, **changes):
    return dataclass(frozen=True)(type("Broken", (base,), {"__doc__": base.__doc__, "name": "broken", **changes}))()


def _in_place(self, model, material, rng):
    copy = Noise.run(self, model, material, rng)
    model._layers[0][0][0, 0] += 1
    return copy


def _under_the_victims_name(self, model, material, rng):
    made = Noise.run(self, model, material, rng)
    made.card = replace(made.card, id=model.card.id)
    return made


def _fewer_classes(self, model, material, rng):
    made = ToyClassifier.fresh((16, 4), int(rng.integers(99)))
    made.card = ModelCard(made.card.id, model.card.root, "", (model.card.id,))
    return made


def _drawn_anew(self, model, material, rng):
    return Noise.run(self, model, material, np.random.default_rng())


def _same_noise(self, model, material, rng):
    rng.random()
    return Noise.run(self, model, material, np.random.default_rng(0))


BROKEN_ATTACKS = {
    "the_key_comes_back": attack(from_key=classmethod(lambda cls, key: cls(strength=0.2))),
    "it_is_documented": attack(__doc__="Nothing."),
    "the_original_is_untouched: weights": attack(run=_in_place),
    "the_original_is_untouched: itself": attack(run=lambda self, model, material, rng: model),
    "the_copy_differs": attack(run=lambda self, model, material, rng: model.rebuilt({})),
    "the_copy_answers_alike": attack(run=_fewer_classes),
    "the_card_tells_its_origin: id": attack(run=_under_the_victims_name),
    "the_same_seed_gives_the_same_copy": attack(run=_drawn_anew),
    "another_seed_gives_another_copy": attack(run=_same_noise),
}


@pytest.mark.parametrize("case", BROKEN_ATTACKS)
def test_a_broken_attack_is_found_out(case):
    _found_out(checks.ATTACK_RULES, checks.Raid(BROKEN_ATTACKS[case], spare_bench()), case.split(":")[0])


def test_an_attack_that_never_draws_is_exempt():
    quiet = attack(run=lambda self, model, material, rng: model.rebuilt({n: w / 2 for n, w in model.tensors()}))
    check_attack(quiet)


def test_an_attack_on_training_is_checked_too():
    class Spoils(Distil):
        """Spoils the thief's data. Source: none.

        >>> 1
        1
        """

        def run(self, model, material, rng):
            material.labels[:2] = material.labels[1::-1].copy() + 1
            return Distil.run(self, model, material, rng)

    rule = RULES["the_original_is_untouched"]
    _found_out([rule], checks.Raid(Spoils(), spare_bench()), rule.__name__)


@pytest.mark.parametrize("role", ["held_out", "foreign", "disclosed", "companion", "student"])
def test_an_attack_may_change_nothing_that_the_thief_holds(role):
    def spoils(self, model, material, rng):
        held = getattr(material, role)
        if isinstance(held, ToyClassifier):
            held._layers[0][0][0, 0] += 1
        else:
            labels = held.labels if role == "disclosed" else held[1]
            labels[0] = (labels[0] + 1) % 5
        return Noise.run(self, model, material, rng)

    bench = copy.deepcopy(spare_bench())
    rule = RULES["the_original_is_untouched"]
    rule(checks.Raid(FineAttack(), bench))
    _found_out([rule], checks.Raid(attack(run=spoils), bench), rule.__name__)


# --- broken models


class Wrapped:
    """A toy classifier with something broken."""

    def __init__(self, **changes):
        self.model = ToyClassifier(dict(TOY.tensors()))
        self.spec, self.card, self.access = self.model.spec, self.model.card, self.model.access
        for name, value in changes.items():
            setattr(self, name, value.__get__(self) if callable(value) else value)

    def ask(self, probes):
        return self.model.ask(probes)

    def linearise(self, inputs):
        return self.model.linearise(inputs)

    def tensors(self):
        return self.model.tensors()

    def rebuilt(self, weights):
        return self.model.rebuilt(weights)

    def trained(self, inputs, targets, plan, seed):
        return self.model.trained(inputs, targets, plan, seed)

    def units(self):
        return self.model.units()

    def features(self, inputs):
        return self.model.features(inputs)


def _shuffled(self, probes):
    return self.model.ask(probes.take(np.arange(len(probes))[::-1])) if len(probes) > 20 else self.model.ask(probes)


def _normalised(self, probes):
    """A network left in training mode: the batch's own mean is subtracted."""
    x = probes.array.reshape(len(probes), -1)
    return self.model.ask(numbered((x - x.mean(axis=0)) * 3, {}))


def _crashes_when_empty(self, probes):
    return self.model.ask(probes) if len(probes) else probes.ids[0]


def _one_too_many(self, probes):
    return self.model.ask(numbered(np.zeros((len(probes) + 1, 16)), {}))


def _other_labels(self, probes):
    found = self.model.ask(probes)
    return replace(found, labels=(found.labels + 1) % 5)


def _silent_ok(self, probes):
    found = self.model.ask(probes)
    return Answers(np.zeros(len(probes), np.uint8), np.full(len(probes), -1), found.scores, found.logits)


def _wrong_gradient(self, inputs):
    logits, pull_back = self.model.linearise(inputs)
    return logits, lambda slope: -pull_back(slope)


def _mixed_gradient(self, inputs):
    logits, pull_back = self.model.linearise(inputs)
    return logits, lambda slope: pull_back(slope) + 1e-4 * pull_back(slope).sum(axis=0)


def _views(self):
    for i, (w, b) in enumerate(self.model._layers):
        yield from ((f"w{i}", w), (f"b{i}", b))


def _rebuilt_in_place(self, weights):
    self.model._layers[0][0][...] = weights["w0"]
    return self.model.rebuilt(weights)


def _rebuilt_as_views(self, weights):
    return Wrapped(model=self.model.rebuilt(weights), tensors=_views, rebuilt=_rebuilt_as_views)


def _rebuilt_rounded(self, weights):
    return self.model.rebuilt({n: np.float32(np.float16(w)) for n, w in weights.items()})


def _orphan(self, weights):
    return ToyClassifier({**dict(self.tensors()), **weights})


def _half_the_slots(self):
    return tuple(replace(group, reads=()) for group in self.model.units())


def _sorted_features(self, inputs):
    return {name: np.sort(values, axis=1) for name, values in self.model.features(inputs).items()}


def _rebuilt_sorted(self, weights):
    return Wrapped(model=self.model.rebuilt(weights), features=_sorted_features)


def _never_twice(self, inputs, targets, plan, seed):
    return self.model.trained(inputs, targets, plan, int(np.random.default_rng().integers(2**31)))


def _one_root(self, inputs, targets, plan, seed):
    made = self.model.trained(inputs, targets, plan, seed)
    made.card = replace(made.card, root=self.card.root, parents=(self.card.id,))
    return made


BROKEN_MODELS = {
    "one_row_per_probe: too many": Wrapped(ask=_one_too_many),
    "one_row_per_probe: labels": Wrapped(ask=_other_labels),
    "one_row_per_probe: silence": Wrapped(ask=_silent_ok),
    "the_order_of_rows_is_kept": Wrapped(ask=_shuffled),
    "batches_do_not_matter": Wrapped(ask=_normalised),
    "an_empty_batch_is_no_crash": Wrapped(ask=_crashes_when_empty),
    "access_is_truthful: more": Wrapped(access=TOY.access | Access.TEXT),
    "access_is_truthful: less": Wrapped(access=TOY.access & ~(Access.SCORES | Access.TOP_K)),
    "access_is_truthful: unable": Wrapped(linearise=None, access=TOY.access),
    "the_card_names_the_model": Wrapped(card=ModelCard("me", "me", parents=("me",))),
    "gradients_are_derivatives: sign": Wrapped(linearise=_wrong_gradient),
    "gradients_are_derivatives: rows": Wrapped(linearise=_mixed_gradient),
    "hidden_units_have_no_order: missing": Wrapped(units=_half_the_slots),
    "hidden_units_have_no_order: unnamed": Wrapped(features=lambda self, inputs: {}),
    "hidden_units_have_no_order: sorted": Wrapped(rebuilt=_rebuilt_sorted, features=_sorted_features),
    "rebuilding_changes_nothing: rounded": Wrapped(rebuilt=_rebuilt_rounded),
    "rebuilding_changes_nothing: original": Wrapped(rebuilt=_rebuilt_in_place),
    "rebuilding_changes_nothing: orphan": Wrapped(rebuilt=_orphan),
    "rebuilding_changes_nothing: views": Wrapped(tensors=_views, rebuilt=_rebuilt_as_views),
    "training_returns_a_copy: chance": Wrapped(trained=_never_twice),
    "training_returns_a_copy: root": Wrapped(trained=_one_root),
}


@pytest.mark.parametrize("case", BROKEN_MODELS)
def test_a_broken_model_is_found_out(case):
    _found_out(checks.MODEL_RULES, checks.Asked(BROKEN_MODELS[case], PROBES), case.split(":")[0])


def test_a_model_that_raises_breaks_the_contract():
    class Broken(Wrapped):
        def ask(self, probes):
            raise KeyError("labels")

    with pytest.raises(ContractError, match=r"raised KeyError \('labels'\) where one row per probe"):
        check_model(Broken(), PROBES)


def _found_out(rules, subject, rule):
    """Exactly the rule that is meant says so, by itself, in a sentence that begins with the plug-in's name."""
    chosen = next(r for r in rules if r.__name__ == rule)
    with pytest.raises(ContractError) as found:
        checks.run_rule(chosen, subject)
    assert re.match(r"^[\w:?=&-]+: .{20,}", str(found.value)), found.value


def test_statuses_are_hidden_the_way_models_refuse():
    seen = checks.Trial(Fine(), checks.toy_bench()).suspect
    hidden = checks.without(seen, np.array([0, 2]), Status.REFUSED)
    assert hidden.answers.labels[[0, 2]].tolist() == [-1, -1]
    assert np.isnan(hidden.answers.scores[0]).all() and not np.isnan(hidden.answers.scores[1]).any()


def test_a_rule_names_what_it_wants():
    for rule in (*checks.METHOD_RULES, *checks.ATTACK_RULES, *checks.MODEL_RULES):
        assert rule.__doc__ and len(rule.__doc__) > 40, rule


def test_base_classes_are_those_of_the_contract():
    assert issubclass(Fine, Method) and issubclass(FineAttack, Attack)
