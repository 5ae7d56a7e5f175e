"""Checkpoints behind s3://, on a local server that speaks as much of S3 as is asked of it."""

import sys

import numpy as np
import pytest
from safetensors.numpy import save
from tests.models.ranges_server import serving

from minutia.core.errors import FileError, MissingExtraError, UsageError
from minutia.models.checkpoint import open_checkpoint
from minutia.models.checkpoint_s3 import KEYS, S3Bytes, parted

KEY = "/bucket/folder/m.safetensors"
SPEC = "s3://bucket/folder/m.safetensors"
WEIGHTS = {"w": np.random.default_rng(0).normal(size=(4096, 64)).astype(np.float32)}


@pytest.fixture
def bucket(monkeypatch):
    """Serves files as objects: path style, not signed."""
    pytest.importorskip("obstore")
    for name in (*KEYS, "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")

    def start(files, act=None, ranges=True):
        running = serving(files, act, ranges)
        server = running.__enter__()
        started.append(running)
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        return server

    started = []
    yield start
    for running in started:
        running.__exit__(None, None, None)


def test_rows_behind_a_bucket(bucket):
    data = save(WEIGHTS)
    server = bucket({KEY: data})
    rows = np.array([4000, 5, 6, 2000])
    with open_checkpoint(SPEC) as found:
        np.testing.assert_array_equal(found.read("w", rows), WEIGHTS["w"][rows])
        assert found.bytes_read < 0.12 * len(data)
        np.testing.assert_array_equal(found.read("w"), WEIGHTS["w"])
    assert {path for path, _ in server.received} == {KEY}
    assert not any("Authorization" in headers for _, headers in server.received)


def test_requests_are_signed_with_keys_of_the_environment_only(bucket, monkeypatch):
    server = bucket({KEY: save(WEIGHTS)})
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "known")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hidden")
    open_checkpoint(SPEC).close()
    sent = server.received[0][1]
    assert "Credential=known/" in sent["Authorization"]
    assert "hidden" not in str(sent)


def test_shards_lie_beside_their_index(bucket):
    index = b'{"weight_map": {"w": "m.safetensors"}}'
    bucket({"/bucket/folder/model.safetensors.index.json": index, KEY: save(WEIGHTS)})
    with open_checkpoint("s3://bucket/folder/model.safetensors.index.json") as found:
        assert found.names == ("w",)


def test_an_object_that_changes_is_refused(bucket):
    data = save(WEIGHTS)

    def act(call, path, start, stop):
        status, headers, body = server.part(path, start, stop)
        return status, {**headers, "ETag": f'"{call}"'}, body

    server = bucket({KEY: data}, act)
    with open_checkpoint(SPEC) as found, pytest.raises(FileError, match="replaced while it was read"):
        found.read("w")


def test_a_server_that_says_that_it_changed(bucket):
    server = bucket({KEY: save(WEIGHTS)}, lambda call, *_: (412, {}, b"") if call else None)
    with open_checkpoint(SPEC) as found, pytest.raises(FileError, match="replaced while it was read"):
        found.read("w")
    assert [headers.get("If-Match") for _, headers in server.received] == [None, '"1"']


def test_a_date_tells_where_there_is_no_tag(bucket):
    def act(call, path, start, stop):
        status, headers, body = server.part(path, start, stop)
        dated = {"Last-Modified": f"Wed, 25 Nov 2026 10:00:{call:02} GMT"}
        return status, {**dated, "Content-Range": headers["Content-Range"]}, body

    server = bucket({KEY: save(WEIGHTS)}, act)
    with open_checkpoint(SPEC) as found, pytest.raises(FileError, match="replaced while it was read"):
        found.read("w")


@pytest.mark.parametrize(("status", "says"), [(404, "no such object"), (403, "no access"), (400, "AWS_ENDPOINT_URL")])
def test_what_a_server_refuses(bucket, status, says):
    bucket({}, lambda *_: (status, {}, b"<Error><Message>secret-looking text</Message></Error>"))
    with pytest.raises(FileError, match=says) as caught:
        open_checkpoint(SPEC)
    assert "secret" not in str(caught.value)


def test_a_server_without_ranges(bucket):
    bucket({KEY: save(WEIGHTS)}, ranges=False)
    with pytest.raises(FileError, match="download the file"):
        open_checkpoint(SPEC)


def test_an_object_that_is_small_or_empty(bucket):
    small = save({"w": np.ones((2, 2), np.float32)})
    bucket({KEY: small, "/bucket/empty": b""})
    with open_checkpoint(SPEC) as found:
        assert found.read("w").tolist() == [[1, 1], [1, 1]]
        assert found.bytes_read == len(small)
    with pytest.raises(FileError):
        open_checkpoint("s3://bucket/empty")


def test_without_the_library_the_pip_line_is_given(monkeypatch):
    monkeypatch.setitem(sys.modules, "obstore", None)
    monkeypatch.setitem(sys.modules, "obstore.store", None)
    monkeypatch.setitem(sys.modules, "obstore.exceptions", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'minutia\[s3\]'"):
        open_checkpoint(SPEC)


@pytest.mark.parametrize(
    "spec", ["s3://", "s3://bucket", "s3://bucket/", "s3://b/../c", "s3://bu cket/k", "s3://bu/a//b"]
)
def test_addresses_that_are_none(spec):
    with pytest.raises(UsageError, match="expected s3://bucket/key"):
        parted(spec)
    with pytest.raises(UsageError, match="expected s3://bucket/key"):
        S3Bytes(spec)
