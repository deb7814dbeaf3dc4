"""Where the device daemon and its personal adapter meet; the rules are in `personal`.

The adapter goes into the assistant and onto this board's disk, and nowhere else.
"""

import logging
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Final

from converters.adapter_to_gguf import convert_adapter
from edge_runtime.adapter_desk import AdapterSwitch
from edge_runtime.data.held_out import LEAST_EXAMPLES
from edge_runtime.drivers.personal_shelf import FORGOTTEN, TRAINING_FOLDER, PersonalShelf
from edge_runtime.personal import PersonalRecord, is_due, mixed, personal_adapter
from edge_runtime.settings import DeviceSettings
from edge_runtime.state import DeviceState
from edge_runtime.training_desk import PersonalOver, TrainingDesk
from edge_runtime.training_job import TrainingResult
from fedpt.adapters import Adapter, adapter_from_bytes
from fedpt.blobs import BlobStore
from fedpt.drivers.llama import LlamaModel
from fedpt.errors import AdapterError, BusyError, FedptError, StorageError
from fedpt.wire.messages import PersonalStatus

_logger = logging.getLogger(__name__)

_PATIENCE_S: Final = 30.0
"""Longer than switching adapters waits for an answer to end."""


@dataclass(frozen=True, slots=True)
class ForgetPersonal:
    """Somebody wants the personal adapter gone, and waits for it."""

    done: Future[None] = field(default_factory=Future)


def have_forgotten(put: Callable[[ForgetPersonal], None]) -> None:
    """Have the daemon's thread do it, and wait until it has.

    Args:
        put: Into the daemon's inbox.

    Raises:
        BusyError: The daemon has other things to do; it is done soon.
        StorageError: See `PersonalDesk.forget`.
    """
    put(order := ForgetPersonal())
    try:
        order.done.result(_PATIENCE_S)
    except TimeoutError:
        raise BusyError("the device is busy; the personal adapter is deleted soon") from None


