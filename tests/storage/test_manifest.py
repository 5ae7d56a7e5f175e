"""Manifests: the statements of OpenSSF model signing, read and written."""

import base64
import hashlib
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minutia.core.errors import FileError
from minutia.storage.manifest import Manifest, compared, manifest_of, read_manifest, same

ZEROS, ONES = "00" * 32, "11" * 32
digests = st.dictionaries(
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=9),
    st.binary(min_size=32, max_size=32).map(bytes.hex),
    min_size=1,
    max_size=5,
)


def bundle(statement) -> bytes:
    """A Sigstore bundle as ``model_signing sign key`` writes it; the signature is nobody's."""
    payload = base64.b64encode(json.dumps(statement).encode()).decode()
    envelope = {"payload": payload, "payloadType": "application/vnd.in-toto+json", "signatures": [{"sig": "AA=="}]}
    material = {"publicKey": {"hint": "ab"}, "tlogEntries": []}
    return json.dumps(
        {
            "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
            "verificationMaterial": material,
            "dsseEnvelope": envelope,
        }
    ).encode()


def signed_folder():
    """A statement written by hand, as version 1 of the format describes it."""
    root = hashlib.sha256(bytes.fromhex(ZEROS) + bytes.fromhex(ONES)).hexdigest()
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": "release", "digest": {"sha256": root}}],
        "predicateType": "https://model_signing/signature/v1.0",
        "predicate": {
            "serialization": {
                "method": "files",
                "hash_type": "sha256",
                "allow_symlinks": False,
                "ignore_paths": ["model.sig"],
            },
            "resources": [
                {"name": "README.md", "algorithm": "sha256", "digest": ZEROS},
                {"name": "weights/a.onnx", "algorithm": "sha256", "digest": ONES},
            ],
        },
    }


def read(tmp_path, data: bytes) -> Manifest:
    (tmp_path / "model.sig").write_bytes(data)
    return read_manifest(tmp_path / "model.sig")


def test_digests_are_those_of_sha256sum(tmp_path):
    (tmp_path / "a.onnx").write_bytes(b"abc")
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "w.bin").write_bytes(b"")
    found = manifest_of([tmp_path / "a.onnx", tmp_path / "parts" / "w.bin"])
    assert found.model == "a.onnx"
    assert found.digests == {
        "a.onnx": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
        "parts/w.bin": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    }
    with pytest.raises(FileError, match="expected a file of the model"):
        manifest_of([tmp_path / "none"])


@pytest.mark.parametrize("wrap", [lambda s: json.dumps(s).encode(), bundle])
def test_bundles_and_bare_statements_are_read(tmp_path, wrap):
    found = read(tmp_path, wrap(signed_folder()))
    assert found == Manifest("release", {"README.md": ZEROS, "weights/a.onnx": ONES})


def test_the_first_format_is_read(tmp_path):
    old = {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": "a.onnx", "digest": {"sha256": ONES}}],
        "predicateType": "https://model_signing/Digests/v0.1",
        "predicate": {"unused": "Unused, just passed due to API requirements"},
    }
    assert read(tmp_path, bundle(old)).digests == {"a.onnx": ONES}


@given(digests, st.text(max_size=5))
def test_what_is_written_is_read_again(found, model):
    manifest = Manifest(model, found)
    assert Manifest.from_array(manifest.array()) == manifest
    names = [resource["name"] for resource in manifest.statement()["predicate"]["resources"]]
    assert names == sorted(names)


def changed(edit):
    statement = signed_folder()
    edit(statement)
    return json.dumps(statement).encode()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{}",
        b"\x80\x02",
        b'{"dsseEnvelope": {"payload": "%%%"}}',
        b"[" * 100_000,
        changed(lambda s: s["subject"][0]["digest"].update(sha256=ZEROS)),
        changed(lambda s: s["predicate"]["serialization"].update(method="shards")),
        changed(lambda s: s["predicate"]["resources"][0].update(algorithm="blake3")),
        changed(lambda s: s["predicate"]["resources"][0].update(digest="zz")),
        changed(lambda s: s["predicate"]["resources"].append(s["predicate"]["resources"][0])),
        changed(lambda s: s["predicate"].update(resources=[])),
        changed(lambda s: s.update(predicateType="https://slsa.dev/provenance/v1")),
    ],
)
def test_anything_else_is_refused(tmp_path, data):
    with pytest.raises(FileError, match="expected a model-signing manifest"):
        read(tmp_path, data)


def test_a_missing_manifest_is_told(tmp_path):
    with pytest.raises(FileError, match="expected a model-signing manifest, got No such file"):
        read_manifest(tmp_path / "none")


def test_a_file_is_found_in_a_list_by_name_or_by_content():
    listed = Manifest("release", {"README.md": ZEROS, "weights/a.onnx": ONES})
    assert compared(Manifest("a.onnx", {"a.onnx": ONES}), listed) == "identical"
    assert compared(Manifest("b.onnx", {"b.onnx": ONES}), listed) == "identical"
    assert compared(Manifest("a.onnx", {"a.onnx": ZEROS[:-1] + "1"}), listed) == "different"
    assert compared(Manifest("b.onnx", {"b.onnx": ZEROS[:-1] + "1"}), listed) == "not listed"
    single = Manifest("m", {".": ONES})
    assert compared(Manifest("a", {"a": ONES}), single) == "identical"
    assert compared(Manifest("a", {"a": ZEROS}), single) == "different"


def test_weights_outside_count_by_their_names():
    """Two files whose contents were swapped have the same digests, and are another model."""
    one = Manifest("a.onnx", {"a.onnx": "22" * 32, "x.bin": ZEROS, "y.bin": ONES})
    swapped = Manifest("a.onnx", {"a.onnx": "22" * 32, "x.bin": ONES, "y.bin": ZEROS})
    assert same(one, one)
    assert not same(one, swapped)
    assert compared(swapped, one) == "different"
    assert same(Manifest("b.onnx", {"b.onnx": "22" * 32, "x.bin": ZEROS, "y.bin": ONES}), one)


def test_the_array_is_bytes():
    assert Manifest("a", {"a": ZEROS}).array().dtype == np.uint8
