"""Data by specification: what is loaded, what is held out, and one sentence for what is no data."""

import io

import numpy as np
import pytest

from minutia.core.errors import FileError, MinutiaError, UsageError
from minutia.storage.data import Dataset, halves, load_dataset, preload

RNG = np.random.default_rng(0)
X, Y = RNG.random((10, 3), dtype=np.float32), np.arange(10) % 3


def saved(path, **arrays):
    np.savez(path, **arrays)
    return str(path)


def test_digits_are_real_images_in_a_fixed_order():
    pytest.importorskip("sklearn")
    data = load_dataset("sklearn:digits")
    assert data.inputs.shape == (1400, 1, 8, 8) and data.test_inputs.shape == (397, 1, 8, 8)
    assert data.inputs.dtype == np.float32 and (data.bounds, data.levels) == ((0.0, 1.0), 256)
    assert data.inputs.min() == 0 and data.inputs.max() == 1
    part = load_dataset("sklearn:digits?rows=100:120")
    np.testing.assert_array_equal(part.inputs, data.inputs[100:120])
    np.testing.assert_array_equal(part.test_labels, data.test_labels)
    assert part.digest != data.digest
    # What is stored under a data set's digest, models and finished jobs, is found again by it.
    assert data.digest == "sha256:33d9fb1cb5e2fe59801f484148025fcc5208d742e9f44bf629c8c9b53267bd7c"


@pytest.mark.parametrize(
    ("rows", "first", "last"), [("0:3", 0, 3), (":3", 0, 3), ("5:", 5, 8), ("-2:", 6, 8), (":", 0, 8)]
)
def test_rows_are_those_of_the_training_part(tmp_path, rows, first, last):
    spec = saved(tmp_path / "d.npz", x_train=X[:8], y_train=Y[:8], x_test=X[8:], y_test=Y[8:])
    part = load_dataset(f"{spec}?rows={rows}")
    np.testing.assert_array_equal(part.inputs, X[first:last])
    np.testing.assert_array_equal(part.labels, Y[first:last])
    np.testing.assert_array_equal(part.test_inputs, X[8:])


@pytest.mark.parametrize("query", ["rows=a:b", "rows=3", "rows=", "rows=0:1:2", "row=0:3", "x", "rows=8:9", "rows=3:3"])
def test_rows_that_make_no_sense_are_refused(tmp_path, query):
    spec = saved(tmp_path / "d.npz", x_train=X[:8], y_train=Y[:8], x_test=X[8:], y_test=Y[8:])
    with pytest.raises(UsageError, match=r"expected .*rows"):
        load_dataset(f"{spec}?{query}")


def test_without_a_test_part_a_fifth_is_held_out_and_nothing_is_lost(tmp_path):
    spec = saved(tmp_path / "d.npz", inputs=X, labels=Y)
    data = load_dataset(spec)
    assert (len(data.inputs), len(data.test_inputs)) == (8, 2)
    together = np.concatenate([data.inputs, data.test_inputs])
    np.testing.assert_array_equal(np.sort(together, axis=0), np.sort(X, axis=0))
    again = load_dataset(saved(tmp_path / "again.npz", inputs=X, labels=Y))
    assert again.digest == data.digest


@pytest.mark.parametrize(
    ("shape", "stored", "found"),
    [
        ((4, 5, 6), np.uint8, (1, 5, 6)),
        ((4, 5, 6, 3), np.uint8, (3, 5, 6)),
        ((4, 3, 5, 6), np.uint8, (3, 5, 6)),
        ((4, 7), np.uint8, (7,)),
        ((4, 5, 6), np.float64, (5, 6)),
        ((4, 2), np.int64, (2,)),
        ((4, 2), np.bool_, (2,)),
    ],
)
def test_images_get_channels_first_and_floats_stay(tmp_path, shape, stored, found):
    raw = (RNG.random(shape) * 255).astype(stored)
    data = load_dataset(saved(tmp_path / "d.npz", x_train=raw, y_train=np.arange(4), x_test=raw, y_test=np.arange(4)))
    assert data.inputs.shape == (4, *found) and data.inputs.dtype == np.float32
    assert data.levels == (256 if stored == np.uint8 else None)
    if stored == np.uint8:
        assert data.bounds == (0.0, 1.0)
        np.testing.assert_allclose(np.sort(data.inputs.ravel()), np.sort(raw.ravel()) / np.float32(255), rtol=1e-6)
    else:
        assert data.bounds == (data.inputs.min(), data.inputs.max())


