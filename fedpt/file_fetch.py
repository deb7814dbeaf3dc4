"""A large blob on its way into a file: written in order, never as a whole in memory.

For what does not fit into a board's memory, such as models; `fedpt.blobs.Fetch` is for the rest.
The file grows from its beginning, so how far it got is its length, also after a restart. Chunks
that come early wait in memory, a window of them at most.
"""

import os
from pathlib import Path
from typing import BinaryIO, Final

from fedpt.blobs import RETRY_S, WINDOW
from fedpt.errors import BlobError, StorageError
from fedpt.files import sha256_file
from fedpt.wire.messages import BlobRef

_SYNC_EVERY_CHUNKS: Final = 64
"""How much a power cut may cost: 8 MB."""


class FileFetch:
    """Chunks of one blob, on their way into `path` with `.part` added."""

    def __init__(self, ref: BlobRef, path: Path) -> None:
        """Go on where an earlier fetch into this file stopped.

        Raises:
            StorageError: The file cannot be written.
        """
        self.ref = ref
        self._path = path
        self._part = part_path(path)
        self._early: dict[int, bytes] = {}
        self._asked: set[int] = set()
        self._last_event = float("-inf")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with self._part.open("ab") as file:
                self._next = min(file.tell(), ref.size_bytes) // ref.chunk_bytes
                self._next += file.tell() == ref.size_bytes and ref.size_bytes % ref.chunk_bytes > 0
                file.truncate(self._offset(self._next))
        except OSError as error:
            raise _cannot_write(self._part, error) from error

    @property
    def is_complete(self) -> bool:
        """Whether all chunks are in the file; `finish` then checks it."""
        return self._next == self.ref.chunk_count

    def next_request(self, now: float) -> list[int]:
        """The chunks to ask for at this moment; empty while those asked for are still coming.

        Args:
            now: Seconds of a monotonic clock.
        """
        if self._asked and now - self._last_event < RETRY_S:
            return []
        self._last_event = now
        window = range(self._next, min(self._next + WINDOW, self.ref.chunk_count))
        request = [index for index in window if index not in self._early]
        self._asked = set(request)
        return request

    def accept(self, index: int, content: bytes, *, now: float) -> None:
        """Write a chunk, or keep it until those before it are here; others change nothing.

        Raises:
            BlobError: It has another length than this chunk of the blob.
            StorageError: It could not be written.
        """
        if index not in range(self._next, min(self._next + WINDOW, self.ref.chunk_count)):
            return  # here already, or nothing that we asked for
        expected = self._offset(index + 1) - self._offset(index)
        if len(content) != expected:
            raise BlobError(f"chunk {index} is {len(content)} bytes, not {expected}")
        self._early[index] = content
        self._asked.discard(index)
        self._last_event = now
        self._write_what_is_due()

    def finish(self) -> None:
        """Check the whole and give it its name.

        Raises:
            BlobError: It is not what its hash says; the fetch begins anew.
            StorageError: It could not be written.
        """
        try:
            if sha256_file(self._part) != self.ref.sha256:
                self._start_over()
                raise BlobError(f"what came is not {self.ref.sha256}; fetching it again")
            with self._part.open("ab") as file:
                os.fsync(file.fileno())
            self._part.replace(self._path)
        except OSError as error:
            raise _cannot_write(self._path, error) from error

    def _write_what_is_due(self) -> None:
        try:
            with self._part.open("r+b") as file:
                file.seek(self._offset(self._next))
                while self._next in self._early:
                    file.write(self._early[self._next])
                    del self._early[self._next]
                    self._next += 1
                    if self._next % _SYNC_EVERY_CHUNKS == 0:
                        _sync(file)
        except OSError as error:
            raise _cannot_write(self._part, error) from error

    def _start_over(self) -> None:
        self._part.unlink(missing_ok=True)
        self._part.touch()
        self._next, self._early, self._asked = 0, {}, set()

    def _offset(self, index: int) -> int:
        return min(index * self.ref.chunk_bytes, self.ref.size_bytes)


def part_path(path: Path) -> Path:
    """Where a file is while it is not whole."""
    return path.with_name(f"{path.name}.part")


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _cannot_write(path: Path, error: OSError) -> StorageError:
    return StorageError(f"cannot write {path}: {error.strerror or error}; free some space")
