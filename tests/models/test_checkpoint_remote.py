"""Checkpoints behind https:// and hf://: the same numbers, and no more bytes than were asked for."""

import json
import threading

import numpy as np
import pytest
from safetensors.numpy import save
from tests.models.checkpoint_files import assert_same, gguf_bytes, onnx_model
from tests.models.ranges_server import serving

from minutia.core.errors import FileError, UsageError
from minutia.models.checkpoint import open_checkpoint
from minutia.models.checkpoint_http import FIRST
from minutia.models.checkpoint_places import resolved

TENSORS = {"w": np.arange(20, dtype=np.float32).reshape(5, 4), "v": np.arange(3, dtype=np.float16)}


def test_a_checkpoint_behind_a_server():
    rng = np.random.default_rng(1)
    weights = {"w": rng.normal(size=(4096, 256)).astype(np.float32), "b": rng.normal(size=4096).astype(np.float32)}
    data = save(weights)
    with serving({"/m.safetensors": data}) as server, open_checkpoint(f"{server.url}/m.safetensors") as found:
        rows = rng.choice(4096, 20, replace=False)
        np.testing.assert_array_equal(found.read("w", rows), weights["w"][rows])
        assert found.bytes_read < 0.05 * len(data)
        asked = len(server.received)
        np.testing.assert_array_equal(found.read("w", np.arange(1000, 1010)), weights["w"][1000:1010])
        assert len(server.received) == asked + 1
        assert server.spans[-1][1] - server.spans[-1][0] + 1 == 10 * 256 * 4
        np.testing.assert_array_equal(np.concatenate(list(found.blocks("w"))), weights["w"])


def test_scattered_rows_are_fetched_side_by_side():
    weights = np.random.default_rng(0).normal(size=(4000, 64)).astype(np.float32)
    running, most, lock, met = 0, 0, threading.Lock(), threading.Event()

    def act(call, path, start, stop):
        nonlocal running, most
        with lock:
            running, most = running + 1, max(most, running + 1)
            if running > 1:
                met.set()
        if start:  # all but the header wait for one another
            met.wait(timeout=5)
        with lock:
            running -= 1

    with serving({"/m": save({"w": weights})}, act) as server, open_checkpoint(f"{server.url}/m") as found:
        rows = np.arange(300, 4000, 400)
        np.testing.assert_array_equal(found.read("w", rows), weights[rows])
        assert most > 1
        assert found.bytes_read == FIRST + len(rows) * 256


def test_every_format_behind_a_server(tmp_path):
    onnx = pytest.importorskip("onnx")
    torch = pytest.importorskip("torch")
    w = {"w": np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)}
    np.savez_compressed(tmp_path / "a.npz", **w)
    torch.save({"w": torch.tensor(w["w"])}, tmp_path / "a.pt")
    (tmp_path / "a.gguf").write_bytes(gguf_bytes({"w": ((5, 3), 0, w["w"].tobytes())}))
    model = onnx_model([onnx.numpy_helper.from_array(w["w"], "w")])
    onnx.save(model, tmp_path / "a.onnx", save_as_external_data=True, location="a b.data", size_threshold=0)
    files = {f"/x/{path.name}".replace(" ", "%20"): path.read_bytes() for path in tmp_path.iterdir()}
    with serving(files) as server:
        for name in ("a.npz", "a.pt", "a.gguf", "a.onnx"):
            with open_checkpoint(f"{server.url}/x/{name}") as found:
                assert_same(found, w)


def test_a_repository_on_a_hub(monkeypatch):
    index = json.dumps({"weight_map": dict.fromkeys(TENSORS, "one.safetensors")}).encode()
    base = "/org/name/resolve/v1"
    files = {
        f"{base}/model.safetensors.index.json": index,
        f"{base}/one.safetensors": save(TENSORS),
        f"{base}/config.json": b"{}",
    }
    with serving(files) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.setenv("HF_TOKEN", "secret")
        with open_checkpoint("hf://org/name@v1") as found:
            assert_same(found, TENSORS)
            assert found.metadata["config.json"] == "{}"
        with open_checkpoint("hf://org/name@v1/one.safetensors") as found:
            assert_same(found, TENSORS)
        assert {headers["Authorization"] for _, headers in server.received} == {"Bearer secret"}
        with pytest.raises(FileError, match=r"expected one of .* in hf://org/other, got none: name the file"):
            open_checkpoint("hf://org/other")
        del server.files[f"{base}/one.safetensors"]
        with pytest.raises(FileError, match=r"one\.safetensors, got status 404"):
            open_checkpoint("hf://org/name@v1")


@pytest.mark.parametrize("spec", ["hf://", "hf://a/b@", "hf://../b", "hf://a/b/../c", "hf://a/b@v/x?y", "hf://a b/c"])
def test_repositories_that_are_none(spec):
    with pytest.raises(UsageError, match="expected hf://org/name@revision/file"):
        resolved(spec)


@pytest.mark.parametrize("spec", ["file:///a", "gs://a/b"])
def test_other_places_are_refused(spec):
    with pytest.raises(UsageError, match="download it"):
        open_checkpoint(spec)