def test_a_file_that_changed_is_read_again(tmp_path):
    spec = saved(tmp_path / "d.npz", inputs=X, labels=Y)
    before = load_dataset(spec).digest
    saved(tmp_path / "d.npz", inputs=np.concatenate([X, X]), labels=np.concatenate([Y, Y]))
    assert load_dataset(spec).digest != before


def test_the_digest_is_that_of_the_content(tmp_path):
    one = load_dataset(saved(tmp_path / "one.npz", inputs=X, labels=Y)).digest
    assert load_dataset(saved(tmp_path / "two.npz", labels=Y.astype(np.uint8), inputs=X)).digest == one
    assert load_dataset(saved(tmp_path / "three.npz", inputs=X, labels=(Y + 1) % 3)).digest != one


def test_the_digest_tells_what_the_numbers_mean(tmp_path):
    """The same numbers as text or as a table are crafted, stored and attacked in other ways."""
    path = saved(tmp_path / "tokens.npz", inputs=np.arange(40.0).reshape(10, 4), labels=np.arange(10) % 2)
    assert load_dataset(f"{path}?content=text").digest != load_dataset(f"{path}?content=tabular").digest


BAD = {
    "no arrays": {},
    "other names": {"images": X, "targets": Y},
    "labels missing": {"x_train": X},
    "one label too few": {"x_train": X, "y_train": Y[:-1]},
    "inputs without shape": {"x_train": Y.astype(float), "y_train": Y},
    "a number": {"x_train": np.float32(1), "y_train": np.int64(1)},
    "empty": {"x_train": X[:0], "y_train": Y[:0]},
    "nan": {"x_train": np.where(X > 0.5, np.nan, X), "y_train": Y},
    "infinity": {"x_train": np.full_like(X, np.inf), "y_train": Y},
    "text labels": {"x_train": X, "y_train": Y.astype(str)},
    "text inputs": {"x_train": X.astype(str), "y_train": Y},
    "halves as labels": {"x_train": X, "y_train": Y + 0.5},
    "negative labels": {"x_train": X, "y_train": Y - 1},
    "one-hot labels": {"x_train": X, "y_train": np.eye(3)[Y]},
    "complex inputs": {"x_train": X + 1j, "y_train": Y},
    "pickled": {"x_train": X, "y_train": Y.astype(object)},
    "another test shape": {"x_train": X, "y_train": Y, "x_test": X[:, :2], "y_test": Y},
    "another test type": {"x_train": (X * 255).astype(np.uint8), "y_train": Y, "x_test": X, "y_test": Y},
    "test labels too few": {"x_train": X, "y_train": Y, "x_test": X, "y_test": Y[:2]},
}


@pytest.mark.parametrize("what", BAD)
def test_what_is_no_data_is_one_sentence(what, tmp_path):
    spec = saved(tmp_path / "d.npz", **BAD[what])
    with pytest.raises(FileError) as error:
        load_dataset(spec)
    text = str(error.value)
    assert text.startswith("expected ") and "got" in text and "\n" not in text


