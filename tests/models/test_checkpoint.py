"""Checkpoints of every format: written by the library that owns it, read by ours, equal."""

import json
import subprocess
import sys

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors.numpy import save, save_file
from tests.models.checkpoint_files import assert_same, gguf_bytes, onnx_model

from minutia.core.errors import FileError, UsageError
from minutia.models import checkpoint
from minutia.models.byte_ranges import LocalBytes
from minutia.models.checkpoint import open_checkpoint
from minutia.models.checkpoint_safetensors import read_safetensors

RNG = np.random.default_rng(0)
DTYPES = ("f8", "f4", "f2", "i8", "i4", "i2", "i1", "u8", "u4", "u2", "u1", "?")
SHORT = (ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2)
TENSORS = {
    **{f"plain.{code}": (RNG.normal(size=(9, 4)) * 20).astype(code) for code in DTYPES},
    "vector": RNG.normal(size=17).astype(np.float32),
    "number": np.array(2.5, np.float16),
    "deep": RNG.normal(size=(3, 2, 5, 2)).astype(np.float32),
    "empty": np.zeros((0, 4), np.float32),
    "no columns": np.zeros((3, 0), np.float32),
    "odd": np.array([np.nan, np.inf, -np.inf, -0.0], np.float32),
}
WITH_SHORT = {**TENSORS, **{np.dtype(d).name: RNG.normal(size=(6, 5)).astype(d) for d in SHORT}}


@pytest.fixture(scope="module")
def safe(tmp_path_factory):
    path = tmp_path_factory.mktemp("safe") / "model.safetensors"
    save_file(WITH_SHORT, path, metadata={"format": "pt"})
    return path


def test_safetensors_are_read_as_they_were_written(safe):
    with open_checkpoint(str(safe)) as found:
        assert found.spec == str(safe) and found.metadata == {"format": "pt"}
        assert_same(found, WITH_SHORT)
        assert found.info("bfloat16") == checkpoint.TensorInfo((6, 5), "bfloat16", 60)


@settings(max_examples=25)
@given(
    st.dictionaries(st.text("abc.", min_size=1, max_size=6), hnp.arrays("f4", hnp.array_shapes(max_side=4)), min_size=1)
)
def test_any_safetensors_file(tmp_path_factory, tensors):
    path = tmp_path_factory.getbasetemp() / "any.safetensors"
    path.write_bytes(save(tensors))
    with open_checkpoint(str(path)) as found:
        assert_same(found, tensors)


def test_a_folder_with_an_index_of_shards(tmp_path):
    names = sorted(WITH_SHORT)
    for i in range(3):
        save_file({name: WITH_SHORT[name] for name in names[i::3]}, tmp_path / f"m-{i}.safetensors", {"format": "pt"})
    places = {name: f"m-{i}.safetensors" for i in range(3) for name in names[i::3]}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    (tmp_path / "config.json").write_text('{"num_attention_heads": 4}')
    for spec in (tmp_path, tmp_path / "model.safetensors.index.json"):
        with open_checkpoint(str(spec)) as found:
            assert_same(found, WITH_SHORT)
            assert found.metadata["format"] == "pt"
    with open_checkpoint(str(tmp_path)) as found:
        assert json.loads(found.metadata["config.json"]) == {"num_attention_heads": 4}


@pytest.mark.parametrize("write", [np.savez, np.savez_compressed])
def test_npz_is_read_as_it_was_written(tmp_path, write):
    tensors = {
        **TENSORS,
        "big-endian": np.arange(6, dtype=">f4").reshape(3, 2),
        "columns first": np.asfortranarray(RNG.normal(size=(7, 5, 3))),
        "turned": RNG.normal(size=(4, 6)).astype("f2").T,
    }
    write(tmp_path / "a.npz", **tensors)
    with open_checkpoint(str(tmp_path)) as found:
        assert_same(found, tensors)


def test_npz_lists_texts_and_does_not_read_them(tmp_path):
    np.savez(tmp_path / "a.npz", names=np.array(["cat", "dog"]), w=np.ones(3))
    with open_checkpoint(str(tmp_path / "a.npz")) as found:
        assert found.info("names").shape == (2,) and found.read("w").tolist() == [1, 1, 1]
        with pytest.raises(FileError, match="got str96: store them in another format"):
            found.read("names")


