"""A clock that stands still while the daemon has this process paused."""

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from edge_runtime.training_job import read_paused


def running_clock(folder: Path) -> Callable[[], float]:
    """Seconds that this process could run.

    Args:
        folder: Of its job, where the daemon tells of every pause before it ends it.
    """
    return partial(_running_s, folder)


def _running_s(folder: Path) -> float:
    return time.monotonic() - read_paused(folder)
