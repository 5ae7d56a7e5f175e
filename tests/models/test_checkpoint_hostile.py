"""Files that lie: one clear error of ours, whatever is in them, and no memory for what is not there."""

import io
import json
import pickle
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save
from tests.models.checkpoint_files import gguf_bytes, gguf_text
from tests.models.ranges_server import serving

from minutia.core.errors import FileError, MinutiaError
from minutia.models.checkpoint import open_checkpoint

W = np.arange(12, dtype=np.float32).reshape(3, 4)
MIB = 2**20


def safetensors_bytes(header, data=bytes(48)):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def said(shape=(3, 4), offsets=(0, 48), dtype="F32"):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


def npz_bytes(member, compression=zipfile.ZIP_STORED, name="w.npy"):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", compression) as archive:
        archive.writestr(name, member)
    return packed.getvalue()


def npy_bytes(shape, descr="<f4", data=b"", order=False):
    header = f"{{'descr': {descr!r}, 'fortran_order': {order}, 'shape': {shape!r}, }}".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header) + 1) + header + b"\n" + data


def nameless(archive):
    """The name in the list of members becomes its comment."""
    at = archive.rindex(b"PK\x01\x02") + 28
    return archive[:at] + struct.pack("<HHH", 0, 0, 5) + archive[at + 6 :]


def torch_bytes(pickled, storages=(("0", bytes(48)),)):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("m/data.pkl", pickled)
        for key, data in storages:
            archive.writestr(f"m/data/{key}", data)
    return packed.getvalue()


def torch_pickle(shape=(3, 4), strides=(4, 1), offset=0, count=12, kind="FloatStorage"):
    """What torch.save writes for ``{"w": tensor}``, by hand, so that it can lie."""

    def number(n):
        size = (n.bit_length() + 8) // 8
        return b"\x8a" + bytes([size]) + n.to_bytes(size, "little", signed=True)

    def numbers(values):
        return b"(" + b"".join(map(number, values)) + b"t"

    def text(word):
        return b"X" + struct.pack("<I", len(word)) + word.encode()

    storage = b"(" + text("storage") + f"ctorch\n{kind}\n".encode() + text("0") + text("cpu") + number(count) + b"tQ"
    tensor = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + number(offset) + numbers(shape) + numbers(strides)
    tensor += b"\x89ccollections\nOrderedDict\n)RtR"
    return b"\x80\x02}" + text("w") + tensor + b"s."


class Malice:
    def __reduce__(self):
        return (pytest.fail, ("code was run",))


