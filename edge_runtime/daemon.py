"""The device daemon: a loop that receives, decides (elsewhere) and executes.

Everything that happens, messages, the training's end, the clock, comes through one inbox and is
handled on one thread. No rule of the system lives here: see `transitions` and `planner`.
"""

import logging
import queue
import time
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Final, assert_never

import msgspec

from edge_runtime import planner, transitions
from edge_runtime.adapter_desk import AdapterFetch, AdapterSwitch
from edge_runtime.api.local_api import LocalApi
from edge_runtime.assistant import Assistant
from edge_runtime.calibration_desk import CalibrationDesk
from edge_runtime.data.counting import ExampleCounter
from edge_runtime.drivers.enrolment import IdentityKeeper
from edge_runtime.drivers.outbox import Outbox
from edge_runtime.drivers.sessions import next_session
from edge_runtime.drivers.status_teller import StatusTeller, status_publication
from edge_runtime.drivers.worker_desk import WorkerDesk
from edge_runtime.personal_desk import ForgetPersonal, PersonalDesk, have_forgotten
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
from edge_runtime.training_desk import PersonalOver, TrainingDesk, TrainingOver
from edge_runtime.training_job import TrainingStep
from edge_runtime.updates.desk import (
    NEED_RESTART,
    RESTART_CODE,
    ReleaseDesk,
    drop_foreign_adapters,
    finish_interrupted_switch,
)
from edge_runtime.updates.preparer import Prepared
from fedpt.blobs import BlobStore
from fedpt.drivers.llama import LlamaModel
from fedpt.drivers.mqtt import MqttLink, Publication, Received
from fedpt.drivers.service_manager import ServiceManager, Watchdog
from fedpt.errors import BrokerError, FedptError, ReleaseError
from fedpt.ids import DeviceId, FederationId
from fedpt.proxy_tuning import Coefficients
from fedpt.wire.codec import decode, encode
from fedpt.wire.messages import (
    ChunkRequest,
    CoordinatorStatus,
    DeviceStatus,
    RoundAnnouncement,
    UpdateReceipt,
)
from fedpt.wire.topics import Chunk, FromCoordinator, FromDevice, OfRelease, ToDevice, Topics, parse

_logger = logging.getLogger(__name__)

_TICK_S: Final = 0.5
_INBOX_SIZE: Final = 1000
_LONGEST_FAULT: Final = 300
"""Characters of a refused release's fault in the status."""

_LONGEST_STEP_S: Final = 300.0
"""A step of an answer that takes longer does not end: a long prompt takes a minute."""


@dataclass(frozen=True, slots=True)
class _Connected:
    """The broker connection is there, for the first time or again."""


