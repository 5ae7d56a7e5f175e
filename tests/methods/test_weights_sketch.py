"""Sketches of checkpoints: small, exact, and compared in place of the weights."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file
from tests.weights_made import experts, llama, noisy

from minutia import api
from minutia.attacks import launder_transformer as lt
from minutia.core.errors import FileError, ModelError, UsageError
from minutia.core.tensors import Arrays
from minutia.methods.weights.order_sketch import UnitSketch, compare_sketches
from minutia.methods.weights.streams import Stream


def sketch(tensors, seed=0):
    return UnitSketch.of(Stream.of(Arrays(tensors), "a test"), seed)


@pytest.mark.parametrize("made", [llama, experts])
def test_a_copy_is_found_and_a_stranger_is_not(made):
    one = sketch(made(1))
    copy = compare_sketches(one, sketch(noisy(made(1), 1)))
    assert (copy.relation, copy.null) == ("derived", "exact")
    assert copy.tests[0][1] < 1e-12
    assert all(match.share > 0.9 and 0.8 < match.kinship.cosine < 1 for match in copy.strip)
    stranger = compare_sketches(one, sketch(made(2)))
    assert (stranger.relation, stranger.exit_code) == ("undecided", 3)


def test_a_dropped_layer_is_found_out():
    found = compare_sketches(sketch(llama(1)), sketch(lt.take_layers(noisy(llama(1), 1), [0, 2])))
    assert found.relation == "derived"
    assert [(match.first, match.second) for match in found.strip] == [(0, 0), (2, 1)]


def test_a_disguise_escapes_and_the_note_says_so():
    hidden = lt.launder(llama(1), lt.Heads(4, 2), np.random.default_rng(0))
    found = compare_sketches(sketch(llama(1)), sketch(hidden))
    assert found.relation == "undecided"
    assert "disguises" in found.notes[-1]


@given(st.integers(0, 10**6))
def test_what_is_stored_is_what_was_made(seed):
    made = sketch(llama(1, layers=2, units=140), seed)
    assert UnitSketch.read(Arrays(made.arrays()), made.metadata(), "a test").counts == made.counts
    again = UnitSketch.read(Arrays(made.arrays()), made.metadata(), "a test")
    assert compare_sketches(made, again).p_value == 1e-12
    assert all(len(rows) == 128 for rows in made.arrays().values())


def test_redrawing_the_order_keeps_the_promise():
    one, two = sketch(llama(1, layers=2, units=24)), llama(2, layers=2, units=24)
    ps = []
    for draw in range(400):
        rng = np.random.default_rng(draw)
        ps.append(compare_sketches(one, sketch(lt.permute_units(two, rng))).tests[0][1])
    assert all(np.mean(np.array(ps) <= level) <= level + 2 * np.sqrt(level / 400) for level in (0.05, 0.1, 0.3))


def test_files_are_compared_with_checkpoints(tmp_path):
    for name, tensors in (("one", llama(1)), ("copy", noisy(llama(1), 1))):
        save_file(tensors, tmp_path / f"{name}.safetensors")
    kept = tmp_path / "one.sketch.safetensors"
    api.sketch(str(tmp_path / "one.safetensors"), kept, seed=7)
    found = api.compare(str(kept), str(tmp_path / "copy.safetensors"))
    assert (found.comparison.relation, found.compatibility) == ("derived", None)
    assert found.plain()["compatibility"] is None
    other = tmp_path / "other.safetensors"
    api.sketch(str(tmp_path / "copy.safetensors"), other, seed=8)
    with pytest.raises(UsageError, match="sketches of one seed, got 7 and 8"):
        api.compare(str(kept), str(other))


@pytest.mark.parametrize("damage", ["format", "seed", "units", "many", "width", "shape", "gone", "nan"])
def test_a_damaged_sketch_is_refused(tmp_path, damage):
    made = sketch(llama(1))
    arrays, metadata = made.arrays(), made.metadata()
    if damage in ("shape", "gone", "nan"):
        change = {"shape": lambda w: w[:, :9], "gone": lambda w: w[:0], "nan": lambda w: w * np.nan}[damage]
        arrays["0.0.0"] = np.ascontiguousarray(change(arrays["0.0.0"]))
    else:
        key = {"format": "minutia-sketch", "many": "units"}.get(damage, damage)
        lies = {"format": "unit-sketch/9", "seed": "-1", "units": "5 x", "many": f"{10**15},64,64", "width": "0"}
        metadata[key] = lies[damage]
    save_file(arrays, tmp_path / "s.safetensors", metadata)
    with pytest.raises(FileError, match="expected a sketch of the format"):
        api.compare(str(tmp_path / "s.safetensors"), str(tmp_path / "s.safetensors"))


def test_what_cannot_be_sketched_is_said():
    chain = {f"{at}.weight": np.ones((8, 8 + at), np.float32) for at in (1, 0, 2)}
    broken = noisy(llama(1), 1)
    broken["model.layers.0.mlp.up_proj.weight"][:] = np.nan
    with pytest.raises(UsageError, match=r"expected (weight matrices|a transformer)"):
        sketch(chain)
    with pytest.raises(ModelError, match="finite weights"):
        sketch(broken)
