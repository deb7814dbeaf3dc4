"""The installing process, from the daemon's side: start it, stop it, collect what became of it."""

import logging
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edge_runtime.updates.job import PrepareJob, PrepareResult
from fedpt.drivers.child_process import ChildProcess
from fedpt.errors import FedptError
from fedpt.job_folder import read_result, write_job

_logger = logging.getLogger(__name__)

_MODULE: Final = "edge_runtime.updates"
_NICENESS: Final = 15
_KILLED: Final = (-9, -15)
"""Ended from outside, for lack of memory say: that is not the release's fault alone."""

OnLine = Callable[[bytes], None]


@dataclass(frozen=True, slots=True)
class Prepared:
    """The installing process has ended; `result.fault` says why the release is not complete."""

    release: str
    result: PrepareResult
    was_killed: bool = False


class Preparer:
    """At most one installing process at a time, in a folder of its own."""

    def __init__(self, folder: Path, *, on_prepared: Callable[[Prepared], None]) -> None:
        """Make it; nothing starts yet.

        Args:
            folder: For the job.
            on_prepared: Called on a thread of the process.
        """
        self._folder = folder
        self._on_prepared = on_prepared
        self._child: ChildProcess | None = None

    @property
    def is_running(self) -> bool:
        """Whether a release is being prepared."""
        return self._child is not None and self._child.is_running

    def start(self, job: PrepareJob, on_line: OnLine = lambda _line: None) -> None:
        """Begin.

        Raises:
            FedptError: It cannot be started.
        """
        shutil.rmtree(self._folder, ignore_errors=True)
        write_job(self._folder, job)
        release = job.signed.id
        self._child = ChildProcess(
            _MODULE,
            [str(self._folder)],
            on_line=on_line,
            on_end=lambda code, errors: self._on_prepared(self._collect(release, code, errors)),
            niceness=_NICENESS,
        )

    def stop(self) -> None:
        """End it, if it runs."""
        if self._child is not None:
            self._child.stop()
            self._child = None

    def _collect(self, release: str, code: int, errors: str) -> Prepared:
        was_killed = code in _KILLED
        try:
            result = read_result(self._folder, PrepareResult)
        except FedptError:
            _logger.warning("installing failed", extra={"exit_code": code, "output": errors})
            result = PrepareResult(fault=_reason(code, errors), is_final=not was_killed)
        return Prepared(release, result, was_killed)


def _reason(code: int, errors: str) -> str:
    """Its last line, unless a signal ended it: that line is then about something else."""
    if code < 0:
        return f"the process that tried it was ended by signal {-code}"
    return errors.strip().rpartition("\n")[2] or f"the process that tried it ended with code {code}"
