"""The coordinator's child processes: its logit workers, and one job of a round at a time."""

import logging
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from coordinator.round_job import DISTIL, EVALUATE, UNCHANGING_WAYS, DistillationJob, EvaluationJob
from coordinator.settings import CoordinatorSettings
from coordinator.state import FederationState
from fedpt.drivers.child_process import ChildProcess
from fedpt.files import write_bytes
from fedpt.job_folder import has_result, write_job

_logger = logging.getLogger(__name__)

_PAUSE_AFTER_FAILURE_S: Final = 10.0
_WORKER_OVERDUE_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class JobEnded:
    """A round's job is done, or `fault` says why not."""

    step: str
    folder: Path
    fault: str


@dataclass(slots=True)
class _Worker:
    process: ChildProcess | None = None
    due: float = 0.0
    """When it may be started again, should it have ended."""

    @property
    def is_running(self) -> bool:
        return self.process is not None and self.process.is_running


class Children:
    """Starts and stops them; `on_end` is called from another thread."""

    def __init__(
        self, settings: CoordinatorSettings, *, on_end: Callable[[JobEnded], None]
    ) -> None:
        self._settings = settings
        self._on_end = on_end
        self._workers = [_Worker() for _ in range(settings.worker.processes)]
        self._job: ChildProcess | None = None
        self._job_due = 0.0
        self.failed_jobs = 0
        """How often jobs have failed since the last that did not."""

    @property
    def is_job_running(self) -> bool:
        """Whether a job runs, or waits after a failure."""
        return self._job is not None or time.monotonic() < self._job_due

    @property
    def are_workers_kept(self) -> bool:
        """Whether each logit worker runs, or is about to be started again."""
        now = time.monotonic()
        return all(one.is_running or now < one.due + _WORKER_OVERDUE_S for one in self._workers)

    def start_workers(self) -> None:
        """Start as many logit workers as the settings say; maybe none."""
        for worker in self._workers:
            self._start_worker(worker)

    def keep_workers(self) -> None:
        """Start again those that have ended, each not more often than every ten seconds."""
        for worker in self._workers:
            if not worker.is_running and time.monotonic() >= worker.due:
                self._start_worker(worker)

    def _start_worker(self, worker: _Worker) -> None:
        worker.due = time.monotonic() + _PAUSE_AFTER_FAILURE_S
        path = self._settings.state_dir / "worker.json"
        write_bytes(path, self._settings.model_dump_json().encode())
        worker.process = ChildProcess(
            "coordinator.worker",
            [str(path)],
            on_line=lambda _line: None,
            on_end=lambda code, errors: (_logger.warning if code else _logger.info)(
                "logit worker ended", extra={"exit_code": code, "output": errors[-500:]}
            ),
        )

    def start_evaluation(self, state: FederationState, adapter: str) -> None:
        """Score the adapter in this blob's file."""
        settings = self._settings
        job = EvaluationJob(
            small=str(settings.small),
            large=str(settings.large),
            adapter=adapter,
            examples=str(settings.evaluation),
            answer_tokens=settings.evaluating.answer_tokens,
            known_answers=_known_answers(state),
            threads=settings.threads,
        )
        self._start(EVALUATE, state, job)

    def start_distillation(self, state: FederationState, adapter: str) -> None:
        """Teach the adapter in this blob's file."""
        settings = self._settings
        evaluation = state.current.evaluation
        assert evaluation is not None  # distillation follows it
        count = settings.distillation.prompts_per_round
        job = DistillationJob(
            small=str(settings.small),
            large=str(settings.large),
            adapter=adapter,
            prompts=str(settings.public),
            coefficients=evaluation.coefficients,
            first_prompt=(state.current.number - 1) * count,
            prompt_count=count,
            answer_tokens=settings.evaluating.answer_tokens,
            settings=settings.distillation.model_dump(),
            threads=settings.threads,
            seed=int(state.run[:8], 16) + state.current.number,
        )
        self._start(DISTIL, state, job)

    def job_ended(self, ended: JobEnded) -> None:
        """Take note; after a failure the next job waits a little."""
        self._job = None
        self.failed_jobs = self.failed_jobs + 1 if ended.fault else 0
        if ended.fault:
            self._job_due = time.monotonic() + _PAUSE_AFTER_FAILURE_S
        else:
            shutil.rmtree(ended.folder, ignore_errors=True)

    def forget_failures(self) -> None:
        """The step that failed is given up; the next one begins with a clean record."""
        self.failed_jobs = 0

    def stop(self) -> None:
        """End all of them."""
        for child in (*(worker.process for worker in self._workers), self._job):
            if child is not None:
                child.stop()

    def _start(
        self, step: str, state: FederationState, job: EvaluationJob | DistillationJob
    ) -> None:
        folder = self._settings.state_dir / "jobs" / f"{step}-{state.current.number:04}"
        shutil.rmtree(folder, ignore_errors=True)
        write_job(folder, job)
        self._job = ChildProcess(
            "coordinator.round_work",
            [step, str(folder)],
            on_line=lambda line: _logger.debug("%s: step %s", step, line.decode().strip()),
            on_end=lambda code, errors: self._on_end(
                JobEnded(step, folder, "" if has_result(folder) else _reason(code, errors))
            ),
        )


def _known_answers(state: FederationState) -> dict[str, list[str]]:
    """What the models that no round changes have answered in an earlier round."""
    first = state.rounds[0].evaluation
    return {} if first is None else {way: first.answers[way] for way in UNCHANGING_WAYS}


def _reason(code: int, errors: str) -> str:
    return errors.strip().rpartition("\n")[2] or f"its process ended with code {code}"
