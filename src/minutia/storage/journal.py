"""A journal in one SQLite file: what was paid for once survives a kill and is not asked again."""

import errno
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from minutia.core.errors import FileError

APPLICATION = 0x6D6E7574  # "mnut": tells our files from other programs' databases
FORMAT = 1
BUSY_SECONDS = 30.0
FULL = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_SHMSIZE)
"""What SQLite says where a file cannot grow; the journal itself is whole then."""
KEYS_PER_SELECT = 500
"""SQLite allows 999 parameters in its oldest builds."""


class SqliteJournal:
    """``core.journal.Journal`` on disk; several processes may share one file.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder, SqliteJournal(Path(folder) / "work.journal") as journal:
    ...     journal.put({"a": b"1"})
    ...     journal.put({"a": b"2", "b": b"3"})
    ...     sorted(journal.get(["a", "b", "c"]).items())
    [('a', b'1'), ('b', b'3')]
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        with self._errors():
            # SQLite would use the umask's rights; answers to secret probes are the owner's alone.
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))
            self._database = sqlite3.connect(self.path, timeout=BUSY_SECONDS, isolation_level=None)
        try:
            with self._errors():
                self._prepare()
        except FileError:
            self.close()
            raise

    def get(self, keys: Iterable[str]) -> dict[str, bytes]:
        """Return the values of those keys that are known."""
        wanted, found = list(dict.fromkeys(keys)), dict[str, bytes]()
        with self._errors():
            for start in range(0, len(wanted), KEYS_PER_SELECT):
                some = wanted[start : start + KEYS_PER_SELECT]
                marks = ",".join("?" * len(some))
                found.update(self._database.execute(f"SELECT key, value FROM entry WHERE key IN ({marks})", some))
        return found

    def put(self, entries: Mapping[str, bytes]) -> None:
        """Remember all entries or none; a key that is known already keeps its value."""
        with self._errors(), self._transaction():
            # Not INSERT OR IGNORE, which would also swallow a missing value.
            insert = "INSERT INTO entry VALUES (?, ?) ON CONFLICT (key) DO NOTHING"
            self._database.executemany(insert, entries.items())

    def close(self) -> None:
        """Close the file; closing twice does nothing."""
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _prepare(self) -> None:
        """Recognise our own format, or set up a file that is still empty."""
        with self._transaction():  # two processes may create the file at once
            kind, version, tables = (
                self._number("PRAGMA application_id"),
                self._number("PRAGMA user_version"),
                self._number("SELECT count(*) FROM sqlite_master"),
            )
            if (kind, version, tables) == (0, 0, 0):
                self._database.execute(f"PRAGMA application_id = {APPLICATION}")
                self._database.execute(f"PRAGMA user_version = {FORMAT}")
                self._database.execute("CREATE TABLE entry (key TEXT PRIMARY KEY, value BLOB NOT NULL)")
            elif (kind, version) != (APPLICATION, FORMAT):
                raise sqlite3.DatabaseError("another program's database, or a journal of another version")
        # Under WAL with NORMAL a killed process loses nothing, only a power cut may lose the last batches.
        # They are asked again, which costs less than one fsync for every batch of a fast local model.
        self._database.execute("PRAGMA synchronous = NORMAL")
        self._write_ahead()

    def _write_ahead(self) -> None:
        """Turn on WAL; SQLite itself does not wait here while another process opens the same file."""
        deadline = time.monotonic() + BUSY_SECONDS
        while True:
            try:
                self._database.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                    raise
            time.sleep(0.02)

    def _number(self, query: str) -> int:
        return int(self._database.execute(query).fetchone()[0])

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """Do all or nothing; lock at once, because a read lock cannot always wait to become a write lock."""
        self._database.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            if self._database.in_transaction:  # SQLite has rolled back by itself after some errors
                self._database.execute("ROLLBACK")
            raise
        self._database.execute("COMMIT")

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Every failure of the file as one sentence."""
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            remedy = "name another file; a damaged journal can be deleted, then everything is asked again"
            if getattr(error, "sqlite_errorcode", 0) in FULL or getattr(error, "errno", 0) == errno.ENOSPC:
                remedy = "free some space, then the same command continues"
            raise FileError(
                f"expected a journal that can be read and written at {self.path}, got {reason!r}: {remedy}"
            ) from error
