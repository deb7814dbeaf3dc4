"""Logit workers as the coordinator's children: as many as the settings say, kept running."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from coordinator.children import Children
from coordinator.settings import CoordinatorSettings, WorkerSettings


def children(folder: Path, processes: int) -> Children:
    settings = CoordinatorSettings(
        state_dir=folder,
        small=folder / "small.gguf",
        large=folder / "large.gguf",
        evaluation=folder / "e",
        public=folder / "p",
        worker=WorkerSettings(processes=processes),
    )
    return Children(settings, on_end=lambda _ended: None)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Real child processes that only wait, in the place of workers that need a model."""
    from fedpt.drivers.child_process import ChildProcess

    calls: list[list[str]] = []

    def start(module: str, arguments: list[str], **callbacks: Callable[..., None]) -> ChildProcess:
        calls.append([module, *arguments])
        return ChildProcess("tests.fakes.waiting", [], **callbacks)

    monkeypatch.setattr("coordinator.children.ChildProcess", start)
    return calls


def test_none_are_started_when_they_run_elsewhere(tmp_path: Path, started: list[list[str]]) -> None:
    some = children(tmp_path, 0)
    some.start_workers()
    some.keep_workers()
    assert started == []
    assert some.are_workers_kept


def test_as_many_are_started_as_asked_for_and_a_killed_one_is_started_again(
    tmp_path: Path, started: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coordinator.children._PAUSE_AFTER_FAILURE_S", 0.0)
    some = children(tmp_path, 2)
    some.start_workers()
    try:
        assert len(started) == 2
        some.keep_workers()
        assert len(started) == 2
        worker = some._workers[0].process
        assert worker is not None
        os.kill(worker._process.pid, signal.SIGKILL)
        worker._process.wait()
        some.keep_workers()
        assert len(started) == 3
        assert started[0] == ["coordinator.worker", str(tmp_path / "worker.json")]
    finally:
        some.stop()


def test_a_worker_that_ended_long_ago_and_is_not_started_again_is_told(
    tmp_path: Path, started: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    some = children(tmp_path, 1)
    some.start_workers()
    assert some.are_workers_kept
    some.stop()
    assert some.are_workers_kept  # it may be started again in a moment
    later = time.monotonic() + 1000
    monkeypatch.setattr("coordinator.children.time.monotonic", lambda: later)
    assert not some.are_workers_kept
