"""Which checkpoints a folder holds."""

import numpy as np
import pytest
from safetensors.numpy import save_file

from minutia.core.errors import FileError, UsageError
from minutia.models.checkpoint_folders import checkpoints_in


def one(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({"w": np.zeros((2, 2), np.float32)}, path)
    return path


def test_files_and_subfolders_count(tmp_path):
    one(tmp_path / "a.safetensors")
    one(tmp_path / "b.safetensors")
    one(tmp_path / "c" / "model.safetensors")
    (tmp_path / "c" / "config.json").write_text("{}")
    (tmp_path / "notes.txt").write_text("no checkpoint")
    (tmp_path / "empty").mkdir()
    found = checkpoints_in([str(tmp_path)])
    assert list(found) == ["a.safetensors", "b.safetensors", "c"]
    assert found["c"] == str(tmp_path / "c")


def test_shards_are_one_checkpoint(tmp_path):
    for number in (1, 2):
        one(tmp_path / f"model-0000{number}-of-00002.safetensors")
    (tmp_path / "model.safetensors.index.json").write_text("{}")
    assert checkpoints_in([str(tmp_path)]) == {tmp_path.name: str(tmp_path)}
    assert checkpoints_in([f"{tmp_path}", "hf://a/b"]) == {tmp_path.name: str(tmp_path), "hf://a/b": "hf://a/b"}


def test_a_folder_with_one_file_is_that_checkpoint(tmp_path):
    one(tmp_path / "x" / "weights.npz")
    assert checkpoints_in([str(tmp_path / "x")]) == {"x": str(tmp_path / "x")}


def test_names_must_differ(tmp_path):
    for folder in "ab":
        one(tmp_path / folder / "same.npz")
        one(tmp_path / folder / "other.npz")
    with pytest.raises(UsageError, match=r"expected different names, got 'other\.npz'"):
        checkpoints_in([str(tmp_path / "a"), str(tmp_path / "b")])


def test_an_empty_folder_is_told(tmp_path):
    with pytest.raises(FileError, match="expected checkpoints in the folder"):
        checkpoints_in([str(tmp_path)])
