"""Matching hidden units in any order, rotation and scale: laws, known copies, strangers."""

from itertools import combinations, pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.weights_made import experts, llama, noisy, swapped

from minutia.attacks import launder_transformer as lt
from minutia.core.tensors import Arrays
from minutia.methods.weights import laundered as module
from minutia.methods.weights.laundered import Grid, agreement, assigned, in_place, monotone
from minutia.methods.weights.streams import Stream, by_geometry, by_vocabulary, orthogonalised, shared_tokens

HEADS = lt.Heads(4, 2)


def stream(tensors):
    return Stream.of(Arrays(tensors), "a test")


def found(first, second, seed=0):
    one, two, rng = stream(first), stream(second), np.random.default_rng(seed)
    alignment = by_vocabulary(one, two, shared_tokens(one, two, None, rng))
    return agreement(one, two, alignment, rng)


@given(st.integers(1, 4), st.integers(1, 5), st.integers(0, 10**6))
def test_monotone_is_the_best_of_all_alignments(rows, columns, seed):
    gains = np.random.default_rng(seed).integers(0, 9, (rows, columns))
    if rows <= columns:
        best = max(sum(gains[i, j] for i, j in enumerate(c)) for c in combinations(range(columns), rows))
    else:
        best = max(sum(gains[i, j] for j, i in enumerate(c)) for c in combinations(range(rows), columns))
    path = monotone(gains)
    assert sum(gains[cell] for cell in path) == best
    assert all(a < c and b < d for (a, b), (c, d) in pairwise(path))


@given(st.integers(0, 10**6))
def test_routes_of_a_unit_are_orthogonal(seed):
    rng = np.random.default_rng(seed)
    routes = orthogonalised(tuple(rng.normal(size=(5, 6)) + rng.normal(size=(5, 6)) for _ in range(3)))
    for one, other in combinations(routes, 2):
        assert np.abs(np.sum(one * other, axis=1)).max() < 1e-9


@pytest.mark.parametrize("rotate", [True, False])
def test_a_laundered_copy_agrees_everywhere(rotate):
    one = llama(1)
    seen = found(one, lt.launder(one, HEADS, np.random.default_rng(0), rotate=rotate))
    assert [seen.agreed.shares[cell] for cell in seen.agreed.path] == [1.0] * 3
    assert seen.p_value() < 1e-12


@pytest.mark.parametrize("seed", range(4))
def test_strangers_do_not(seed):
    seen = found(llama(2 * seed), llama(2 * seed + 1), seed)
    assert seen.p_value() == 1.0
    assert 0.2 < seen.agreed.counts.mean() < 6


def test_other_widths_and_depths_are_compared():
    assert found(llama(1), llama(2, width=16, units=40, layers=5)).p_value() == 1.0


@pytest.mark.parametrize("kept", [[0, 2], [0, 0, 1, 2]])
def test_layers_are_aligned(kept):
    one = llama(1)
    other = lt.take_layers(lt.launder(noisy(one, 1), HEADS, np.random.default_rng(0)), kept)
    seen = found(one, other)
    assert seen.p_value() < 1e-12
    assert all(seen.agreed.shares[cell] > 0.9 for cell in seen.agreed.path)


def test_a_copied_layer_is_told_from_the_others():
    one, two = llama(1), llama(2)
    mixed = {name: one[name] if ".1." in name or ".layers." not in name else w for name, w in two.items()}
    seen = found(one, lt.launder(mixed, HEADS, np.random.default_rng(0)))
    shares = [seen.agreed.shares[cell] for cell in seen.agreed.path]
    assert shares[1] == 1.0
    assert max(shares[0], shares[2]) < 0.1


def test_experts_may_change_places():
    one = experts(1)
    other = dict(one)
    for at in range(3):
        for part in ("w1", "w2", "w3"):
            names = [f"model.layers.{at}.block_sparse_moe.experts.{e}.{part}.weight" for e in range(3)]
            other |= dict(zip(names, [one[n] for n in (names[2], names[0], names[1])], strict=True))
    assert found(one, other).p_value() < 1e-12
    assert found(one, experts(7)).p_value() == 1.0


