"""Data from the user's own code: what a factory may return, and one sentence for everything else."""

import numpy as np
import pytest

from minutia.core.errors import FileError, MinutiaError, UsageError
from minutia.storage.data import load_dataset

HEAD = """
import numpy as np

class Items:
    def __init__(self, inputs, labels):
        self.inputs, self.labels = inputs, labels
    def __len__(self):
        return len(self.inputs)
    def __getitem__(self, i):
        return self.inputs[i], self.labels[i]

X = np.linspace(0, 1, 60, dtype=np.float32).reshape(10, 1, 2, 3)
Y = np.arange(10) % 3

def data():
"""


def spec(folder, body, name="mydata"):
    """A module whose ``data()`` has this body."""
    path = folder / f"{name}.py"
    path.write_text(HEAD + "".join(f"    {line}\n" for line in body.splitlines()))
    return f"torch:{path}:data"


def test_a_map_style_data_set_becomes_arrays_and_a_fifth_is_held_out(tmp_path):
    data = load_dataset(spec(tmp_path, "return Items(X, Y)"))
    assert data.inputs.shape == (8, 1, 2, 3) and data.test_inputs.shape == (2, 1, 2, 3)
    assert (data.content, data.classes, data.levels, data.bounds) == ("image", 3, None, (0.0, 1.0))
    assert data.labels.dtype == np.int64 and data.inputs.dtype == np.float32
    whole = np.concatenate([data.inputs, data.test_inputs])
    np.testing.assert_array_equal(np.sort(whole.ravel()), np.linspace(0, 1, 60, dtype=np.float32))


def test_it_is_what_an_npz_file_of_the_same_arrays_would_be(tmp_path):
    found = load_dataset(spec(tmp_path, "return Items(X[:7], Y[:7]), Items(X[7:], Y[7:])"))
    x, y = np.linspace(0, 1, 60, dtype=np.float32).reshape(10, 1, 2, 3), np.arange(10) % 3
    np.savez(tmp_path / "d.npz", x_train=x[:7], y_train=y[:7], x_test=x[7:], y_test=y[7:])
    assert found.digest == load_dataset(str(tmp_path / "d.npz")).digest


def test_tensors_of_levels_are_images(tmp_path):
    torch = pytest.importorskip("torch")
    body = """import torch
pixels = torch.arange(4 * 3 * 8 * 8).reshape(4, 3, 8, 8) % 256
return torch.utils.data.TensorDataset(pixels.to(torch.uint8), torch.tensor([0, 1, 1, 0]))"""
    data = load_dataset(spec(tmp_path, body) + "?classes=0:2")
    assert data.inputs.shape == (4, 3, 8, 8) and (data.levels, data.bounds) == (256, (0.0, 1.0))
    pixels = torch.arange(4 * 3 * 8 * 8).reshape(4, 3, 8, 8).numpy() % 256
    assert sorted(i.tobytes() for i in data.inputs) == sorted(
        i.tobytes() for i in (pixels.astype(np.float32) / 255).astype(np.float32)
    )


def test_tensors_that_are_being_trained_are_read_too(tmp_path):
    pytest.importorskip("torch")
    data = load_dataset(spec(tmp_path, "import torch\nreturn [(torch.ones(4, requires_grad=True), i) for i in (0, 1)]"))
    assert data.inputs.shape == (2, 4) and data.content == "tabular"


def test_token_numbers_are_text_if_one_says_so(tmp_path):
    data = load_dataset(spec(tmp_path, "return Items(np.arange(40).reshape(10, 4) % 9, Y)") + "?content=text&rows=0:5")
    assert (data.content, data.levels, data.bounds, len(data.inputs)) == ("text", 9, (0.0, 8.0), 5)


def test_a_module_is_searched_in_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    spec(tmp_path, "return Items(X, Y)", "mydata_in_a_module")
    assert load_dataset("torch:mydata_in_a_module:data").classes == 3


def test_code_that_changed_is_run_again_and_else_once(tmp_path):
    counting = "global_count = open(__file__ + '.runs', 'a').write('x')\nreturn Items(X, Y)"
    load_dataset(spec(tmp_path, counting))
    load_dataset(f"torch:{tmp_path}/mydata.py:data?rows=0:3")
    assert (tmp_path / "mydata.py.runs").read_text() == "x"
    before = load_dataset(f"torch:{tmp_path}/mydata.py:data").digest
    assert load_dataset(spec(tmp_path, counting.replace("Items(X, Y)", "Items(X / 2, Y)"))).digest != before


WRONG = {
    "nothing": "return None",
    "a number": "return 3",
    "a stream": "return iter([(X[0], 0)])",
    "empty": "return []",
    "no pairs": "return list(X)",
    "three of each": "return [(X[0], 0, 0)] * 4",
    "raises": "raise RuntimeError('first\\nsecond')",
    "an item raises": "return Items(X, Y[:4])",
    "two shapes": "return [(X[0], 0), (X[0, :, :1], 1)]",
    "two types": "return [(X[0], 0), (X[0].astype(float), 1)]",
    "inputs without shape": "return [(1.0, 0), (2.0, 1)]",
    "text inputs": "return [(np.array(['a', 'b']), 0)] * 4",
    "labels are text": "return [(X[0], 'cat'), (X[1], 'dog')]",
    "labels are rows": "return Items(X, np.eye(10))",
    "negative labels": "return Items(X, Y - 1)",
    "half labels": "return Items(X, Y + 0.5)",
    "nan": "return Items(X / 0, Y)",
    "another test shape": "return Items(X, Y), Items(X[:, :, :1], Y)",
}


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("what", WRONG)
def test_what_is_no_data_set_is_one_sentence(what, tmp_path):
    with pytest.raises((UsageError, FileError)) as error:
        load_dataset(spec(tmp_path, WRONG[what]))
    text = str(error.value)
    assert text.startswith("expected ") and "got" in text and "mydata.py" in text and "\n" not in text


@pytest.mark.parametrize(
    "target", ["", "x", ":data", "absent_module:data", "absent.py:data", "json:absent", "json:__doc__"]
)
def test_what_names_no_factory_is_one_sentence(target, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MinutiaError, match=r"^expected .*(got|found) "):
        load_dataset(f"torch:{target}")


def test_a_module_that_fails_is_one_sentence(tmp_path):
    (tmp_path / "broken.py").write_text("raise ValueError('one\\ntwo')")
    with pytest.raises(UsageError, match="got ValueError: one; check"):
        load_dataset(f"torch:{tmp_path}/broken.py:data")


def test_memory_is_counted_before_it_is_taken(tmp_path):
    body = """class Endless(Items):
    def __len__(self):
        return 10**15
return Endless(X, Y)"""
    with pytest.raises(UsageError, match="expected at most 8 GiB of data"):
        load_dataset(spec(tmp_path, body))
