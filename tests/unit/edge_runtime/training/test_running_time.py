"""The clock of a training process stands still while that is paused."""

import time
from pathlib import Path

from edge_runtime.training.running_time import running_clock
from edge_runtime.training_job import read_paused, write_paused


def test_pauses_that_the_daemon_tells_are_left_out(tmp_path: Path) -> None:
    clock = running_clock(tmp_path)
    before = time.monotonic()
    assert before <= clock() <= time.monotonic()
    write_paused(tmp_path, 1000.5)
    assert before <= clock() + 1000.5 <= time.monotonic()


def test_what_cannot_be_read_is_no_pause(tmp_path: Path) -> None:
    assert read_paused(tmp_path / "nowhere") == 0
    (tmp_path / "paused").write_text("")
    assert read_paused(tmp_path) == 0
    write_paused(tmp_path / "nowhere", 3.0)  # a disk that cannot be written ends nothing
