"""Large layers: the same verdicts from a glance and a sketch, in bounded memory and few bytes; here small ones."""

import numpy as np
import pytest
from safetensors.numpy import save
from tests.models.ranges_server import serving
from tests.weights_made import experts, llama, noisy, swapped

from minutia.attacks import launder_transformer as lt
from minutia.core.tensors import Arrays
from minutia.methods.weights import laundered, order, products, streams
from minutia.methods.weights.comparison import compare
from minutia.methods.weights.order import unit_order
from minutia.methods.weights.products import sampled
from minutia.methods.weights.streams import Stream, by_geometry, by_vocabulary, in_step, shared_tokens
from minutia.models.checkpoint import open_checkpoint

HEADS = lt.Heads(4, 2)


@pytest.fixture
def small_is_large(monkeypatch):
    """Everything that bounds time and memory, at sizes that take no time."""
    monkeypatch.setattr(streams, "LARGE", 0)
    monkeypatch.setattr(products, "STEP", 200)
    monkeypatch.setattr(products, "RUN", 4)
    monkeypatch.setattr(order, "BLOCK", 7)
    monkeypatch.setattr(order, "GLANCE", 12)
    monkeypatch.setattr(laundered, "LARGEST", 2**10)
    monkeypatch.setattr(laundered, "SKETCH", 20)


def stream(tensors):
    return Stream.of(Arrays(tensors), "a test")


def centred(tensors):
    """The same with biases beside the norms, which makes them take a mean out."""
    return tensors | {n.replace("weight", "bias"): np.zeros_like(w) for n, w in tensors.items() if "norm" in n}


def merged(tensors):
    """The same with gate and up in one tensor."""
    found = {name: w for name, w in tensors.items() if "gate_proj" not in name and "up_proj" not in name}
    for name, gate in tensors.items():
        if "gate_proj" in name:
            both = np.concatenate([gate, tensors[name.replace("gate", "up")]])
            found[name.replace("gate_proj", "gate_up_proj")] = both
    return found


@pytest.mark.parametrize("layout", [dict, experts, swapped, centred, merged])
def test_mapped_rows_are_rows_mapped(layout, small_is_large):
    one = stream(experts(1) if layout is experts else layout(llama(1)))
    turn = np.random.default_rng(0).normal(size=(one.width, 5)).astype(np.float32)
    for rows, mapped in zip(one.rows(1), one.mapped(1, turn), strict=True):
        np.testing.assert_allclose(mapped, rows @ turn, rtol=1e-4, atol=1e-4)


def test_wide_streams_are_aligned_where_tokens_lie(small_is_large, monkeypatch):
    monkeypatch.setattr(streams, "WIDEST", 40)
    one = llama(1, width=48, units=128)
    first, second = stream(one), stream(lt.launder(noisy(one, 1, 0.1), HEADS, np.random.default_rng(0)))
    alignment = by_vocabulary(first, second, shared_tokens(first, second, None, np.random.default_rng(0)))
    assert alignment.whole[0].shape == alignment.whole[1].shape == (48, 40)
    for turn in alignment.whole:
        np.testing.assert_allclose(turn.T @ turn, np.eye(40), atol=1e-5)
    assert laundered.agreement(first, second, alignment, np.random.default_rng(0)).p_value() < 1e-12
    found = compare(Arrays(one), Arrays(llama(2, width=48, units=128)))
    assert found.p_value == 1.0


@pytest.mark.parametrize(("count", "most"), [(100, 32), (37, 8), (5, 9)])
def test_neighbours_are_sampled_together(count, most, monkeypatch):
    monkeypatch.setattr(products, "RUN", 4)
    found = sampled(count, most, np.random.default_rng(0), large=True)
    assert len(found) == min(count, most) == len(set(found.tolist()))
    assert (np.diff(found) > 0).all() and found.max() < count
    if count > most:
        assert (found.reshape(-1, 4) == found[::4, None] + np.arange(4)).all()


def test_large_copies_are_found_and_strangers_are_not(small_is_large):
    one = llama(1, width=32, units=128)
    tuned, washed = noisy(one, 1, 0.1), lt.launder(noisy(one, 1, 0.1), HEADS, np.random.default_rng(0))
    found = compare(Arrays(one), Arrays(tuned))
    assert (found.relation, found.null, [m.share for m in found.strip]) == ("derived", "exact", [1.0] * 3)
    found = compare(Arrays(one), Arrays(washed))
    assert (found.relation, found.test) == ("derived", "vocabulary")
    found = compare(Arrays(one), Arrays(llama(2, width=32, units=128)))
    assert found.p_value == 1.0


