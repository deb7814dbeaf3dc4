"""Chunks of the announced adapter for the devices that want them, each published once for all."""

from collections.abc import Iterator
from typing import Final

from fedpt.blobs import BlobStore
from fedpt.wire.messages import ChunkRequest

_AGAIN_S: Final = 1.0
"""The broker fans a chunk out to all devices that want it at that time. One that missed it asks
again after longer than this (`fedpt.blobs`)."""


class Downloads:
    """Remembers what was sent a moment ago."""

    def __init__(self, store: BlobStore) -> None:
        self._store = store
        self._sent: dict[int, float] = {}
        self._blob = ""

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
        if offered != self._blob:
            self._blob, self._sent = offered, {}
        count = self._store.ref(offered).chunk_count
        for index in request.indices:
            if index < count and now - self._sent.get(index, float("-inf")) > _AGAIN_S:
                self._sent[index] = now
                yield index, self._store.chunk(offered, index)