NESTED = b'{"w":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
LAUGHS = b"\x80\x02]q\x00(" + b"".join(b"]q%c(h%ch%ce" % (i, i - 1, i - 1) for i in range(1, 120)) + b"e."
BAD = {
    "empty file": b"",
    "four bytes": b"abcd",
    "text": b"hello world, this is no checkpoint\n" * 9,
    "a pickle in disguise": pickle.dumps({"w": Malice()}),
    "HDF5": b"\x89HDF\r\n\x1a\n" + bytes(99),
    "length beyond the file": struct.pack("<Q", 2**40) + b"{" + bytes(99),
    "length of 2^64 - 1": b"\xff" * 8 + b"{" + bytes(99),
    "large header": struct.pack("<Q", 17 * MIB) + b"{" + bytes(17 * MIB),
    "no JSON": safetensors_bytes(b"{broken" + bytes(9)),
    "no UTF-8": safetensors_bytes(b'{"\xff": 1}'),
    "no object": safetensors_bytes(b"{" + b"]"),
    "deep JSON": safetensors_bytes(NESTED),
    "numbers without end": safetensors_bytes(
        b'{"w":{"dtype":"F32","shape":[' + b"9" * 9999 + b'],"data_offsets":[0,48]}}'
    ),
    "offsets beyond the file": safetensors_bytes({"w": said(offsets=(48, 96))}),
    "offsets turned": safetensors_bytes({"w": said(offsets=(48, 0))}),
    "negative offsets": safetensors_bytes({"w": said(offsets=(-48, 0))}),
    "offsets are texts": safetensors_bytes({"w": said(offsets=("0", "48"))}),
    "offsets are true": safetensors_bytes({"w": said(offsets=(False, 48))}),
    "shape larger than its bytes": safetensors_bytes({"w": said(shape=(3, 5))}),
    "shape of 2^63": safetensors_bytes({"w": said(shape=(2**63,))}),
    "shape that wraps around": safetensors_bytes({"w": said(shape=(2**32, 2**32), offsets=(0, 0))}),
    "shape of nothing, 2^62 times": safetensors_bytes({"w": said(shape=(2**62, 0), offsets=(0, 0))}, b""),
    "negative shape": safetensors_bytes({"w": said(shape=(-3, -4))}),
    "shape of fractions": safetensors_bytes({"w": said(shape=(3.0, 4.0))}),
    "too many axes": safetensors_bytes({"w": said(shape=(*[1] * 40, 3, 4))}),
    "unknown type": safetensors_bytes({"w": said(dtype="F33")}),
    "a field too many": safetensors_bytes({"w": {**said(), "code": "x"}}),
    "a list for a tensor": safetensors_bytes({"w": [1]}),
    "overlapping tensors": safetensors_bytes({"w": said(), "v": said(shape=(4,), offsets=(32, 48))}),
    "a hole": safetensors_bytes({"w": said(shape=(4,), offsets=(0, 16)), "v": said(shape=(4,), offsets=(32, 48))}),
    "bytes at the end": safetensors_bytes({"w": said()}, bytes(50)),
    "cut": safetensors_bytes({"w": said()}, bytes(40)),
    "name twice": safetensors_bytes(
        b'{"w":' + json.dumps(said()).encode() + b',"w":' + json.dumps(said()).encode() + b"}"
    ),
    "name that a terminal obeys": safetensors_bytes({"\x1b[2J": said()}),
    "name without end": safetensors_bytes({"w" * 2000: said()}),
    "metadata of numbers": safetensors_bytes({"__metadata__": {"a": 1}, "w": said()}),
    "index without a map": b'{"metadata": {"total_size": 48}}',
    "index out of the folder": b'{"weight_map": {"w": "../secret.safetensors"}}',
    "index to an absolute path": b'{"weight_map": {"w": "/etc/passwd"}}',
    "index out of a Windows folder": b'{"weight_map": {"w": "..\\\\secret"}}',
    "index to an absent shard": b'{"weight_map": {"w": "absent.safetensors"}}',
    "index to itself": b'{"weight_map": {"w": "bad"}}',
    "npz cut": npz_bytes(npy_bytes((3, 4), data=bytes(48)))[:-30],
    "npz with a pickle": npz_bytes(npy_bytes((1,), "|O", pickle.dumps([Malice()]))),
    "npz shape larger than its bytes": npz_bytes(npy_bytes((3, 5), data=bytes(48))),
    "npz shape of 2^63": npz_bytes(npy_bytes((2**63,), data=bytes(48))),
    "npz negative shape": npz_bytes(npy_bytes((-3, -4), data=bytes(48))),
    "npz header of code": npz_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", 20) + b"__import__('os')    \n"),
    "npz header of lists": npz_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", 9999) + b"[" * 9999),
    "npz of no array": npz_bytes(b"hello"),
    "npz bomb": npz_bytes(npy_bytes((2**28,), data=b"") + bytes(2**21), zipfile.ZIP_DEFLATED).replace(
        struct.pack("<I", 2**21 + len(npy_bytes((2**28,)))), struct.pack("<I", 2**31 + 5)
    ),
    "zip member without a name": nameless(npz_bytes(npy_bytes((3, 4), data=bytes(48)))),
    "zip of other things": npz_bytes(b"hello", name="readme.txt"),
    "zip without members": b"PK\x05\x06" + bytes(18),
    "gguf cut": gguf_bytes({"w": ((3, 4), 0, W.tobytes())})[:-40],
    "gguf of another version": gguf_bytes({}, version=1),
    "gguf big-endian": gguf_bytes({}, version=3 << 24),
    "gguf with 2^60 tensors": gguf_bytes({}, counts=(2**60, 0)),
    "gguf with 2^60 keys": gguf_bytes({}, counts=(0, 2**60)),
    "gguf with more keys than bytes": gguf_bytes({}, counts=(0, 60000)),
    "gguf shape of 2^63": gguf_bytes({"w": ((2**63,), 0, b"")}),
    "gguf shape that wraps around": gguf_bytes({"w": ((2**32, 2**32), 0, b"")}),
    "gguf larger than the file": gguf_bytes({"w": ((300, 400), 0, W.tobytes())}),
    "gguf unknown type": gguf_bytes({"w": ((3, 4), 99, W.tobytes())}),
    "gguf half a block": gguf_bytes({"w": ((3, 4), 8, bytes(34))}),
    "gguf overlapping": gguf_bytes(
        {"w": ((8,), 0, bytes(32)), "v": ((16,), 0, bytes(64)), "u": ((8,), 0, b"")}, spread=0
    ),
    "gguf apart by no multiple": gguf_bytes(
        {"w": ((8,), 0, bytes(32)), "v": ((8,), 0, bytes(32))}, {"general.alignment": 64}
    ),
    "gguf alignment of zero": gguf_bytes({}, {"general.alignment": 0}),
    "gguf alignment of three": gguf_bytes({}, {"general.alignment": 33}),
    "gguf list without end": b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + gguf_text("k") + struct.pack("<IIQ", 9, 4, 2**61),
    "gguf text without end": b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + gguf_text("k") + struct.pack("<IQ", 8, 2**62),
    "gguf lists in lists": b"GGUF"
    + struct.pack("<IQQ", 3, 0, 1)
    + gguf_text("k")
    + struct.pack("<I", 9)
    + struct.pack("<IQ", 9, 1) * 50,
    "gguf value of unknown type": b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + gguf_text("k") + struct.pack("<I", 77),
    "gguf key of no text": b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 2) + b"\xff\xff" + bytes(20),
    "onnx cut": b"\x08\x08\x3a\xff\xff\x7f\x2a\x10",
    "onnx without weights": b"\x08\x08",
    "onnx of groups": b"\x08\x08\x3b\x3c",
    "onnx varint without end": b"\x08" + b"\xff" * 50,
    "torch with code": torch_bytes(pickle.dumps({"w": Malice()}, protocol=2)),
    "torch with os.system": torch_bytes(b"\x80\x02cposix\nsystem\nX\x02\x00\x00\x00ls\x85R."),
    "torch with a bytearray": torch_bytes(b"\x80\x02c__builtin__\nbytearray\n\x8a\x06\x00\x00\x00\x00\x00\x01\x85R."),
    "torch name from the stack": torch_bytes(pickle.dumps(Malice(), protocol=4)),
    "torch of laughs": torch_bytes(LAUGHS),
    "torch in a circle": torch_bytes(b"\x80\x02]q\x00h\x00a."),
    "torch pickle cut": torch_bytes(torch_pickle()[:-9]),
    "torch pickle of rubbish": torch_bytes(b"\x80\x02" + b"\x00" * 50),
    "torch marks missing": torch_bytes(b"\x80\x02te."),
    "torch without tensors": torch_bytes(b"\x80\x02}."),
    "torch shape beyond its storage": torch_bytes(torch_pickle(shape=(3, 5), strides=(5, 1))),
    "torch offset beyond its storage": torch_bytes(torch_pickle(offset=1)),
    "torch negative offset": torch_bytes(torch_pickle(offset=-1)),
    "torch shape of 2^63": torch_bytes(torch_pickle(shape=(2**63,), strides=(1,))),
    "torch storage larger than its bytes": torch_bytes(torch_pickle(count=13)),
    "torch storage absent": torch_bytes(torch_pickle(), storages=()),
    "torch one number a billion times": torch_bytes(torch_pickle(shape=(2**30,), strides=(0,))),
}


