import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from edge_runtime.data.database import create, is_database, opened, translated
from edge_runtime.data.store import Counts, DataStore
from fedpt.errors import DataFileError, FedptError, StorageError
from fedpt.examples import Example

ONE = Example("a", "b")
NOBODY = 65534
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
MANY = [Example(f"question {number}", "answer") for number in range(50)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "private.db"
    DataStore(path).add(MANY)
    return path


def modes(folder: Path) -> dict[str, int]:
    return {one.name: stat.S_IMODE(one.stat().st_mode) for one in folder.iterdir()}


def test_only_the_owner_can_read_the_store_and_what_lies_beside_it(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        path = tmp_path / "private.db"
        create(path)
        path.chmod(0o644)  # as somebody copied it
        with opened(path, patience_s=1, may_write=True) as database:
            database.execute("UPDATE examples SET place = NULL")
            assert modes(tmp_path) == dict.fromkeys(
                ["private.db", "private.db-wal", "private.db-shm"], 0o600
            )
    finally:
        os.umask(before)
    assert modes(tmp_path) == {"private.db": 0o600}


def test_a_store_that_is_there_is_not_made_anew(path: Path) -> None:
    create(path)
    assert DataStore(path).counts() == Counts(len(MANY))


def test_a_block_that_fails_changes_nothing(path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        _begin_and_fail(path)
    assert DataStore(path).counts() == Counts(len(MANY))


def _begin_and_fail(path: Path) -> None:
    with opened(path, patience_s=1, may_write=True) as database:
        database.execute("DELETE FROM examples")
        raise ZeroDivisionError


def test_what_is_read_is_one_state_of_the_store(path: Path) -> None:
    with opened(path, patience_s=1, may_write=False) as database:
        before = database.execute("SELECT COUNT(*) FROM examples").fetchone()
        DataStore(path).add([ONE])
        assert database.execute("SELECT COUNT(*) FROM examples").fetchone() == before


def test_who_only_reads_cannot_write(path: Path) -> None:
    with (
        pytest.raises(StorageError, match="cannot write"),
        opened(path, patience_s=1, may_write=False) as database,
    ):
        database.execute("DELETE FROM examples")


@contextmanager
def somebody_else() -> Iterator[None]:
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@needs_root
def test_whoever_may_not_look_or_write_is_told_whose_it_is(path: Path) -> None:
    hidden = path.parent
    hidden.chmod(0o700)
    store = DataStore(path)
    with somebody_else(), pytest.raises(StorageError, match=r"cannot open .*run as its owner"):
        store.counts()
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        read_only = Path(folder) / "private.db"
        shutil.copyfile(path, read_only)
        read_only.chmod(0o400)
        os.chown(read_only, NOBODY, NOBODY)
        store = DataStore(read_only)
        with somebody_else(), pytest.raises(StorageError, match=r"cannot write .*its owner"):
            store.add([ONE])


@needs_root
def test_what_root_makes_belongs_to_the_folders_owner(tmp_path: Path) -> None:
    os.chown(tmp_path, 12345, 12345)
    create(tmp_path / "private.db")
    made = (tmp_path / "private.db").stat()
    assert (made.st_uid, made.st_gid) == (12345, 12345)


def test_who_reads_does_not_wait_for_who_writes_and_who_writes_says_that_it_waited(
    path: Path,
) -> None:
    hasty = DataStore(path, patience_s=0.05)
    with opened(path, patience_s=1, may_write=True) as database:
        database.execute("DELETE FROM examples")
        assert hasty.counts() == Counts(len(MANY))
        with pytest.raises(StorageError, match=r"private\.db is kept locked by another process"):
            hasty.add([ONE])


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:5000])


def _scribble(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[4096:] = os.urandom(len(content) - 4096)
    path.write_bytes(content)


def _text(path: Path) -> None:
    path.write_text('{"instruction": "a", "response": "b"}\n')


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _foreign(path: Path) -> None:
    path.unlink()
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE cats (name TEXT)")


def _newer(path: Path) -> None:
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA user_version = 2")
        database.execute("PRAGMA wal_checkpoint")


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (_cut, "is damaged"),
        (_scribble, "is damaged"),
        (_text, r"fedpt device data add .*private\.db --config"),
        (_empty, "is no data store"),
        (_foreign, "another program's file"),
        (_newer, "version 2, and this fedpt reads version 1"),
    ],
)
def test_a_file_that_cannot_be_used_is_told_in_one_line_and_left_alone(
    path: Path, damage: object, complaint: str
) -> None:
    assert callable(damage)
    damage(path)
    before = path.read_bytes()
    for call in (DataStore(path).require_sound, lambda: DataStore(path).add([ONE])):
        with pytest.raises(DataFileError, match=complaint) as raised:
            call()
        assert "\n" not in str(raised.value)
        assert str(path) in str(raised.value)
    assert path.read_bytes() == before


def test_a_folder_or_a_missing_file_cannot_be_opened(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none.db"):
        with (
            pytest.raises(StorageError, match="cannot open"),
            opened(path, patience_s=1, may_write=False),
        ):
            pass
        assert not is_database(path)


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"cannot make .*another folder"):
        create(tmp_path / "file" / "private.db")


def _fill(path: Path) -> None:
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA max_page_count = 1")
        database.execute("CREATE TABLE more AS SELECT randomblob(1000000)")


def _write_read_only(path: Path) -> None:
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as database:
        database.execute("DELETE FROM examples")


@pytest.mark.parametrize(
    ("provoke", "complaint"),
    [(_fill, "the disk is full; free some space"), (_write_read_only, "run as its owner")],
)
def test_sqlites_errors_are_told_in_our_words(path: Path, provoke: object, complaint: str) -> None:
    assert callable(provoke)
    with pytest.raises(FedptError, match=complaint), translated(path):
        provoke(path)
    assert DataStore(path).counts() == Counts(len(MANY))


ADDS = """\
import sys
from pathlib import Path
from edge_runtime.data.store import DataStore
from fedpt.examples import Example
store = DataStore(Path(sys.argv[1]))
for number in range(int(sys.argv[3])):
    store.add([Example(f"{sys.argv[2]} {number} {half}", "answer") for half in "ab"])
    print(number, flush=True)
"""


def _adding(path: Path, name: str, count: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", ADDS, str(path), name, str(count)]
    return subprocess.Popen(command, stdout=subprocess.PIPE)


@pytest.mark.slow
def test_what_many_processes_add_at_once_is_all_kept(tmp_path: Path) -> None:
    path = tmp_path / "new" / "private.db"
    processes = [_adding(path, name, 20) for name in ("one", "two", "three")]
    for process in processes:
        process.communicate()
        assert process.returncode == 0
    assert DataStore(path).counts() == Counts(3 * 20 * 2)


@pytest.mark.slow
@pytest.mark.parametrize("after", [0, 1, 3, 8, 21])
def test_a_process_killed_at_any_moment_loses_nothing_that_was_accepted(
    path: Path, after: int
) -> None:
    with _adding(path, "killed", 10_000) as process:
        assert process.stdout is not None
        for _ in range(after + 1):
            accepted = int(process.stdout.readline())
        process.kill()
    store = DataStore(path)
    store.require_sound()
    added = store.counts().usable - len(MANY)
    assert added >= 2 * (accepted + 1)
    assert added % 2 == 0, "half a transaction was kept"
