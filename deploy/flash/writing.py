"""Writing a finished image to a disk and reading it back.

The first MiB, with the partition table in it, is wiped first and written last: a card whose
writing was interrupted starts nothing, and looks as empty as it must be treated.
"""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from deploy.flash.block_devices import BlockDevice
from fedpt.errors import BlockDeviceError
from fedpt.progress import OnProgress, Progress

_CHUNK_BYTES: Final = 4 * 1024 * 1024
_FIRST_BYTES: Final = 1024 * 1024


def require_permission(device: BlockDevice) -> None:
    """Refuse early what opening would refuse late.

    Raises:
        BlockDeviceError: This user may not write the disk.
    """
    if not os.access(device.path, os.R_OK | os.W_OK):
        raise BlockDeviceError(f"no permission to write {device.path}; run the command with sudo")


def write_to_disk(image: Path, device: BlockDevice, *, on_progress: OnProgress) -> None:
    """Overwrite a disk with an image; whether that is allowed was decided before.

    Raises:
        BlockDeviceError: The disk is in use, is another one by now, or cannot be written.
    """
    size = image.stat().st_size
    with image.open("rb") as source, _opened(device, os.O_WRONLY) as target:
        first = source.read(_FIRST_BYTES)
        os.pwrite(target, bytes(len(first)), 0)
        os.fsync(target)
        at = len(first)
        while chunk := source.read(_CHUNK_BYTES):
            _write_all(target, chunk, at)
            at += len(chunk)
            on_progress(Progress(at, size))
        os.fsync(target)
        _write_all(target, first, 0)
        os.fsync(target)
        os.posix_fadvise(target, 0, 0, os.POSIX_FADV_DONTNEED)  # reading must come from the card


def require_written(image: Path, device: BlockDevice, *, on_progress: OnProgress) -> None:
    """Read a disk back and compare it with the image.

    Raises:
        BlockDeviceError: It differs, or cannot be read.
    """
    size, at = image.stat().st_size, 0
    with image.open("rb") as source, _opened(device, os.O_RDONLY) as target:
        while chunk := source.read(_CHUNK_BYTES):
            if _read_all(target, len(chunk), at) != chunk:
                raise BlockDeviceError(
                    f"{device.path} does not hold what was written to it (from byte {at} on):"
                    " the card is worn out or no genuine one; take another"
                )
            at += len(chunk)
            on_progress(Progress(at, size))


@contextmanager
def _opened(device: BlockDevice, mode: int) -> Iterator[int]:
    """The disk, for us alone, and the very one that was looked at."""
    try:
        descriptor = os.open(device.path, mode | os.O_EXCL | os.O_CLOEXEC)
    except OSError as error:
        raise BlockDeviceError(_why_not_opened(device.path, error)) from error
    try:
        _require_same(descriptor, device)
        yield descriptor
    except OSError as error:
        raise BlockDeviceError(
            f"{device.path}: {error.strerror}; what is on the card now is of no use, write it again"
        ) from error
    finally:
        os.close(descriptor)


def _require_same(descriptor: int, device: BlockDevice) -> None:
    status = os.fstat(descriptor)
    number = f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}"
    if not stat.S_ISBLK(status.st_mode) or number != device.device_number:
        raise BlockDeviceError(f"{device.path} is another device than a moment ago; start again")


def _why_not_opened(path: Path, error: OSError) -> str:
    match error:
        case PermissionError():
            return f"no permission to write {path}; run the command with sudo"
        case _ if error.errno == errno.EBUSY:
            return f"{path} is in use; unmount what is on it"
        case _:
            return f"cannot open {path}: {error.strerror}"


def _write_all(descriptor: int, content: bytes, at: int) -> None:
    view = memoryview(content)
    while view:
        written = os.pwrite(descriptor, view, at)
        at += written
        view = view[written:]


def _read_all(descriptor: int, size: int, at: int) -> bytes:
    pieces = []
    while size and (piece := os.pread(descriptor, size, at)):
        pieces.append(piece)
        at += len(piece)
        size -= len(piece)
    return b"".join(pieces)