def gguf_tensors():
    half = {1: "<f2", 0: "<f4", 30: ml_dtypes.bfloat16, 24: "i1", 28: "<f8"}
    found = {f"t{kind}": ((5, 6), kind, (RNG.normal(size=(5, 6)) * 9).astype(code)) for kind, code in half.items()}
    return {name: (shape, kind, value.tobytes()) for name, (shape, kind, value) in found.items()}, {
        name: value.reshape(shape) for name, (shape, _, value) in found.items()
    }


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("alignment", [32, 64])
def test_gguf_is_read_as_it_was_put_together(tmp_path, version, alignment):
    tensors, wanted = gguf_tensors()
    values = {
        "general.architecture": "llama",
        "general.alignment": alignment,
        "few": [1, 2, 3],
        "tokens": [f"t{i}" for i in range(100)],
        "many": list(range(65)),
    }
    (tmp_path / "m.gguf").write_bytes(gguf_bytes(tensors, values, version=version, alignment=alignment))
    with open_checkpoint(str(tmp_path)) as found:
        assert_same(found, wanted)
        assert dict(found.metadata) == {
            "general.architecture": "llama",
            "general.alignment": str(alignment),
            "few": "[1, 2, 3]",
            "tokens": "100 entries",
            "many": "65 entries",
        }


def test_gguf_in_several_parts_is_one_checkpoint(tmp_path):
    tensors, wanted = gguf_tensors()
    names = list(tensors)
    for i in range(3):
        part = {name: tensors[name] for name in names[i::3]}
        data = gguf_bytes(part, {"split.no": i, "split.count": 3, "part": f"{i}"})
        (tmp_path / f"m-0000{i + 1}-of-00003.gguf").write_bytes(data)
    for spec in (tmp_path, tmp_path / "m-00002-of-00003.gguf"):
        with open_checkpoint(str(spec)) as found:
            assert_same(found, wanted)
            assert found.metadata["part"] == "0"
    (tmp_path / "m-00003-of-00003.gguf").write_bytes((tmp_path / "m-00002-of-00003.gguf").read_bytes())
    with pytest.raises(FileError, match=r"expected part 3 of 3 in m-00003-of-00003\.gguf, got another one"):
        open_checkpoint(str(tmp_path))
    (tmp_path / "m-00003-of-00003.gguf").unlink()
    with pytest.raises(FileError, match="No such file"):
        open_checkpoint(str(tmp_path))
    (tmp_path / "m-00001-of-00003.gguf").rename(tmp_path / "alone.gguf")
    with pytest.raises(FileError, match="give the parts their names back"):
        open_checkpoint(str(tmp_path / "alone.gguf"))


def test_quantised_rows_of_gguf_are_fetched_alone(tmp_path):
    raw = RNG.integers(0, 256, (8, 2, 34), np.uint8)
    raw[:, :, 1] = 0x30  # scales that are small and finite
    (tmp_path / "m.gguf").write_bytes(gguf_bytes({"w": ((8, 64), 8, raw.tobytes())}))
    with open_checkpoint(str(tmp_path / "m.gguf")) as found:
        scales = np.ascontiguousarray(raw[:, :, :2]).view("<f2").astype(np.float32)
        wanted = (raw[:, :, 2:].view(np.int8) * scales).reshape(8, 64)
        assert_same(found, {"w": wanted})
        before = found.bytes_read
        found.read("w", slice(3, 5))
        assert found.bytes_read - before == 2 * 68


def onnx_tensors():
    helper = pytest.importorskip("onnx").helper
    kinds = pytest.importorskip("onnx").TensorProto
    spelled_out = [
        helper.make_tensor("floats", kinds.FLOAT, [3], [1, 2.5, -3]),
        helper.make_tensor("halves", kinds.FLOAT16, [2, 2], [1, 2, 3, -4.5]),
        helper.make_tensor("bytes", kinds.INT8, [3], [-1, 2, -3]),
        helper.make_tensor("longs", kinds.INT64, [3], [-1, 2**40, -3]),
        helper.make_tensor("unsigned", kinds.UINT64, [2], [1, 2**50]),
        helper.make_tensor("fours", kinds.INT4, [5], [-8, 2, -3, 7, 1]),
        helper.make_tensor("bfloats", kinds.BFLOAT16, [2], [-1, 2]),
        helper.make_tensor("doubles", kinds.DOUBLE, [2], [-1, 0.1]),
    ]
    raw = [pytest.importorskip("onnx").numpy_helper.from_array(v, n) for n, v in TENSORS.items()]
    return [*spelled_out, *raw]


@pytest.mark.parametrize("outside", [False, True])
def test_onnx_is_read_as_it_was_written(tmp_path, outside):
    onnx, tensors = pytest.importorskip("onnx"), onnx_tensors()
    wanted = {t.name: onnx.numpy_helper.to_array(t) for t in tensors}
    options = {"save_as_external_data": True, "location": "m.data", "size_threshold": 0} if outside else {}
    onnx.save(onnx_model(tensors), tmp_path / "m.onnx", **options)
    with open_checkpoint(str(tmp_path)) as found:
        assert_same(found, wanted)
        assert dict(found.metadata) == {"producer_name": "somebody", "author": "me"}


