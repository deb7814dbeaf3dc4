"""Real daemons under a service manager: what it hears of them, and when it hears no more."""

import os
import queue
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from coordinator.doctor import _ask_worker, coordinator_checks
from coordinator.settings import ENVIRONMENT_PREFIX, CoordinatorSettings
from coordinator.worker.daemon import LogitWorker
from edge_runtime.daemon import DeviceDaemon
from edge_runtime.doctor import device_checks
from edge_runtime.drivers.local_client import daemon_status
from edge_runtime.settings import ENVIRONMENT_PREFIX as DEVICE_PREFIX
from edge_runtime.settings import DeviceSettings
from fedpt.doctor import examine
from fedpt.drivers.child_process import end_with_parent
from fedpt.drivers.mqtt import MqttLink, Publication, Received
from fedpt.drivers.service_manager import ServiceManager
from fedpt.ids import DeviceId, FederationId
from fedpt.settings import load
from fedpt.wire.codec import decode_worker_reply, encode
from fedpt.wire.messages import LogitRequest
from fedpt.wire.token_format import tokens_to_bytes
from fedpt.wire.topics import Topics
from tests.fakes.brokers import free_port, running_mosquitto
from tests.fakes.identities import Identities
from tests.fakes.notifications import NotificationEar, listening
from tests.fakes.tiny_federation import TinyFederation

pytestmark = [pytest.mark.broker, pytest.mark.llama, pytest.mark.slow]

PERIOD_S = 0.4


def write_device(tiny: TinyFederation, folder: Path, port: int) -> Path:
    path = folder / "device.toml"
    path.write_text(
        f'name = "kitchen"\nsmall = "{tiny.small}"\ndata = "{tiny.store}"\nstate_dir = "device"\n'
        f"[broker]\nport = {port}\n[assistant]\nthreads = 1\n"
    )
    return path


def write_coordinator(tiny: TinyFederation, folder: Path, port: int, more: str = "") -> Path:
    path = folder / "coordinator.toml"
    path.write_text(
        f'small = "{tiny.small}"\nlarge = "{tiny.large}"\nevaluation = "{tiny.data}"\n'
        f'public = "{tiny.data}"\nstate_dir = "coordinator"\nthreads = 1\n{more}\n'
        f"[broker]\nport = {port}\n[worker]\nsessions = 2\ncontext_tokens = 512\n"
    )
    return path