@pytest.mark.parametrize("data", BAD.values(), ids=BAD)
def test_bad_files_are_one_clear_error(tmp_path, data):
    (tmp_path / "bad").write_bytes(data)
    tracemalloc.start()
    with pytest.raises(MinutiaError) as caught, open_checkpoint(str(tmp_path / "bad")) as found:
        for name in found.names:
            found.read(name)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    text = str(caught.value)
    assert text.startswith("expected ") and "got " in text and text.isprintable() and len(text) < 600
    assert peak < 64 * MIB


def test_the_files_that_lie_are_good_ones_else(tmp_path):
    good = {
        "safetensors": safetensors_bytes({"w": said()}, W.tobytes()),
        "npz": npz_bytes(npy_bytes((3, 4), data=W.tobytes())),
        "gguf": gguf_bytes({"w": ((3, 4), 0, W.tobytes())}),
        "torch": torch_bytes(torch_pickle(), [("0", W.tobytes())]),
    }
    for name, data in good.items():
        (tmp_path / name).write_bytes(data)
        with open_checkpoint(str(tmp_path / name)) as found:
            np.testing.assert_array_equal(found.read("w"), W, err_msg=name)


def good_files():
    onnx = pytest.importorskip("onnx")
    tensors = [onnx.numpy_helper.from_array(W, "w"), onnx.helper.make_tensor("h", 10, [2], [1, 2])]
    graph = onnx.helper.make_graph([onnx.helper.make_node("Neg", ["x"], ["y"])], "g", [], [], tensors)
    packed = io.BytesIO()
    np.savez_compressed(packed, w=W, v=np.arange(5.0))
    return {
        "safetensors": save({"w": W, "v": np.arange(5, dtype=np.float16)}, {"format": "pt"}),
        "npz": packed.getvalue(),
        "gguf": gguf_bytes({"w": ((3, 4), 0, W.tobytes()), "q": ((2, 32), 8, bytes(68))}, {"a": "b", "c": [1, 2]}),
        "torch": torch_bytes(torch_pickle(), [("0", W.tobytes())]),
        "onnx": onnx.helper.make_model(graph).SerializeToString(),
    }


