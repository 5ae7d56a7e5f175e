"""Parts of files: local ones, packed ones, and files behind servers that lie, break off or change."""

import itertools
import os
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.models.ranges_server import serving

from minutia.core.errors import FileError, UsageError
from minutia.models.byte_ranges import Cursor, Inflated, LocalBytes, MemoryBytes
from minutia.models.checkpoint_entries import runs
from minutia.models.checkpoint_http import FIRST, PART, SMALL, AbsentError, HttpBytes

DATA = np.random.default_rng(0).integers(0, 256, FIRST + 5000, np.uint8).tobytes()


def opened(server, path="/f", **options):
    return HttpBytes(server.url + path, **{"wait": 0.001, **options})


@given(st.binary(max_size=300), st.data())
def test_every_source_gives_the_same_parts(tmp_path_factory, data, draw):
    path = tmp_path_factory.getbasetemp() / "parts"
    path.write_bytes(data)
    packer = zlib.compressobj(wbits=-15)
    packed = packer.compress(data) + packer.flush()
    sources = [LocalBytes(path), MemoryBytes(data), Inflated(MemoryBytes(packed), 0, len(packed), len(data))]
    for _ in range(3):
        start = draw.draw(st.integers(0, len(data)))
        length = draw.draw(st.integers(0, len(data) - start))
        for source in sources:
            assert source.read(start, length).tobytes() == data[start : start + length]
    for source in sources:
        assert source.size == len(data)
        with pytest.raises(FileError, match="truncated"):
            source.read(1, len(data))
        source.close()


def test_only_what_is_asked_for_is_counted(tmp_path):
    (tmp_path / "f").write_bytes(DATA)
    source = LocalBytes(tmp_path / "f")
    source.read(10, 20), source.read(0, 5)
    assert source.bytes_read == 25


@pytest.mark.parametrize("kind", ["folder", "pipe", "absent", "bad name"])
def test_what_is_no_regular_file_is_refused(tmp_path, kind):
    path = Path("a\0b") if kind == "bad name" else tmp_path / "x"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    with pytest.raises(FileError, match="expected a checkpoint at"):
        LocalBytes(path)


def test_a_file_that_is_cut_while_it_is_read(tmp_path):
    (tmp_path / "f").write_bytes(DATA)
    source = LocalBytes(tmp_path / "f")
    (tmp_path / "f").write_bytes(DATA[:100])
    with pytest.raises(FileError, match="got 50: the file was cut"):
        source.read(50, 100)


def deflated(data):
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


@pytest.mark.parametrize("stated", [299, 301])
def test_a_packed_part_that_is_not_as_large_as_it_says(stated):
    packed = deflated(b"abc" * 100)
    with pytest.raises(FileError, match="the archive is damaged"):
        Inflated(MemoryBytes(packed), 0, len(packed), stated).read(0, stated)


def test_a_packed_part_that_is_cut_or_damaged():
    packed = deflated(DATA)
    for bad in (packed[:100], b"\xff" * len(packed)):
        with pytest.raises(FileError, match="the archive is damaged"):
            Inflated(MemoryBytes(bad), 0, len(bad), len(DATA)).read(0, len(DATA))


def test_a_packed_part_is_never_held_whole():
    packed = deflated(bytes(2**24))
    source = Inflated(MemoryBytes(packed), 0, len(packed), 2**24)
    assert source.read(2**24 - 4, 4).tobytes() == bytes(4)
    assert source.read(5, 1).tobytes() == b"\0"


@given(st.lists(st.integers(0, 200), max_size=30), st.integers(1, 9), st.integers(0, 60))
def test_runs_cover_the_rows_and_nothing_far_away(rows, width, gap):
    wanted = np.unique(np.array(rows, int))
    found = list(runs(wanted, width, gap))
    covered = [row for first, last in found for row in range(first, last)]
    assert sorted(set(covered)) == covered and set(wanted) <= set(covered)
    assert all(b[0] - a[1] > gap / width for a, b in itertools.pairwise(found))
    assert all(first in wanted and last - 1 in wanted for first, last in found)


def test_a_cursor_does_not_leave_its_part():
    at = Cursor(MemoryBytes(b"abcdef"), 1, 4, ahead=1)
    assert at.take(2) == b"bc"
    at.skip(1)
    for step in (at.take, at.skip):
        with pytest.raises(FileError, match="truncated"):
            step(1)


def test_parts_over_http_are_the_file_s_and_counted():
    with serving({"/f": DATA}) as server:
        source = opened(server)
        assert source.size == len(DATA) and source.bytes_read == FIRST
        assert source.read(FIRST - 10, 20).tobytes() == DATA[FIRST - 10 : FIRST + 10]
        assert source.read(len(DATA) - 7, 7).tobytes() == DATA[-7:]
        assert source.read(3, 4).tobytes() == DATA[3:7]
        assert source.bytes_read == FIRST + 17
        assert server.spans == [(0, FIRST - 1), (FIRST, FIRST + 9), (len(DATA) - 7, len(DATA) - 1)]
        assert all(headers["Accept-Encoding"] == "identity" for _, headers in server.received)


