"""Blobs: bytes named by their sha256, kept in a folder, fetched in chunks in any order.

The receiver sets the pace (`Fetch` says which chunks to ask for next, and when again), so a slow
board is never flooded and a transfer goes on where it stopped, also after a restart. Who carries
the chunks is not known here.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from shutil import rmtree
from typing import Final

from fedpt.errors import BlobError
from fedpt.files import sha256_bytes, write_bytes
from fedpt.wire.messages import BlobRef

CHUNK_BYTES: Final = 128 * 1024
"""What the smallest brokers take in one packet (AWS IoT Core: 128 KB)."""

WINDOW: Final = 16
"""Chunks asked for at a time: 2 MB on their way, below a broker's usual in-flight limits."""

RETRY_S: Final = 3.0
"""Without a chunk for so long, those missing are asked for again: some brokers keep no sessions,
so a chunk published while we reconnect is gone."""


class BlobStore:
    """The blobs in a folder. One process writes to it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def path(self, sha256: str) -> Path:
        """Where the blob is, or will be."""
        return self._folder / sha256

    def __contains__(self, sha256: str) -> bool:
        return self.path(sha256).is_file()

    def put(self, content: bytes) -> BlobRef:
        """Keep `content`; safe to repeat.

        Raises:
            StorageError: It could not be written.
        """
        sha256 = sha256_bytes(content)
        if sha256 not in self:
            write_bytes(self.path(sha256), content)
        return BlobRef(sha256=sha256, size_bytes=len(content), chunk_bytes=CHUNK_BYTES)

    def ref(self, sha256: str) -> BlobRef:
        """How to tell others of a blob that is here.

        Raises:
            BlobError: It is not here.
        """
        if sha256 not in self:
            raise BlobError(f"no blob {sha256} in {self._folder}")
        size = self.path(sha256).stat().st_size
        return BlobRef(sha256=sha256, size_bytes=size, chunk_bytes=CHUNK_BYTES)

    def get(self, sha256: str) -> bytes:
        """A blob's bytes, checked against its name.

        Raises:
            BlobError: It is not here, or was damaged on disk (it is then deleted).
        """
        try:
            content = self.path(sha256).read_bytes()
        except OSError as error:
            raise BlobError(f"no blob {sha256} in {self._folder}: {error.strerror}") from error
        if sha256_bytes(content) != sha256:
            self.path(sha256).unlink(missing_ok=True)
            raise BlobError(f"blob {sha256} was damaged on disk")
        return content

    def chunk(self, sha256: str, index: int) -> bytes:
        """One chunk of a blob that is here; empty past its end.

        Raises:
            BlobError: It is not here.
        """
        start = index * CHUNK_BYTES
        try:
            with self.path(sha256).open("rb") as file:
                if start >= os.fstat(file.fileno()).st_size:  # no seek: it fails above 2**63
                    return b""
                file.seek(start)
                return file.read(CHUNK_BYTES)
        except OSError as error:
            raise BlobError(f"no blob {sha256} in {self._folder}: {error.strerror}") from error

    def keep_only(self, wanted: Iterable[str]) -> None:
        """Delete every other blob and what is left of abandoned fetches."""
        keep = set(wanted)
        for path in self._folder.glob("*"):
            if path.name.partition(".")[0] not in keep:
                rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)

    def parts(self, sha256: str) -> Path:
        """The folder in which a fetch collects chunks."""
        return self._folder / f"{sha256}.parts"


@dataclass(slots=True)
class Fetch:
    """A blob on its way to us. The chunks that came are files, so a restart loses none."""

    ref: BlobRef
    store: BlobStore
    _missing: set[int] = field(init=False)
    _asked: set[int] = field(init=False, default_factory=set)
    _last_event: float = field(init=False, default=float("-inf"))

    def __post_init__(self) -> None:
        here = {int(path.name) for path in self.store.parts(self.ref.sha256).glob("[0-9]*")}
        self._missing = set(range(self.ref.chunk_count)) - here

    @property
    def is_complete(self) -> bool:
        """Whether all chunks are here; `finish` then joins them."""
        return not self._missing

    def next_request(self, now: float) -> list[int]:
        """The chunks to ask for at this moment; empty while those asked for are still coming.

        Args:
            now: Seconds of a monotonic clock.
        """
        if self._asked and now - self._last_event < RETRY_S:
            return []
        self._last_event = now
        request = sorted(self._missing)[:WINDOW]
        self._asked = set(request)
        return request

    def accept(self, index: int, content: bytes, *, now: float) -> None:
        """Keep a chunk; repeated ones change nothing.

        Raises:
            BlobError: There is no such chunk, or it has another length.
            StorageError: It could not be written.
        """
        if index not in range(self.ref.chunk_count):
            raise BlobError(f"chunk {index} of a blob of {self.ref.chunk_count}")
        if len(content) != self._length(index):
            raise BlobError(f"chunk {index} is {len(content)} bytes, not {self._length(index)}")
        if index in self._missing:
            write_bytes(self.store.parts(self.ref.sha256) / str(index), content)
            self._missing.discard(index)
        self._asked.discard(index)
        self._last_event = now

    def finish(self) -> bytes:
        """Join the chunks, check the whole, and keep it in the store.

        Raises:
            BlobError: The whole is not what its name says, or a chunk is gone; all are dropped.
            StorageError: It could not be written.
        """
        parts = self.store.parts(self.ref.sha256)
        try:
            chunks = [(parts / str(index)).read_bytes() for index in range(self.ref.chunk_count)]
        except OSError as error:
            self._start_over()
            raise BlobError(f"a chunk of {self.ref.sha256} is gone: {error}") from error
        content = b"".join(chunks)
        if sha256_bytes(content) != self.ref.sha256:
            self._start_over()
            raise BlobError(f"the blob that came is not {self.ref.sha256}; fetching it again")
        self.store.put(content)
        rmtree(parts, ignore_errors=True)
        return content

    def _start_over(self) -> None:
        rmtree(self.store.parts(self.ref.sha256), ignore_errors=True)
        self._missing = set(range(self.ref.chunk_count))
        self._asked = set()

    def _length(self, index: int) -> int:
        return min(self.ref.chunk_bytes, self.ref.size_bytes - index * self.ref.chunk_bytes)


def require_fetchable(ref: BlobRef, *, max_bytes: int) -> None:
    """Refuse to fetch what is too large or cut into chunks that we would not send ourselves.

    Raises:
        BlobError: Says which.
    """
    if ref.size_bytes > max_bytes:
        raise BlobError(f"a blob of {ref.size_bytes} bytes; {max_bytes} is the most here")
    if ref.chunk_bytes != CHUNK_BYTES:
        raise BlobError(f"chunks of {ref.chunk_bytes} bytes; this protocol uses {CHUNK_BYTES}")