def test_what_is_no_npz_is_one_sentence(tmp_path):
    buffer = io.BytesIO()
    np.savez(buffer, x_train=X, y_train=Y)
    good = buffer.getvalue()
    damaged = {
        "empty": b"",
        "text": b"x,y\n1,2\n",
        "truncated": good[: len(good) // 2],
        "flipped": good[:120] + bytes([good[120] ^ 0xFF]) + good[121:],
        "npy": _npy(),
        "pickle": b"\x80\x04N.",
    }
    for name, data in damaged.items():
        path = tmp_path / f"{name}.npz"
        path.write_bytes(data)
        with pytest.raises(FileError) as error:
            load_dataset(str(path))
        assert str(error.value).startswith("expected "), name


def _npy():
    buffer = io.BytesIO()
    np.save(buffer, X)
    return buffer.getvalue()


@pytest.mark.parametrize("spec", ["", "absent.npz", "sklearn:iris", "x" * 5000, "nul\0byte", "."])
def test_what_is_not_there_is_one_sentence(spec, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MinutiaError, match="expected"):
        load_dataset(spec)


# --- options


def test_options_are_joined_and_their_order_does_not_matter(tmp_path):
    spec = saved(tmp_path / "d.npz", x_train=X[:8], y_train=Y[:8], x_test=X[8:], y_test=Y[8:])
    one, two = load_dataset(f"{spec}?rows=2:7&classes=1:"), load_dataset(f"{spec}?classes=1:&rows=2:7")
    assert one.digest == two.digest
    np.testing.assert_array_equal(one.inputs, X[[2, 4, 5]])


def test_rows_are_counted_before_classes_so_that_parts_stay_apart(tmp_path):
    """Y is 0 1 2 0 1 2 …: of rows 0 to 5 two have each class."""
    spec = saved(tmp_path / "d.npz", x_train=X[:8], y_train=Y[:8], x_test=X[8:], y_test=Y[8:])
    first, rest = load_dataset(f"{spec}?rows=:6&classes=:2"), load_dataset(f"{spec}?rows=6:&classes=:2")
    np.testing.assert_array_equal(first.inputs, X[[0, 1, 3, 4]])
    np.testing.assert_array_equal(rest.inputs, X[[6, 7]])


@pytest.mark.parametrize("rows", ["", "rows=1:8&"])
def test_parts_are_disjoint_and_make_up_the_whole(tmp_path, rows):
    spec = saved(tmp_path / "d.npz", x_train=X[:8], y_train=Y[:8], x_test=X[8:], y_test=Y[8:])
    whole = load_dataset(f"{spec}?{rows}classes=0:3").inputs
    parts = [load_dataset(f"{spec}?{rows}part={k}/3").inputs for k in (1, 2, 3)]
    assert sum(map(len, parts)) == len(whole)
    np.testing.assert_array_equal(parts[1], whole[1::3])
    halved = [load_dataset(half).inputs for half in halves(f"{spec}?{rows}part=2/3")]
    np.testing.assert_array_equal(np.concatenate(halved)[np.argsort([0, 2, 1][: len(parts[1])])], parts[1])


@pytest.mark.parametrize(
    ("kept", "labels", "old"), [("0:2", [0, 1], [0, 1]), ("1:3", [0, 1], [1, 2]), ("-2:", [0, 1], [1, 2])]
)
def test_classes_are_chosen_in_both_parts_and_numbered_from_0(tmp_path, kept, labels, old):
    spec = saved(tmp_path / "d.npz", x_train=X[:6], y_train=Y[:6], x_test=X[6:], y_test=Y[6:])
    data = load_dataset(f"{spec}?classes={kept}")
    assert data.classes == 2 and sorted(set(data.labels.tolist())) == labels
    np.testing.assert_array_equal(data.inputs, X[:6][np.isin(Y[:6], old)])
    np.testing.assert_array_equal(data.test_inputs, X[6:][np.isin(Y[6:], old)])
    np.testing.assert_array_equal(data.test_labels, Y[6:][np.isin(Y[6:], old)] - old[0])


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("classes=0:1", "two or more classes within 0:3, got 1"),
        ("classes=3:9", "two or more classes within 0:3, got 0"),
        ("classes=a", "expected classes=FIRST:LAST, got classes=a"),
        ("rows=0:1&classes=1:", "expected rows of classes 1 to 2, got none"),
        ("clases=0:2", "did you mean classes"),
        ("rows=0:2&rows=3:4", "give each once"),
        ("classes=", "as name=value"),
        ("rows=0:2&", "expected options"),
        ("part=0/2", "expected part=K/N with K from 1 to N, got part=0/2"),
        ("part=3/2", "expected part=K/N"),
        ("part=half", "part=1/2 is one half"),
        ("part=9/9", "got none"),
        ("size=8", r"expected options \(rows, part, classes, content\)"),
        ("content=txt", "did you mean text"),
    ],
)
def test_options_that_make_no_sense_are_one_sentence(tmp_path, query, said):
    spec = saved(tmp_path / "d.npz", x_train=X[:8], y_train=Y[:8], x_test=X[8:], y_test=Y[8:])
    with pytest.raises(UsageError, match=said) as error:
        load_dataset(f"{spec}?{query}")
    assert str(error.value).startswith("expected ") and "\n" not in str(error.value)


