"""Where the device daemon and its training meet: starts it, pauses it, keeps its updates.

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
from typing import Final

from edge_runtime import training_conditions, training_pauses
from edge_runtime.board_sensors import BoardSensors
from edge_runtime.drivers.outbox import Outbox
from edge_runtime.drivers.trainer import Trainer
from edge_runtime.settings import DeviceSettings
from edge_runtime.training_conditions import Readings
from edge_runtime.training_job import TrainingResult, TrainingStep
from edge_runtime.training_pauses import Surroundings
from edge_runtime.training_view import TrainingView
from fedpt.blobs import BlobStore
from fedpt.wire.messages import RoundAnnouncement, UpdateOffer

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


class TrainingDesk:
    """One device's training."""

    def __init__(
        self,
        settings: DeviceSettings,
        *,
        on_step: Callable[[TrainingStep], None],
        on_over: Callable[[TrainingOver], None],
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
        self._gave_way = False

    def start(self, announcement: RoundAnnouncement, store: BlobStore) -> bool:
        """Train from the announced adapter, or go on with it; False: not now, ask again.

        Raises:
            FedptError: It cannot be started.
        """
        self._look()
        if not training_pauses.may_start(self._around, self._rules, time.monotonic()):
            return False
        name = f"{announcement.adapter.sha256} {self._device}"  # the same after a restart
        self._step, self._gave_way = None, False
        self._trainer.start(
            announcement,
            store.path(announcement.adapter.sha256),
            seed=zlib.crc32(name.encode()),
            on_step=self._on_step,
            on_end=lambda *end: self._on_over(self._over(announcement, *end)),
        )
        _logger.info("training started", extra={"round": announcement.round})
        return True

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
            self._gave_way = True
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

    def _over(
        self,
        announcement: RoundAnnouncement,
        result: TrainingResult | None,
        update: bytes,
        fault: str,
    ) -> TrainingOver:
        """On a thread of the process."""
        return TrainingOver(announcement, result, update, "" if self._gave_way else fault)
