"""The federation's newest adapter, as a worker gets and keeps it.

From the coordinator's own store, where that is on this machine; else chunk by chunk over MQTT, as
devices do.
"""

import logging
import time
from collections.abc import Callable
from pathlib import Path

from converters.adapter_to_gguf import convert_adapter
from fedpt.adapters import MAX_ADAPTER_BYTES, adapter_from_bytes
from fedpt.blobs import BlobStore, Fetch, require_fetchable
from fedpt.gguf_file import GgufFile
from fedpt.wire.messages import BlobRef, ChunkRequest, RoundAnnouncement

_logger = logging.getLogger(__name__)


class AdapterOnHand:
    """Follows the announcements, and says when a new adapter is ready for use."""

    def __init__(
        self, base: GgufFile, coordinators: BlobStore, own: BlobStore, *, folder: Path
    ) -> None:
        """Have none yet.

        Args:
            base: The small model.
            coordinators: The coordinator's store, as far as it is on this machine.
            own: Where fetched ones are kept.
            folder: For converted ones.
        """
        self._base = base
        self._coordinators = coordinators
        self._own = own
        self._folder = folder
        self._wanted: BlobRef | None = None
        self._fetch: Fetch | None = None

    def hear(self, announcement: RoundAnnouncement) -> None:
        """A round was announced: its adapter is the one to have.

        Raises:
            BlobError: It is too large.
        """
        require_fetchable(announcement.adapter, max_bytes=MAX_ADAPTER_BYTES)
        self._wanted = announcement.adapter

    def step(self, ask: Callable[[ChunkRequest], None]) -> tuple[str, Path] | None:
        """Go on with it; a new adapter's id and GGUF, once it is here.

        Raises:
            FedptError: It is damaged or for another base; it is not tried again.
        """
        wanted = self._wanted
        if wanted is None:
            return None
        if wanted.sha256 in self._coordinators:
            return self._converted(wanted, self._coordinators)
        if wanted.sha256 in self._own:
            return self._converted(wanted, self._own)
        if self._fetch is None or self._fetch.ref.sha256 != wanted.sha256:
            self._fetch = Fetch(wanted, self._own)
        if self._fetch.is_complete:
            self._fetch.finish()
        elif indices := self._fetch.next_request(time.monotonic()):
            ask(ChunkRequest(sha256=wanted.sha256, indices=indices))
        return None

    def accept(self, sha256: str, index: int, content: bytes) -> None:
        """A chunk came.

        Raises:
            BlobError: There is no such chunk.
        """
        if self._fetch is not None and self._fetch.ref.sha256 == sha256:
            self._fetch.accept(index, content, now=time.monotonic())

    def _converted(self, wanted: BlobRef, store: BlobStore) -> tuple[str, Path]:
        self._wanted = self._fetch = None
        path = self._folder / f"{wanted.sha256}.gguf"
        if not path.is_file():
            convert_adapter(adapter_from_bytes(store.get(wanted.sha256)), self._base, path)
        for old in self._folder.glob("*.gguf"):
            if old != path:
                old.unlink(missing_ok=True)
        self._own.keep_only({wanted.sha256})
        return wanted.sha256, path
