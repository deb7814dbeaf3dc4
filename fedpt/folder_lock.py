"""One process at a time in a folder: a lock that ends with its process, however that ends.

The lock is the kernel's, on a file whose content, the holder's process id, is for people only.
"""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from fedpt.errors import StorageError

LOCK_NAME: Final = "lock"

_LONGEST_ID: Final = 20
_ATTEMPTS: Final = 5
_PAUSE_S: Final = 0.1
"""Whoever only looks holds the lock for an instant: that must not keep a daemon from starting."""


@contextmanager
def sole_use_of(folder: Path, *, user: str) -> Iterator[None]:
    """Hold `folder` for ourselves while the block runs.

    Args:
        folder: Made if it is not there.
        user: Who we are, for the message: `coordinator` or `device`.

    Raises:
        StorageError: Another process holds it, or its lock file cannot be written.
    """
    path = folder / LOCK_NAME
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)  # no child inherits it
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror}") from error
    try:
        _lock(descriptor, folder, user)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def holder_of(folder: Path) -> str | None:
    """The id of the process that holds `folder`, as it wrote it; None if nobody does.

    Raises:
        StorageError: The lock file cannot be read.
    """
    try:
        descriptor = os.open(folder / LOCK_NAME, os.O_RDONLY)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StorageError(f"cannot read {folder / LOCK_NAME}: {error.strerror}") from error
    try:
        # shared: two who only look do not take each other for a daemon
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _holder(descriptor)
    else:
        return None
    finally:
        os.close(descriptor)


def _lock(descriptor: int, folder: Path, user: str) -> None:
    for _ in range(_ATTEMPTS):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(_PAUSE_S)
        except OSError as error:
            raise StorageError(f"cannot lock {folder / LOCK_NAME}: {error.strerror}") from error
        else:
            return
    raise StorageError(
        f"another {user} (process {_holder(descriptor)}) uses {folder}:"
        " stop it, or give this one a state_dir of its own"
    )


def _holder(descriptor: int) -> str:
    text = os.pread(descriptor, _LONGEST_ID, 0).decode(errors="replace").strip()
    return text if text.isdigit() else "unknown"
