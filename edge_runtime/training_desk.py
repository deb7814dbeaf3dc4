"""Where the device daemon and its training meet: starts it, pauses it, keeps its updates.

A round's training comes first: one of the personal adapter ends for it, and goes on afterwards.
What is decided when is in `training_conditions` and `training_pauses`. The daemon calls on its own
thread; answers begin and end on theirs, and a question halts training there and then.
"""

import logging
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Final

from edge_runtime import training_conditions, training_pauses
from edge_runtime.board_sensors import BoardSensors
from edge_runtime.drivers.outbox import Outbox
from edge_runtime.drivers.trainer import Trainer, TrainingTask
from edge_runtime.settings import DeviceSettings
from edge_runtime.training_conditions import Readings
from edge_runtime.training_job import TrainingResult, TrainingStep
from edge_runtime.training_pauses import Surroundings
from edge_runtime.training_view import TrainingView
from fedpt.blobs import BlobStore
from fedpt.wire.messages import RoundAnnouncement, TrainingPlan, UpdateOffer

_logger = logging.getLogger(__name__)

_LOOK_EVERY_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class TrainingOver:
    """A training process has ended."""

    announcement: RoundAnnouncement
    result: TrainingResult | None
    update: bytes
    fault: str
    """Why there is no result; empty without one: it gave way, and goes on later."""


@dataclass(frozen=True, slots=True)
class PersonalOver:
    """A training of the personal adapter has ended."""

    name: str
    """As it was started."""
    result: TrainingResult | None
    adapter: bytes
    """Its blob."""
    fault: str
    """As in `TrainingOver`."""


_Over = Callable[[TrainingResult | None, bytes, str], TrainingOver | PersonalOver]


@dataclass(slots=True)
class _Training:
    """The present one, or the last."""

    is_personal: bool = False
    gave_way: bool = False


