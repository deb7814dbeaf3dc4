"""The coordinator daemon: a loop that receives, decides (elsewhere), journals and executes.

Everything that happens comes through one inbox and is handled on one thread. An event is journalled
before anybody hears of it; after a restart the state is the fold of the journal, and the loop goes
on from there. No rule of the system lives here: see `transitions` and `planner`.
"""

import logging
import queue
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final, assert_never
from uuid import uuid4

import msgspec

from converters.tensor_names import linear_shapes
from coordinator import planner, transitions
from coordinator.adapter_signing import AdapterSigner
from coordinator.adapter_store import AdapterStore
from coordinator.announcing import announcement
from coordinator.children import Children, JobEnded
from coordinator.downloads import Downloads
from coordinator.drivers.journal import Journal, decode_event
from coordinator.drivers.removed_names import RemovedNames
from coordinator.metrics import Sample
from coordinator.releases import ReleaseFolder
from coordinator.round_job import ADAPTER_NAME, DistillationResult
from coordinator.settings import CoordinatorSettings
from coordinator.state import (
    Aggregated,
    AnyEvent,
    Evaluated,
    Evaluation,
    FederationState,
    Fleet,
    RoundAbandoned,
    RoundEnded,
    RoundStarted,
    RunFinished,
    RunStarted,
    UpdateAccepted,
)
from coordinator.uploads import Uploads
from fedpt.adapters import require_kinds
from fedpt.blobs import BlobStore
from fedpt.drivers.mqtt import MqttLink, Publication, Received
from fedpt.drivers.service_manager import ServiceManager, Watchdog
from fedpt.errors import BlobError, FedptError
from fedpt.examples import read_examples, read_prompts
from fedpt.gguf_file import read_gguf, weights_sha256
from fedpt.ids import DeviceId, FederationId
from fedpt.job_folder import read_result
from fedpt.releases import KINDS, Kind
from fedpt.vocabulary import require_same_vocabulary, vocabulary_of
from fedpt.wire.codec import decode, encode
from fedpt.wire.messages import (
    ChunkRequest,
    CoordinatorStatus,
    DeviceStatus,
    UpdateOffer,
    UpdateReceipt,
)
from fedpt.wire.topics import Chunk, FromDevice, Topics, parse

_logger = logging.getLogger(__name__)

_TICK_S: Final = 0.25
_INBOX_SIZE: Final = 4000
_PAUSE_AFTER_FAILURE_S: Final = 10.0
_LONGEST_REASON: Final = 300
"""Characters of a refusal that go over the wire: parts of it may come from the device."""

_FAREWELL_S: Final = 30.0
"""With `exit_when_finished`: how long devices may take to fetch the last adapter."""


@dataclass(frozen=True, slots=True)
class _Connected:
    """The broker connection is there, for the first time or again."""


_Item = Received | _Connected | JobEnded


