"""The store's file: made whole or not at all, opened for its owner alone, its errors in our words.

SQLite with a write-ahead log: who reads and who writes do not wait for each other, and a process
killed at any moment leaves the last whole transaction. What is in it, `store` knows.
"""

import contextlib
import os
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

from fedpt.errors import DataFileError, FedptError, StorageError
from fedpt.files import fsync

_MAGIC: Final = b"SQLite format 3\0"
"""What every SQLite file begins with."""

_APPLICATION: Final = 0x66647074
"""`fdpt`, in the file's header: this database is ours."""
_VERSION: Final = 1
"""Of the tables below; another one is another fedpt's."""

_HEADER_BYTES: Final = 100
_NUMBERS_AT: Final = (60, 68)
"""Where the header has version and application: https://www.sqlite.org/fileformat.html, 1.3."""

_TABLES: Final = """
CREATE TABLE examples (
    id INTEGER PRIMARY KEY AUTOINCREMENT,  -- never used again
    digest BLOB NOT NULL UNIQUE,           -- see `sameness`
    system TEXT NOT NULL,
    question TEXT NOT NULL,
    answer TEXT NOT NULL,
    secrets TEXT NOT NULL,                 -- kinds found in it, a line each
    place INTEGER UNIQUE,                  -- in the order of training; NULL: not trained on
    added_unix_s REAL NOT NULL
) STRICT;
"""


def is_there(path: Path) -> bool:
    """Whether there is a file, ours or not.

    Raises:
        StorageError: We may not look.
    """
    with _readable(path):
        return path.exists()


def is_database(path: Path) -> bool:
    """Whether it is a SQLite file, ours or not; False where there is no file."""
    try:
        with path.open("rb") as file:
            return file.read(len(_MAGIC)) == _MAGIC
    except OSError:
        return False


def create(path: Path) -> None:
    """Make an empty store, unless there is one: nobody ever opens one half made.

    Raises:
        StorageError: The folder cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
            aside = Path(folder) / path.name
            aside.touch(mode=0o600)
            with translated(path), closing(sqlite3.connect(aside)) as database:
                database.execute("PRAGMA journal_mode = WAL")
                database.executescript(
                    f"BEGIN; {_TABLES} PRAGMA application_id = {_APPLICATION};"
                    f" PRAGMA user_version = {_VERSION}; COMMIT"
                )
            _give_to_owner_of(path.parent, aside)
            with contextlib.suppress(FileExistsError):  # another process was faster
                os.link(aside, path)
            fsync(path.parent)
    except OSError as error:
        raise StorageError(
            f"cannot make {path}: {error.strerror or error}; choose another folder for data"
        ) from error


@contextmanager
def opened(path: Path, *, patience_s: float, may_write: bool) -> Iterator[sqlite3.Connection]:
    """A connection to a store that is there, in one transaction: all of the block, or nothing.

    Args:
        path: The store.
        patience_s: How long to wait for another who writes.
        may_write: False: what is read is one state of the store, however many queries.

    Raises:
        DataFileError: It is damaged, or no store of ours.
        StorageError: The disk is full, the file read-only, or others keep it locked.
    """
    with translated(path), closing(_connected(path, patience_s)) as database:
        database.execute(f"PRAGMA query_only = {not may_write}")
        database.execute("BEGIN IMMEDIATE" if may_write else "BEGIN")
        try:
            yield database
        except BaseException:
            database.rollback()
            raise
        database.commit()


def wipe_log(path: Path, *, patience_s: float) -> None:
    """Bring what the log holds into the file, where removed texts are zeros, and empty the log.

    Where somebody reads right now, that happens when the last of them is done.

    Raises:
        StorageError: The disk cannot be written.
    """
    with translated(path), closing(_connected(path, patience_s)) as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """SQLite's errors in our words.

    Raises:
        DataFileError: The file is damaged, or no database.
        StorageError: Anything else.
    """
    try:
        yield
    except sqlite3.Error as error:
        raise _in_our_words(path, error) from error


def _connected(path: Path, patience_s: float) -> sqlite3.Connection:
    _require_ours(path)
    _keep_private(path)
    uri = f"{path.absolute().as_uri()}?mode=rw"
    database = sqlite3.connect(uri, uri=True, timeout=patience_s, isolation_level=None)
    database.execute("PRAGMA synchronous = FULL")  # what was accepted survives a power cut
    database.execute("PRAGMA secure_delete = ON")  # what was removed is overwritten
    return database


def _require_ours(path: Path) -> None:
    """By the file's header, before SQLite or we change anything about it."""
    with _readable(path), path.open("rb") as file:
        header = file.read(_HEADER_BYTES)
    if not header.startswith(_MAGIC):
        raise DataFileError(
            f'{path} is no data store (or a damaged one); if it is JSONL, set data = "private.db"'
            f" and run: fedpt device data add {path} --config …"
        )
    version, application = (int.from_bytes(header[at : at + 4], "big") for at in _NUMBERS_AT)
    if application != _APPLICATION:
        raise DataFileError(
            f"{path} is no data store but another program's file: name another file in data"
        )
    if version != _VERSION:
        raise DataFileError(
            f"{path} is a data store of version {version}, and this fedpt reads version"
            f" {_VERSION}: use the fedpt that wrote it"
        )


def _keep_private(path: Path) -> None:
    """For its owner alone; SQLite gives the files beside it the same rights."""
    with _readable(path):
        if path.stat().st_mode & 0o077:
            path.chmod(0o600)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"cannot open {path}: {error.strerror}; run as its owner: sudo -u USER fedpt …"
        ) from error


def _give_to_owner_of(folder: Path, path: Path) -> None:
    """What root makes in the device's folder must be the device's."""
    if os.geteuid() == 0:
        there = folder.stat()
        os.chown(path, there.st_uid, there.st_gid)


def _in_our_words(path: Path, error: sqlite3.Error) -> FedptError:
    match getattr(error, "sqlite_errorcode", 0) & 0xFF:  # the rest tells finer differences
        case sqlite3.SQLITE_FULL:
            return StorageError(f"cannot write {path}: the disk is full; free some space")
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return StorageError(f"{path} is kept locked by another process; try again later")
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_PERM | sqlite3.SQLITE_CANTOPEN:
            return StorageError(
                f"cannot write {path}: {error}; run as its owner: sudo -u USER fedpt …"
            )
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
            return DataFileError(
                f"{path} is damaged ({error}): put a copy of it back, or move it away and add the"
                " examples again: fedpt device data add"
            )
    return StorageError(f"cannot use {path}: {error}")
