"""Files appear whole or not at all, and every failure of the disk is a StorageError."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fedpt.errors import StorageError
from fedpt.files import (
    folder_written_aside,
    sha256_bytes,
    write_bytes,
    write_json,
    written_aside,
)


@contextmanager
def full_disk() -> Iterator[None]:
    """No file grows beyond 100 bytes: also root gets an OSError, as from a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def names(folder: Path) -> list[str]:
    """Everything in a folder, hidden files too."""
    return sorted(path.name for path in folder.iterdir())


def test_content_replaces_what_was_there(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "file"
    write_bytes(target, b"old")
    write_bytes(target, b"new")
    assert target.read_bytes() == b"new"
    assert names(target.parent) == ["file"]


def test_others_may_read_what_was_written(tmp_path: Path) -> None:
    write_bytes(tmp_path / "file", b"")
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o644


def test_json_is_written_as_people_read_it(tmp_path: Path) -> None:
    write_json(tmp_path / "file", {"Küche": 1})
    assert (tmp_path / "file").read_text(encoding="utf-8") == '{\n  "Küche": 1\n}\n'


@pytest.mark.parametrize("old", [b"old", None])
def test_a_failing_block_leaves_all_as_it_was(tmp_path: Path, old: bytes | None) -> None:
    target = tmp_path / "file"
    if old:
        target.write_bytes(old)
    with pytest.raises(KeyError), written_aside(target) as aside:  # noqa: PT012  # the block fails
        aside.write_bytes(b"half")
        raise KeyError
    assert names(tmp_path) == (["file"] if old else [])
    assert not old or target.read_bytes() == old


def test_nobody_sees_a_file_before_its_block_ends(tmp_path: Path) -> None:
    with written_aside(tmp_path / "file") as aside:
        aside.write_bytes(b"half")
        assert not (tmp_path / "file").exists()


def test_a_full_disk_is_a_storage_error_and_changes_nothing(tmp_path: Path) -> None:
    write_bytes(tmp_path / "file", b"old")
    with full_disk(), pytest.raises(StorageError, match=r"cannot write .*file: .*; free some"):
        write_bytes(tmp_path / "file", bytes(101))
    assert (tmp_path / "file").read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


def test_a_parent_that_is_a_file_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="cannot write"):
        write_bytes(tmp_path / "file" / "below", b"")
    with pytest.raises(StorageError), folder_written_aside(tmp_path / "file" / "below"):
        pytest.fail("there is no such place")


def test_a_folder_is_replaced_as_a_whole(tmp_path: Path) -> None:
    for name in ("old", "new"):
        with folder_written_aside(tmp_path / "folder") as aside:
            (aside / name).touch()
    assert names(tmp_path / "folder") == ["new"]
    assert names(tmp_path) == ["folder"]


def test_a_failing_block_leaves_the_old_folder(tmp_path: Path) -> None:
    with folder_written_aside(tmp_path / "folder") as aside:
        (aside / "old").touch()
    with pytest.raises(KeyError), folder_written_aside(tmp_path / "folder") as aside:  # noqa: PT012
        (aside / "new").touch()
        raise KeyError
    assert names(tmp_path / "folder") == ["old"]
    assert names(tmp_path) == ["folder"]


def test_a_full_disk_leaves_the_old_folder(tmp_path: Path) -> None:
    with folder_written_aside(tmp_path / "folder") as aside:
        (aside / "old").touch()
    with full_disk(), pytest.raises(StorageError), folder_written_aside(tmp_path / "folder") as new:
        (new / "big").write_bytes(bytes(101))
    assert names(tmp_path / "folder") == ["old"]
    assert names(tmp_path) == ["folder"]


def test_a_file_in_the_place_of_a_folder_stays(tmp_path: Path) -> None:
    write_bytes(tmp_path / "folder", b"a file")
    with pytest.raises(StorageError), folder_written_aside(tmp_path / "folder"):
        pass
    assert names(tmp_path) == ["folder"]
    assert (tmp_path / "folder").read_bytes() == b"a file"


def test_the_hash_is_that_of_sha256sum() -> None:
    assert sha256_bytes(b"abc").startswith("ba7816bf8f01cfea")
