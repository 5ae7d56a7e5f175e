"""Built-in data sets: what they hold, that it can be learnt, and that it stays what it is."""

import sys
from itertools import pairwise

import numpy as np
import pytest

from minutia.core.errors import MissingExtraError, UsageError
from minutia.storage import data_builtin
from minutia.storage.data import load_dataset


@pytest.fixture(scope="module", autouse=True)
def sklearn():
    return pytest.importorskip("sklearn")


# --- photographs


@pytest.mark.parametrize(
    ("query", "shape"), [("", (1, 8, 8)), ("?size=28", (1, 28, 28)), ("?size=32&rgb=true", (3, 32, 32))]
)
def test_photos_have_any_size_and_ten_classes(query, shape):
    pytest.importorskip("PIL")
    data = load_dataset(f"sklearn:photos{query}")
    assert data.inputs.shape == (1400, *shape) and data.test_inputs.shape == (397, *shape)
    assert (data.content, data.bounds, data.levels, data.classes) == ("image", (0.0, 1.0), 256, 10)
    assert data.inputs.dtype == np.float32 and data.labels.dtype == np.int64
    steps = data.inputs.astype(float) * 255
    np.testing.assert_allclose(steps, np.round(steps), atol=1e-4)
    assert min(np.bincount(data.labels, minlength=10)) > 80


def test_photos_are_another_domain_of_the_digits_shape():
    pytest.importorskip("PIL")
    digits, photos = load_dataset("sklearn:digits"), load_dataset("sklearn:photos")
    assert photos.inputs.shape == digits.inputs.shape and photos.classes == digits.classes
    assert photos.digest != digits.digest


