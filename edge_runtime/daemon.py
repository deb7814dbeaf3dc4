"""The device daemon: a loop that receives, decides (elsewhere) and executes.

Everything that happens, messages, the training's end, the clock, comes through one inbox and is
handled on one thread. No rule of the system lives here: see `transitions` and `planner`.
"""

import logging
import queue
import time
import zlib
from dataclasses import dataclass
from importlib.metadata import version
from typing import Final, assert_never

import msgspec

from converters.adapter_to_gguf import convert_adapter
from edge_runtime import planner, transitions
from edge_runtime.api.local_api import LocalApi
from edge_runtime.assistant import Assistant
from edge_runtime.data.counting import ExampleCounter
from edge_runtime.drivers.enrolment import IdentityKeeper
from edge_runtime.drivers.outbox import Outbox
from edge_runtime.drivers.sessions import next_session
from edge_runtime.drivers.trainer import Trainer
from edge_runtime.drivers.worker_desk import WorkerDesk
from edge_runtime.settings import DeviceSettings
from edge_runtime.state import (
    AdapterFetched,
    AdapterReleased,
    AdapterServed,
    Announced,
    DeviceState,
    Event,
    Offered,
    OfferForgotten,
    Settled,
    TrainingEnded,
    TrainingStarted,
    TrainingStopped,
)
from edge_runtime.training_job import TrainingResult, TrainingStep
from edge_runtime.updates.desk import (
    NEED_RESTART,
    RESTART_CODE,
    ReleaseDesk,
    drop_foreign_adapters,
    finish_interrupted_switch,
)
from edge_runtime.updates.preparer import Prepared
from fedpt.adapters import MAX_ADAPTER_BYTES, adapter_from_bytes
from fedpt.blobs import BlobStore, Fetch, require_fetchable
from fedpt.drivers.llama import LlamaModel
from fedpt.drivers.mqtt import MqttLink, Publication, Received
from fedpt.drivers.service_manager import ServiceManager, Watchdog
from fedpt.errors import BrokerError, FedptError, ReleaseError
from fedpt.gguf_file import weights_sha256
from fedpt.ids import DeviceId, FederationId
from fedpt.proxy_tuning import Coefficients
from fedpt.wire.codec import decode, encode
from fedpt.wire.messages import (
    ChunkRequest,
    CoordinatorStatus,
    DeviceStatus,
    RoundAnnouncement,
    UpdateOffer,
    UpdateReceipt,
)
from fedpt.wire.topics import Chunk, FromCoordinator, FromDevice, OfRelease, ToDevice, Topics, parse

_logger = logging.getLogger(__name__)

_TICK_S: Final = 0.5
_STATUS_EVERY_S: Final = 2.0
_INBOX_SIZE: Final = 1000
_LONGEST_FAULT: Final = 300
"""Characters of a refused release's fault in the status."""

_LONGEST_STEP_S: Final = 300.0
"""A step of an answer that takes longer does not end: a long prompt takes a minute."""


@dataclass(frozen=True, slots=True)
class _Connected:
    """The broker connection is there, for the first time or again."""


@dataclass(frozen=True, slots=True)
class _TrainingOver:
    announcement: RoundAnnouncement
    result: TrainingResult | None
    update: bytes
    fault: str


_Item = Received | _Connected | _TrainingOver | TrainingStep | Prepared


