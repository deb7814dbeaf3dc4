"""Chunks of announced blobs for the devices that want them, each published once for all."""

from collections.abc import Iterator
from typing import Final, Protocol

from fedpt.wire.messages import BlobRef, ChunkRequest

_AGAIN_S: Final = 1.0
"""The broker fans a chunk out to all devices that want it at that time. One that missed it asks
again after longer than this (`fedpt.blobs`)."""


_MOST_REMEMBERED: Final = 4096


class BlobSource(Protocol):
    """Where blobs come from: a `fedpt.blobs.BlobStore`, or the releases' folder."""

    def ref(self, sha256: str) -> BlobRef:
        """How large a blob is.

        Raises:
            BlobError: It is not here.
        """

    def chunk(self, sha256: str, index: int) -> bytes:
        """One chunk of a blob.

        Raises:
            BlobError: It is not here.
        """


class Downloads:
    """Remembers what was sent a moment ago."""

    def __init__(self, source: BlobSource) -> None:
        self._source = source
        self._sent: dict[tuple[str, int], float] = {}

    def chunks(
        self, request: ChunkRequest, offered: str, now: float
    ) -> Iterator[tuple[int, bytes]]:
        """The chunks to publish now; of another blob than the one that is offered, none.

        Args:
            request: What a device asks for.
            offered: The blob that is on offer.
            now: Seconds of a monotonic clock.

        Raises:
            BlobError: The offered blob is gone.
        """
        if request.sha256 != offered:
            return
        self._forget_old(now)
        count = self._source.ref(offered).chunk_count
        for index in request.indices:
            sent = self._sent.get((offered, index), float("-inf"))
            if index < count and now - sent > _AGAIN_S:
                self._sent[offered, index] = now
                yield index, self._source.chunk(offered, index)

    def _forget_old(self, now: float) -> None:
        if len(self._sent) > _MOST_REMEMBERED:
            self._sent = {one: at for one, at in self._sent.items() if now - at <= _AGAIN_S}
