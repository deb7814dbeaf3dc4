"""The training process, from the daemon's side: start, pause, hear of it, collect the result."""

import logging
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from edge_runtime.data.store import DataStore
from edge_runtime.settings import DeviceSettings
from edge_runtime.training_job import (
    CHECKPOINT_NAME,
    MEMORY_ADVICE,
    UPDATE_NAME,
    TrainingJob,
    TrainingResult,
    TrainingStep,
    write_paused,
)
from fedpt.drivers.child_process import ChildProcess
from fedpt.errors import FedptError, UsageError
from fedpt.job_folder import JOB_NAME, read_job, read_result, write_job
from fedpt.wire.messages import TrainingPlan

_logger = logging.getLogger(__name__)

OnStep = Callable[[TrainingStep], None]
OnEnd = Callable[[TrainingResult | None, bytes, str], None]
"""Result and update's blob, or None, nothing, and the reason."""


@dataclass(frozen=True, slots=True)
class TrainingTask:
    """One training, of a round or of the personal adapter."""

    folder: str
    """Its own, below the device's state folder: a checkpoint that it left is gone on from."""
    adapter: Path
    """The blob to start from."""
    plan: TrainingPlan
    seed: int
    """The same after a restart."""


_CRASHES: Final = (signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS)
"""Native code that does not look whether it was given memory ends so."""
_OUT_OF_MEMORY: Final = "std::bad_alloc"
"""What C++ says when it ends a process because nobody catches that in one of its threads."""


def reason_of(code: int, errors: str) -> str:
    """Why a training process has left no result, in one line.

    Its own last line, unless a signal ended it: that line is then about something else.
    """
    if code == -signal.SIGKILL:
        return f"its process was ended by signal {-code}, as the system does when memory is short"
    if code < 0 and _OUT_OF_MEMORY in errors:
        return f"its process needed more memory than it may take; {MEMORY_ADVICE}"
    if -code in _CRASHES:
        return f"its process was ended by signal {-code}: a crash, or it was refused memory"
    if code < 0:
        return f"its process was ended by signal {-code}"
    return errors.strip().rpartition("\n")[2] or f"its process ended with code {code}"


class Trainer:
    """At most one training at a time."""

    def __init__(self, settings: DeviceSettings) -> None:
        self._settings = settings
        self._folder = settings.state_dir
        """Of the present training, or the last."""
        self._child: ChildProcess | None = None
        self._paused_at: float | None = None
        self._paused_s = 0.0
        self._paused_before_s = 0.0

    @property
    def pid(self) -> int | None:
        """The process that trains; None if none does."""
        child = self._child  # `stop` is on another thread
        return child.pid if child is not None and child.is_running else None

    @property
    def is_paused(self) -> bool:
        """Whether it is halted."""
        return self._paused_at is not None

    @property
    def paused_s(self) -> float:
        """How long the present or last process was paused, all in all, s."""
        present = 0.0 if self._paused_at is None else time.monotonic() - self._paused_at
        return self._paused_s + present

    @property
    def all_paused_s(self) -> float:
        """The same of all processes so far, s."""
        return self._paused_before_s + self.paused_s

    def start(self, task: TrainingTask, *, on_step: OnStep, on_end: OnEnd) -> None:
        """Start to train, or go on; the callbacks come from another thread.

        Raises:
            FedptError: It cannot be started.
        """
        data = self._settings.data
        if data is None:
            raise UsageError("this device has no data store to train on: set data in its settings")
        self._folder = folder = self._settings.state_dir / task.folder
        job = TrainingJob(
            small=str(self._settings.small),
            adapter=str(task.adapter),
            data=str(data),
            up_to_place=DataStore(data).last_place(),
            plan=task.plan,
            seed=task.seed,
            threads=self._settings.training_threads or os.cpu_count() or 1,
            memory_budget_mb=self._settings.training_memory_mb,
            checkpoint_steps=self._settings.training_checkpoint_steps,
            precision=self._settings.training_precision,
            rank=self._settings.training_rank,
        )
        job = _as_begun(folder, job)
        _clear(folder)
        self._paused_before_s, self._paused_s, self._paused_at = self.all_paused_s, 0.0, None
        write_job(folder, job)
        self._child = ChildProcess(
            "edge_runtime.training",
            [str(folder)],
            on_line=lambda line: _hear(line, on_step),
            on_end=lambda code, errors: _collect(folder, code, errors, on_end),
            niceness=self._settings.training_niceness,
        )

    def pause(self) -> None:
        """Halt it at once, if it runs; in its first moments it cannot be: ask again."""
        child = self._child  # `stop` is on another thread
        if child is not None and not self.is_paused and child.pause():
            self._paused_at = time.monotonic()

    def go_on(self) -> None:
        """Let it run again, if it is paused; of one that has ended, the pause ends."""
        if self._paused_at is None:
            return
        self._paused_s, self._paused_at = self.paused_s, None
        if self._child is not None:
            write_paused(self._folder, self._paused_s)
            self._child.go_on()

    def settle(self) -> None:
        """What came of the last training is kept: it need not be done again."""
        (self._folder / CHECKPOINT_NAME).unlink(missing_ok=True)

    def stop(self) -> None:
        """End the training, if one runs."""
        if self._child is not None:
            self.go_on()
            self._child.stop()
            self._child = None


def _as_begun(folder: Path, job: TrainingJob) -> TrainingJob:
    """The same; where this very training was interrupted, with the examples that it began with.

    Else an example added in the meantime would make its checkpoint another training's.
    """
    if not (folder / CHECKPOINT_NAME).exists():
        return job
    try:
        begun = read_job(folder, TrainingJob)
    except FedptError:
        return job
    same = msgspec.structs.replace(job, up_to_place=begun.up_to_place)
    return same if same == begun else job


def _clear(folder: Path) -> None:
    """Leave only the checkpoint: the training process knows whether it is of the same training.

    And the job that it is of, until the next one takes its place.
    """
    for path in folder.glob("*"):
        if path.name not in (CHECKPOINT_NAME, JOB_NAME):
            path.unlink(missing_ok=True)


def _hear(line: bytes, on_step: OnStep) -> None:
    try:
        on_step(msgspec.json.decode(line, type=TrainingStep))
    except msgspec.MsgspecError:
        _logger.debug("the training process says %r", line)


def _collect(folder: Path, code: int, errors: str, on_end: OnEnd) -> None:
    try:
        result = read_result(folder, TrainingResult)
        update = (folder / UPDATE_NAME).read_bytes()
    except (FedptError, OSError):
        was_stopped = code == -signal.SIGTERM
        log = _logger.info if was_stopped else _logger.warning
        log("training left no update", extra={"exit_code": code, "output": errors[-2000:]})
        on_end(None, b"", reason_of(code, errors))
        return
    on_end(result, update, "")