GOOD = good_files()


@pytest.mark.parametrize("kind", GOOD)
@settings(max_examples=150)
@given(st.data())
def test_whatever_is_changed_nothing_breaks(tmp_path_factory, kind, data):
    changed = bytearray(GOOD[kind])
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(changed) - 1))
        how = data.draw(st.sampled_from(["flip", "set", "cut", "insert", "number"]))
        if how == "flip":
            changed[at] ^= 1 << data.draw(st.integers(0, 7))
        elif how == "set":
            changed[at] = data.draw(st.sampled_from([0, 1, 127, 128, 255]))
        elif how == "cut":
            del changed[at : at + data.draw(st.integers(1, 40))]
        elif how == "insert":
            changed[at:at] = data.draw(st.binary(min_size=1, max_size=8))
        else:
            size = data.draw(st.sampled_from([4, 8]))
            number = data.draw(st.sampled_from([2**31, 2**32 - 1, 2**62, 2**63, 2**64 - 1])) % 2 ** (8 * size)
            changed[at : at + size] = number.to_bytes(size, "little")
        changed = changed or bytearray(b"\0")
    path = tmp_path_factory.getbasetemp() / f"changed-{kind}.onnx"
    path.write_bytes(changed)
    try:
        with open_checkpoint(str(path)) as found:
            for name in found.names:
                assert sum(part.size for part in found.blocks(name)) == found.info(name).size
    except MinutiaError as error:
        assert "got " in str(error)