def test_large_parts_are_asked_for_piece_by_piece():
    data = bytes(FIRST) + bytes(range(256)) * (2 * PART // 256)
    with serving({"/f": data}) as server:
        assert opened(server).read(FIRST, 2 * PART).tobytes() == data[FIRST:]
        assert [last - first + 1 for first, last in server.spans] == [FIRST, PART, PART]


def test_a_small_file_may_come_whole_and_a_large_one_may_not():
    with serving({"/f": DATA, "/large": bytes(SMALL + 1)}, ranges=False) as server:
        assert opened(server).read(FIRST, 9).tobytes() == DATA[FIRST : FIRST + 9]
        with pytest.raises(FileError, match="knows no ranges and a file of 16777217 bytes: download it"):
            opened(server, "/large")


@pytest.mark.parametrize("status", [500, 503, 429, 408])
def test_what_may_pass_is_asked_again(status):
    def act(call, path, start, stop):
        return (status, {"Retry-After": "0"}, b"") if call % 2 == 0 else None

    with serving({"/f": DATA}, act) as server:
        assert opened(server).read(FIRST, 10).tobytes() == DATA[FIRST : FIRST + 10]
        assert len(server.received) == 4


def test_what_does_not_pass_is_an_error_after_all_attempts():
    with serving({"/f": DATA}, lambda *_: (500, {}, b"")) as server:
        with pytest.raises(FileError, match="got status 500 Internal Server Error 3 times"):
            opened(server, attempts=3)
        assert len(server.received) == 3


def test_a_truncated_answer_is_asked_again():
    def act(call, path, start, stop):
        status, headers, body = server.part(path, start, stop)
        return (status, {**headers, "Content-Length": str(len(body))}, body[:-3]) if call == 1 else None

    with serving({"/f": DATA}, act) as server:
        assert opened(server).read(FIRST, 100).tobytes() == DATA[FIRST : FIRST + 100]
        assert len(server.received) == 3


def test_an_answer_that_stays_short_is_an_error():
    def act(call, path, start, stop):
        status, headers, body = server.part(path, start, stop)
        return (status, headers, body[:-3]) if call else None

    with serving({"/f": DATA}, act) as server, pytest.raises(FileError, match="got 97 of 100 bytes 2 times"):
        opened(server, attempts=2).read(FIRST, 100)


CHANGED = {
    "etag": lambda status, headers, body: (status, {**headers, "ETag": '"2"'}, body),
    "no etag": lambda status, headers, body: (status, {"Content-Range": headers["Content-Range"]}, body),
    "size": lambda status, headers, body: (
        (status, {**headers, "Content-Range": headers["Content-Range"].replace("/", "/9")}, body)
    ),
    "another part": lambda status, headers, body: (
        (status, {**headers, "Content-Range": f"bytes 0-99/{len(DATA)}"}, body)
    ),
    "nonsense": lambda status, headers, body: (status, {**headers, "Content-Range": "bytes */*"}, body),
    "no ranges any more": lambda status, headers, body: (200, {"ETag": '"1"'}, DATA),
    "more than asked for": lambda status, headers, body: (status, headers, body + b"x"),
    "packed": lambda status, headers, body: (status, {**headers, "Content-Encoding": "gzip"}, body),
    "refused": lambda status, headers, body: (403, {}, b""),
}


@pytest.mark.parametrize("change", CHANGED.values(), ids=CHANGED)
def test_another_answer_than_the_part_of_the_same_file_is_an_error(change):
    def act(call, path, start, stop):
        return change(*server.part(path, start, stop)) if call else None

    with serving({"/f": DATA}, act) as server:
        source = opened(server)
        with pytest.raises(FileError, match="expected"):
            source.read(FIRST, 100)
        assert len(server.received) == 2


def test_redirects_are_followed_and_the_token_stays_at_home():
    with serving({"/f": DATA}) as far:
        elsewhere = {"Location": f"{far.url.replace('127.0.0.1', 'localhost')}/f"}

        def hop(call, path, start, stop):
            return 302, elsewhere, b""

        with serving({}, hop) as home:
            source = opened(home, token="secret")
            source.read(FIRST, 5), source.read(FIRST, 5)
            assert len(home.received) == 1 and len(far.received) == 3
            assert home.received[0][1]["Authorization"] == "Bearer secret"
            assert not any("Authorization" in headers for _, headers in far.received)


def test_an_address_that_expires_is_resolved_anew():
    def expiring(call, path, start, stop):
        return (403, {}, b"") if call == 1 else None

    with (
        serving({"/f": DATA}, expiring) as far,
        serving({}, lambda *_: (302, {"Location": f"{far.url}/f"}, b"")) as home,
    ):
        assert opened(home).read(FIRST, 5).tobytes() == DATA[FIRST : FIRST + 5]
        assert len(home.received) == 2


@pytest.mark.parametrize("location", ["", "ftp://host/f", "file:///etc/passwd", "http://[bad/"])
def test_redirects_to_strange_places_are_refused(location):
    with (
        serving({}, lambda *_: (302, {"Location": location}, b"")) as server,
        pytest.raises(FileError, match="expected a redirect"),
    ):
        opened(server)


def test_redirects_in_a_circle_are_refused():
    with (
        serving({}, lambda *_: (302, {"Location": "/g"}, b"")) as server,
        pytest.raises(FileError, match="more than 5 redirects"),
    ):
        opened(server)


def test_errors_show_no_secrets():
    with serving({"/f": DATA}) as server, pytest.raises(AbsentError) as caught:
        HttpBytes(f"{server.url.replace('//', '//me:pass@')}/g?signature=hidden")
    assert "pass" not in str(caught.value) and "hidden" not in str(caught.value)
    assert "404 Not Found: check the address" in str(caught.value)


def test_no_server_is_an_error():
    with serving({}) as server:
        pass
    with pytest.raises(FileError, match=r"broken connection \(ConnectError\) 2 times"):
        HttpBytes(f"{server.url}/f", attempts=2, wait=0.001)


@pytest.mark.parametrize("address", ["ftp://a/b", "http://", "http://a:99999/b", "https://a/\n", "file:///x"])
def test_addresses_of_other_kinds_are_refused(address):
    with pytest.raises(UsageError, match="expected an http:// or https:// address"):
        HttpBytes(address)
