"""Child processes report all they say, and end with their parent."""

import logging
import os
import queue
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from fedpt.drivers.child_process import ChildProcess

WAIT_S = 20.0


@dataclass
class Report:
    """What a child reported."""

    lines: "queue.Queue[bytes]" = field(default_factory=queue.Queue)
    ends: "queue.Queue[tuple[int, str]]" = field(default_factory=queue.Queue)


@pytest.fixture
def report() -> Report:
    return Report()


Start = Callable[..., ChildProcess]


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, report: Report) -> Start:
    """Starts a module with this text."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    def start(code: str, *arguments: str, niceness: int = 0, on_line=report.lines.put):
        (tmp_path / "child.py").write_text(textwrap.dedent(code))
        return ChildProcess(
            "child",
            arguments,
            on_line=on_line,
            on_end=lambda code, errors: report.ends.put((code, errors)),
            niceness=niceness,
        )

    return start


def test_lines_and_the_end_are_reported(start: Start, report: Report) -> None:
    child = start("import sys; print('one'); print(sys.argv[1]); sys.exit(3)", "two")
    assert report.ends.get(timeout=WAIT_S) == (3, "")
    assert [report.lines.get_nowait() for _ in range(2)] == [b"one\n", b"two\n"]
    assert not child.is_running


def test_a_line_is_reported_while_the_child_runs(start: Start, report: Report) -> None:
    child = start("import time; print('ready', flush=True); time.sleep(60)")
    assert report.lines.get(timeout=WAIT_S) == b"ready\n"
    assert child.is_running
    child.stop()


def test_the_last_lines_of_its_errors_come_with_its_end(start: Start, report: Report) -> None:
    start("import sys; [print(i, file=sys.stderr) for i in range(100)]; sys.exit('fault')")
    code, errors = report.ends.get(timeout=WAIT_S)
    assert code == 1
    assert errors.splitlines() == [*map(str, range(61, 100)), "fault"]


def test_bytes_that_are_no_text_are_reported_all_the_same(start: Start, report: Report) -> None:
    start("import os; os.write(1, b'\\xff\\n'); os.write(2, b'\\xfe')")
    assert report.ends.get(timeout=WAIT_S) == (0, "�")
    assert report.lines.get_nowait() == b"\xff\n"


def test_more_output_than_a_pipe_holds_blocks_nothing(start: Start, report: Report) -> None:
    start("import sys; print('x' * 10**6); print('y' * 10**6, file=sys.stderr); sys.exit(4)")
    assert report.ends.get(timeout=WAIT_S)[0] == 4
    assert len(report.lines.get_nowait()) == 10**6 + 1


def test_a_callback_that_fails_does_not_swallow_the_rest(
    start: Start, report: Report, caplog: pytest.LogCaptureFixture
) -> None:
    def on_line(line: bytes) -> None:
        report.lines.put(line)
        raise ValueError(line)

    with caplog.at_level(logging.ERROR):
        start("print('one'); print('two')", on_line=on_line)
        assert report.ends.get(timeout=WAIT_S) == (0, "")
    assert report.lines.qsize() == 2
    assert "a callback failed" in caplog.text


def test_stop_ends_it_politely(start: Start, report: Report) -> None:
    child = start("import time; print('ready', flush=True); time.sleep(60)")
    report.lines.get(timeout=WAIT_S)
    child.stop()
    assert report.ends.get_nowait()[0] == -signal.SIGTERM
    child.stop()


BUSY = """
    import time
    from fedpt.drivers.child_process import end_with_parent
    end_with_parent()
    while True:
        print("at work", flush=True)
        time.sleep(0.01)
"""


@pytest.fixture
def busy(start: Start, report: Report, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """A child that can be paused, at work."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(Path.cwd())]))
    child = start(BUSY)
    report.lines.get(timeout=WAIT_S)
    yield child
    child.stop()


def state_of(child: ChildProcess) -> str:
    stat = Path(f"/proc/{child.pid}/stat").read_text()
    return stat.rpartition(")")[2].split()[0]


