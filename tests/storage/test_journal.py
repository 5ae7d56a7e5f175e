"""The journal: a map that survives, is shared, and recognises what is not its own."""

import multiprocessing
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minutia.core.errors import FileError
from minutia.storage.journal import SqliteJournal


@pytest.fixture
def path(tmp_path):
    return tmp_path / "work.journal"


def test_entries_are_kept_and_never_changed(path):
    with SqliteJournal(path) as journal:
        assert journal.get(["a"]) == {}
        journal.put({"a": b"1"})
        journal.put({"a": b"2", "b": b"\0\xff"})
        journal.put({})
    with SqliteJournal(path) as journal:
        assert journal.get(["b", "a", "a", "c"]) == {"a": b"1", "b": b"\0\xff"}


@given(st.lists(st.dictionaries(st.text(max_size=3), st.binary(max_size=9), max_size=5), max_size=5))
@settings(max_examples=25, deadline=None)
def test_it_is_a_map_whose_first_value_wins(puts):
    expected = {}
    with TemporaryDirectory() as folder, SqliteJournal(Path(folder) / "j") as journal:
        for entries in puts:
            journal.put(entries)
            expected = {**entries, **expected}
        assert journal.get(expected) == expected


def test_more_keys_than_one_select_takes(path):
    entries = {f"k{i}": b"%d" % i for i in range(2345)}
    with SqliteJournal(path) as journal:
        journal.put(entries)
        assert journal.get([*entries, "absent"]) == entries


def test_a_put_is_all_or_nothing(path):
    with SqliteJournal(path) as journal:
        with pytest.raises(FileError):
            journal.put({"a": b"1", "b": None})
        assert journal.get(["a", "b"]) == {}
        journal.put({"a": b"1"})
        assert journal.get(["a"]) == {"a": b"1"}


def test_the_file_is_the_owners_alone(path):
    old = os.umask(0)
    try:
        with SqliteJournal(path) as journal:
            journal.put({"a": b"1"})
            assert {p.stat().st_mode & 0o777 for p in path.parent.iterdir()} == {0o600}
    finally:
        os.umask(old)


def foreign(path, statement):
    database = sqlite3.connect(path)
    database.execute(statement)
    database.commit()
    database.close()


@pytest.mark.parametrize("statement", ["CREATE TABLE entry (key, value)", "PRAGMA user_version = 2"])
def test_another_programs_database_is_refused_and_left_alone(path, statement):
    foreign(path, statement)
    before = path.read_bytes()
    with pytest.raises(FileError, match="another program's database"):
        SqliteJournal(path)
    assert path.read_bytes() == before


def test_a_journal_of_another_version_is_refused(path):
    SqliteJournal(path).close()
    foreign(path, "PRAGMA user_version = 99")
    with pytest.raises(FileError, match="another version"):
        SqliteJournal(path)


def test_a_foreign_file_is_refused_and_left_alone(path):
    path.write_bytes(b"this is my thesis " * 100)
    with pytest.raises(FileError, match="expected a journal"):
        SqliteJournal(path)
    assert path.read_bytes() == b"this is my thesis " * 100


def test_a_damaged_file_is_one_sentence(path):
    with SqliteJournal(path) as journal:
        journal.put({f"{i:09d}": b"x" * 500 for i in range(200)})
    data = bytearray(path.read_bytes())
    data[4096:] = b"\xa5" * (len(data) - 4096)
    path.write_bytes(data)
    with pytest.raises(FileError, match="damaged journal can be deleted"), SqliteJournal(path) as journal:
        journal.get(f"{i:09d}" for i in range(200))


@pytest.mark.parametrize("place", ["absent/work.journal", "."])
def test_impossible_places(tmp_path, place):
    with pytest.raises(FileError, match="name another file"):
        SqliteJournal(tmp_path / place)


def work(path, name):
    with SqliteJournal(path) as journal:
        for i in range(40):
            journal.put({f"{name}-{i}": b"1", "shared": name.encode()})


def test_several_processes_share_one_file(path):
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=work, args=(path, f"p{i}")) for i in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [p.exitcode for p in processes] == [0] * 4
    with SqliteJournal(path) as journal:
        assert len(journal.get(f"p{i}-{j}" for i in range(4) for j in range(40))) == 160
        assert journal.get(["shared"])["shared"] in (b"p0", b"p1", b"p2", b"p3")


CHILD = """
import os, signal, sys
from minutia.storage.journal import SqliteJournal
journal = SqliteJournal(sys.argv[1])
for i in range(10):
    journal.put({f"{i}-{j}": b"x" * 1000 for j in range(10)})
journal._database.execute("BEGIN IMMEDIATE")
journal._database.execute("INSERT INTO entry VALUES ('half', x'00')")
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_kill_loses_nothing_that_was_put_and_keeps_nothing_by_halves(path):
    done = subprocess.run([sys.executable, "-c", CHILD, path], check=False)
    assert done.returncode == -signal.SIGKILL
    with SqliteJournal(path) as journal:
        assert len(journal.get(f"{i}-{j}" for i in range(10) for j in range(10))) == 100
        assert journal.get(["half"]) == {}