_Item = (
    Received | _Connected | TrainingOver | PersonalOver | ForgetPersonal | TrainingStep | Prepared
)


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
        self._training = TrainingDesk(settings, on_step=self._inbox.put, on_over=self._inbox.put)
        self._examples = ExampleCounter(settings.data)
        finish_interrupted_switch(settings)
        self._model = LlamaModel(settings.small)
        self._weights = self._model.weights
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
        self._assistant = Assistant(
            self._model,
            settings.assistant,
            large=self._large.access,
            undisturbed=self._training.undisturbed,
        )
        self._switch = AdapterSwitch(settings.state_dir / "adapters", self._model, self._assistant)
        self._personal = PersonalDesk(settings, self._model, self._training, self._switch)
        self._calibration = CalibrationDesk(
            settings, self._model, self._assistant, ask_large=self._large.aside
        )
        self._api = LocalApi(
            self._assistant,
            settings,
            status=self._describe,
            training=lambda: self._training.view,
            forget_personal=lambda: have_forgotten(self._inbox.put),
        )
        self._link = MqttLink(
            settings.broker,
            self._device,
            on_message=self._receive,
            on_connected=lambda: self._inbox.put(_Connected()),
            will=self._offline(),
        )
        self._teller = StatusTeller(self._topics.device(self._device, "status"), self._link.publish)
        self._fetch = AdapterFetch(self._link, self._topics, self._device, self._store)
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
                self._training.watch()
                self._step_own()
                self._step_releases()
                status = self._status()
                self._teller.tell(status, time.monotonic())
                self._service.status(self._summary(status))
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
                self._teller.forget()
                self._apply(OfferForgotten())
            case TrainingStep():
                self._training.hear(item)
            case TrainingOver():
                self._training_over(item)
            case PersonalOver():
                self._personal.hear(item)
            case ForgetPersonal():
                self._personal.obey(item, self._state.served)
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
                    self._teller.forget()  # a last will that came late: contradict it
            case Chunk(sha256, index, None):
                self._fetch.keep_chunk(sha256, index, message.payload, time.monotonic())
                self._releases.keep_chunk(sha256, index, message.payload)
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
                if self._fetch.step(ref, time.monotonic()):
                    self._apply(AdapterFetched(ref.sha256))
            case planner.ServeAdapter(sha256):
                self._serve(sha256)
            case planner.StartTraining() if self._releases.is_trying:
                pass  # both at once may be too much for the memory; planned again
            case planner.StartTraining(announcement):
                self._start_training(announcement)
            case planner.StopTraining():
                self._apply(TrainingStopped())
                self._training.stop()
            case planner.Offer(offer):
                self._publish(self._topics.device(self._device, "offer"), encode(offer))
                self._apply(Offered(time.monotonic()))
            case _:
                assert_never(action)

    def _serve(self, sha256: str) -> None:
        try:
            if not self._switch.serve(sha256, self._store):
                return  # planned again
        except FedptError as error:
            self._apply(AdapterServed(sha256, works=False))
            if sha256 == self._state.released:
                self._apply(AdapterReleased(""))
                self._releases.adapter_failed(str(error))
            raise
        self._apply(AdapterServed(sha256))
        offer, announcement = self._state.offer, self._state.announcement
        kept = {offer.update.sha256} if offer else set()
        announced = {announcement.adapter.sha256} if announcement else set()
        self._store.keep_only({sha256, *kept, *announced})

    def _step_own(self) -> None:
        """What this board makes for itself only: its personal adapter, its coefficients."""
        is_free, count = not self._releases.is_trying, self._examples.counts.usable
        try:
            self._personal.step(self._state, self._store, example_count=count, may_start=is_free)
        except FedptError as error:
            _logger.warning("%s", error)
        is_quiet = is_free and not self._training.view.is_running
        self._calibration.step(self._large.large_name, may_start=is_quiet)

    def _step_releases(self) -> None:
        """Releases wait while we train or answer: what runs keeps what it began with."""
        is_training = self._state.is_training or self._training.view.is_running
        is_idle = not is_training and not self._assistant.is_answering
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
        try:
            has_started = self._training.start(announcement, self._store)
        except FedptError as error:
            self._apply(TrainingEnded(None, str(error)))
            raise
        if has_started:
            self._apply(TrainingStarted(announcement))

    def _training_over(self, over: TrainingOver) -> None:
        try:
            offer = self._training.keep_update(
                over, self._store, self._outbox, bytes_down=self._fetch.bytes_since
            )
        except FedptError as error:
            self._apply(TrainingEnded(None, str(error)))
            raise
        self._apply(TrainingEnded(offer, over.fault))

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

    def _offline(self) -> Publication:
        status = DeviceStatus(session=self._session, activity="offline")
        return status_publication(self._topics.device(self._device, "status"), status)

    def _status(self) -> DeviceStatus:
        training = self._training.view
        is_held = training.is_paused or planner.waits_to_train(self._state)
        return DeviceStatus(
            session=self._session,
            activity="training" if self._state.is_training else "idle",
            example_count=self._examples.counts.usable,
            small_weights=self._weights,
            adapter=self._state.served,
            training_done=0.0 if training.is_personal else training.done,
            fault=self._state.fault or self._round_fault,
            runtime=self._runtime,
            releases=self._releases.installed,
            release_fault=self._releases.fault[:_LONGEST_FAULT],
            progress=None if training.is_personal else training.progress,
            waiting=training.why_not if is_held else "",
            personal=self._personal.status,
            calibration=self._calibration.status,
        )

    def _describe(self) -> dict[str, object]:
        training = self._training.view
        return {
            "device": self._device,
            "connected": self._link.is_connected,
            "flagged_count": self._examples.counts.flagged,
            **msgspec.to_builtins(self._status()),
            "readings": asdict(training.readings),
            "failing_conditions": dict(training.failing),
        }

    def _summary(self, status: DeviceStatus) -> str:
        """For the service manager: one line."""
        if self._state.fault:
            return self._state.fault
        announcement = self._state.announcement
        if announcement is None:
            return "waits for the coordinator"
        is_training = status.activity == "training"
        what = f"training, {status.training_done:.0%}" if is_training else announcement.phase
        return f"round {announcement.round}: {what}" + (status.waiting and f"; {status.waiting}")

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
        self._training.stop()
        is_model_free = self._calibration.stop()
        self._releases.stop(is_on_purpose=self._is_stopping and self.exit_code == 0)
        self._link.publish_and_wait(self._offline(), timeout_s=2)
        self._link.stop()
        self._assistant.close()
        if is_model_free:
            self._model.close()
        _logger.info("device is down", extra={"device": self._device})
