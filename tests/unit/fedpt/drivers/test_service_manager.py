"""What the service manager hears, through a real socket."""

import os
import subprocess
import sys
from pathlib import Path
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedpt.drivers.service_manager import ServiceManager, Watchdog
from tests.fakes.notifications import listening


class Clock:
    """Time that stands still until it is told to go on."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_ready_status_and_stopping_are_heard_in_order(tmp_path: Path) -> None:
    with listening(tmp_path / "notify") as ear:
        service = ServiceManager(str(tmp_path / "notify"))
        service.ready()
        service.status("round 3")
        service.stopping()
        assert ear.pending() == ["READY=1", "STATUS=round 3", "STOPPING=1"]


def test_an_abstract_socket_is_reached() -> None:
    name = f"@fedpt-test-{uuid4().hex}"
    with listening(name) as ear:
        ServiceManager(name).ready()
        assert ear.pending() == ["READY=1"]


def test_the_same_status_is_sent_once_and_a_line_break_begins_no_other_message(
    tmp_path: Path,
) -> None:
    with listening(tmp_path / "notify") as ear:
        service = ServiceManager(str(tmp_path / "notify"))
        service.status("fault\nWATCHDOG=1")
        service.status("fault WATCHDOG=1")
        assert ear.pending() == ["STATUS=fault WATCHDOG=1"]


def test_without_the_variable_nothing_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.socket", None)  # any use would raise
    service = ServiceManager.from_environment({"WATCHDOG_USEC": "60000000"})
    service.ready()
    service.alive()
    assert service.watchdog_s is None


def test_a_socket_that_is_gone_stops_nobody(tmp_path: Path) -> None:
    ServiceManager(str(tmp_path / "nobody")).ready()
    ServiceManager("a\0b").ready()


def test_the_variables_are_taken_out_of_the_environment_so_no_child_speaks_for_us(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    monkeypatch.setenv("WATCHDOG_USEC", "60000000")
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
    assert ServiceManager.from_environment().watchdog_s == 60.0
    program = "import os; print([v for v in os.environ if v.startswith(('NOTIFY', 'WATCHDOG'))])"
    child = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert child.stdout.strip() == b"[]"


@pytest.mark.parametrize(
    ("period", "process", "expected"),
    [
        ("60000000", "", 60.0),
        pytest.param("60000000", str(os.getpid()), 60.0, id="ours"),
        ("60000000", "1", None),
        ("0", "", None),
        ("often", "", None),
        ("", "", None),
    ],
)
def test_the_watchdog_is_ours_only_with_a_period_and_our_process(
    period: str, process: str, expected: float | None
) -> None:
    environment = {"NOTIFY_SOCKET": "@x", "WATCHDOG_USEC": period, "WATCHDOG_PID": process}
    assert ServiceManager.from_environment(environment).watchdog_s == expected
    assert environment == {}


@given(st.text(), st.text())
def test_no_environment_stops_a_daemon(address: str, period: str) -> None:
    service = ServiceManager.from_environment({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": period})
    service.ready()
    Watchdog(service).beat()


def test_the_watchdog_is_fed_at_half_the_period(tmp_path: Path) -> None:
    clock = Clock()
    with listening(tmp_path / "notify") as ear:
        watchdog = Watchdog(ServiceManager(str(tmp_path / "notify"), watchdog_s=60), clock=clock)
        for _ in range(121):  # a minute in half seconds
            watchdog.beat()
            clock.now += 0.5
        assert ear.pending() == ["WATCHDOG=1"] * 3  # after 0, 30 and 60 s


def test_a_dead_part_starves_the_watchdog_until_it_is_mended(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    with listening(tmp_path / "notify") as ear:
        watchdog = Watchdog(ServiceManager(str(tmp_path / "notify"), watchdog_s=60), clock=clock)
        watchdog.beat()
        for _ in range(3):
            clock.now += 40
            watchdog.beat(["the link is dead"])
        assert ear.pending() == ["WATCHDOG=1"]
        assert caplog.text.count("not alive: the link is dead") == 1
        watchdog.beat()
        assert ear.pending() == ["WATCHDOG=1"]


def test_without_a_watchdog_nothing_is_fed(tmp_path: Path) -> None:
    with listening(tmp_path / "notify") as ear:
        Watchdog(ServiceManager(str(tmp_path / "notify"))).beat()
        assert ear.pending() == []
