"""How the announced adapter gets to the device daemon, and into its assistant."""

import logging
from pathlib import Path

from converters.adapter_to_gguf import convert_adapter
from edge_runtime.assistant import Assistant
from fedpt.adapters import MAX_ADAPTER_BYTES, adapter_from_bytes
from fedpt.blobs import BlobStore, Fetch, require_fetchable
from fedpt.drivers.llama import LlamaModel
from fedpt.drivers.mqtt import MqttLink, Publication
from fedpt.ids import DeviceId
from fedpt.wire.codec import encode
from fedpt.wire.messages import BlobRef, ChunkRequest
from fedpt.wire.topics import Topics

_logger = logging.getLogger(__name__)


class AdapterFetch:
    """At most one adapter at a time on its way from the coordinator."""

    def __init__(self, link: MqttLink, topics: Topics, device: DeviceId, store: BlobStore) -> None:
        self._link = link
        self._topics = topics
        self._want = topics.device(device, "want")
        self._store = store
        self._fetch: Fetch | None = None
        self._bytes_before = 0

    @property
    def bytes_since(self) -> int:
        """What we received over MQTT since the newest fetch began."""
        return self._link.bytes_received - self._bytes_before

    def step(self, ref: BlobRef, now: float) -> bool:
        """Ask for what is missing; whether all of it is in the store now.

        Raises:
            BlobError: It is too large, or damaged.
            StorageError: It cannot be kept.
        """
        require_fetchable(ref, max_bytes=MAX_ADAPTER_BYTES)
        if self._fetch is None or self._fetch.ref.sha256 != ref.sha256:
            if self._fetch is not None:
                self._link.unsubscribe(self._chunks_of(self._fetch.ref))
            self._fetch = Fetch(ref, self._store)
            self._bytes_before = self._link.bytes_received
            self._link.subscribe(self._chunks_of(ref))
        if self._fetch.is_complete:
            self._fetch.finish()
            self._link.unsubscribe(self._chunks_of(ref))
            self._fetch = None
            return True
        if indices := self._fetch.next_request(now):
            request = ChunkRequest(sha256=ref.sha256, indices=indices)
            self._link.publish(Publication(self._want, encode(request)))
        return False

    def keep_chunk(self, sha256: str, index: int, content: bytes, now: float) -> None:
        """A chunk has come; others' are ignored.

        Raises:
            FedptError: It does not fit, or cannot be kept.
        """
        if self._fetch is not None and sha256 == self._fetch.ref.sha256:
            self._fetch.accept(index, content, now=now)

    def _chunks_of(self, ref: BlobRef) -> str:
        return self._topics.coordinator_chunk(ref.sha256, "+")


class AdapterSwitch:
    """The adapters that were converted for this board's small model."""

    def __init__(self, folder: Path, model: LlamaModel, assistant: Assistant) -> None:
        self._folder = folder
        self._model = model
        self._assistant = assistant
        self._served: tuple[str, Path | None] = "", None
        """The federation's."""
        self._has_personal = False

    def serve(self, sha256: str, store: BlobStore) -> bool:
        """Convert, switch, then forget the adapters of before; False: an answer runs, ask again.

        Where a personal adapter answers it goes on to, and this one is kept for later.

        Raises:
            FedptError: It is damaged or for another base; the old one stays in use.
        """
        path = self._folder / f"{sha256}.gguf"
        if not path.is_file():
            convert_adapter(adapter_from_bytes(store.get(sha256)), self._model.file, path)
        if not self._has_personal and not self._assistant.switch(sha256, path):
            return False
        self._served = sha256, path
        for old in self._folder.glob("*.gguf"):
            if old != path:
                old.unlink(missing_ok=True)
        _logger.info("adapter is ready", extra={"adapter": sha256[:12]})
        return True

    def use_personal(self, adapter: str, path: Path) -> bool:
        """Answer with this board's own adapter; False: an answer runs, ask again.

        Raises:
            ArtifactError: It is damaged or for another base; the one before stays in use.
        """
        if not self._assistant.switch(adapter, path, is_personal=True):
            return False
        self._has_personal = True
        _logger.info("the personal adapter answers", extra={"adapter": adapter[:12]})
        return True

    def use_federation(self) -> bool:
        """Answer with the federation's adapter again; False: an answer runs, ask again."""
        if not self._assistant.switch(*self._served):
            return False
        self._has_personal = False
        return True