class CoordinatorDaemon:
    """One federation's coordinator. `run` until it is finished or `stop`."""

    def __init__(
        self,
        settings: CoordinatorSettings,
        *,
        on_event: Callable[[AnyEvent], None] = lambda _event: None,
        exit_when_finished: bool = False,
        service: ServiceManager | None = None,
    ) -> None:
        """Check the models and read the journal; nothing is sent yet.

        Args:
            settings: All of them.
            on_event: Told of every new event, after it is journalled.
            exit_when_finished: End `run` with the last round; else keep answering logit requests.
            service: Who hears how we are; None: nobody.

        Raises:
            FedptError: A file is missing or damaged, or the models do not fit.
        """
        self._settings = settings
        self._on_event = on_event
        self._exit_when_finished = exit_when_finished
        self._service = service or ServiceManager()
        self._watchdog = Watchdog(self._service)
        self._refused: Counter[str] = Counter()
        self._failed_jobs: Counter[str] = Counter()
        self._topics = Topics(FederationId(settings.federation))
        self._inbox: queue.SimpleQueue[_Item] = queue.SimpleQueue()
        self._is_stopping = False
        self._retry_at = 0.0
        self._finished_at: float | None = None
        self._session = time.time_ns()
        read_examples(settings.evaluation)
        read_prompts(settings.public)
        small, large = read_gguf(settings.small), read_gguf(settings.large)
        vocabulary = vocabulary_of(small)
        require_same_vocabulary(vocabulary, vocabulary_of(large))
        self._shapes = linear_shapes(small)
        require_kinds(settings.adapter.target_modules or (), self._shapes)
        self._weights = weights_sha256(small)
        self._status = CoordinatorStatus(
            online=True,
            session=self._session,
            small_weights=self._weights,
            vocabulary=vocabulary.sha256,
            large_name=large.name,
        )
        self._store = BlobStore(settings.state_dir / "blobs")
        self._adapters = AdapterStore(self._store)
        self._journal = Journal(settings.state_dir / "journal.sqlite", decode_event)
        self._state: FederationState = transitions.fold(self._journal.read())
        if self._state.run:
            self._adapters.require_base(self._state.adapter, self._weights)
        self._fleet = Fleet()
        self._removed = RemovedNames(settings.removed)
        self._uploads = Uploads(self._store)
        self._children = Children(settings, on_end=self._inbox.put)
        self._downloads = Downloads(self._store)
        self._signer = _signer(settings)
        self._releases: ReleaseFolder | None = None
        if settings.releases is not None and settings.trust_file is not None:
            self._releases = ReleaseFolder(settings.releases, settings.trust_file)
            self._release_downloads = Downloads(self._releases)
        self._bytes_up: dict[DeviceId, int] = {}
        self._link = MqttLink(
            settings.broker,
            f"coordinator-{settings.federation}",
            on_message=self._receive,
            on_connected=lambda: self._inbox.put(_Connected()),
            will=self._status_publication(is_online=False),
        )

    @property
    def state(self) -> FederationState:
        """The federation as it is now."""
        return self._state

    def sample(self) -> Sample:
        """All that metrics are made of; may be asked for from any thread."""
        return Sample(self._state, self._fleet, dict(self._refused), dict(self._failed_jobs))

    def run(self) -> None:
        """Coordinate.

        Raises:
            BrokerError: The broker cannot be reached at the start.
            StorageError: The journal cannot be written.
        """
        topics = self._topics
        kinds = [topics.device("+", kind) for kind in ("status", "offer", "want")]
        self._link.subscribe(*kinds, topics.device_chunk("+", "+", "+"))
        self._link.start(
            timeout_s=self._settings.connect_timeout_s, is_cancelled=lambda: self._is_stopping
        )
        self._children.start_workers()
        self._service.ready()
        _logger.info(
            "coordinator is up",
            extra={"federation": self._settings.federation, "port": self._settings.broker.port},
        )
        try:
            while not self._is_stopping:
                self._handle_next()
                self._forget_removed()
                self._request_chunks()
                self._execute_plan()
                self._keep_releases()
                self._keep_workers()
                self._service.status(self._summary())
                self._watchdog.beat(self._dead_parts())
                if self._exit_when_finished and self._has_said_farewell():
                    return
        finally:
            self._shut_down()

    def stop(self) -> None:
        """Ask `run` to end; safe from signal handlers."""
        self._is_stopping = True

    # -- receiving -----------------------------------------------------------------------------

    def _receive(self, message: Received) -> None:
        """On the network thread. Beyond our limit it is a flood: dropped, for all is repeated."""
        if self._inbox.qsize() < _INBOX_SIZE:
            self._inbox.put(message)

    def _handle_next(self) -> None:
        try:
            item = self._inbox.get(timeout=_TICK_S)
        except queue.Empty:
            return
        try:
            self._handle(item)
        except FedptError as error:  # a bad message never stops the daemon
            source = item.topic if isinstance(item, Received) else type(item).__name__
            _logger.warning("dropped: %s", error, extra={"code": error.code, "from": source})

    def _handle(self, item: _Item) -> None:
        match item:
            case Received():
                self._handle_message(item)
            case _Connected():
                self._link.publish(self._status_publication(is_online=True))
                self._announce()
                for kind in KINDS:
                    self._announce_release(kind)
            case JobEnded():
                self._take_result(item)
            case _:
                assert_never(item)

    def _handle_message(self, message: Received) -> None:
        source = parse(message.topic)
        device = source.device if isinstance(source, FromDevice | Chunk) else None
        if device is None or device in self._removed:
            return
        self._bytes_up[device] = (
            self._bytes_up.get(device, 0) + len(message.payload) + len(message.topic)
        )
        match source:
            case FromDevice(_, "status"):
                status = decode(message.payload, DeviceStatus)
                self._fleet = transitions.note_status(self._fleet, device, status)
            case FromDevice(_, "offer"):
                self._hear_offer(device, decode(message.payload, UpdateOffer))
            case FromDevice(_, "want"):
                self._send_chunks(decode(message.payload, ChunkRequest))
            case Chunk(sha256, index, _):
                self._uploads.accept(device, sha256, index, message.payload, now=time.monotonic())
            case _:
                pass

    def _forget_removed(self) -> None:
        """Rounds wait for them no more, and their last words are not kept by the broker."""
        for device in self._removed.look():
            self._fleet = transitions.note_removed(self._fleet, device)
            status = Publication(self._topics.device(device, "status"), b"", retain=True)
            self._link.publish(status)

    def _hear_offer(self, device: DeviceId, offer: UpdateOffer) -> None:
        match transitions.admit(self._state, device, offer):
            case transitions.Wanted():
                self._begin_upload(device, offer)
            case transitions.AlreadyAccepted():
                self._send_receipt(device, offer, accepted=True)
            case transitions.Refused(code, reason):
                _logger.info("update refused", extra={"device": device, "code": code})
                self._send_receipt(device, offer, accepted=False, code=code, reason=reason)

    def _begin_upload(self, device: DeviceId, offer: UpdateOffer) -> None:
        base = self._store.ref(self._state.current.base)
        try:
            self._uploads.begin(device, offer, max_bytes=2 * base.size_bytes)
        except BlobError as error:
            self._refuse(device, offer, error)

    def _request_chunks(self) -> None:
        now = time.monotonic()
        self._uploads.keep_only(self._is_wanted)
        for device, request in self._uploads.requests(now):
            self._publish(self._topics.inbox(device, "want"), encode(request))
        for device, offer in self._uploads.complete():
            try:
                self._take_update(device, offer)
            except FedptError as error:  # the device offers again
                _logger.warning("update not taken: %s", error, extra={"device": device})

    def _take_update(self, device: DeviceId, offer: UpdateOffer) -> None:
        """All chunks of an update are here: check it, journal it, then tell the device."""
        try:
            content = self._uploads.finish(device)
        except FedptError as error:  # no receipt: the device offers again, and we fetch again
            _logger.warning("update lost on its way: %s", error, extra={"device": device})
            return
        try:
            self._adapters.require_update(content, base=self._state.current.base)
        except FedptError as error:
            self._refuse(device, offer, error)
            return
        if self._is_wanted(device, offer):
            self._record(
                UpdateAccepted(
                    device=device,
                    update=offer.update.sha256,
                    example_count=offer.example_count,
                    training_seconds=offer.training_seconds,
                    loss=offer.loss,
                    bytes_up=self._bytes_up.pop(device, 0),
                    bytes_down=offer.bytes_down,
                )
            )
        self._hear_offer(device, offer)  # which now sends the receipt

    def _is_wanted(self, device: DeviceId, offer: UpdateOffer) -> bool:
        return isinstance(transitions.admit(self._state, device, offer), transitions.Wanted)

    # -- executing -----------------------------------------------------------------------------

    def _execute_plan(self) -> None:
        situation = planner.Situation(
            self._state,
            self._fleet,
            self._weights,
            is_job_running=self._children.is_job_running,
            now_unix_s=time.time(),
            failed_jobs=self._children.failed_jobs,
        )
        action = planner.plan(situation, self._settings)
        if action is None or time.monotonic() < self._retry_at:
            return
        try:
            self._execute(action)
        except FedptError as error:  # a full disk, say: it may be mended while we wait
            _logger.error("%s failed: %s", type(action).__name__, error)
            self._retry_at = time.monotonic() + _PAUSE_AFTER_FAILURE_S

    def _keep_workers(self) -> None:
        try:
            self._children.keep_workers()
        except FedptError as error:  # a full disk; tried again in ten seconds
            _logger.error("a logit worker does not start: %s", error)

    def _execute(self, action: planner.Action) -> None:
        match action:
            case planner.StartRun():
                self._start_run()
            case planner.StartRound(number, selected):
                self._start_round(number, selected)
            case planner.Aggregate():
                self._aggregate()
            case planner.Evaluate():
                self._children.start_evaluation(self._state, self._aggregated_path())
            case planner.Distil():
                self._children.start_distillation(self._state, self._aggregated_path())
            case planner.EndRound():
                self._children.forget_failures()
                self._end_round(self._aggregated(), DistillationResult(seconds=0, loss=0))
            case planner.AbandonRound():
                self._children.forget_failures()
                reason = "its evaluation fails every time"
                self._record(RoundAbandoned(reason=reason, at_unix_s=time.time()))
            case planner.Finish(reason):
                self._record(RunFinished(reason=reason))
            case _:
                assert_never(action)

    def _start_run(self) -> None:
        run = uuid4().hex
        first = self._adapters.put_first(
            self._settings.adapter, self._shapes, self._weights, seed=int(run[:8], 16)
        )
        self._record(RunStarted(run=run, adapter=first))

    def _start_round(self, number: int, selected: tuple[DeviceId, ...]) -> None:
        now = time.time()
        self._bytes_up = {}
        self._record(
            RoundStarted(
                number=number,
                selected=list(selected),
                at_unix_s=now,
                deadline_unix_s=now + self._settings.round_deadline_s,
            )
        )

    def _aggregate(self) -> None:
        adapter = self._adapters.put_average(
            self._state.current.updates.values(),
            start=self._state.current.base,
            most_examples=self._settings.most_examples,
        )
        self._record(Aggregated(adapter=adapter, at_unix_s=time.time()))

    def _take_result(self, ended: JobEnded) -> None:
        """A step that failed is planned again, after a pause that `children` sees to."""
        try:
            self._record_result(ended)
        except FedptError as error:
            ended = replace(ended, fault=str(error))
        self._children.job_ended(ended)
        if ended.fault:
            self._failed_jobs[ended.step] += 1
            _logger.error("%s failed: %s", ended.step, ended.fault)

    def _record_result(self, ended: JobEnded) -> None:
        if ended.fault:
            return
        if ended.step == "evaluate":
            self._record(Evaluated(evaluation=read_result(ended.folder, Evaluation)))
        else:
            result = read_result(ended.folder, DistillationResult)
            adapter = self._store.put((ended.folder / ADAPTER_NAME).read_bytes())
            self._end_round(adapter.sha256, result)

    def _end_round(self, adapter: str, result: DistillationResult) -> None:
        self._record(
            RoundEnded(
                adapter=adapter,
                distillation_seconds=result.seconds,
                distillation_loss=result.loss,
                at_unix_s=time.time(),
            )
        )
        self._store.keep_only(_blobs_in_use(self._state))

    def _record(self, event: AnyEvent) -> None:
        """Journal, then change the state, then tell everybody."""
        after = transitions.apply(self._state, event)
        self._journal.append(event)
        self._state = after
        _logger.info("%s", type(event).__name__, extra=_facts(event))
        self._announce()
        self._on_event(event)

    # -- telling -------------------------------------------------------------------------------

    def _announce(self) -> None:
        if self._state.rounds:
            adapter = self._store.ref(self._state.adapter)
            release = None
            if self._signer is not None:
                release = self._signer.sign(adapter, self._weights, time.time())
            message = announcement(self._state, self._settings, adapter, release)
            self._publish(self._topics.round, encode(message), is_retained=True)

    def _keep_releases(self) -> None:
        """Announce what the operator has changed, and sign again what is about to expire."""
        try:
            if self._signer is not None and self._signer.is_due(time.time()):
                self._announce()
            for kind in self._releases.look(time.monotonic()) if self._releases else []:
                self._announce_release(kind)
        except FedptError as error:
            _logger.error("releases: %s", error)

    def _announce_release(self, kind: Kind) -> None:
        """Empty if there is none: that takes back what the broker remembers."""
        if self._releases is not None:
            message = self._releases.announcements.get(kind)
            payload = encode(message) if message is not None else b""
            self._publish(self._topics.release(kind), payload, is_retained=True)

    def _send_chunks(self, request: ChunkRequest) -> None:
        if self._releases is not None and request.sha256 in self._releases:
            chunks = self._release_downloads.chunks(request, request.sha256, time.monotonic())
            for index, chunk in chunks:
                self._publish(self._topics.coordinator_chunk(request.sha256, index), chunk)
            return
        sha256 = self._state.adapter
        for index, chunk in self._downloads.chunks(request, sha256, time.monotonic()):
            self._publish(self._topics.coordinator_chunk(sha256, index), chunk)

    def _refuse(self, device: DeviceId, offer: UpdateOffer, error: FedptError) -> None:
        _logger.warning("update refused: %s", error, extra={"device": device})
        reason = str(error)[:_LONGEST_REASON]
        self._send_receipt(device, offer, accepted=False, code=error.code, reason=reason)

    def _send_receipt(
        self,
        device: DeviceId,
        offer: UpdateOffer,
        *,
        accepted: bool,
        code: str = "",
        reason: str = "",
    ) -> None:
        if not accepted:
            self._refused[code] += 1
        receipt = UpdateReceipt(
            run=offer.run,
            round=offer.round,
            update=offer.update.sha256,
            accepted=accepted,
            code=code,
            reason=reason,
        )
        self._publish(self._topics.inbox(device, "receipt"), encode(receipt))

    def _publish(self, topic: str, payload: bytes, *, is_retained: bool = False) -> None:
        self._link.publish(Publication(topic, payload, retain=is_retained))

    def _status_publication(self, *, is_online: bool) -> Publication:
        status = msgspec.structs.replace(self._status, online=is_online)
        return Publication(self._topics.coordinator_status, encode(status), retain=True)

    def _summary(self) -> str:
        """For the service manager: one line."""
        number = len(self._state.rounds)
        devices = len(self._fleet.online(self._weights))
        return f"round {number}, {self._state.phase.value}; devices online: {devices}"

    def _dead_parts(self) -> list[str]:
        """What only a new start mends."""
        faults = [] if self._link.is_alive else ["the connection's thread has ended"]
        if not self._children.are_workers_kept:
            faults.append("a logit worker has ended and is not started again")
        return faults

    def _shut_down(self) -> None:
        self._service.stopping()
        self._children.stop()
        self._link.publish_and_wait(self._status_publication(is_online=False), timeout_s=2)
        self._link.stop()
        self._journal.close()
        _logger.info("coordinator is down")

    def _has_said_farewell(self) -> bool:
        """Whether all is done and every device that is online has the last adapter."""
        if not self._state.finish_reason:
            return False
        now = time.monotonic()
        self._finished_at = self._finished_at or now
        online = self._fleet.online(self._weights)
        served = {self._fleet.devices[device].adapter for device in online}
        return served <= {self._state.adapter} or now - self._finished_at > _FAREWELL_S

    # -- looking up ----------------------------------------------------------------------------

    def _aggregated(self) -> str:
        aggregated = self._state.current.aggregated
        assert aggregated is not None  # the phases after training begin with it
        return aggregated.adapter

    def _aggregated_path(self) -> str:
        return str(self._adapters.path(self._aggregated()))


def _signer(settings: CoordinatorSettings) -> AdapterSigner | None:
    if settings.adapter_key_file is None:
        return None
    record = settings.state_dir / "signed-adapter.json"
    return AdapterSigner(settings.adapter_key_file, record, valid_days=settings.adapter_valid_days)


def _blobs_in_use(state: FederationState) -> set[str]:
    """The newest adapter and each round's aggregated one; updates of ended rounds are done with."""
    return {state.adapter} | {one.aggregated.adapter for one in state.rounds if one.aggregated}


def _facts(event: AnyEvent) -> dict[str, object]:
    """An event's short fields, for the log."""
    return {
        name: value
        for name in event.__struct_fields__
        if isinstance(value := getattr(event, name), str | int | float | list)
    }
