"""Disk images as streams of bytes, whatever they are compressed with.

The kind is told by the first bytes, not by the name. What the bytes mean is not known here.
"""

import gzip
import lzma
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, Protocol

from fedpt.errors import ImageError

if TYPE_CHECKING:
    from zstandard import ZstdDecompressionObj

_MAGIC_BYTES: Final = 512

_COMPRESSED: Final = (
    (b"\xfd7zXZ\x00", "xz"),
    (b"\x28\xb5\x2f\xfd", "zst"),
    (b"\x1f\x8b", "gz"),
    (b"PK\x03\x04", "zip"),
)

_NOT_FOR_CARDS: Final = (
    (b"QFI\xfb", "a qcow2 image; convert it with: qemu-img convert -O raw"),
    (b"KDMV", "a VMDK image; convert it with: qemu-img convert -O raw"),
    (b"BZh", "compressed with bzip2; unpack it with: bunzip2"),
    (b"7z\xbc\xaf", "a 7z archive; unpack it first"),
    (b"PK\x05\x06", "an empty zip"),
)

_EXPECTED: Final = "expected a disk image: .img, .img.xz, .img.zst, .img.gz or .img.zip"

_ZSTD_FEED_BYTES: Final = 1024
"""So little at a time that even zeros, packed 1:30000, unpack to a few dozen megabytes at most."""


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes:
        """Up to `size` bytes; none at the end."""


@dataclass(frozen=True, slots=True)
class ImageStream:
    """An image that is being read."""

    size_bytes: int | None
    """Of the image itself, if its container says so."""
    file_bytes: int
    """Of the file it comes from."""
    _path: Path
    _file: BinaryIO
    _unpacked: _Readable

    @property
    def consumed_bytes(self) -> int:
        """How much of the file was read so far: the measure of progress."""
        return min(self._file.tell(), self.file_bytes)

    def read(self, size: int) -> bytes:
        """Exactly `size` bytes; fewer only at the end of the image.

        Raises:
            ImageError: The file is cut off or damaged.
        """
        with _damage_told(self._path):
            pieces = []
            while size and (piece := self._unpacked.read(size)):
                pieces.append(piece)
                size -= len(piece)
            return b"".join(pieces)


@contextmanager
def open_image(path: Path) -> Iterator[ImageStream]:
    """Open an image for reading, decompressed on the way.

    Raises:
        ImageError: It cannot be read, or is no disk image.
    """
    try:
        file = path.open("rb")
    except OSError as error:
        raise ImageError(f"cannot read {path}: {error.strerror}") from error
    with file:
        kind = image_kind(path, file.read(_MAGIC_BYTES))
        file.seek(0)
        with _damage_told(path):
            unpacked, size_bytes = _unpack(kind, path, file)
        yield ImageStream(
            size_bytes=size_bytes,
            file_bytes=path.stat().st_size,
            _path=path,
            _file=file,
            _unpacked=unpacked,
        )


def image_kind(path: Path, magic: bytes) -> str:
    """What an image is compressed with: "xz", "zst", "gz", "zip", or "img" for not at all.

    Raises:
        ImageError: It is none of these; says what it is if that is known.
    """
    for start, kind in _COMPRESSED:
        if magic.startswith(start):
            return kind
    for start, what in _NOT_FOR_CARDS:
        if magic.startswith(start):
            raise ImageError(f"{path} is {what}")
    if magic[510:512] != b"\x55\xaa":
        raise ImageError(f"{path} is no disk image; {_EXPECTED}")
    return "img"


def _unpack(kind: str, path: Path, file: BinaryIO) -> tuple[_Readable, int | None]:
    """(the decompressed stream, its size if known)."""
    match kind:
        case "xz":
            return lzma.LZMAFile(file), None
        case "gz":
            return gzip.GzipFile(fileobj=file), None
        case "zst":
            return _ZstdReader(file), None
        case "zip":
            return _open_zipped(path, file)
        case _:
            return file, path.stat().st_size


def _open_zipped(path: Path, file: BinaryIO) -> tuple[_Readable, int]:
    """The one image in a zip."""
    archive = zipfile.ZipFile(file)
    images = [
        entry
        for entry in archive.infolist()
        if entry.filename.lower().endswith(".img") and not entry.filename.startswith("__MACOSX")
    ]
    if len(images) != 1:
        raise ImageError(f"{path} holds {len(images)} files named *.img; it must be exactly one")
    return archive.open(images[0]), images[0].file_size


@contextmanager
def _damage_told(path: Path) -> Iterator[None]:
    """Every way in which a decompressor says that its input is broken, as one error."""
    from zstandard import ZstdError

    try:
        yield
    except (
        EOFError,
        OSError,  # also gzip.BadGzipFile
        NotImplementedError,  # a zip method that is not supported
        RuntimeError,  # an encrypted zip
        ZstdError,
        lzma.LZMAError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise ImageError(f"{path} is cut off or damaged ({error}); download it again") from error


class _ZstdReader:
    """Zstandard frames as one stream. Unlike the library's own reader it notices a cut-off file."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._frame: ZstdDecompressionObj | None = None
        self._packed = b""
        self._ready = memoryview(b"")

    def read(self, size: int, /) -> bytes:
        while not self._ready:
            self._packed = self._packed or self._file.read(_ZSTD_FEED_BYTES)
            if not self._packed:
                if self._frame:
                    raise EOFError("the file ends in the middle")
                return b""
            self._ready = memoryview(self._feed())
        piece, self._ready = bytes(self._ready[:size]), self._ready[size:]
        return piece

    def _feed(self) -> bytes:
        """Give the decompressor what was read; start a new frame where one ended."""
        if self._frame is None:
            from zstandard import ZstdDecompressor

            self._frame = ZstdDecompressor().decompressobj()
        frame, packed = self._frame, self._packed
        unpacked = frame.decompress(packed)
        self._packed = frame.unused_data if frame.eof else b""
        if frame.eof:
            self._frame = None
        return unpacked