def test_numbers_that_are_none_are_read_as_they_are(tmp_path):
    odd = np.array([np.nan, np.inf, -np.inf], np.float32)
    (tmp_path / "m.safetensors").write_bytes(save({"w": odd}))
    with open_checkpoint(str(tmp_path)) as found:
        np.testing.assert_array_equal(found.read("w"), odd)


def test_a_compressed_archive_that_unpacks_to_more_than_it_says(tmp_path):
    data = npz_bytes(npy_bytes((3, 4), data=W.tobytes() + bytes(8)), zipfile.ZIP_DEFLATED)
    size = len(npy_bytes((3, 4))) + 56
    (tmp_path / "a.npz").write_bytes(data.replace(struct.pack("<I", size), struct.pack("<I", size - 8)))
    with pytest.raises(FileError, match="got more: the archive is damaged"):
        open_checkpoint(str(tmp_path / "a.npz"))


def test_an_index_that_names_a_tensor_which_its_shard_lacks(tmp_path):
    (tmp_path / "a.safetensors").write_bytes(save({"w": W}))
    places = {"w": "a.safetensors", "v": "a.safetensors"}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    with pytest.raises(FileError, match=r"expected 'v' in a\.safetensors, as .* says, got a file without it"):
        open_checkpoint(str(tmp_path))


def external(**fields):
    onnx = pytest.importorskip("onnx")
    tensor = onnx.TensorProto(name="w", data_type=1, dims=[3, 4], data_location=1)
    for key, value in fields.items():
        tensor.external_data.add(key=key, value=value)
    graph = onnx.helper.make_graph([onnx.helper.make_node("Neg", ["x"], ["y"])], "g", [], [], [tensor])
    return onnx.helper.make_model(graph).SerializeToString()


@pytest.mark.parametrize(
    "fields",
    [
        {"location": "../secret"},
        {"location": "/etc/passwd"},
        {"location": ""},
        {"offset": "0"},
        {"location": "a\0b"},
        {"location": "absent"},
        {"location": "data", "offset": "-8"},
        {"location": "data", "offset": "9" * 30},
        {"location": "data", "offset": "8"},
        {"location": "data", "length": "44"},
    ],
    ids=str,
)
def test_external_data_outside_or_too_small(tmp_path, fields):
    (tmp_path / "data").write_bytes(W.tobytes())
    (tmp_path / "m.onnx").write_bytes(external(**fields))
    with pytest.raises(FileError, match="expected"):
        open_checkpoint(str(tmp_path / "m.onnx"))
    (tmp_path / "m.onnx").write_bytes(external(location="data"))
    with open_checkpoint(str(tmp_path / "m.onnx")) as found:
        np.testing.assert_array_equal(found.read("w"), W)


def test_a_folder_without_and_with_too_many(tmp_path):
    with pytest.raises(MinutiaError, match="got none: name the file itself"):
        open_checkpoint(str(tmp_path))
    for name in "ab":
        (tmp_path / f"{name}.safetensors").write_bytes(save({"w": W}))
    with pytest.raises(MinutiaError, match=r"got 2 \(a\.safetensors, b\.safetensors\): name one of them"):
        open_checkpoint(str(tmp_path))


def test_a_file_that_is_replaced_while_it_is_compared():
    data = save({"w": np.zeros((400, 100), np.float32)})

    def act(call, path, start, stop):
        status, headers, body = server.part(path, start, stop)
        return status, {**headers, "ETag": f'"{call // 2}"'}, body

    with serving({"/m": data}, act) as server, open_checkpoint(f"{server.url}/m") as found:
        found.read("w", slice(300, 301))
        with pytest.raises(FileError, match="it was replaced while it was read, start again"):
            found.read("w", slice(350, 351))
