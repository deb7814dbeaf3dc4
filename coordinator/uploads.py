"""Updates on their way from devices: which are wanted, which chunks to ask for, which are whole."""

from collections.abc import Callable

from fedpt.blobs import BlobStore, Fetch, require_fetchable
from fedpt.ids import DeviceId
from fedpt.wire.messages import ChunkRequest, UpdateOffer


class Uploads:
    """At most one upload a device."""

    def __init__(self, store: BlobStore) -> None:
        self._store = store
        self._running: dict[DeviceId, tuple[UpdateOffer, Fetch]] = {}

    def begin(self, device: DeviceId, offer: UpdateOffer, *, max_bytes: int) -> None:
        """Fetch this update; a repeated offer goes on with what is running.

        Raises:
            BlobError: It is too large.
        """
        require_fetchable(offer.update, max_bytes=max_bytes)
        running = self._running.get(device)
        if running is None or running[0].update != offer.update:
            self._running[device] = (offer, Fetch(offer.update, self._store))

    def keep_only(self, is_wanted: Callable[[DeviceId, UpdateOffer], bool]) -> None:
        """Forget the uploads that nobody wants any more: their round is over."""
        self._running = {
            device: (offer, fetch)
            for device, (offer, fetch) in self._running.items()
            if is_wanted(device, offer)
        }

    def accept(
        self, device: DeviceId, sha256: str, index: int, content: bytes, *, now: float
    ) -> None:
        """Keep a chunk, if it is one that we asked this device for.

        Raises:
            BlobError: It does not fit into its blob.
            StorageError: It could not be written.
        """
        running = self._running.get(device)
        if running is not None and running[0].update.sha256 == sha256:
            running[1].accept(index, content, now=now)

    def requests(self, now: float) -> list[tuple[DeviceId, ChunkRequest]]:
        """What to ask for at this moment."""
        return [
            (device, ChunkRequest(sha256=offer.update.sha256, indices=indices))
            for device, (offer, fetch) in self._running.items()
            if not fetch.is_complete and (indices := fetch.next_request(now))
        ]

    def complete(self) -> list[tuple[DeviceId, UpdateOffer]]:
        """Those of which every chunk is here."""
        return [
            (device, offer) for device, (offer, fetch) in self._running.items() if fetch.is_complete
        ]

    def finish(self, device: DeviceId) -> bytes:
        """Join an update's chunks and forget the upload.

        Raises:
            BlobError: The whole is not what its name says.
            StorageError: It could not be written.
        """
        _, fetch = self._running.pop(device)
        return fetch.finish()
