"""What is said of two checkpoints: which evidence convicts, and what a comparison admits not to see."""

import numpy as np
import pytest
from tests.weights_made import llama, noisy

from minutia.attacks import launder_transformer as lt
from minutia.core.comparison import Kinship, LayerMatch
from minutia.core.errors import ModelError
from minutia.core.tensors import Arrays
from minutia.methods.weights.comparison import compare
from minutia.methods.weights.kinship import holds, merged_share, origin

HEADS = lt.Heads(4, 2)
SHARED = "shared ancestor or initialisation"


def compared(one, other):
    return compare(Arrays(one), Arrays(other))


def child(start, seed, share):
    """A training that kept this share of its start, of the same size."""
    rng = np.random.default_rng(seed)
    return {
        name: (share * w + np.sqrt(1 - share**2) * w.std() * rng.normal(size=w.shape)).astype(w.dtype)
        if w.ndim > 1
        else w
        for name, w in start.items()
    }


def test_children_of_one_start_are_no_copies():
    start = llama(0, units=128)
    found = compared(child(start, 1, 0.7), child(start, 2, 0.7))
    assert (found.relation, found.outcome) == (SHARED, "inconclusive")
    assert found.p_value <= 1e-6


def test_scaling_makes_no_copy():
    """Any slope can be had by scaling a sibling's weights."""
    start = llama(0, units=128)
    larger = {n: w * 2.2 if ".mlp." in n else w for n, w in child(start, 2, 0.45).items()}
    assert compared(child(start, 1, 0.45), larger).relation == SHARED
    assert not holds([Kinship(0.2, 0.98, 0.2)])
    assert holds([Kinship(0.8, 1.0, 0.64)])


def test_a_public_embedding_convicts_nobody():
    one, other = llama(1, units=128), llama(2, units=128)
    embedded = {n: one[n] if "embed" in n or "head" in n else w for n, w in other.items()}
    found = compared(one, embedded)
    assert found.p_value <= 0.01
    assert (found.relation, found.outcome) == (SHARED, "inconclusive")
    only = LayerMatch(-1, -1, "embedding", 1.0, Kinship(1.0, 1.0, 1.0))
    assert origin([only])[0] == "derived"
    assert origin([only, LayerMatch(0, 0, "layer 0", 0.0)])[0] == SHARED


def test_averages_are_told_by_both_slopes():
    strip = [LayerMatch(at, at, f"layer {at}", 1.0, Kinship(0.7, 0.5, 1.0)) for at in range(3)]
    assert origin(strip) == ("derived", 0.5)
    assert merged_share([Kinship(0.7, 0.5, 0.6)] * 3) is None


@pytest.mark.parametrize("depth", [[0, 1], [0, 1, 2]])
def test_re_ordered_tokens_without_strings_are_admitted(depth):
    """Another depth leaves no way to see through a re-ordered vocabulary: nothing is called unrelated."""
    rng = np.random.default_rng(0)
    hidden = lt.launder(lt.take_layers(llama(1, units=128), depth), HEADS, rng)
    found = compared(llama(1, units=128), lt.reorder_vocabulary(hidden, rng.permutation(120)))
    assert found.relation == ("undecided" if len(depth) == 2 else "derived")
    assert len(depth) == 3 or "strings of both vocabularies" in found.notes[-1]


def test_norms_that_are_zero_are_admitted():
    """Norms stored less 1, and folded, are 0: their units have no weights to be found by."""
    hidden = lt.launder(llama(1, units=128), HEADS, np.random.default_rng(0))
    less = {n: w - 1 if "norm" in n else w for n, w in hidden.items()}
    found = compared(llama(1, units=128), less)
    assert found.relation == "undecided"


def test_without_any_way_to_align_the_note_says_so():
    without = {n: w for n, w in llama(2, width=16, layers=2).items() if "embed" not in n and "head" not in n}
    found = compared(llama(1), without)
    assert (found.relation, found.notes) == (
        "undecided",
        ("no tokens are known to be the same: only copies in place are seen",),
    )


@pytest.mark.parametrize("name", ["model.embed_tokens.weight", "lm_head.weight", "model.norm.weight"])
def test_broken_tables_are_told(name):
    broken = noisy(llama(1), 1)
    broken[name] = np.full_like(broken[name], np.nan)
    with pytest.raises(ModelError, match=f"NaN or infinity in {name} of the second"):
        compared(llama(2), broken)
