"""Writing files so that nobody ever reads a half-written one, and hashing them.

The way is always the same: write aside in the same folder, fsync, rename, fsync the folder.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fedpt.errors import StorageError
from fedpt.ids import Sha256


@contextmanager
def written_aside(target: Path, *, mode: int = 0o644) -> Iterator[Path]:
    """Give a temporary path beside `target`; move it there when the block ends well.

    Until then only its owner can read it; then `mode` says who can.

    Raises:
        StorageError: The disk is full or the folder cannot be written. `target` is then as before.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        os.close(handle)
    except OSError as error:
        raise _storage_error(target, error) from error
    aside = Path(name)
    try:
        yield aside
        fsync(aside)
        aside.chmod(mode)
        aside.replace(target)
        fsync(target.parent)
    except OSError as error:
        raise _storage_error(target, error) from error
    finally:
        aside.unlink(missing_ok=True)


@contextmanager
def folder_written_aside(target: Path) -> Iterator[Path]:
    """Like `written_aside`, for a folder. An older folder of that name is replaced as a whole.

    Raises:
        StorageError: The disk is full or the parent cannot be written. `target` is then as before.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
    except OSError as error:
        raise _storage_error(target, error) from error
    try:
        yield aside
        for path in aside.rglob("*"):
            if path.is_file():
                fsync(path)
        aside.chmod(0o755)
        _swap_folder(aside, target)
        fsync(target.parent)
    except OSError as error:
        raise _storage_error(target, error) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def write_bytes(target: Path, content: bytes, *, mode: int = 0o644) -> None:
    """Put `content` into `target`, whole or not at all, readable for whom `mode` says.

    Raises:
        StorageError: See `written_aside`.
    """
    with written_aside(target, mode=mode) as aside:
        aside.write_bytes(content)


def write_json(target: Path, content: Any) -> None:  # Any: whatever json can write
    """Put `content` as indented JSON into `target`, whole or not at all.

    Raises:
        StorageError: See `written_aside`.
    """
    write_bytes(target, (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode())


def fsync(path: Path) -> None:
    """Wait until a file, or a folder's list of names, is on the disk.

    Raises:
        OSError: It cannot be opened or written.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256_bytes(content: bytes) -> Sha256:
    """The sha256 of `content`."""
    return Sha256(hashlib.sha256(content).hexdigest())


def sha256_file(path: Path) -> Sha256:
    """The sha256 of a file's content, however large it is.

    Raises:
        OSError: It cannot be read.
    """
    with path.open("rb") as file:
        return Sha256(hashlib.file_digest(file, "sha256").hexdigest())


def _swap_folder(aside: Path, target: Path) -> None:
    """Rename `aside` to `target`; a folder cannot be renamed over one that has files in it."""
    if not target.exists():
        aside.replace(target)
        return
    old = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}.old."))
    try:
        target.replace(old)
        try:
            aside.replace(target)
        except OSError:
            old.replace(target)
            raise
    finally:
        shutil.rmtree(old, ignore_errors=True)


def _storage_error(target: Path, error: OSError) -> StorageError:
    reason = error.strerror or str(error)
    return StorageError(
        f"cannot write {target}: {reason}; free some space or choose another folder"
    )