def test_parts_of_one_file_are_views_of_one_memory(tmp_path):
    spec = saved(tmp_path / "d.npz", inputs=X, labels=Y)
    whole, part = load_dataset(spec), load_dataset(f"{spec}?rows=2:")
    assert np.shares_memory(whole.inputs, part.inputs)


# --- content


@pytest.mark.parametrize(
    ("shape", "content"), [((4, 7), "tabular"), ((4, 5, 6), "image"), ((4, 1, 5, 6), "image"), ((4, 5, 6, 3), "image")]
)
def test_rows_of_numbers_are_tables_and_all_else_images(tmp_path, shape, content):
    for dtype in (np.uint8, np.float32):
        data = load_dataset(
            saved(tmp_path / f"{dtype.__name__}.npz", inputs=np.ones(shape, dtype), labels=np.arange(4))
        )
        assert data.content == content


def test_text_is_said_to_be_text(tmp_path):
    tokens = np.array([[3, 0, 5], [1, 1, 2], [7, 7, 7], [2, 4, 6]])
    spec = saved(tmp_path / "d.npz", x_train=tokens, y_train=np.arange(4), x_test=tokens, y_test=np.arange(4))
    data = load_dataset(f"{spec}?content=text")
    assert (data.content, data.bounds, data.levels) == ("text", (0.0, 7.0), 8)
    assert data.inputs.dtype == np.float32 and data.inputs.tolist() == tokens.tolist()
    assert load_dataset(spec).content == "tabular"


@pytest.mark.parametrize(
    "tokens", [X * 10, -np.ones((10, 3)), np.ones((10, 3, 2)), np.full((10, 3), 2.0**25), np.ones((10, 3), bool)]
)
def test_text_is_whole_numbers_of_tokens(tmp_path, tokens):
    spec = saved(tmp_path / "d.npz", inputs=tokens, labels=Y)
    with pytest.raises(FileError, match="expected text as whole numbers of tokens"):
        load_dataset(f"{spec}?content=text")


def test_classes_are_counted_in_both_parts():
    none = np.empty(0, np.int64)
    for labels, test_labels, classes in [(Y, none, 3), (Y, np.array([7]), 8), (none, none, 0)]:
        assert Dataset("d", X, labels, X, test_labels, (0.0, 1.0), None).classes == classes


# --- preload


def test_a_preloaded_data_set_needs_no_file(tmp_path):
    spec = saved(tmp_path / "d.npz", inputs=X, labels=Y)
    data = load_dataset(f"{spec}?rows=0:4")
    (tmp_path / "d.npz").unlink()
    preload(f"{spec}?rows=0:4", data)
    assert load_dataset(f"{spec}?rows=0:4") is data
    with pytest.raises(FileError, match="found nothing"):
        load_dataset(spec)


@pytest.mark.parametrize("spec", ["digits", "sklear:digits", "npz:digits", "digits.npz?rows=0:3"])
def test_what_is_nowhere_is_told_with_the_places_there_are(spec, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileError, match=r"sklearn:NAME.*found nothing at"):
        load_dataset(spec)
