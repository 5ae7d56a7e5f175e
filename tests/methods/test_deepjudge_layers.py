"""DeepJudge with open weights: likeness of layers by hand, what laundering changes, what cannot be read."""

from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minutia import catalog
from minutia.checks import toy_bench
from minutia.core.access import Access
from minutia.core.errors import MinutiaError, ModelError, UsageError
from minutia.core.fingerprint import Null
from minutia.core.probe import numbered
from minutia.core.units import permuted
from minutia.methods.classifiers.deepjudge_layers import SEEDS, DeepJudgeLayers, likeness
from minutia.models.metered import Metered

METHOD = DeepJudgeLayers(inputs=60)


@lru_cache(maxsize=1)
def enrolled():
    bench = toy_bench()
    fp = METHOD.extract(bench.owner, bench.material, seed=1)
    return bench, fp


def scored(model):
    _, fp = enrolled()
    return METHOD.score(fp, METHOD.asked(model, fp.probes, fp.arrays))


# --- likeness by hand


def test_distances_are_those_of_outputs_divided_by_their_largest():
    """Second unit: outputs 1, .5, 0 against 1, 1, 0: .5/3 apart, and one of three activations differs."""
    own = np.array([[2.0, 4.0], [0.0, 2.0], [1.0, 0.0]])
    seen = np.array([[2.0, 1.0], [0.0, 1.0], [1.0, 0.0]])
    assert likeness(own, own) == pytest.approx(1.0)
    assert likeness(own, seen) == pytest.approx((1 + (1 - (0.5 / 3 + 1 / 3) / 2)) / 2)


def test_units_without_a_partner_are_worth_nothing():
    layer = np.random.default_rng(0).random((30, 6))
    assert likeness(layer, layer[:, :3]) == pytest.approx(0.5)
    assert likeness(layer[:, :3], layer) == pytest.approx(1.0)


def test_silent_units_and_layers_are_left_out():
    layer = np.random.default_rng(0).random((30, 4))
    silent = np.concatenate([layer, np.zeros((30, 2))], axis=1)
    assert likeness(silent, silent) == pytest.approx(1.0) and likeness(silent, layer) == pytest.approx(1.0)
    assert likeness(np.zeros((30, 2)), layer) == likeness(layer, np.zeros((30, 2))) == 0.0


@given(seed=st.integers(0, 999), units=st.integers(1, 6))
def test_order_and_scale_of_units_change_nothing(seed, units):
    rng = np.random.default_rng(seed)
    own, seen = rng.random((2, 25, units))
    moved = seen[:, rng.permutation(units)] * rng.uniform(0.1, 9, units)
    assert likeness(own, moved) == pytest.approx(likeness(own, seen))
    assert 0 <= likeness(own, seen) <= 1


# --- models


def test_the_owner_and_shuffled_copies_are_alike_and_strangers_less():
    bench, _ = enrolled()
    rng, weights = np.random.default_rng(0), dict(bench.owner.tensors())
    for group in bench.owner.units():
        weights = {**weights, **permuted(weights, group, rng.permutation(group.count))}
    assert scored(bench.owner) == pytest.approx(1.0) == scored(bench.owner.rebuilt(weights))
    noisy = bench.owner.rebuilt({n: w + rng.normal(0, 0.02, w.shape) for n, w in bench.owner.tensors()})
    assert max(map(scored, bench.innocents)) < scored(noisy) < 1


def test_copies_are_convicted_by_rank_and_innocents_are_not():
    bench, fp = enrolled()
    half = len(bench.innocents) // 2
    null = Null("unrelated", tuple(METHOD.asked(m, fp.probes, fp.arrays) for m in bench.innocents[:half]))
    alpha = 1.01 / (1 + half)
    copy = METHOD.judge(fp, METHOD.asked(bench.owner, fp.probes, fp.arrays), null, alpha=alpha)
    assert copy.outcome == "match" and copy.asked == 0 and copy.null_kind == "rank"
    outcomes = [METHOD.verify(fp, m, null, alpha=alpha).outcome for m in bench.innocents[half:]]
    assert outcomes.count("match") <= max(1, len(outcomes) // 4)


def test_the_same_layers_are_read_inside_a_portfolio():
    """The inputs lie among the portfolio's arrays under the member's place."""
    bench, alone = enrolled()
    chosen = catalog.method(f"ipguard(probes=20,oversample=6)+{METHOD.key}")
    fp = chosen.extract(bench.owner, bench.material, seed=1)
    member, own = chosen.columns(fp)[1]
    np.testing.assert_array_equal(own.arrays[SEEDS], alone.arrays[SEEDS])
    stranger = bench.innocents[0]
    seen = chosen.asked(stranger, fp.probes, fp.arrays)
    assert member.score(own, seen) == pytest.approx(scored(stranger))
    closed = chosen.observe(fp, Metered(stranger, only=Access.LABELS))
    assert np.isnan(member.score(own, closed))


# --- what cannot be read


def test_closed_weights_are_refused():
    bench, fp = enrolled()
    with pytest.raises(MinutiaError, match="weights"):
        METHOD.observe(fp, Metered(bench.owner, only=Access.LABELS))


def test_an_owner_who_is_always_wrong_is_refused():
    bench, _ = enrolled()
    named = bench.owner.ask(numbered(bench.material.stored(bench.material.inputs), {})).labels
    wrong = replace(bench.material, labels=(named + 1) % 5, held_out=None, unrelated=(), derived=(), surrogates=())
    with pytest.raises(ModelError, match=r"expected 2 or more inputs that .* answers correctly, got 0"):
        METHOD.extract(bench.owner, replace(wrong, controls={}), seed=0)
    with pytest.raises(UsageError, match="expected 2 or more inputs, got 1"):
        DeepJudgeLayers(inputs=1)
