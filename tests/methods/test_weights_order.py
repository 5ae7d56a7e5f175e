"""The exact test of the order of units: its bounds by enumeration, its promise by redrawing, its power."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.weights_made import experts, llama, noisy, swapped

from minutia.attacks import launder_transformer as lt
from minutia.core.tensors import Arrays
from minutia.methods.weights.order import kept_order, redrawn_p, unit_order
from minutia.methods.weights.streams import Stream


def stream(tensors):
    return Stream.of(Arrays(tensors), "a test")


def order_p(first, second, seed=0):
    return unit_order(stream(first), stream(second), np.random.default_rng(seed)).p


@pytest.mark.parametrize("others", [6, 7])
def test_bounds_hold_over_all_orders(others):
    """Of all 720 orders, at most a share of p has a p-value of p or less."""
    ps = np.array([kept_order(np.array(order), others, "all").p for order in permutations(range(6))])
    for p in np.unique(ps):
        assert np.mean(ps <= p) <= p * (1 + 1e-12)


@given(st.lists(st.integers(0, 50), unique=True, min_size=1, max_size=9))
def test_the_rising_sequence_is_the_longest(values):
    order = np.array(values)
    rising = max(
        sum(1 for at in range(len(values)) if mask >> at & 1)
        for mask in range(1, 2 ** len(values))
        if all(np.diff(order[[at for at in range(len(values)) if mask >> at & 1]]) > 0)
    )
    assert kept_order(order, 60, "any").kept == rising


@pytest.mark.parametrize("layout", [llama, experts, lambda seed: swapped(llama(seed))])
def test_kept_order_is_found_and_strangers_are_not(layout):
    one = layout(1)
    assert order_p(one, noisy(one, 2)) < 1e-50
    assert order_p(one, layout(3)) > 0.05


@pytest.mark.parametrize("change", [lambda w: lt.take_layers(w, [0, 2]), lambda w: lt.take_layers(w, [0, 1, 1, 2])])
def test_dropped_and_doubled_layers_are_aligned(change):
    one = llama(1)
    assert order_p(one, change(noisy(one, 2))) < 1e-50


def test_removed_units_leave_a_rising_order():
    one = llama(1)
    kept = np.sort(np.random.default_rng(0).permutation(64)[:50])
    less = {
        name: w[kept] if "gate_proj" in name or "up_proj" in name else w[:, kept] if "down_proj" in name else w
        for name, w in one.items()
    }
    turned = lt.permute_stream(less, np.random.default_rng(1))
    found = unit_order(stream(one), stream(less), np.random.default_rng(0))
    assert found.p < 1e-50
    assert [group.kept for group in found.groups if group.rising] == [50, 50, 50]
    assert order_p(one, turned) > 0.05


def test_units_alone_in_another_order_leave_the_stream():
    one = llama(1)
    found = unit_order(stream(one), stream(lt.permute_units(one, np.random.default_rng(0))), np.random.default_rng(0))
    assert found.p < 1e-10
    assert [group.name for group in found.groups if group.p < 1e-3] == ["stream"]


def test_dead_units_are_left_out():
    """Units without weights in the same places of strangers are no evidence."""
    one, two = llama(1), llama(2)
    for tensors in (one, two):
        for name in tensors:
            if ".mlp.gate" in name or ".mlp.up" in name:
                tensors[name][:40] = 0
    assert order_p(one, two) > 0.05


def test_redrawn_p_counts_itself():
    assert redrawn_p(5, lambda: 4, 99) == (0.01, 0.01)
    assert redrawn_p(5, lambda: 5, 99)[0] == 1.0


def test_redrawing_the_order_keeps_the_promise():
    """H0 made true: one stranger, its units and its stream in 1,000 random orders."""
    one, two = stream(llama(1, layers=2, units=24)), llama(2, layers=2, units=24)
    rng = np.random.default_rng(0)
    ps = []
    for _ in range(1000):
        other = lt.permute_units(lt.permute_stream(two, rng), rng)
        ps.append(unit_order(one, stream(other), np.random.default_rng(0)).p)
    for alpha in (0.1, 0.05, 0.01):
        assert np.mean(np.array(ps) <= alpha) <= alpha + 2.5 * np.sqrt(alpha * (1 - alpha) / 1000)


def test_tied_layers_count_once():
    """Layers that share their weights share their order: eight of them are no more evidence than one."""
    one, two = (stream(tied(llama(seed, layers=1, units=24), 8)) for seed in (1, 2))
    found = unit_order(one, two, np.random.default_rng(0))
    assert [group.counts for group in found.groups] == [True] + [False] * 7 + [True]
    ps = []
    for draw in range(300):
        rng = np.random.default_rng(draw)
        other = stream(tied(lt.permute_units(llama(2, layers=1, units=24), rng), 8))
        ps.append(unit_order(one, other, rng).p)
    assert sum(p <= 0.01 for p in ps) <= 9
    assert min(ps) > 1e-5
    assert order_p(tied(llama(1, layers=1), 8), tied(noisy(llama(1, layers=1), 3), 8)) < 1e-12


def tied(tensors, count):
    """A model whose only layer is stored under every name."""
    return lt.take_layers(tensors, [0] * count)


def test_a_layer_of_as_many_units_as_are_looked_at_is_no_layer_in_place():
    one = llama(1, units=300)
    kept = np.sort(np.random.default_rng(0).permutation(300)[:128])
    other = {n: w[:, kept] if "down_proj" in n else w[kept] if ".mlp." in n else w for n, w in one.items()}
    found = unit_order(stream(one), stream(other), np.random.default_rng(0))
    assert all(group.rising and group.p < 1e-6 for group in found.groups if group.first >= 0)
