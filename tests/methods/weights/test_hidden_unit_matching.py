"""Structural tests on small networks: who is found, who is not, and what H0 promises."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minutia import catalog
from minutia.core.access import Access
from minutia.core.errors import ModelError, UsageError
from minutia.core.fingerprint import Null
from minutia.core.material import Material
from minutia.core.model import Plan
from minutia.core.units import folded, incoming, layered, permuted, rescaled, without
from minutia.methods.weights.links import Links
from minutia.methods.weights.routes import Matching
from minutia.models.metered import Metered
from minutia.models.toy import ToyClassifier
from minutia.storage.files import load_fingerprint, save_fingerprint

SIZES = (16, 24, 20, 5)
INPUTS = Material(np.zeros((4, 16), np.float32), np.zeros(4, int))
METHODS = ("unit_order", "unit_matching")


@pytest.fixture(scope="module")
def owner():
    return ToyClassifier.fresh(SIZES, seed=1)


@pytest.fixture(scope="module", params=METHODS)
def enrolled(request, owner):
    method = catalog.method(request.param)
    return method, method.extract(owner, INPUTS, threats=())


def changed(model, change):
    weights = dict(model.tensors())
    for group in layered(model, "a test")[1]:
        weights = change(weights, group)
    return model.rebuilt(weights)


def shuffled(model, seed):
    rng = np.random.default_rng(seed)
    return changed(model, lambda w, g: permuted(w, g, rng.permutation(g.count)))


def stretched(model, seed):
    rng = np.random.default_rng(seed)
    return changed(model, lambda w, g: rescaled(w, g, rng.uniform(0.2, 5, g.count)))


def noisy(model, seed, share=0.3):
    rng = np.random.default_rng(seed)
    weights = dict(model.tensors())
    return model.rebuilt(
        {n: (w + rng.normal(0, share * w.std() + 1e-9, w.shape)).astype(w.dtype) for n, w in weights.items()}
    )


def verdict(enrolled, suspect):
    method, fp = enrolled
    return method.verify(fp, suspect, Null.none())


def test_the_owners_own_weights_match_without_any_other_model(enrolled, owner):
    found = verdict(enrolled, owner)
    assert (found.outcome, found.asked, found.score) == ("match", 0, 12.0)
    assert found.p_value == found.p_floor == 1e-12  # nothing is claimed beyond


@pytest.mark.parametrize("seed", range(3))
def test_a_noisy_copy_matches_and_a_stranger_does_not(enrolled, owner, seed):
    assert verdict(enrolled, noisy(owner, seed)).outcome == "match"
    assert verdict(enrolled, ToyClassifier.fresh(SIZES, seed=10 + seed)).outcome == "inconclusive"


def test_scales_do_not_matter(enrolled, owner):
    assert verdict(enrolled, stretched(owner, 0)).outcome == "match"


def test_shuffled_units_evade_the_order_and_not_the_matching(owner):
    for name, outcome in zip(METHODS, ("inconclusive", "match"), strict=True):
        method = catalog.method(name)
        fp = method.extract(owner, INPUTS, threats=())
        found = verdict((method, fp), stretched(shuffled(noisy(owner, 1, 0.05), 2), 3))
        assert found.outcome == outcome
        assert found.null_kind == ("exact" if name == "unit_order" else "assumed")


def test_dead_units_in_equal_places_are_no_evidence():
    method = catalog.method("unit_order")
    dead = [f"{i}" for i in range(16)]
    models = []
    for seed in (1, 2):
        model = ToyClassifier.fresh((16, 32, 5), seed=seed)
        weights = dict(model.tensors())
        group = layered(model, "a test")[1][0]
        for slot in group.writes:
            array = np.moveaxis(weights[slot.tensor].copy(), slot.axis, 0)
            array[: len(dead)] = 0
            weights[slot.tensor] = np.moveaxis(array, 0, slot.axis)
        models.append(model.rebuilt(weights))
    fp = method.extract(models[0], INPUTS, threats=())
    assert verdict((method, fp), models[1]).p_value > 0.01


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_the_matching_counts_the_same_in_every_order(seed):
    method, owner = catalog.method("unit_matching"), ToyClassifier.fresh(SIZES, seed=1)
    fp = method.extract(owner, INPUTS, threats=())
    mine, other = (
        Links.from_arrays(method.read(m, {}), method.name) for m in (owner, stretched(shuffled(owner, seed), seed))
    )
    assert Matching.of(mine, other).agreement() == (44, 44)
    assert method.score(fp, method.asked(shuffled(owner, seed), fp.probes)) == 12.0


@pytest.mark.parametrize("sizes", [(16, 12, 10, 5), (16, 9, 7, 5)], ids=["equal widths", "narrower"])
def test_the_order_test_errs_as_rarely_as_it_says(sizes):
    """H0: only the suspect's order is drawn anew, 1,000 times; what it learnt stays, however like the owner's."""
    method, owner = catalog.method("unit_order"), ToyClassifier.fresh((16, 12, 10, 5), seed=1)
    fp = method.extract(owner, INPUTS, threats=())
    suspect = noisy(owner, 3) if sizes == (16, 12, 10, 5) else ToyClassifier.fresh(sizes, seed=4)
    scores = [method.score(fp, method.asked(shuffled(suspect, i), fp.probes)) for i in range(1000)]
    ps = np.array([method.exact(fp, np.array([score]), np.array([0])).p for score in scores])
    for level in (0.1, 0.05, 0.01):
        assert (ps <= level).mean() <= level + 3 * np.sqrt(level * (1 - level) / len(ps))
    assert (ps <= 0.3).any()  # the draws reach the region that is bounded


def test_other_widths_and_depths_are_no_crash(enrolled):
    for sizes in ((16, 30, 20, 5), (16, 24, 5), (16, 8, 8, 8, 5), (17, 24, 20, 5), (16, 24, 20, 7)):
        found = verdict(enrolled, ToyClassifier.fresh(sizes, seed=5))
        assert found.outcome == "inconclusive" and found.p_value > 0.01


def test_it_survives_a_file(enrolled, owner, tmp_path):
    method, fp = enrolled
    save_fingerprint(fp, tmp_path / "fp.safetensors")
    again = load_fingerprint(tmp_path / "fp.safetensors")
    assert again.digest == fp.digest
    assert verdict((method, again), owner).plain() == verdict((method, fp), owner).plain()


def test_weights_are_read_through_the_meter_and_hidden_by_it(enrolled, owner):
    assert verdict(enrolled, Metered(owner)).outcome == "match"
    with pytest.raises(UsageError, match="features, weights"):
        verdict(enrolled, Metered(owner, only=Access.LABELS))


def removed(model, share):
    """The smallest units of every group zeroed, as a structured pruning leaves them."""
    weights = dict(model.tensors())

    def zeroed(changed, group):
        sizes = incoming(weights, group.writes)
        return without(changed, group, np.argsort(sizes)[: int(share * group.count)])

    return changed(model, zeroed)


def narrowed(model, share):
    """Really narrower: the units are gone from the tensors, and the others have moved up."""
    weights = dict(model.tensors())
    for group in layered(model, "a test")[1]:
        stay = np.sort(np.argsort(incoming(weights, group.writes))[int(share * group.count) :])
        weights = permuted(weights, group, stay)
    return ToyClassifier(weights)


@pytest.mark.parametrize("change", [removed, narrowed])
def test_a_network_without_some_of_its_units_is_found(enrolled, owner, change):
    assert verdict(enrolled, change(owner, 0.4)).outcome == "match"
    assert verdict(enrolled, change(ToyClassifier.fresh(SIZES, seed=9), 0.4)).outcome == "inconclusive"


def test_narrow_and_shuffled_units_are_matched(owner):
    method = catalog.method("unit_matching")
    fp = method.extract(owner, INPUTS, threats=())
    assert verdict((method, fp), stretched(shuffled(narrowed(owner, 0.4), 1), 1)).outcome == "match"


def test_a_new_output_layer_is_no_way_out(enrolled, owner):
    weights, other = dict(owner.tensors()), dict(ToyClassifier.fresh(SIZES, seed=8).tensors())
    found = verdict(enrolled, owner.rebuilt({**weights, "w2": other["w2"], "b2": other["b2"]}))
    assert found.outcome == "match" and found.p_value < 1e-9


def test_an_output_layer_in_common_is_no_evidence(enrolled, owner):
    weights, other = dict(ToyClassifier.fresh(SIZES, seed=8).tensors()), dict(owner.tensors())
    suspect = owner.rebuilt({**weights, "w2": other["w2"], "b2": other["b2"]})
    assert verdict(enrolled, suspect).outcome == "inconclusive"


def test_the_share_of_one_copied_layer_is_not_enough(owner):
    """The first layer alone is the owner's: units keep their order, but what reads them is another's."""
    weights = dict(ToyClassifier.fresh(SIZES, seed=8).tensors())
    suspect = owner.rebuilt({**weights, "w0": dict(owner.tensors())["w0"]})
    found = {name: catalog.method(name) for name in METHODS}
    fps = {name: method.extract(owner, INPUTS, threats=()) for name, method in found.items()}
    assert verdict((found["unit_order"], fps["unit_order"]), suspect).outcome == "match"
    assert verdict((found["unit_matching"], fps["unit_matching"]), suspect).outcome == "inconclusive"


def test_one_hidden_layer_has_no_two_routes():
    single = ToyClassifier.fresh((16, 24, 5), seed=1)
    assert catalog.method("unit_order").extract(single, INPUTS, threats=()).owner == single.card
    with pytest.raises(UsageError, match="two or more hidden layers"):
        catalog.method("unit_matching").extract(single, INPUTS, threats=())


def test_weights_that_are_no_numbers_are_refused(enrolled, owner):
    with pytest.raises(ModelError, match="NaN or infinity in w1"):
        verdict(enrolled, owner.rebuilt({"w1": np.full((24, 20), np.nan, np.float32)}))


def test_units_that_are_all_dead_are_no_crash(enrolled, owner):
    blank = owner.rebuilt({n: np.zeros_like(w) for n, w in owner.tensors()})
    assert verdict(enrolled, blank).p_value == 1.0


def test_scores_do_not_depend_on_the_order_of_judging(enrolled, owner):
    method, fp = enrolled
    seen = [method.asked(m, fp.probes) for m in (owner, noisy(owner, 1), ToyClassifier.fresh(SIZES, seed=3))]
    assert [method.score(fp, o) for o in seen] == [method.score(fp, o) for o in seen[::-1]][::-1]


# --- networks of other kinds


def drawn(module, seed):
    """Every tensor drawn anew, batch norms included, so that folding has something to fold."""
    torch = pytest.importorskip("torch")
    made = torch.Generator().manual_seed(seed)
    for name, tensor in module.state_dict().items():
        if tensor.dtype.is_floating_point:
            value = torch.randn(tensor.shape, generator=made)
            tensor.copy_(value.abs() + 0.5 if "var" in name else value)
    return module


NETWORKS = {
    "convolutions": lambda n: n.cnn(),
    "batch norms": lambda n: n.cnn(n.nn.BatchNorm2d, bias=False),
    "residual": lambda n: n.resnet(),
    "norms first": lambda n: n.norms_first(),
    "tanh": lambda n: n.mlp(n.nn.Tanh),
}


@pytest.mark.parametrize("kind", NETWORKS)
def test_units_are_found_again_in_networks_of_many_kinds(kind):
    networks = pytest.importorskip("tests.networks")
    from minutia.models.torch import TorchModel

    owner, stranger = (TorchModel(drawn(NETWORKS[kind](networks), seed)) for seed in (0, 1))
    material = Material(networks.IMAGES, np.zeros(len(networks.IMAGES), int))
    laundered = shuffled(stretched(owner, 1) if kind != "tanh" else flipped(owner), 2)
    for name, found in (("unit_order", owner), ("unit_matching", laundered)):
        method = catalog.method(name)
        fp = method.extract(owner, material, threats=())
        assert verdict((method, fp), found).outcome == "match"
        assert verdict((method, fp), stranger).outcome == "inconclusive"


def flipped(model):
    """Every other unit with its sign changed, before and after an odd activation."""
    weights = dict(model.tensors())
    for group in layered(model, "a test")[1]:
        signs = np.where(np.arange(group.count) % 2, -1.0, 1.0)
        slots = [replace(slot, scales=True) for slot in (*group.writes, *group.reads)]
        both = replace(group, writes=tuple(slots), reads=())
        weights = rescaled(weights, both, signs)
    return model.rebuilt(weights)


def test_folding_a_norm_changes_no_units():
    networks = pytest.importorskip("tests.networks")
    from minutia.models.torch import TorchModel

    owner = TorchModel(drawn(NETWORKS["batch norms"](networks), 0))
    weights = dict(owner.tensors())
    for norm in (n for group in owner.units() for n in group.norms):
        weights |= folded(weights, norm)
    mine, theirs = (catalog.method("unit_order").read(m, {}) for m in (owner, owner.rebuilt(weights)))
    assert all(np.allclose(mine[name], theirs[name], atol=2e-3) for name in mine)


# --- several methods together


def test_two_structural_tests_together_need_no_other_models_either(owner):
    both = catalog.method("unit_order+unit_matching")
    models = [ToyClassifier.fresh(SIZES, seed=seed) for seed in range(20, 28)]
    fp = both.extract(owner, replace(INPUTS, unrelated=models), threats=())
    found = both.verify(fp, stretched(shuffled(owner, 1), 1), Null.none())
    assert (found.outcome, found.asked, found.null_kind) == ("match", 0, "assumed")
    assert [(m.method.partition("(")[0], m.kind) for m in found.members] == [
        ("unit_order", "exact"),
        ("unit_matching", "assumed"),
    ]
    assert both.verify(fp, ToyClassifier.fresh(SIZES, seed=30), Null.none()).outcome == "inconclusive"


def test_weights_convict_beside_answers_even_without_a_null(owner):
    both = catalog.method("unit_matching+noise_agreement(probes=20)")
    models = [ToyClassifier.fresh(SIZES, seed=seed) for seed in range(20, 28)]
    fp = both.extract(owner, replace(INPUTS, unrelated=models), threats=())
    found = both.verify(fp, shuffled(noisy(owner, 1), 1), Null.none())
    assert (found.outcome, found.null_kind, "null-missing" in found.flags) == ("match", "assumed", False)
    hidden = both.verify(fp, Metered(owner, only=Access.LABELS), Null.none())
    assert hidden.outcome == "inconclusive" and "null-missing" in hidden.flags


def child(ancestor, seed):
    """A fine-tune of a public model: a root of its own, and hidden units in common with all its siblings."""
    made = noisy(ancestor, seed)
    made.card = replace(made.card, root=f"child {seed}", parents=(ancestor.card.id,))
    return made


def test_children_of_one_ancestor_are_not_taken_for_copies_of_one_another(enrolled, owner):
    """The null is declared unrelated, and shares its units with the owner's model: then they are no evidence."""
    method, fp = enrolled
    null = Null("unrelated", tuple(method.asked(child(owner, seed), fp.probes) for seed in range(1, 6)))
    sibling = child(owner, 9)
    assert method.verify(fp, sibling, Null.none()).outcome == "match", "who knows of no ancestor sees common units"
    found = method.verify(fp, sibling, null)
    assert (found.outcome, found.p_value) == ("inconclusive", None) and "null-shares-weights" in found.flags
    assert "unrelated models have in common as well" in found.reasons[0]
    strangers = Null(
        "unrelated", tuple(method.asked(ToyClassifier.fresh(SIZES, seed=s), fp.probes) for s in range(40, 45))
    )
    found = method.verify(fp, sibling, strangers)
    assert found.outcome == "match" and "null-shares-weights" not in found.flags