def wait_for_state(child: ChildProcess, wanted: str) -> None:
    """Signals are delivered soon, not at once."""
    deadline = time.monotonic() + WAIT_S
    while state_of(child) not in wanted:
        assert time.monotonic() < deadline, f"{state_of(child)}, not one of {wanted}"
        time.sleep(0.001)


def test_a_paused_child_halts_and_then_goes_on(busy: ChildProcess, report: Report) -> None:
    assert busy.pause()
    wait_for_state(busy, "T")
    assert busy.is_running
    while not report.lines.empty():
        report.lines.get()
    busy.go_on()
    assert report.lines.get(timeout=WAIT_S) == b"at work\n"
    wait_for_state(busy, "RS")


def test_a_paused_child_is_stopped_politely(busy: ChildProcess, report: Report) -> None:
    assert busy.pause()
    wait_for_state(busy, "T")
    busy.stop()
    assert report.ends.get(timeout=WAIT_S)[0] == -signal.SIGTERM
    assert not busy.pause()
    busy.go_on()  # it is gone: nothing happens


def test_a_paused_child_can_be_killed(busy: ChildProcess, report: Report) -> None:
    assert busy.pause()
    wait_for_state(busy, "T")
    os.kill(busy.pid, signal.SIGKILL)
    assert report.ends.get(timeout=WAIT_S)[0] == -signal.SIGKILL


def test_a_child_that_might_outlive_its_parent_is_not_paused(start: Start, report: Report) -> None:
    child = start("import time; print('ready', flush=True); time.sleep(60)")
    report.lines.get(timeout=WAIT_S)
    assert not child.pause()
    assert state_of(child) in "RS"
    child.stop()


def test_ctrl_c_for_the_parent_is_not_for_the_child(start: Start, report: Report) -> None:
    child = start("import os; print(os.getpgid(0), flush=True); input()")
    assert int(report.lines.get(timeout=WAIT_S)) != os.getpgid(0)
    child.stop()


def test_a_nice_child_lets_others_go_first(start: Start, report: Report) -> None:
    start("import os; print(os.nice(0))", niceness=7)
    assert int(report.lines.get(timeout=WAIT_S)) == os.nice(0) + 7
    report.ends.get(timeout=WAIT_S)


def test_a_nice_child_has_the_disk_last(start: Start, report: Report) -> None:
    start(
        "import subprocess, os; print(subprocess.run(['ionice', '-p', str(os.getpid())],"
        "capture_output=True, text=True).stdout)",
        niceness=1,
    )
    assert report.lines.get(timeout=WAIT_S) == b"idle\n"
    report.ends.get(timeout=WAIT_S)


@pytest.mark.parametrize("deed", ["pass", "child.pause()"], ids=["at work", "paused"])
def test_a_child_ends_when_its_parent_is_killed(tmp_path: Path, deed: str) -> None:
    (tmp_path / "child.py").write_text(
        "import os, time; from fedpt.drivers.child_process import end_with_parent;"
        "end_with_parent(); print(os.getpid(), flush=True); time.sleep(60)"
    )
    parent_code = (
        "import queue, sys, time; from fedpt.drivers.child_process import ChildProcess;"
        "lines = queue.Queue();"
        "child = ChildProcess('child', [], on_line=lines.put, on_end=lambda *_: None);"
        f"line = lines.get(); {deed};"
        "print(line.decode(), end='', flush=True); time.sleep(60)"
    )
    path = os.pathsep.join([str(tmp_path), str(Path.cwd())])
    with subprocess.Popen(
        [sys.executable, "-c", parent_code],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": path},
    ) as parent:
        assert parent.stdout is not None
        descriptor = os.pidfd_open(int(parent.stdout.readline()))
        parent.kill()
    try:
        assert ended(descriptor)
    finally:
        os.close(descriptor)


def ended(descriptor: int) -> bool:
    """Whether the process of a pidfd ends in time; it is then readable."""
    import select

    return bool(select.select([descriptor], [], [], WAIT_S)[0])


def test_no_thread_stays_when_a_child_has_ended(start: Start, report: Report) -> None:
    before = threading.active_count()
    child = start("pass")
    report.ends.get(timeout=WAIT_S)
    child.stop()
    assert threading.active_count() == before
