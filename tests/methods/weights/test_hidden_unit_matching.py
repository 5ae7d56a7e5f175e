"""Structural tests on small networks: who is found, who is not, and what H0 promises."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minutia import catalog
from minutia.core.errors import UsageError
from minutia.core.fingerprint import Null
from minutia.core.material import Material
from minutia.core.units import layered, permuted, rescaled
from minutia.models.metered import Metered
from minutia.models.toy import ToyClassifier
from minutia.stats.nulls import fixed_points_p
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
    assert (found.outcome, found.asked, found.score) == ("match", 0, 44.0)
    assert found.p_value < 1e-12 and found.p_floor <= found.p_value


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
    one, other = (method.asked(m, fp.probes) for m in (owner, shuffled(owner, seed)))
    assert method.score(fp, one) == method.score(fp, other) == 44.0


def test_the_order_test_errs_as_rarely_as_it_says():
    """H0: only the suspect's order is drawn anew, 1,000 times."""
    method, owner = catalog.method("unit_order"), ToyClassifier.fresh((16, 24, 5), seed=1)
    fp = method.extract(owner, INPUTS, threats=())
    stranger = noisy(owner, 3)
    ps = np.array(
        [fixed_points_p(int(method.score(fp, method.asked(shuffled(stranger, i), fp.probes)))) for i in range(1000)]
    )
    for level in (0.1, 0.05, 0.01):
        assert (ps <= level).mean() <= level + 3 * np.sqrt(level * (1 - level) / len(ps))
    assert (ps <= 0.2).any()  # the draws reach the region that is bounded


def test_other_widths_and_depths_are_no_crash(enrolled):
    for sizes in ((16, 30, 20, 5), (16, 24, 5), (16, 8, 8, 8, 5)):
        found = verdict(enrolled, ToyClassifier.fresh(sizes, seed=5))
        assert found.outcome == "inconclusive" and found.p_value > 0.01


def test_it_survives_a_file(enrolled, owner, tmp_path):
    method, fp = enrolled
    save_fingerprint(fp, tmp_path / "fp.safetensors")
    again = load_fingerprint(tmp_path / "fp.safetensors")
    assert again.digest == fp.digest
    assert verdict((method, again), owner).plain() == verdict((method, fp), owner).plain()


def test_weights_are_read_through_the_meter_and_hidden_by_it(enrolled, owner):
    from minutia.core.access import Access

    assert verdict(enrolled, Metered(owner)).outcome == "match"
    with pytest.raises(UsageError, match="features, weights"):
        verdict(enrolled, Metered(owner, only=Access.LABELS))