def test_beside_answers_the_rank_decides_where_the_null_shares_weights(owner):
    both = catalog.method("unit_order+noise_agreement(probes=20)")
    spent = [child(owner, seed) for seed in range(20, 28)]
    mine = child(owner, 1)
    fp = both.extract(mine, replace(INPUTS, unrelated=spent), threats=())
    null = Null("unrelated", tuple(both.asked(child(owner, seed), fp.probes, fp.arrays) for seed in range(30, 49)))
    found = both.verify(fp, child(owner, 50), null, alpha=0.05)
    assert found.null_kind == "rank" and found.outcome != "match"
    assert [m.counts for m in found.members] == [False, True] and found.members[0].p_value < 1e-5


# --- trained networks


@pytest.mark.slow
def test_independent_trainings_are_left_alone_and_copies_are_found():
    """Twelve trainings of one recipe, every pair; copies of one of them by every attack that keeps weights."""
    pytest.importorskip("torch")
    pytest.importorskip("sklearn")
    from minutia.storage.data import load_dataset
    from minutia.study.zoo import thief

    data, blank = (
        load_dataset("sklearn:digits?rows=0:900"),
        catalog.model("torch:minutia.study.architectures:digits_cnn"),
    )
    plan = Plan(12, learning_rate=4e-3, reset="everything")
    models = [blank.trained(data.inputs, data.labels, plan, seed) for seed in range(12)]
    laundering = "permute_units+rescale_units"
    keeping = ("fine_tune_all", "retrain_last", "retrain_all", "prune(fraction=0.6)+fine_tune_all", "quantise/int4")
    keeping += ("noise", "adversarial_training", "prune_channels(fraction=0.4)")
    stolen = [
        catalog.attack(f"{key}{also}").apply(models[0], thief("sklearn:digits?rows=900:1400"), np.random.default_rng(1))
        for key in keeping
        for also in ("", f"+{laundering}")
    ]
    for name in METHODS:
        method = catalog.method(name)
        fps = [method.extract(m, replace(INPUTS, inputs=data.inputs, labels=data.labels), threats=()) for m in models]
        ps = [verdict((method, fp), m).p_value for fp in fps for m in models if m.card.id != fp.owner.id]
        assert np.mean(np.array(ps) <= 0.05) <= 0.05 and min(ps) > (1e-4 if name == "unit_order" else 0.5)
        found = [verdict((method, fps[0]), copy).outcome for copy in stolen]
        assert found[::2] == ["match"] * len(keeping)
        assert found[1::2] == (["match"] if name == "unit_matching" else ["inconclusive"]) * len(keeping)
