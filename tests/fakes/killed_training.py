"""The training process as its daemon starts it, dying like a board whose power fails.

The processes come from a fork server that has torch imported already; a new interpreter for every
death takes its time.
"""

import multiprocessing
import os
import signal
import sys
import threading
import warnings
from pathlib import Path

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(
    [
        "tests.fakes.killed_training",
        "edge_runtime.training.__main__",
    ]
)
_WAIT_S = 120.0


class _Lines:
    """Standard output that dies after so many lines of progress."""

    def __init__(self, deadly: int) -> None:
        self._left = deadly
        self.buffer = self

    def write(self, line: bytes) -> None:
        self._left -= line.count(b"\n")
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def flush(self) -> None:
        pass


def _train(folder: Path, steps: int, seconds: float) -> None:
    from edge_runtime.training.__main__ import main

    warnings.simplefilter("ignore")
    if seconds:
        timer = threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGKILL))
        timer.daemon = True
        timer.start()
    sys.stdout = _Lines(steps)  # type: ignore[assignment]  # as much of one as is used
    main(folder)


def train_until_killed(folder: Path, *, steps: int = -1, seconds: float = 0.0) -> bool:
    """Do the job in `folder` for so many steps or seconds; whether it died then."""
    process = _context.Process(target=_train, args=(folder, steps, seconds))
    process.start()
    process.join(_WAIT_S)
    code = process.exitcode
    process.kill()
    assert code in (0, -signal.SIGKILL)
    return code != 0