def test_labels_of_photos_are_brightness_and_where_it_is():
    pytest.importorskip("PIL")
    data = load_dataset("sklearn:photos")
    light = data.inputs.sum(axis=(1, 2, 3))
    below = data.inputs[:, 0, 4:].sum(axis=(1, 2)) > data.inputs[:, 0, :4].sum(axis=(1, 2)) + 1e-3
    np.testing.assert_array_equal(data.labels % 2, below)
    edges = [(light[data.labels // 2 == k].min(), light[data.labels // 2 == k].max()) for k in range(5)]
    assert all(low[1] <= high[0] for low, high in pairwise(edges))
    assert [int((data.labels // 2 == k).sum()) for k in range(5)] == [280] * 5


def test_the_held_out_photos_are_of_other_columns():
    """No training piece shares a row of eight pixels with a held-out one, but by chance."""
    pytest.importorskip("PIL")
    data = load_dataset("sklearn:photos?size=16&rgb=true")
    train = {row.tobytes() for row in data.inputs[:, :, ::5].transpose(0, 2, 1, 3).reshape(-1, 3 * 16)}
    test = [row.tobytes() for row in data.test_inputs.transpose(0, 2, 1, 3).reshape(-1, 3 * 16)]
    assert sum(row in train for row in test) < 5


def test_gray_is_the_luma_of_the_colours():
    pytest.importorskip("PIL")
    gray, colour = load_dataset("sklearn:photos"), load_dataset("sklearn:photos?rgb=true")
    np.testing.assert_array_equal(gray.labels, colour.labels)
    luma = np.tensordot([0.299, 0.587, 0.114], colour.inputs.astype(float), axes=(0, 1))
    np.testing.assert_allclose(gray.inputs[:, 0], luma, atol=0.51 / 255)


@pytest.mark.parametrize("query", ["size=3", "size=65", "size=8.0", "rgb=1", "gray=true", "content=image"])
def test_options_of_photos_that_make_no_sense(query):
    with pytest.raises(UsageError, match=r"^expected .*got "):
        load_dataset(f"sklearn:photos?{query}")


# --- tables


@pytest.mark.parametrize(
    ("name", "columns", "train", "test", "classes"), [("breast_cancer", 30, 456, 113, 2), ("wine", 13, 143, 35, 3)]
)
def test_tables_are_standardised_by_the_training_part(name, columns, train, test, classes):
    data = load_dataset(f"sklearn:{name}")
    assert data.inputs.shape == (train, columns) and data.test_inputs.shape == (test, columns)
    assert (data.content, data.bounds, data.levels, data.classes) == ("tabular", (-4.0, 4.0), None, classes)
    assert data.inputs.dtype == np.float32 and abs(data.inputs).max() <= 4 and abs(data.test_inputs).max() <= 4
    uncut = (abs(data.inputs) < 4).all(axis=0)
    np.testing.assert_allclose(data.inputs[:, uncut].mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(data.inputs[:, uncut].std(axis=0), 1, atol=1e-5)
    assert abs(data.test_inputs[:, uncut].mean(axis=0)).max() > 1e-3  # not by their own statistics
    assert set(data.test_labels.tolist()) == set(range(classes))


def test_a_table_is_the_one_of_scikit_learn():
    from sklearn.datasets import load_wine

    data, found = load_dataset("sklearn:wine"), load_wine()
    labels = np.concatenate([data.labels, data.test_labels])
    assert np.bincount(labels).tolist() == np.bincount(found.target).tolist()
    rows = np.concatenate([data.inputs, data.test_inputs])
    np.testing.assert_allclose(np.corrcoef(rows.T)[0, 1:4], np.corrcoef(found.data.T)[0, 1:4], atol=0.02)


# --- text


def test_topics_are_the_same_texts_everywhere():
    data = load_dataset("text:topics")
    assert data.inputs.shape == (2400, 24) and data.test_inputs.shape == (600, 24)
    assert (data.content, data.bounds, data.levels, data.classes) == ("text", (0.0, 63.0), 64, 6)
    assert data.inputs.dtype == np.float32 and set(np.unique(data.inputs)) == set(range(64))
    assert min(np.bincount(np.concatenate([data.labels, data.test_labels]))) == 500
    assert data.digest == "sha256:d585b5c0e1246e96f858583e6d4363f7f1ca79dc7b2224ad3bb11122f7bab752"


def test_topics_can_be_told_apart_by_their_tokens_but_not_all():
    """Naive Bayes on counts of tokens: the natural errors that some methods live on are there."""
    data = load_dataset("text:topics")

    def counts(inputs):
        return np.stack([np.bincount(row.astype(int), minlength=64) for row in inputs])

    seen = counts(data.inputs)
    logs = np.log(np.stack([seen[data.labels == k].sum(axis=0) + 1 for k in range(6)]))
    guess = (counts(data.test_inputs) @ (logs - np.log(np.exp(logs).sum(axis=1, keepdims=True))).T).argmax(axis=1)
    assert 0.85 < (guess == data.test_labels).mean() < 0.96


def test_topics_have_chains_of_their_own():
    """With the true transition counts alone, whatever tokens are frequent, a topic is known too."""
    data = load_dataset("text:topics")
    pairs = (data.inputs[:, :-1] * 64 + data.inputs[:, 1:]).astype(int)
    table = np.stack([np.bincount(pairs[data.labels == k].ravel(), minlength=4096) for k in range(6)]).reshape(
        6, 64, 64
    )
    follow = (table + 0.1) / (table + 0.1).sum(axis=2, keepdims=True)
    gain = follow / follow.mean(axis=1, keepdims=True)
    flat = np.log(gain.reshape(6, -1))
    test = (data.test_inputs[:, :-1] * 64 + data.test_inputs[:, 1:]).astype(int)
    guess = flat[:, test].sum(axis=2).argmax(axis=0)
    assert (guess == data.test_labels).mean() > 0.9  # 0.41 if the order within texts is lost


# --- names


@pytest.mark.parametrize(
    ("spec", "near"),
    [
        ("sklearn:digit", "digits"),
        ("sklearn:breastcancer", "breast_cancer"),
        ("text:topic", "topics"),
        ("sklearn:photo?size=9", ""),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest(spec, near):
    with pytest.raises(UsageError, match=r"expected one of|expected options") as error:
        load_dataset(spec)
    assert near in str(error.value)


@pytest.mark.parametrize("spec", ["sklearn:", "text:", "sklearn:iris", "text:digits"])
def test_an_unknown_name_lists_what_there_is(spec):
    with pytest.raises(UsageError, match=r"expected one of (sklearn:breast_cancer|text:topics).*, got '"):
        load_dataset(spec)


@pytest.mark.parametrize("name", data_builtin.SKLEARN)
def test_without_scikit_learn_the_pip_line_is_told(name, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'minutia\[(sklearn|demo)\]'"):
        data_builtin.sklearn_parts(name, {})


def test_without_pillow_the_pip_line_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'minutia\[images\]'"):
        data_builtin.sklearn_parts("photos", {})