class DeviceDaemon:
    """One device. `run` until `stop`."""

    def __init__(self, settings: DeviceSettings, service: ServiceManager | None = None) -> None:
        """Load the model and check the data; nothing is sent yet.

        Args:
            settings: All of them.
            service: Who hears how we are; None: nobody.

        Raises:
            FedptError: A file is missing or damaged.
        """
        self._settings = settings
        self._service = service or ServiceManager()
        self._watchdog = Watchdog(self._service)
        self._device = DeviceId(settings.name)
        self._topics = Topics(FederationId(settings.federation))
        self._inbox: queue.SimpleQueue[_Item] = queue.SimpleQueue()
        self._is_stopping = False
        self._session = next_session(settings.state_dir / "session", time.time_ns())
        self._state = DeviceState(self._device)
        self._store = BlobStore(settings.state_dir / "blobs")
        self._outbox = Outbox(settings.state_dir / "outbox")
        self._trainer = Trainer(settings)
        self._fetch: Fetch | None = None
        self._progress = 0.0
        self._status_sent: tuple[DeviceStatus | None, float] = (None, 0.0)
        self._bytes_at_round_start = 0
        self._examples = ExampleCounter(settings.data)
        finish_interrupted_switch(settings)
        self._model = LlamaModel(settings.small)
        self._weights = weights_sha256(self._model.file)
        drop_foreign_adapters(settings.state_dir / "adapters", self._model.file)
        self._releases = ReleaseDesk(
            settings, self._topics, base_weights=self._weights, on_prepared=self._inbox.put
        )
        self._round_fault = ""
        self._runtime = version("fedpt")
        self.exit_code = 0
        """What `fedpt device run` ends with; 75: start me again."""
        self._large = WorkerDesk(
            settings,
            self._topics,
            self._model.vocabulary,
            publish=self._publish_now,
        )
        self._assistant = Assistant(self._model, settings.assistant, large=self._large.access)
        self._api = LocalApi(self._assistant, settings, status=self._describe)
        self._link = MqttLink(
            settings.broker,
            self._device,
            on_message=self._receive,
            on_connected=lambda: self._inbox.put(_Connected()),
            will=self._status_publication(DeviceStatus(session=self._session, activity="offline")),
        )
        self._identity = IdentityKeeper(settings, on_renewed=self._link.reload_certificate)

    def run(self) -> None:
        """Take part until `stop` is called.

        Raises:
            BrokerError: The broker cannot be reached at the start.
        """
        topics = self._topics
        self._link.subscribe(
            topics.coordinator_status,
            topics.round,
            topics.inbox(self._device, "#"),
            topics.device(self._device, "status"),
            *self._releases.filters,
        )
        try:
            self._link.start(
                timeout_s=self._settings.connect_timeout_s, is_cancelled=lambda: self._is_stopping
            )
        except (BrokerError, KeyboardInterrupt):
            self._releases.broker_is_missing()
            raise
        self._prefer_released_adapter()
        self._api.start()
        self._identity.start()
        self._service.ready()
        _logger.info("device is up", extra={"device": self._device})
        try:
            while not self._is_stopping:
                self._handle_next()
                self._execute_plan()
                self._step_releases()
                self._publish_status()
                self._service.status(self._summary())
                self._watchdog.beat(self._dead_parts())
        finally:
            self._shut_down()

    def stop(self) -> None:
        """Ask `run` to end; safe from signal handlers."""
        self._is_stopping = True

    # -- receiving -----------------------------------------------------------------------------

    def _receive(self, message: Received) -> None:
        """On the network thread: workers' replies go to who waits, all else to the inbox."""
        if message.topic == self._topics.inbox(self._device, "logits"):
            self._large.hear(message)
        elif self._inbox.qsize() < _INBOX_SIZE:  # beyond that it is a flood; all is repeated
            self._inbox.put(message)

    def _handle_next(self) -> None:
        try:
            item = self._inbox.get(timeout=_TICK_S)
        except queue.Empty:
            return
        try:
            self._handle(item)
        except FedptError as error:  # a bad message never stops the daemon
            _logger.warning("dropped: %s", error, extra={"code": error.code})

    def _handle(self, item: _Item) -> None:
        match item:
            case Received():
                self._handle_message(item)
            case _Connected():
                self._status_sent = (None, 0.0)
                self._apply(OfferForgotten())
            case TrainingStep(done=done, total=total):
                self._progress = done / total
            case _TrainingOver():
                self._training_over(item)
            case Prepared():
                self._releases.hear_prepared(item)
            case _:
                assert_never(item)

    def _handle_message(self, message: Received) -> None:
        match parse(message.topic):
            case FromCoordinator("status"):
                self._hear_coordinator(decode(message.payload, CoordinatorStatus))
            case FromCoordinator("round"):
                self._hear_announcement(decode(message.payload, RoundAnnouncement))
            case OfRelease(kind):
                self._releases.hear(kind, message.payload)
            case ToDevice(_, "receipt"):
                self._hear_receipt(decode(message.payload, UpdateReceipt))
            case ToDevice(_, "want"):
                self._send_chunks(decode(message.payload, ChunkRequest))
            case FromDevice(_, "status"):
                if decode(message.payload, DeviceStatus).activity == "offline":
                    self._status_sent = (None, 0.0)  # a last will that came late: contradict it
            case Chunk(sha256, index, None):
                self._keep_chunk(sha256, index, message.payload)
            case other:
                _logger.debug("ignored", extra={"what": other})

    def _hear_coordinator(self, status: CoordinatorStatus) -> None:
        if not self._large.hear_coordinator(status) or not status.online:
            return
        self._apply(OfferForgotten())
        if status.small_weights != self._weights:
            _logger.warning(
                "the coordinator has another small model: this device cannot take part",
                extra={"ours": self._weights[:12], "theirs": status.small_weights[:12]},
            )

    def _hear_announcement(self, announcement: RoundAnnouncement) -> None:
        if not transitions.is_news(self._state, announcement):
            self._round_fault = ""
            return
        self._require_signature(announcement)
        steering = announcement.coefficients
        self._assistant.coefficients = Coefficients(steering.alpha, steering.beta, steering.gamma)
        event = Announced(
            announcement,
            adapter_here=announcement.adapter.sha256 in self._store,
            offer=self._outbox.find(announcement),
            is_settled=self._outbox.is_settled(announcement),
        )
        _logger.info(
            "announced",
            extra={"round": announcement.round, "phase": announcement.phase,
                   "selected": self._device in announcement.selected},
        )  # fmt: skip
        self._apply(event)
        self._prefer_released_adapter()

    def _require_signature(self, announcement: RoundAnnouncement) -> None:
        """Before its adapter is fetched, where this device asks for signatures."""
        try:
            self._releases.require_round_adapter(announcement)
        except ReleaseError as error:
            self._round_fault = str(error)
            raise
        self._round_fault = ""

    def _hear_receipt(self, receipt: UpdateReceipt) -> None:
        offer = self._state.offer
        if offer is None or not transitions.settles(self._state, receipt):
            return
        self._outbox.settle(offer, receipt)
        log = _logger.info if receipt.accepted else _logger.warning
        log("update settled", extra={"accepted": receipt.accepted, "reason": receipt.reason})
        self._apply(Settled("" if receipt.accepted else f"update refused: {receipt.reason}"))

    def _apply(self, event: Event) -> None:
        self._state = transitions.apply(self._state, event)

    # -- executing -----------------------------------------------------------------------------

    def _execute_plan(self) -> None:
        for action in planner.plan(self._state, time.monotonic()):
            try:
                self._execute(action)
            except FedptError as error:
                _logger.warning("%s", error, extra={"action": type(action).__name__})

    def _execute(self, action: planner.Action) -> None:
        match action:
            case planner.FetchAdapter() | planner.Offer() if not self._link.is_connected:
                pass  # paho would queue it, and all its repetitions
            case planner.FetchAdapter(ref):
                require_fetchable(ref, max_bytes=MAX_ADAPTER_BYTES)
                self._continue_fetch(ref.sha256)
            case planner.ServeAdapter(sha256):
                self._serve(sha256)
            case planner.StartTraining() if self._releases.is_trying:
                pass  # both at once may be too much for the memory; planned again
            case planner.StartTraining(announcement):
                self._start_training(announcement)
            case planner.StopTraining():
                self._apply(TrainingStopped())
                self._trainer.stop()
            case planner.Offer(offer):
                self._publish(self._topics.device(self._device, "offer"), encode(offer))
                self._apply(Offered(time.monotonic()))
            case _:
                assert_never(action)

    def _continue_fetch(self, sha256: str) -> None:
        announcement = self._state.announcement
        if self._fetch is None or self._fetch.ref.sha256 != sha256:
            assert announcement is not None  # planned from it
            if self._fetch is not None:
                self._link.unsubscribe(self._topics.coordinator_chunk(self._fetch.ref.sha256, "+"))
            self._fetch = Fetch(announcement.adapter, self._store)
            self._bytes_at_round_start = self._link.bytes_received
            self._link.subscribe(self._topics.coordinator_chunk(sha256, "+"))
        if self._fetch.is_complete:
            self._finish_fetch()
        elif indices := self._fetch.next_request(time.monotonic()):
            request = ChunkRequest(sha256=sha256, indices=indices)
            self._publish(self._topics.device(self._device, "want"), encode(request))

    def _keep_chunk(self, sha256: str, index: int, content: bytes) -> None:
        if self._fetch is not None and sha256 == self._fetch.ref.sha256:
            self._fetch.accept(index, content, now=time.monotonic())
        self._releases.keep_chunk(sha256, index, content)

    def _finish_fetch(self) -> None:
        fetch = self._fetch
        assert fetch is not None  # called by `_continue_fetch` only
        fetch.finish()
        self._link.unsubscribe(self._topics.coordinator_chunk(fetch.ref.sha256, "+"))
        self._fetch = None
        self._apply(AdapterFetched(fetch.ref.sha256))

    def _serve(self, sha256: str) -> None:
        """Convert, switch, then forget the adapters of before."""
        path = self._settings.state_dir / "adapters" / f"{sha256}.gguf"
        try:
            if not path.is_file():
                adapter = adapter_from_bytes(self._store.get(sha256))
                convert_adapter(adapter, self._model.file, path)
            if not self._assistant.switch(sha256, path):
                return  # an answer runs; planned again
        except FedptError as error:
            self._apply(AdapterServed(sha256, works=False))
            if sha256 == self._state.released:
                self._apply(AdapterReleased(""))
                self._releases.adapter_failed(str(error))
            raise
        for old in path.parent.glob("*.gguf"):
            if old != path:
                old.unlink(missing_ok=True)
        self._apply(AdapterServed(sha256))
        offer, announcement = self._state.offer, self._state.announcement
        kept = {offer.update.sha256} if offer else set()
        announced = {announcement.adapter.sha256} if announcement else set()
        self._store.keep_only({sha256, *kept, *announced})
        _logger.info("assistant switched", extra={"adapter": sha256[:12]})

    def _step_releases(self) -> None:
        """Releases wait while we train or answer: what runs keeps what it began with."""
        is_idle = not self._state.is_training and not self._assistant.is_answering
        switched = self._releases.step(self._link, is_idle=is_idle)
        if switched in NEED_RESTART:
            _logger.info("ends to be started again with the new %s", switched)
            self.exit_code = RESTART_CODE
            self._is_stopping = True
        elif switched == "adapter":
            self._prefer_released_adapter()

    def _prefer_released_adapter(self) -> None:
        """Answer with the installed adapter release, as long as it is newer than the round's."""
        path = self._releases.adapter_to_serve()
        sha256 = self._store.put(path.read_bytes()).sha256 if path is not None else ""
        self._apply(AdapterReleased(sha256))

    def _start_training(self, announcement: RoundAnnouncement) -> None:
        name = f"{announcement.adapter.sha256} {self._device}"  # the same after a restart
        seed = zlib.crc32(name.encode())
        self._progress = 0.0
        try:
            self._trainer.start(
                announcement,
                self._store.path(announcement.adapter.sha256),
                seed=seed,
                on_step=self._inbox.put,
                on_end=lambda result, update, fault: self._inbox.put(
                    _TrainingOver(announcement, result, update, fault)
                ),
            )
        except FedptError as error:
            self._apply(TrainingEnded(None, str(error)))
            raise
        self._apply(TrainingStarted(announcement))
        _logger.info("training started", extra={"round": announcement.round})

    def _training_over(self, over: _TrainingOver) -> None:
        try:
            offer = self._keep_update(over)
        except FedptError as error:
            self._apply(TrainingEnded(None, str(error)))
            raise
        self._apply(TrainingEnded(offer, over.fault))

    def _keep_update(self, over: _TrainingOver) -> UpdateOffer | None:
        """Store a finished update, blob first, so that an offer never points to nothing."""
        result, announcement = over.result, over.announcement
        if result is None:
            return None
        offer = UpdateOffer(
            run=announcement.run,
            round=announcement.round,
            base=announcement.adapter.sha256,
            update=self._store.put(over.update),
            example_count=result.example_count,
            training_seconds=result.seconds,
            loss=result.loss,
            bytes_down=self._link.bytes_received - self._bytes_at_round_start,
        )
        self._outbox.put(offer)
        _logger.info("training ended", extra={"round": offer.round, "loss": round(result.loss, 4),
                                              "seconds": round(result.seconds, 1)})  # fmt: skip
        return offer

    def _send_chunks(self, request: ChunkRequest) -> None:
        offer = self._state.offer
        if offer is None or request.sha256 != offer.update.sha256:
            return  # nothing else of ours is anybody's
        for index in request.indices:
            if index < offer.update.chunk_count:
                chunk = self._store.chunk(request.sha256, index)
                self._publish(self._topics.device_chunk(self._device, request.sha256, index), chunk)

    # -- telling -------------------------------------------------------------------------------

    def _publish(self, topic: str, payload: bytes) -> None:
        self._link.publish(Publication(topic, payload))

    def _publish_now(self, publication: Publication) -> bool:
        return self._link.publish_now(publication)

    def _status(self) -> DeviceStatus:
        return DeviceStatus(
            session=self._session,
            activity="training" if self._state.is_training else "idle",
            example_count=self._examples.counts.usable,
            small_weights=self._weights,
            adapter=self._state.served,
            training_done=round(self._progress, 2) if self._state.is_training else 0.0,
            fault=self._state.fault or self._round_fault,
            runtime=self._runtime,
            releases=self._releases.installed,
            release_fault=self._releases.fault[:_LONGEST_FAULT],
        )

    def _publish_status(self) -> None:
        """Whenever it changes; mere progress at most every two seconds."""
        status, (sent, at) = self._status(), self._status_sent
        is_progress = sent is not None and _without_progress(sent) == _without_progress(status)
        if status == sent or (is_progress and time.monotonic() - at < _STATUS_EVERY_S):
            return
        self._status_sent = (status, time.monotonic())
        self._link.publish(self._status_publication(status))

    def _status_publication(self, status: DeviceStatus) -> Publication:
        return Publication(self._topics.device(self._device, "status"), encode(status), retain=True)

    def _describe(self) -> dict[str, object]:
        status = self._status()
        return {
            "device": self._device,
            "connected": self._link.is_connected,
            "flagged_count": self._examples.counts.flagged,
            **{name: getattr(status, name) for name in status.__struct_fields__},
        }

    def _summary(self) -> str:
        """For the service manager: one line."""
        if self._state.fault:
            return self._state.fault
        announcement = self._state.announcement
        if announcement is None:
            return "waits for the coordinator"
        what = f"training, {self._progress:.0%}" if self._state.is_training else announcement.phase
        return f"round {announcement.round}: {what}"

    def _dead_parts(self) -> list[str]:
        """What only a new start mends."""
        faults = [] if self._link.is_alive else ["the connection's thread has ended"]
        if self._assistant.step_s > _LONGEST_STEP_S:
            faults.append("the assistant is stuck in an answer")
        return faults

    def _shut_down(self) -> None:
        self._service.stopping()
        self._identity.stop()
        self._api.stop()
        self._trainer.stop()
        self._releases.stop(is_on_purpose=self._is_stopping and self.exit_code == 0)
        offline = DeviceStatus(session=self._session, activity="offline")
        self._link.publish_and_wait(self._status_publication(offline), timeout_s=2)
        self._link.stop()
        self._assistant.close()
        self._model.close()
        _logger.info("device is down", extra={"device": self._device})


def _without_progress(status: DeviceStatus) -> DeviceStatus:
    return msgspec.structs.replace(status, training_done=0.0)
