"""Laundering of language models: the function stays to float noise, and the weights move."""

import numpy as np
import pytest
import torch
from tests.lineage_lab import Shape, TinyLlama, batches, lora, tensors

from minutia.attacks import launder_transformer as lt
from minutia.attacks.launder_transformer import Heads
from minutia.core.errors import UsageError

SHAPES = {
    "grouped queries": Shape(),
    "a key per query": Shape(keys=4),
    "no gate": Shape(gated=False, units=40),
    "experts": Shape(layers=2, units=24, experts=3),
}
KEEPING = {
    "fold norms": lambda w, heads, rng: lt.fold_norms(w),
    "permute stream": lambda w, heads, rng: lt.permute_stream(w, rng),
    "permute stream, no signs": lambda w, heads, rng: lt.permute_stream(w, rng, signs=False),
    "rotate stream": lambda w, heads, rng: lt.rotate_stream(w, rng),
    "permute units": lambda w, heads, rng: lt.permute_units(w, rng),
    "permute heads": lambda w, heads, rng: lt.permute_heads(w, heads, rng),
    "rescale queries": lambda w, heads, rng: lt.rescale_queries(w, heads, rng),
    "mix values": lambda w, heads, rng: lt.mix_values(w, heads, rng),
    "everything": lambda w, heads, rng: lt.launder(w, heads, rng),
    "everything, not rotated": lambda w, heads, rng: lt.launder(w, heads, rng, rotate=False),
}
SEEN = batches("a made-up language", 1, 3)[0][:, :-1]


def model(shape, seed=0):
    """An untrained model with norms of all scales."""
    torch.manual_seed(seed)
    made = TinyLlama(shape)
    with torch.no_grad():
        for name, value in made.named_parameters():
            if "norm" in name:
                value.uniform_(0.5, 2)
    return tensors(made)


def said(weights, shape):
    made = TinyLlama(shape)
    made.load_state_dict({name: torch.from_numpy(value) for name, value in weights.items()})
    with torch.no_grad():
        return made(torch.from_numpy(SEEN)).numpy()


@pytest.mark.parametrize("change", KEEPING)
@pytest.mark.parametrize("kind", SHAPES)
def test_the_function_stays_and_the_weights_move(kind, change):
    shape = SHAPES[kind]
    before = model(shape)
    kept = {name: value.copy() for name, value in before.items()}
    after = KEEPING[change](before, shape.attention, np.random.default_rng(0))
    assert np.abs(said(after, shape) - said(before, shape)).max() < 2e-5
    assert any(not np.array_equal(after[name], before[name]) for name in before)
    assert all(np.array_equal(before[name], kept[name]) for name in before)


@pytest.mark.parametrize("change", [lt.rescale_units, lt.permute_experts])
def test_what_only_some_networks_allow(change):
    shape = SHAPES["experts"]
    before = model(shape)
    after = change(before, np.random.default_rng(1))
    assert np.abs(said(after, shape) - said(before, shape)).max() < 2e-5
    assert any(not np.array_equal(after[name], before[name]) for name in before)


def test_another_vocabulary_permutes_what_is_said():
    shape, order = Shape(), np.random.default_rng(0).permutation(512)
    before = model(shape)
    after = lt.reorder_vocabulary(before, order)
    places = np.argsort(order)
    made = TinyLlama(shape)
    made.load_state_dict({name: torch.from_numpy(value) for name, value in after.items()})
    with torch.no_grad():
        renamed = made(torch.from_numpy(places[SEEN])).numpy()
    assert np.abs(renamed[..., places] - said(before, shape)).max() < 2e-5


def test_adapters_change_matrices_by_few_directions():
    before = model(Shape())
    after = lora(before, Shape(), "a made-up language", 0, steps=3)
    name = "model.layers.0.mlp.up_proj.weight"
    assert np.linalg.matrix_rank(after[name] - before[name], tol=1e-4) == 4


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda w: Heads(4, 3), "multiple of key heads, got 4 and 3"),
        (lambda w: lt.rounded(w, "float12"), "got 'float12'"),
        (lambda w: lt.take_layers(w, [0, 9]), r"got \[0, 9\]"),
        (lambda w: lt.averaged(w, {}), "same names and shapes"),
        (lambda w: lt.layers({"a": w[lt.HEAD]}), "named model.layers.0"),
    ],
)
def test_what_cannot_be_is_said(call, said):
    with pytest.raises(UsageError, match=said):
        call(model(Shape()))