def test_a_glance_decides_where_order_is_kept(small_is_large, monkeypatch):
    """With half of the layers taken over, the glance still says which."""
    one, two = llama(1, layers=4), llama(2, layers=4)
    mixed = {name: one[name] if ".1." in name or ".3." in name else w for name, w in two.items()}
    monkeypatch.setattr(order, "_stream_order", None)  # a second look would call it
    found = unit_order(stream(one), stream(mixed), np.random.default_rng(0))
    assert found.p < 1e-7
    assert [group.kept > 6 for group in found.groups] == [False, True, False, True]
    assert len({len(group.places) for group in found.groups if group.kept > 6}) == 1


def test_places_are_those_of_the_units(small_is_large):
    one = llama(1)
    other = {name: w.copy() for name, w in llama(2).items()}
    for part in ("gate", "up"):
        name = f"model.layers.0.mlp.{part}_proj.weight"
        other[name][20:40] = one[name][20:40]
    other["model.layers.0.post_attention_layernorm.weight"] = one["model.layers.0.post_attention_layernorm.weight"]
    found = unit_order(stream(one), stream(other), np.random.default_rng(0))
    seen = {place for group in found.groups if group.name == "layer 0" for place in group.places}
    assert len(seen & set(range(20, 40))) > 3
    assert len(seen - set(range(20, 40))) < 3


def test_removed_units_of_large_layers_leave_a_rising_order(small_is_large):
    one = llama(1)
    kept = np.sort(np.random.default_rng(0).permutation(64)[:50])
    less = {
        name: w[kept] if "gate_proj" in name or "up_proj" in name else w[:, kept] if "down_proj" in name else w
        for name, w in one.items()
    }
    assert unit_order(stream(one), stream(less), np.random.default_rng(0)).p < 1e-30


def test_layers_of_several_sizes_are_compared(small_is_large):
    """Where layers that stand beside each other have other numbers of units, no place is read that is not there."""
    one, two = llama(1, units=200, layers=4), llama(1, units=40, layers=4)
    wide = {name: two[name] if ".mlp." in name and ".0." in name else w for name, w in one.items()}
    late = {name: two[name] if ".mlp." in name and ".3." in name else w for name, w in one.items()}
    found = compare(Arrays(wide), Arrays(late))
    assert (found.relation, found.null) == ("derived", "exact")
    assert [match.kinship is not None for match in found.strip] == [False, True, True, False]


def test_two_looks_keep_the_promise(small_is_large):
    """H0 made true: one stranger, its units and its stream in 1,000 random orders."""
    one, two = stream(llama(1, layers=2, units=24)), llama(2, layers=2, units=24)
    rng = np.random.default_rng(0)
    ps = []
    for draw in range(1000):
        other = lt.permute_units(lt.permute_stream(two, rng), rng)
        ps.append(unit_order(one, stream(other), np.random.default_rng(draw)).p)
    for alpha in (0.1, 0.05, 0.01):
        assert np.mean(np.array(ps) <= alpha) <= alpha + 2.5 * np.sqrt(alpha * (1 - alpha) / 1000)


def test_other_numbers_of_tokens_are_noticed(small_is_large):
    rng = np.random.default_rng(0)
    one, two = llama(1), llama(2)
    words = rng.normal(size=(120, 4)).astype(np.float32)
    for tensors in (one, two):  # what all models of one language know
        tensors["model.embed_tokens.weight"] += words @ rng.normal(size=(4, 24)).astype(np.float32)
    order_of_words = rng.permutation(120)
    for other, same in ((two, True), (lt.reorder_vocabulary(two, order_of_words), False)):
        first, second = stream(one), stream(other)
        assert by_geometry(first, second) is None
        assert in_step(first, second, shared_tokens(first, second, None, rng), rng) is same
    found = compare(Arrays(one), Arrays(lt.reorder_vocabulary(two, order_of_words)))
    assert found.relation == "undecided"
    assert "other numbers" in found.notes[0]
    assert compare(Arrays(one), Arrays(two)).relation == "unrelated"


def test_a_first_verdict_takes_few_bytes():
    """Two copies that keep the order of units, behind a server: at most a twentieth of both files."""
    one = llama(1, width=512, units=2100, layers=2, tokens=2000)
    files = {f"/{at}.safetensors": save(tensors) for at, tensors in enumerate((one, noisy(one, 1, 0.1)))}
    with serving(files) as server:
        specs = [server.url + path for path in files]
        with open_checkpoint(specs[0]) as first, open_checkpoint(specs[1]) as second:
            found = compare(first, second)
            read = first.bytes_read + second.bytes_read
    assert (found.relation, found.null) == ("derived", "exact")
    assert found.p_value <= 1e-6
    assert read <= 0.05 * sum(map(len, files.values()))