class PersonalDesk:
    """One board's personal adapter; all calls on the daemon's thread, but for `status`."""

    def __init__(
        self,
        settings: DeviceSettings,
        model: LlamaModel,
        training: TrainingDesk,
        switch: AdapterSwitch,
    ) -> None:
        """Answer with the personal adapter at once, if there is one for this model."""
        self._settings = settings.personal
        self._has_data = settings.data is not None
        self._model = model
        self._base = model.weights
        self._training = training
        self._switch = switch
        self._shelf = PersonalShelf(settings.state_dir)
        self._record = self._shelf.record()
        if self._record is not None and self._record.base != self._base:
            _logger.info("the personal adapter is void: the small model is another one")
            self._shelf.clear()
            self._record = None
        self._in_use = ""
        self._training_for = ""
        """The federation's adapter that the present training starts from."""
        self._why_not = ""
        self._not_switched = ""
        """Why the assistant does not answer with what it should; tried again at each step."""
        self._use()

    def step(
        self, state: DeviceState, store: BlobStore, *, example_count: int, may_start: bool
    ) -> None:
        """Train, give way, or switch, as is due.

        Args:
            state: The board's part in the federation.
            store: With the federation's adapter.
            example_count: What there is to train on.
            may_start: False: something else wants the memory just now.
        """
        self._use()
        if not self._settings.enabled:
            return
        due = is_due(self._record, state, self._base)
        if self._training_for:
            if not due or self._training_for != state.served:
                self._training.stop_personal()
            return
        self._why_not = self._forbids(example_count)
        if due and may_start and not self._why_not and self._training.is_free:
            self._begin(state.served, store)

    def hear(self, over: PersonalOver) -> None:
        """Its training has ended.

        Raises:
            StorageError: What came of it cannot be kept; it is trained again.
        """
        federation = self._training_for
        if not federation or over.name != _name(federation):
            return  # it was forgotten meanwhile, or is another one's late end
        self._training_for = ""
        if over.result is not None:
            self._settle(self._trained(federation, over.result, over.adapter))
        elif over.fault:
            self._settle(self._failed(federation, over.fault))

    def obey(self, order: ForgetPersonal, served: str) -> None:
        """Forget, and tell who waits for it how that went."""
        try:
            self.forget(served)
        except FedptError as error:
            order.done.set_exception(error)
        else:
            order.done.set_result(None)

    def forget(self, served: str) -> None:
        """Delete the personal adapter; the next is trained from another adapter than `served`.

        Raises:
            StorageError: That cannot be noted; it is deleted all the same.
        """
        self._training.stop_personal()
        before = self._record.federation if self._record is not None else ""
        self._training_for = ""
        try:
            self._settle(self._failed(served or before, FORGOTTEN))
        except StorageError:
            self._shelf.clear()
            self._use()
            raise

    @property
    def status(self) -> PersonalStatus | None:
        """How it stands; None: there shall be no personal adapter."""
        if not self._settings.enabled:
            return None
        view, record = self._training.view, self._record
        is_training = view.is_running and view.is_personal
        fault = record.fault if record is not None else ""
        return PersonalStatus(
            in_use=bool(self._in_use),
            trained_unix_s=record.ended_unix_s if record is not None and record.adapter else 0.0,
            example_count=record.example_count if record is not None else 0,
            nll_before=record.nll_before if record is not None else None,
            nll_after=record.nll_after if record is not None else None,
            training_done=view.done if is_training else 0.0,
            why_not=view.why_not
            if view.is_paused and is_training
            else self._not_switched or self._why_not or fault,
        )

    def _use(self) -> None:
        """Let the assistant answer with it, or not; where an answer runs, the next time."""
        wanted = personal_adapter(self._record, self._base) if self._settings.enabled else ""
        if wanted == self._in_use:
            self._not_switched = ""
            return
        try:
            path = self._shelf.gguf(wanted)
            if wanted and not path.is_file():
                convert_adapter(self._shelf.adapter(wanted), self._model.file, path)
            switched = (
                self._switch.use_personal(wanted, path) if wanted else self._switch.use_federation()
            )
        except FedptError as error:
            self._cannot_use(wanted, error)
            return
        if switched:
            self._in_use, self._not_switched = wanted, ""

    def _cannot_use(self, wanted: str, error: FedptError) -> None:
        """A personal adapter that is damaged is given up; anything else may pass."""
        if str(error) != self._not_switched:
            _logger.warning("the assistant keeps its adapter: %s", error)
        self._not_switched = str(error)
        if wanted and self._record is not None and isinstance(error, AdapterError):
            try:
                self._settle(self._failed(self._record.federation, str(error)))
            except StorageError as full:
                _logger.warning("the personal adapter is given up, but not deleted: %s", full)

    def _begin(self, federation: str, store: BlobStore) -> None:
        try:
            start = self._shelf.put_start(self._start(adapter_from_bytes(store.get(federation))))
            self._training.start_personal(
                TRAINING_FOLDER, start, self._settings.plan, _name(federation)
            )
        except FedptError as error:
            self._settle(self._failed(federation, str(error)))
            return
        self._training_for = federation

    def _start(self, federation: Adapter) -> Adapter:
        """What training starts from."""
        own, mix = personal_adapter(self._record, self._base), self._settings.mix
        if not own or not mix:
            return federation
        try:
            return mixed(federation, self._shelf.adapter(own), mix)
        except AdapterError as error:
            _logger.warning("the personal adapter before is not mixed in: %s", error)
            return federation

    def _trained(self, federation: str, result: TrainingResult, blob: bytes) -> PersonalRecord:
        """Put it on the shelf, if it was judged: the process has refused what is worse."""
        if result.nll_after is None:
            return self._failed(federation, _too_few(result.example_count))
        return PersonalRecord(
            base=self._base,
            federation=federation,
            adapter=self._shelf.keep(blob),
            ended_unix_s=time.time(),
            example_count=result.example_count,
            nll_before=result.nll_before,
            nll_after=result.nll_after,
        )

    def _failed(self, federation: str, fault: str) -> PersonalRecord:
        return PersonalRecord(
            base=self._base, federation=federation, ended_unix_s=time.time(), fault=fault
        )

    def _settle(self, record: PersonalRecord) -> None:
        self._record = record
        log = _logger.warning if record.fault else _logger.info
        log("personal adapter: %s", record.fault or "trained")
        self._shelf.settle(record)
        self._use()

    def _forbids(self, example_count: int) -> str:
        if not self._has_data:
            return "this device has no data store"
        return _too_few(example_count) if example_count < LEAST_EXAMPLES else ""


def _name(federation: str) -> str:
    """Of the training that starts from this adapter of the federation."""
    return f"personal {federation}"


def _too_few(count: int) -> str:
    return f"too few examples: of {count} none can be held out to judge by"