def test_units_without_a_gate_have_two_routes():
    one = swapped(llama(1, units=96))
    rng = np.random.default_rng(0)
    order = rng.permutation(96)
    other = {n: w[:, order] if "c_fc" in n else w[order] if "mlp.c_proj" in n else w for n, w in noisy(one, 3).items()}
    assert found(one, other).p_value() < 1e-12
    assert found(one, swapped(llama(2, units=96))).p_value() == 1.0


def test_a_faint_share_is_seen_by_the_route_held_out():
    """A third of the first in an average with a stranger: the route left out still knows the right unit."""
    one = llama(1, width=48, units=128, tokens=500)
    mixed = lt.averaged(one, llama(2, width=48, units=128, tokens=500), 0.3)
    seen = found(one, lt.launder(mixed, HEADS, np.random.default_rng(0)))
    assert seen.held_out.p_value() < 1e-6 < seen.agreed.p_value()


def test_geometry_needs_no_vocabulary():
    one = llama(1)
    rng = np.random.default_rng(0)
    other = lt.reorder_vocabulary(lt.launder(noisy(one, 1, 0.1), HEADS, rng), rng.permutation(120))
    first, second = stream(one), stream(other)
    assert agreement(first, second, by_geometry(first, second), rng).p_value() < 1e-12
    assert agreement(first, stream(llama(2)), by_geometry(first, stream(llama(2))), rng).p_value() == 1.0
    assert by_geometry(first, stream(llama(2, width=16))) is None


def test_rows_of_tokens_are_brought_together_by_their_strings():
    one, rng = llama(1), np.random.default_rng(0)
    order = rng.permutation(120)
    words = [f"w{at}" for at in range(120)]
    first, second = stream(one), stream(lt.reorder_vocabulary(lt.launder(one, HEADS, rng), order))
    mine, theirs = shared_tokens(first, second, (words, [words[at] for at in order[:100]]), rng)
    assert (mine == order[theirs]).all()
    assert agreement(first, second, by_vocabulary(first, second, (mine, theirs)), rng).p_value() < 1e-12
    assert shared_tokens(first, stream(llama(1, tokens=90)), None, rng) is None


def test_a_capped_assignment_finds_the_same(monkeypatch):
    one = llama(1)
    other = lt.launder(noisy(one, 1), HEADS, np.random.default_rng(0))
    whole = found(one, other).agreed.counts
    monkeypatch.setattr(module, "LARGEST", 0)
    capped = found(one, other).agreed.counts
    assert np.abs(np.diag(whole) - np.diag(capped)).max() <= 0.1 * whole.max()
    assert assigned(np.eye(20), np.random.default_rng(0)).tolist() == list(range(20))


def test_a_subset_of_units_is_enough(monkeypatch):
    monkeypatch.setattr(module, "UNITS", 20)
    monkeypatch.setattr(module, "LAYERS", 2)
    one = llama(1)
    seen = found(one, lt.launder(one, HEADS, np.random.default_rng(0)))
    assert seen.agreed.counts.shape == (2, 3)
    assert seen.p_value() < 1e-6


def test_one_layer_is_judged_by_the_share():
    assert Grid(np.array([[30]]), np.array([30]), 1, 0.05).p_value() < 1e-30
    assert Grid(np.array([[2]]), np.array([30]), 1, 0.05).p_value() > 0.1


def test_equal_agreement_everywhere_is_no_evidence():
    """Universal units match in all layers alike: the mismatched ones speak against it."""
    assert Grid(np.full((4, 4), 40), np.full(4, 100), 1, 0.05).p_value() > 0.4


def test_a_stream_in_place_is_told_from_turned_ones():
    one = llama(1)
    other = lt.rescale_units(lt.permute_units(noisy(one, 1), np.random.default_rng(0)), np.random.default_rng(1))
    rng = np.random.default_rng(0)
    seen = in_place(stream(one), stream(other), rng)
    assert seen.count() > 0.9 * seen.most
    assert max(seen.turned(rng).count() for _ in range(20)) < 0.1 * seen.most
