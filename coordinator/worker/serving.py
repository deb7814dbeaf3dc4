"""What a worker does with messages, whoever brings them: requests, rounds, chunks of the adapter.

All on one thread, which owns the models and calls `turn`; only `receive` is called from others.
What becomes of a request: `rows_desk` and `answers_desk`.
"""

import logging
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

from coordinator.settings import CoordinatorSettings
from coordinator.worker.adapter_on_hand import AdapterOnHand
from coordinator.worker.admission import Admission, Limits
from coordinator.worker.answers import AnswerThread
from coordinator.worker.answers_desk import AnswersDesk
from coordinator.worker.inbox import Inbox
from coordinator.worker.models import WorkerModels
from coordinator.worker.replies import Replies
from coordinator.worker.rows_desk import RowsDesk, RowSource
from coordinator.worker.sessions import Capacity, Sessions
from coordinator.worker.told_rows import FEW_TOLD
from fedpt.blobs import BlobStore
from fedpt.drivers.mqtt import Publication, Received
from fedpt.errors import FedptError, NotServedError, SessionLostError
from fedpt.ids import DeviceId
from fedpt.wire.codec import decode, decode_worker_request, encode
from fedpt.wire.messages import ChunkRequest, LogitRequest, Opening, RoundAnnouncement
from fedpt.wire.topics import Chunk, FromCoordinator, FromDevice, Topics, parse

_logger = logging.getLogger(__name__)

_TURN: Final = 64
"""Messages handled between two steps of the models: a flood holds nobody up."""

_ADAPTER_LOOK_S: Final = 1.0