def test_torch_files_are_read_as_they_were_written(tmp_path):
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    tensors = {
        **{str(kind): (torch.randn(4, 6) * 9).to(getattr(torch, kind)) for kind in ("float16", "bfloat16", "int8")},
        **{str(kind): (torch.randn(4, 6)).to(getattr(torch, kind)) for kind in ("float8_e4m3fn", "float64", "bool")},
        "turned": torch.randn(5, 7).T,
        "rows of another": torch.randn(10, 4)[2:6],
        "parameter": torch.nn.Parameter(torch.randn(2, 3)),
        "number": torch.tensor(2.5),
        "empty": torch.zeros(0, 3),
    }
    tensors["tied"] = tensors["float64"]
    wanted = {name: value.detach().double().numpy() for name, value in tensors.items()}
    for saved in (tensors, {"state_dict": tensors, "epoch": 3, "rates": [0.1, None]}):
        torch.save(saved, tmp_path / "m.pt")
        with open_checkpoint(str(tmp_path)) as found:
            assert_same(found, wanted)
    loaded = torch.load(tmp_path / "m.pt", weights_only=True)["state_dict"]
    assert set(loaded) == set(wanted)


def test_names_in_torch_files_are_joined_by_dots(tmp_path):
    torch = pytest.importorskip("torch")
    net = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    torch.save({"net": net.state_dict(), "ema": [torch.ones(2)]}, tmp_path / "m.pth")
    with open_checkpoint(str(tmp_path / "m.pth")) as found:
        wanted = {f"net.{name}": value.numpy() for name, value in net.state_dict().items()}
        assert_same(found, {**wanted, "ema.0": np.ones(2)})


def test_torch_tensors_that_lie_apart_are_listed_and_not_read(tmp_path):
    torch = pytest.importorskip("torch")
    torch.save({"w": torch.randn(6, 6)[:, ::2]}, tmp_path / "m.pt")
    with open_checkpoint(str(tmp_path / "m.pt")) as found:
        assert found.info("w").dtype == "strided float32"
        with pytest.raises(FileError, match="got strided float32"):
            found.read("w")


def test_reading_imports_neither_torch_nor_onnx(safe, tmp_path):
    np.savez(tmp_path / "a.npz", w=np.ones(3))
    (tmp_path / "a.gguf").write_bytes(gguf_bytes(gguf_tensors()[0]))
    specs = [str(safe), str(tmp_path / "a.npz"), str(tmp_path / "a.gguf")]
    code = f"""
import sys
from minutia.models.checkpoint import open_checkpoint
for spec in {specs!r}:
    with open_checkpoint(spec) as found:
        [found.read(name) for name in found.names]
print({{"torch", "onnx", "httpx2"}} & set(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_opening_reads_the_header_only(safe):
    with open_checkpoint(str(safe)) as found:
        assert found.bytes_read < safe.stat().st_size - sum(v.nbytes for v in WITH_SHORT.values()) + 200
        before = found.bytes_read
        found.read("vector", np.array([3, 1]))
        assert found.bytes_read - before == 12  # from 1 to 3


@pytest.mark.parametrize("rows", [np.array([9]), np.array([-1]), np.array([[0]]), np.array([0.5]), np.array([True])])
def test_rows_that_are_not_there(safe, rows):
    with (
        open_checkpoint(str(safe)) as found,
        pytest.raises(UsageError, match=r"expected row numbers \(k,\) from 0 to 8"),
    ):
        found.read("plain.f4", rows)


def test_a_name_that_is_not_there(safe):
    with open_checkpoint(str(safe)) as found, pytest.raises(UsageError, match="got 'absent': it holds"):
        found.info("absent")


def test_more_than_memory_can_hold_is_refused(safe, monkeypatch):
    monkeypatch.setattr(checkpoint, "MAX_READ", 10)
    with open_checkpoint(str(safe)) as found:
        with pytest.raises(UsageError, match="read some of its rows, or block by block"):
            found.read("deep")
        assert found.read("plain.f4", slice(0, 2)).shape == (2, 4)


@pytest.mark.parametrize("steps", [(7, 7), (1, 1), (40, 10**6)])
def test_the_size_of_steps_changes_nothing(tmp_path, monkeypatch, steps):
    tensors = {
        "rows": RNG.normal(size=(30, 11)),
        "columns": np.asfortranarray(RNG.normal(size=(11, 4, 3))),
        "long": np.asfortranarray(RNG.normal(size=(90, 2))),
    }
    np.savez(tmp_path / "a.npz", **tensors)
    monkeypatch.setattr(checkpoint, "STEP", steps[0])
    monkeypatch.setattr(checkpoint, "FORTRAN_STEP", steps[1])
    with open_checkpoint(str(tmp_path / "a.npz")) as found:
        assert_same(found, tensors)


def test_files_are_closed_and_counted(safe):
    with open_checkpoint(str(safe)) as found:
        found.read("vector")
        assert found.bytes_read > 68
    with pytest.raises(ValueError, match="closed"):
        found.read("vector")


def test_a_reader_alone(safe):
    assert set(read_safetensors(LocalBytes(safe)).entries) == set(WITH_SHORT)