class TrainingDesk:
    """One device's training."""

    def __init__(
        self,
        settings: DeviceSettings,
        *,
        on_step: Callable[[TrainingStep], None],
        on_over: Callable[[TrainingOver | PersonalOver], None],
        sensors: BoardSensors | None = None,
    ) -> None:
        """Make it; nothing trains yet.

        Args:
            settings: The device's.
            on_step: Called on a thread of the training process.
            on_over: The same.
            sensors: The board's; None: this machine's.
        """
        self._device = settings.name
        self._rules = settings.training_conditions
        self._trainer = Trainer(settings)
        self._sensors = sensors or BoardSensors(settings.state_dir)
        self._on_step = on_step
        self._on_over = on_over
        self._lock = threading.Lock()
        self._around = Surroundings()
        self._readings = Readings()
        self._looked_at = float("-inf")
        self._step: TrainingStep | None = None
        self._present = _Training()

    def start(self, announcement: RoundAnnouncement, store: BlobStore) -> bool:
        """Train from the announced adapter, or go on with it; False: not now, ask again.

        Raises:
            FedptError: It cannot be started.
        """
        if not self._may_start():
            return False
        self.stop_personal()
        sha256 = announcement.adapter.sha256
        seed = self._seed(sha256)
        self._begin(
            TrainingTask("training", store.path(sha256), announcement.training, seed),
            partial(TrainingOver, announcement),
            _Training(),
        )
        _logger.info("training started", extra={"round": announcement.round})
        return True

    @property
    def is_free(self) -> bool:
        """Whether a training of the personal adapter may start: none runs, nothing forbids it."""
        return self._trainer.pid is None and self._may_start()

    def start_personal(self, folder: str, adapter: Path, plan: TrainingPlan, name: str) -> None:
        """Train the personal adapter, or go on with it; the desk must be free.

        Args:
            folder: For the training, below the device's state folder.
            adapter: The blob to start from.
            plan: How.
            name: Of this training, the same after a restart.

        Raises:
            FedptError: It cannot be started.
        """
        self._begin(
            TrainingTask(folder, adapter, plan, self._seed(name)),
            partial(PersonalOver, name),
            _Training(is_personal=True),
        )
        _logger.info("training of the personal adapter started")

    def stop_personal(self) -> None:
        """End the personal adapter's training, if one runs; its checkpoint stays."""
        if self._present.is_personal and self._trainer.pid is not None:
            self._present.gave_way = True
            self._trainer.stop()

    def hear(self, step: TrainingStep) -> None:
        """The training has done a step."""
        self._step = step

    def watch(self) -> None:
        """Look at the board now and then; pause training, let it go on, or end it for now."""
        self._look()
        with self._lock:
            order = training_pauses.order(self._around, self._rules, time.monotonic())
            if order == "run" or self._trainer.pid is None:
                self._trainer.go_on()
            elif order == "pause":
                self._trainer.pause()
        if order == "end" and self._trainer.pid is not None:
            _logger.info("training ends for now: %s", self.view.why_not)
            self._present.gave_way = True
            self._trainer.stop()

    @contextmanager
    def undisturbed(self) -> Iterator[None]:
        """Nobody trains while the block runs: it answers a question."""
        with self._lock:
            self._around = training_pauses.answer_began(self._around)
            if training_pauses.is_asked(self._around, self._rules, time.monotonic()):
                self._trainer.pause()
        try:
            yield
        finally:
            with self._lock:
                self._around = training_pauses.answer_ended(self._around, time.monotonic())

    def keep_update(
        self, over: TrainingOver, store: BlobStore, outbox: Outbox, *, bytes_down: int
    ) -> UpdateOffer | None:
        """Store a finished update, blob first, so that an offer never points to nothing.

        Returns:
            What to offer; None: there is no update.

        Raises:
            StorageError: The disk is full, say.
        """
        result, announcement = over.result, over.announcement
        if result is None:
            return None
        offer = UpdateOffer(
            run=announcement.run,
            round=announcement.round,
            base=announcement.adapter.sha256,
            update=store.put(over.update),
            example_count=result.example_count,
            training_seconds=result.seconds,
            loss=result.loss,
            bytes_down=bytes_down,
        )
        outbox.put(offer)
        self._trainer.settle()
        facts = {
            "round": offer.round,
            "loss": round(result.loss, 4),
            "seconds": round(result.seconds, 1),
            "paused": round(result.paused_seconds, 1),
        }
        _logger.info("training ended", extra=facts)
        return offer

    def stop(self) -> None:
        """End the training, if one runs, for good."""
        self._trainer.stop()

    @property
    def view(self) -> TrainingView:
        """How it is; from any thread."""
        with self._lock:
            pid = self._trainer.pid
            return TrainingView(
                pid=pid,
                is_personal=self._present.is_personal,
                is_paused=pid is not None and self._trainer.is_paused,
                step=self._step if pid is not None else None,
                why_not=training_pauses.why_not(self._around, self._rules, time.monotonic()),
                paused_s=self._trainer.paused_s if pid is not None else 0.0,
                all_paused_s=self._trainer.all_paused_s,
                readings=self._readings,
                failing=self._around.failing,
            )

    def _look(self) -> None:
        """On the daemon's thread only, and without the lock: a sensor may be slow."""
        now = time.monotonic()
        if now - self._looked_at < _LOOK_EVERY_S:
            return
        self._looked_at = now
        self._readings = self._sensors.read(self._trainer.pid, now)
        before = self._around.failing
        # local time: that is what people's nights and tariffs go by
        clock = datetime.now().astimezone().time()
        failing = training_conditions.failing(self._readings, self._rules, clock, before=before)
        with self._lock:
            self._around = training_pauses.judged(self._around, failing, now)
        if before.keys() != failing.keys():
            _logger.info("conditions for training: %s", "; ".join(failing.values()) or "all hold")

    def _may_start(self) -> bool:
        self._look()
        return training_pauses.may_start(self._around, self._rules, time.monotonic())

    def _begin(self, task: TrainingTask, over: _Over, training: _Training) -> None:
        self._step, self._present = None, training

        def on_end(result: TrainingResult | None, update: bytes, fault: str) -> None:
            """On a thread of the process, perhaps after another training has begun."""
            self._on_over(over(result, update, "" if training.gave_way else fault))

        self._trainer.start(task, on_step=self._on_step, on_end=on_end)

    def _seed(self, what: str) -> int:
        """The same after a restart."""
        return zlib.crc32(f"{what} {self._device}".encode())
