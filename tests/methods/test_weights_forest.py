"""Lineage of checkpoints: trees of known descent, laws of the cheapest tree, and what is admitted to be a guess."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.weights_made import llama

from minutia.attacks import launder_transformer as lt
from minutia.core.errors import ModelError, UsageError
from minutia.core.tensors import Arrays
from minutia.methods.weights.forest import lineage
from minutia.methods.weights.forest_sketch import sketch
from minutia.methods.weights.forest_tree import arborescence, averages


def tuned(tensors, seed, share=0.2):
    """Matrices move, but for the rows of tokens that the text did not hold; norms move a little."""
    rng = np.random.default_rng(seed)
    found = {}
    for name, w in tensors.items():
        moved = w + share * w.std() * rng.normal(size=w.shape) if w.ndim > 1 else w * rng.uniform(0.98, 1.02, w.shape)
        if "embed" in name or "lm_head" in name:
            moved = np.where(rng.random((len(w), 1)) < 0.4, w, moved)
        found[name] = moved.astype(w.dtype)
    return found


def family(seed, shape):
    """A root, two children, a grandchild, an average of two of them, and reduced leaves."""
    root = llama(seed, **shape)
    left, right = tuned(root, seed + 1), tuned(root, seed + 2)
    below = tuned(left, seed + 3)
    made = {"root": root, "left": left, "right": right, "below": below, "average": lt.averaged(left, right)}
    made |= {"int8": lt.quantised(below, 8), "pruned": lt.pruned(right, 0.6)}
    edges = {("root", "left"), ("root", "right"), ("left", "below"), ("left", "average"), ("right", "average")}
    return made, edges | {("below", "int8"), ("right", "pruned")}


def found_in(named, **options):
    return lineage({name: Arrays(tensors) for name, tensors in named.items()}, **options)


@pytest.fixture(scope="module")
def known():
    made, edges = family(1, {"width": 32, "units": 64, "tokens": 300})
    return made, edges, found_in(made)


def test_neighbours_are_found(known):
    _, edges, found = known
    either = edges | {(child, parent) for parent, child in edges}
    given_ = [edge for edge in found.edges if edge.supported]
    assert len(given_) >= 4
    assert all((edge.parent, edge.child) in either for edge in given_)


def test_averages_have_two_parents_with_their_shares(known):
    parents = {edge.parent: edge.share for edge in known[2].edges if edge.child == "average"}
    assert parents == {"left": pytest.approx(0.5, abs=0.05), "right": pytest.approx(0.5, abs=0.05)}


def test_reduced_copies_are_leaves(known):
    kinds = {edge.child: edge.kind for edge in known[2].edges}
    assert (kinds["int8"], kinds["pruned"]) == ("quantised", "pruned")
    assert not {"int8", "pruned"} & {edge.parent for edge in known[2].edges}


def test_families_stay_apart():
    named, sets = {}, []
    for at, width in enumerate((32, 32, 24)):
        made, _ = family(10 * at + 1, {"width": width, "units": 64, "tokens": 300})
        named |= {f"{at}.{name}": tensors for name, tensors in made.items()}
        sets.append({f"{at}.{name}" for name in made})
    found = found_in(named)
    assert all(edge.parent[0] == edge.child[0] for edge in found.edges)
    assert sorted(name for tree in found.trees for name in tree) == sorted(named)
    assert len(found.roots) == 3
    assert found.exit_code == 0


def test_strangers_have_no_edges():
    found = found_in({str(seed): llama(seed) for seed in range(3)})
    assert (found.edges, found.exit_code, found.common) == ((), 1, ())


def test_children_of_an_absent_start_are_no_parents_of_each_other():
    start = llama(1, width=32, units=64, tokens=300)
    far = {str(seed): tuned(start, seed, share=1.0) for seed in range(3)}
    found = found_in(far)
    assert found.edges == ()
    assert found.common == (("0", "1", "2"),)


def test_the_same_seed_gives_the_same(known):
    made, _, found = known
    assert found_in(made) == found
    assert found_in(made).plain()["schema"] == "minutia.lineage/1"


@given(st.integers(2, 5), st.integers(0, 10**6))
def test_the_tree_is_the_cheapest(count, seed):
    """Against all ways to give every node but the root a parent."""
    cost = np.random.default_rng(seed).uniform(size=(count, count))
    tree = arborescence(cost.copy(), 0)
    best = np.inf
    for parents in product(range(count), repeat=count - 1):
        above = [-1, *parents]
        if all(_reaches(above, node) for node in range(1, count)):
            best = min(best, sum(cost[above[node], node] for node in range(1, count)))
    assert _reaches([int(p) for p in tree], count - 1)
    assert sum(cost[tree[node], node] for node in range(1, count)) == pytest.approx(best)


def _reaches(above, node):
    for _ in above:
        if node == 0:
            return True
        node = above[node]
    return node == 0


@given(st.integers(0, 10**6), st.floats(0.3, 0.7))
def test_an_average_is_a_point_between(seed, share):
    points = np.random.default_rng(seed).normal(size=(2, 200))
    points = np.vstack([points, share * points[0] + (1 - share) * points[1]])
    squares = ((points[:, None] - points[None]) ** 2).sum(axis=2)
    (found,) = averages(squares, np.ones(3, dtype=bool))
    assert (found.child, found.first, found.second) == (2, 0, 1)
    assert found.share == pytest.approx(share, abs=1e-6)


def test_a_sketch_is_bounded():
    large = {"wide.weight": np.ones((3000, 900), np.float32), "tall.weight": np.ones((40000, 8), np.float32)}
    found = sketch(Arrays(large), "a test", 0)
    assert sum(w.size for w in found.values.values()) <= 2**20 + 2**16


def test_what_cannot_be_is_said():
    broken = llama(1)
    broken["model.norm.weight"][:] = np.inf
    with pytest.raises(ModelError, match=r"NaN or infinity in model\.norm\.weight of b"):
        found_in({"a": llama(1), "b": broken})
    with pytest.raises(UsageError, match="expected 2 to 200 checkpoints, got 1"):
        found_in({"a": llama(1)})
    with pytest.raises(UsageError, match="alpha between 0 and 1"):
        found_in({"a": llama(1), "b": llama(2)}, alpha=1.5)


@pytest.mark.slow
def test_a_trained_forest(tmp_path):
    from tests.forest_lab import forest

    truth = forest(7, tmp_path)
    named = {made.name: dict(np.load(tmp_path / f"{made.name}.npz")) for made in truth.models}
    found = found_in(named)
    either = set(truth.edges) | {(child, parent) for parent, child in truth.edges}
    given_ = [edge for edge in found.edges if edge.supported]
    right = [edge for edge in given_ if (edge.parent, edge.child) in either]
    assert len(given_) >= 0.6 * len(truth.edges)
    assert len(right) >= 0.85 * len(given_)
    assert sum((edge.parent, edge.child) in truth.edges for edge in right) >= 0.8 * len(right)
