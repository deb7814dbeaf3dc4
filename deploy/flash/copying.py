"""Copying an image in one pass: decompressed, sparse, and hashed region by region.

Regions are what lies between the starts and ends of partitions. Their hashes show later that
nothing but the boot partition was changed.
"""

import hashlib
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from deploy.flash.images import ImageStream
from deploy.flash.partitions import HEAD_BYTES, Partition, read_partitions, require_sound
from fedpt.errors import ImageError
from fedpt.progress import OnProgress, Progress

_CHUNK_BYTES: Final = 1024 * 1024
_HOLE_BYTES: Final = 64 * 1024
_HOLE: Final = bytes(_HOLE_BYTES)


@dataclass(frozen=True, slots=True)
class Region:
    """A run of bytes of an image, and their sha256."""

    start: int
    end: int
    sha256: str


class RegionHashes:
    """Hashes bytes that come in order, cut at given offsets."""

    def __init__(self, cuts: Iterable[int]) -> None:
        self._cuts = sorted({cut for cut in cuts if cut > 0})
        self._regions: list[Region] = []
        self._start = self._at = 0
        self._digest = hashlib.sha256()

    def update(self, chunk: bytes) -> None:
        """Take the bytes that come next."""
        rest = memoryview(chunk)
        while rest:
            index = bisect_right(self._cuts, self._at)
            room = self._cuts[index] - self._at if index < len(self._cuts) else len(rest)
            self._digest.update(rest[:room])
            self._at += len(rest[:room])
            rest = rest[room:]
            if index < len(self._cuts) and self._at == self._cuts[index]:
                self._close()

    def finish(self) -> tuple[Region, ...]:
        """All regions, in order."""
        if self._at > self._start:
            self._close()
        return tuple(self._regions)

    def _close(self) -> None:
        self._regions.append(Region(self._start, self._at, self._digest.hexdigest()))
        self._start, self._digest = self._at, hashlib.sha256()


@dataclass(frozen=True, slots=True)
class CopiedImage:
    """An image that was copied to a file."""

    path: Path
    size_bytes: int
    partitions: tuple[Partition, ...]
    regions: tuple[Region, ...]


def copy_image(stream: ImageStream, target: Path, *, on_progress: OnProgress) -> CopiedImage:
    """Copy an image to `target`; runs of zeros become holes.

    Raises:
        ImageError: The image is cut off or damaged, or its partition table is of no use.
        OSError: `target` cannot be written.
    """
    head = stream.read(HEAD_BYTES)
    partitions = read_partitions(head)
    regions = RegionHashes(_cuts(partitions))
    size = 0
    with target.open("r+b") as file:
        chunk = head
        while chunk:
            regions.update(chunk)
            _write_sparse(file, chunk)
            size += len(chunk)
            on_progress(Progress(stream.consumed_bytes, stream.file_bytes))
            chunk = stream.read(_CHUNK_BYTES)
        file.truncate(size)
    require_sound(partitions, image_bytes=size)
    return CopiedImage(target, size, partitions, regions.finish())


def require_untouched(image: CopiedImage, patched: Partition, *, on_progress: OnProgress) -> str:
    """Make sure that a copied image differs from its origin in one partition only.

    Returns:
        The sha256 of the whole image as it is now.

    Raises:
        ImageError: Another byte was changed, or the file has another length.
    """
    regions, whole, done = RegionHashes(_cuts(image.partitions)), hashlib.sha256(), 0
    with image.path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            regions.update(chunk)
            whole.update(chunk)
            done += len(chunk)
            on_progress(Progress(done, image.size_bytes))
    if _outside(regions.finish(), patched) != _outside(image.regions, patched):
        raise ImageError("bytes outside of the boot partition were changed; nothing was kept")
    return whole.hexdigest()


def _cuts(partitions: tuple[Partition, ...]) -> set[int]:
    """Where regions begin and end: only partitions that may be written need their own."""
    writable = [partition for partition in partitions if partition.may_be_fat]
    return {edge for partition in writable for edge in (partition.start, partition.end)}


def _outside(regions: tuple[Region, ...], patched: Partition) -> list[Region]:
    return [
        region for region in regions if region.end <= patched.start or region.start >= patched.end
    ]


def _write_sparse(file: BinaryIO, chunk: bytes) -> None:
    view = memoryview(chunk)
    for start in range(0, len(chunk), _HOLE_BYTES):
        block = view[start : start + _HOLE_BYTES]
        if block == _HOLE[: len(block)]:
            file.seek(len(block), 1)
        else:
            file.write(block)