class Serving:
    """One worker's models, and those who use them."""

    def __init__(
        self,
        name: str,
        settings: CoordinatorSettings,
        topics: Topics,
        *,
        publish: Callable[[Publication], None],
        folder: Path,
    ) -> None:
        """Load the models.

        Args:
            name: The worker's.
            settings: The coordinator's.
            topics: Of its federation.
            publish: From any thread; raises FedptError for what the broker does not take.
            folder: For the adapter.

        Raises:
            ModelFileError: The large model is missing or damaged.
        """
        self._name = name
        self._topics = topics
        self._publish = publish
        self._models = models = WorkerModels(settings)
        self._batcher = models.batcher
        self._inbox = Inbox(on_put=self._batcher.wake)
        self._admission = Admission(limits_of(settings))
        self._sessions = Sessions(
            capacity_of(settings, models.vocabulary_size), on_cut=self._slot_cut
        )
        self._replies = replies = Replies(name, topics, publish=publish)
        source = RowSource(self._batcher, models.vocabulary_size, models.large.is_approximate)
        self._rows = RowsDesk(source, self._sessions, self._admission, replies)
        self._answers = AnswersDesk(
            models, self._sessions, self._admission, replies, on_end=self._answer_ended
        )
        self._adapter = _adapter_on_hand(models, settings, folder)
        self._adapter_looked = 0.0

    @property
    def steers_answers(self) -> bool:
        """Whether rounds and chunks are wanted."""
        return self._adapter is not None

    def receive(self, message: Received) -> None:
        """On the network thread."""
        arrived = time.monotonic()
        try:
            topic = parse(message.topic)
        except FedptError as error:
            _logger.warning("dropped: %s", error, extra={"code": error.code})
            return
        match topic:
            case FromDevice(device, "logits"):
                work = partial(self._hear_request, device, message.payload, arrived)
                self._inbox.put_request(device, work)
            case FromCoordinator("round"):
                self._inbox.put_first(partial(self._hear_round, message.payload))
            case Chunk(sha256, index, None):
                self._inbox.put_first(partial(self._hear_chunk, sha256, index, message.payload))
            case _:
                pass

    def turn(self, wait_s: float) -> None:
        """Some messages, one step of the models; without either, wait for them so long."""
        for _ in range(_TURN):
            if (work := self._inbox.take()) is None:
                break
            try:
                work()
            except FedptError as error:  # a bad message never stops the worker
                _logger.warning("dropped: %s", error, extra={"code": error.code})
        self._follow_adapter()
        if self._batcher.gather(unless=lambda: bool(self._inbox)):
            return
        if not self._batcher.step():
            self._admission.forget_idle(time.monotonic())
            self._batcher.wait(wait_s, unless=lambda: bool(self._inbox))

    def end(self) -> bool:
        """Send those who wait to other workers; whether no thread uses the models any more."""
        self._answers.stop_all(SessionLostError("the worker is being stopped"))
        self._batcher.close()
        return self._answers.have_ended()

    def close(self) -> None:
        """Free the models."""
        self._models.close()

    def _answer_ended(self, thread: AnswerThread) -> None:
        """On the answer's thread."""
        self._inbox.put_first(partial(self._answers.ended, thread))

    def _hear_request(self, device: DeviceId, payload: bytes, arrived: float) -> None:
        request = decode_worker_request(payload)
        try:
            self._require_served(request.opening)
            if isinstance(request, LogitRequest):
                self._rows.hear(device, request, arrived)
            else:
                self._answers.hear(device, request)
        except FedptError as error:
            self._replies.refuse(device, request, error)

    def _require_served(self, opening: Opening | None) -> None:
        if opening is None:
            return
        if opening.vocabulary not in ("", self._models.vocabulary):
            raise NotServedError("the large model here has another vocabulary")
        if opening.large not in ("", self._models.large.name):
            raise NotServedError(
                f"the large model here is {self._models.large.name!r}, not {opening.large!r}"
            )

    def _slot_cut(self, slot: int, length: int) -> None:
        if length == 0:
            self._answers.forget(slot)
        self._batcher.forget(slot, length)

    def _hear_round(self, payload: bytes) -> None:
        if self._adapter is not None:
            self._adapter.hear(decode(payload, RoundAnnouncement))
            self._adapter_looked = 0.0

    def _hear_chunk(self, sha256: str, index: int, content: bytes) -> None:
        if self._adapter is not None:
            self._adapter.accept(sha256, index, content)

    def _follow_adapter(self) -> None:
        """A new adapter ends the answers of the one before, and voids their texts."""
        if self._adapter is None or time.monotonic() < self._adapter_looked + _ADAPTER_LOOK_S:
            return
        self._adapter_looked = time.monotonic()
        try:
            new = self._adapter.step(self._want_chunks)
            if new is None or new[0] == self._models.adapter:
                return
            self._answers.stop_all(NotServedError("the federation has another adapter now"))
            self._models.use_adapter(*new)
            self._answers.forget_all()
            _logger.info("answers are steered", extra={"adapter": new[0][:12]})
        except FedptError as error:
            _logger.warning("no new adapter: %s", error, extra={"code": error.code})

    def _want_chunks(self, request: ChunkRequest) -> None:
        self._publish(Publication(self._topics.device(self._name, "want"), encode(request)))


def capacity_of(settings: CoordinatorSettings, vocabulary_size: int) -> Capacity:
    """What a worker holds, by its settings."""
    worker = settings.worker
    return Capacity(
        slots=worker.sessions,
        slots_per_device=worker.sessions_per_device,
        context_tokens=worker.context_tokens,
        vocabulary_size=vocabulary_size,
    )


def limits_of(settings: CoordinatorSettings) -> Limits:
    """What a worker gives, by its settings; of a black box no more than its server tells."""
    worker = settings.worker
    is_remote = worker.large.is_remote
    # a server that tells but few has told them at once: to ask again for more is in vain
    tells_few = is_remote and worker.large.top <= FEW_TOLD
    return Limits(
        largest=min(worker.largest_logits, FEW_TOLD) if tells_few else worker.largest_logits,
        candidates=worker.candidate_logits,
        has_whole_rows=worker.whole_rows and not is_remote,
        rows_per_s=worker.rows_per_s,
        burst_rows=worker.burst_rows,
        waiting=worker.waiting,
        waiting_per_device=worker.waiting_per_device,
    )


def _adapter_on_hand(
    models: WorkerModels, settings: CoordinatorSettings, folder: Path
) -> AdapterOnHand | None:
    if models.small is None:
        return None
    coordinators, own = BlobStore(settings.state_dir / "blobs"), BlobStore(folder / "blobs")
    return AdapterOnHand(models.small.file, coordinators, own, folder=folder)