@contextmanager
def running(*arguments: object, notify: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A daemon under a service manager; its log is beside the socket, complete afterwards."""
    variables = {"NOTIFY_SOCKET": str(notify), "WATCHDOG_USEC": str(int(PERIOD_S * 1e6))}
    with (
        notify.with_name("log").open("wb") as log,
        subprocess.Popen(
            [sys.executable, "-m", "fedpt.cli", *map(str, arguments)],
            stderr=log,
            env={**os.environ, **variables},
            preexec_fn=end_with_parent,  # noqa: PLW1509  # no threads here
        ) as process,
    ):
        try:
            yield process
        finally:
            process.terminate()


def refusal(*arguments: object) -> tuple[int, str]:
    command = [sys.executable, "-m", "fedpt.cli", *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    return result.returncode, result.stderr


def test_a_coordinator_tells_of_itself_serves_figures_and_has_its_folder_alone(
    tiny: TinyFederation, tmp_path: Path
) -> None:
    port, figures = free_port(), free_port()
    config = write_coordinator(tiny, tmp_path, port)
    config.write_text(config.read_text() + f"[metrics]\nport = {figures}\n")
    notify = tmp_path / "notify"
    with listening(notify) as ear:
        with running("coordinator", "run", "--config", config, notify=notify) as process:
            heard = ear.wait_for("WATCHDOG=1")
            assert heard[0] == "READY=1"
            assert "STATUS=round 0, waiting; devices online: 0" in heard
            ear.wait_for("WATCHDOG=1")
            with urllib.request.urlopen(f"http://127.0.0.1:{figures}/metrics") as reply:
                assert b"fedpt_devices_online 0.0" in reply.read()
            code, line = refusal("coordinator", "run", "--config", config)
            assert (code, line.count("\n")) == (1, 1)
            assert f"another coordinator (process {process.pid}) uses" in line
            findings = {one.what: one.level for one in examine(coordinator_checks(config))}
            assert "fault" not in findings.values(), findings
            assert any(what.startswith("logit worker: answers in") for what in findings)
            ear.pending()  # the doctor took its time: a full queue would drop what comes now
        assert "STOPPING=1" in ear.pending()


def test_a_killed_coordinator_leaves_its_folder_to_the_next(
    tiny: TinyFederation, tmp_path: Path
) -> None:
    config = write_coordinator(tiny, tmp_path, free_port())
    notify = tmp_path / "notify"
    for _ in range(2):
        with (
            listening(notify) as ear,
            running("coordinator", "run", "--config", config, notify=notify) as process,
        ):
            ear.wait_for("READY=1")
            process.kill()
        notify.unlink()


def test_a_device_tells_of_itself_and_its_doctor_leaves_its_connection_alone(
    tiny: TinyFederation, tmp_path: Path
) -> None:
    notify = tmp_path / "notify"
    with running_mosquitto() as broker, listening(notify) as ear:
        config = write_device(tiny, tmp_path, broker.port)
        with running("device", "run", "--config", config, notify=notify) as process:
            heard = ear.wait_for("WATCHDOG=1")
            assert heard == ["READY=1", "STATUS=waits for the coordinator", "WATCHDOG=1"]
            code, line = refusal("device", "run", "--config", config)
            assert code == 1
            assert f"another device (process {process.pid}) uses" in line
            findings = {one.what: one.level for one in examine(device_checks(config))}
            assert findings["daemon: idle, adapter none yet"] == "ok"
            assert "fault" not in findings.values(), findings
        assert "STOPPING=1" in ear.pending()
    assert "connection to the broker lost" not in (tmp_path / "log").read_text()


def test_a_running_device_counts_what_command_lines_add_and_flag(
    tiny: TinyFederation, tmp_path: Path
) -> None:
    notify = tmp_path / "notify"
    with running_mosquitto() as broker, listening(notify) as ear:
        config = write_device(tiny, tmp_path, broker.port)
        config.write_text(config.read_text().replace(str(tiny.store), "new.db"))
        with running("device", "run", "--config", config, notify=notify):
            ear.wait_for("READY=1")
            settings = load(DeviceSettings, toml=config, prefix=DEVICE_PREFIX, environment={})
            assert daemon_status(settings.socket)["example_count"] == 0
            assert refusal("teach", "Good night", "Sleep well.", "--config", config) == (0, "")
            assert refusal("teach", "My card?", "4111 1111 1111 1111", "--config", config)[0] == 0
            status = daemon_status(settings.socket)
            assert (status["example_count"], status["flagged_count"]) == (1, 1)


def test_a_worker_runs_as_a_process_of_its_own_under_its_name(
    tiny: TinyFederation, tmp_path: Path
) -> None:
    notify = tmp_path / "notify"
    with running_mosquitto() as broker, listening(notify) as ear:
        config = write_coordinator(tiny, tmp_path, broker.port, "embedded_broker = false")
        command = ("coordinator", "worker", "--config", config, "--name", "worker-7")
        with running(*command, notify=notify) as process:
            ear.wait_for("READY=1")
            ear.wait_for("WATCHDOG=1")
            settings = load(
                CoordinatorSettings, toml=config, prefix=ENVIRONMENT_PREFIX, environment={}
            )
            assert _ask_worker(settings) is not None
        assert process.returncode == 0
        assert "STOPPING=1" in ear.pending()
    assert '"worker": "worker-7"' in (tmp_path / "log").read_text()


def test_a_worker_logs_in_with_its_own_certificate_beside_the_coordinators(
    tiny: TinyFederation, tmp_path: Path
) -> None:
    fleet = Identities(tmp_path)
    fleet.write("coordinator", "coordinator")
    fleet.write("worker-1", "worker")
    fleet.write("kitchen")
    lines = fleet.broker_lines() + "use_username_as_clientid true\n"
    notify = tmp_path / "notify"
    with running_mosquitto(lines=lines) as broker, listening(notify) as ear:
        config = write_coordinator(tiny, tmp_path, broker.port, "embedded_broker = false")
        config.write_text(
            config.read_text().replace(
                "[worker]\n",
                'ca_file = "ca.pem"\ncertificate_file = "coordinator.pem"\n'
                'key_file = "coordinator.key"\n[worker]\nprocesses = 0\n'
                'certificate_file = "worker-1.pem"\nkey_file = "worker-1.key"\n',
            )
        )
        replies: queue.Queue[Received] = queue.Queue()
        coordinator = MqttLink(
            fleet.login(broker.port, "coordinator"), "coordinator", on_message=replies.put
        )
        topics = Topics(FederationId("home"))
        coordinator.subscribe(topics.inbox(DeviceId("kitchen"), "logits"), qos=0)
        with running("coordinator", "worker", "--config", config, notify=notify):
            ear.wait_for("READY=1")
            coordinator.start(timeout_s=20)
            request = LogitRequest(
                request=1,
                session=bytes(8),
                position=0,
                tokens=tokens_to_bytes([5]),
                rows=1,
                largest=4,
            )
            topic = topics.device("kitchen", "logits")
            coordinator.publish(Publication(topic, encode(request), qos=0))
            reply = decode_worker_reply(replies.get(timeout=60).payload)
            assert reply.worker == "worker-1"
            assert reply.code == ""
            coordinator.stop()
        assert "connection to the broker lost" not in (tmp_path / "log").read_text()


@contextmanager
def in_a_thread(daemon: DeviceDaemon | LogitWorker) -> Iterator[None]:
    thread = threading.Thread(target=daemon.run)
    thread.start()
    try:
        yield
    finally:
        daemon.stop()
        thread.join(60)


def is_fed(ear: NotificationEar) -> bool:
    """Whether it is fed again and again; a beat that was under way does not count."""
    ear.pending()
    ear._listener.settimeout(4 * PERIOD_S)
    try:
        return [ear._listener.recv(100) for _ in range(2)].count(b"WATCHDOG=1") == 2
    except TimeoutError:
        return False


@pytest.fixture
def device(tiny: TinyFederation, tmp_path: Path) -> Iterator[tuple[DeviceDaemon, NotificationEar]]:
    """A device that runs in this process, and what its service manager hears."""
    notify = tmp_path / "notify"
    with running_mosquitto() as broker, listening(notify) as ear:
        config = write_device(tiny, tmp_path, broker.port)
        settings = load(DeviceSettings, toml=config, prefix="FEDPT_DEVICE", environment={})
        daemon = DeviceDaemon(settings, ServiceManager(str(notify), watchdog_s=PERIOD_S))
        with in_a_thread(daemon):
            ear.wait_for("WATCHDOG=1")
            yield daemon, ear


def test_a_stuck_loop_feeds_no_more_and_one_that_goes_on_does(
    device: tuple[DeviceDaemon, NotificationEar], monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon, ear = device
    is_stuck, may_go_on = threading.Event(), threading.Event()

    def hang() -> None:
        is_stuck.set()
        may_go_on.wait()

    with monkeypatch.context() as patch:
        patch.setattr(daemon, "_execute_plan", hang)
        assert is_stuck.wait(60)
        try:
            assert not is_fed(ear)
        finally:
            may_go_on.set()
    ear.wait_for("WATCHDOG=1")


def test_a_dead_network_thread_starves_the_watchdog(
    device: tuple[DeviceDaemon, NotificationEar],
) -> None:
    daemon, ear = device
    daemon._link._client.loop_stop()
    assert not is_fed(ear)


def test_an_assistant_stuck_in_an_answer_starves_the_watchdog(
    device: tuple[DeviceDaemon, NotificationEar],
) -> None:
    daemon, ear = device
    daemon._assistant._step_since = -1e6
    ear.pending()
    assert not is_fed(ear)
    daemon._assistant._step_since = None
    ear.wait_for("WATCHDOG=1")


def test_a_lost_broker_is_no_reason_to_start_anew(tiny: TinyFederation, tmp_path: Path) -> None:
    notify = tmp_path / "notify"
    with listening(notify) as ear:
        with running_mosquitto() as broker:
            config = write_device(tiny, tmp_path, broker.port)
            settings = load(DeviceSettings, toml=config, prefix="FEDPT_DEVICE", environment={})
            daemon = DeviceDaemon(settings, ServiceManager(str(notify), watchdog_s=PERIOD_S))
            running_daemon = in_a_thread(daemon)
            running_daemon.__enter__()
            ear.wait_for("READY=1")
        try:
            with pytest.raises(OSError, match="refused"):
                socket.create_connection(("127.0.0.1", settings.broker.port))
            ear.pending()
            ear.wait_for("WATCHDOG=1")
        finally:
            running_daemon.__exit__(None, None, None)
