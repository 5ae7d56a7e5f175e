"""Two checkpoints as files: folders, vocabularies, and what is told beside the verdict."""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file
from tests.weights_made import llama, noisy

from minutia import api
from minutia.attacks import launder_transformer as lt
from minutia.core.errors import FileError, UsageError
from minutia.core.tensors import Arrays
from minutia.methods.weights.baselines import baselines
from minutia.methods.weights.streams import Stream

HEADS = lt.Heads(4, 2)


def stored(folder, tensors, config=None, words=None):
    """A checkpoint as a folder."""
    folder.mkdir()
    save_file({name: np.ascontiguousarray(w) for name, w in tensors.items()}, folder / "model.safetensors")
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config))
    if words is not None:
        vocabulary = {word: at for at, word in enumerate(words)}
        (folder / "tokenizer.json").write_text(json.dumps({"model": {"vocab": vocabulary}, "added_tokens": []}))
    return str(folder)


def test_a_tuned_copy_is_derived(tmp_path):
    one = llama(1)
    found = api.compare(stored(tmp_path / "a", one, {"x": 1}), stored(tmp_path / "b", noisy(one, 1), {"x": 2}))
    assert (found.comparison.relation, found.comparison.exit_code, found.comparison.null) == ("derived", 0, "exact")
    assert found.compatibility.shapes == found.compatibility.tensors == found.first.tensors
    assert (found.compatibility.config, found.compatibility.vocabulary) == (False, None)
    assert found.plain()["layers"][0]["related"] is True
    assert json.loads(json.dumps(found.plain()))["second"]["formats"] == ["float32"]


def test_equal_configuration_and_vocabulary_are_no_evidence(tmp_path):
    words = [f"w{at}" for at in range(120)]
    found = api.compare(*(stored(tmp_path / str(seed), llama(seed, units=96), {"x": 1}, words) for seed in (1, 2)))
    assert (found.comparison.relation, found.comparison.exit_code) == ("unrelated", 1)
    assert (found.compatibility.config, found.compatibility.vocabulary) == (True, True)


def test_tokens_are_matched_by_their_strings(tmp_path):
    """Another order of tokens and fewer of them: only the tokenizers tell which rows belong together."""
    one, rng = llama(1, tokens=400), np.random.default_rng(0)
    order, words = rng.permutation(400)[:300], [f"w{at}" for at in range(400)]
    copy = lt.reorder_vocabulary(lt.launder(noisy(one, 1, 0.5), HEADS, rng), order)
    known = stored(tmp_path / "a", one, words=words), stored(tmp_path / "b", copy, words=[words[at] for at in order])
    found = api.compare(*known)
    assert (found.comparison.relation, found.comparison.test) == ("derived", "vocabulary")
    assert found.compatibility.vocabulary is False


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"model": {"vocab": {"a": -1}}}', '{"model": {"vocab": {"a": 1e9}}}', '{"model": 3}']
)
def test_a_broken_tokenizer_is_told(tmp_path, text):
    place = stored(tmp_path / "a", llama(1))
    (tmp_path / "a" / "tokenizer.json").write_text(text)
    with pytest.raises(FileError, match=r"expected the vocabulary of a tokenizer\.json .*compare without the file"):
        api.compare(place, place)


def test_alpha_is_a_probability(tmp_path):
    place = stored(tmp_path / "a", llama(1))
    with pytest.raises(UsageError, match="alpha between 0 and 1"):
        api.compare(place, place, alpha=0)


def test_another_kind_of_network_cannot_be_compared(tmp_path):
    chain = {f"{at}.weight": np.random.default_rng(at).normal(size=(32, 16 + 16 * (at > 0))) for at in range(3)}
    found = api.compare(stored(tmp_path / "a", llama(1)), stored(tmp_path / "b", chain)).comparison
    assert (found.relation, found.exit_code, found.outcome) == ("undecided", 3, "inconclusive")
    assert found.plain()["p_value"] is None


def test_rotation_leaves_the_invariant_terms_and_not_the_cosine():
    one = llama(1, keys=4)
    turned = lt.launder(one, lt.Heads(4, 4), np.random.default_rng(0))
    sides = [Stream.of(Arrays(tensors), "a test") for tensors in (one, turned, llama(2, keys=4))]
    copy, stranger = (
        dict(baselines(sides[0], other, None, np.random.default_rng(0))) for other in (sides[1], sides[2])
    )
    assert copy["CKA of embeddings"] == pytest.approx(1, abs=1e-5)
    assert abs(copy["cosine of weights"]) < 0.3
    assert stranger["invariant terms"] < 0.3
    assert stranger["attention deviations"] is not None
