"""Mosquitto and a real logit worker as processes, on loopback or at the far end of a line."""

import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.subject import Subject
from coordinator.settings import CoordinatorSettings, EvaluationSettings, WorkerSettings
from fedpt.blobs import BlobStore
from fedpt.drivers.mqtt import MqttLink, Publication
from fedpt.files import sha256_bytes
from fedpt.ids import FederationId
from fedpt.settings import BrokerSettings
from fedpt.wire.codec import encode
from fedpt.wire.messages import RoundAnnouncement, TrainingPlan
from fedpt.wire.topics import Topics

FEDERATION: Final = FederationId("measured")
WORKER: Final = "worker-measured"

_START_S: Final = 60.0
_UP: Final = "logit worker is up"

Placed = Callable[[Sequence[str]], list[str]]
"""Makes a command line run in some network namespace."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a broker and its worker run."""

    host: str = "127.0.0.1"
    placed: Placed = list
    """As it is: beside us."""


@contextmanager
def running_broker(place: Place) -> Iterator[BrokerSettings]:
    """Mosquitto while the block runs, set as fedpt's own server installation sets it.

    Raises:
        SystemExit: It is not installed.
    """
    program = shutil.which("mosquitto", path="/usr/sbin:/usr/bin:/usr/local/sbin")
    if program is None:
        raise SystemExit("mosquitto is not installed: apt-get install mosquitto")
    port = _free_port()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        config = Path(folder) / "mosquitto.conf"
        lines = [f"listener {port} {place.host}", "allow_anonymous true", "set_tcp_nodelay true"]
        config.write_text("\n".join([*lines, "max_queued_messages 0", ""]))
        command = place.placed([program, "-c", str(config)])
        stack.enter_context(_ended_after(subprocess.Popen(command, stderr=subprocess.DEVNULL)))
        _await_port(place.host, port)
        yield BrokerSettings(host=place.host, port=port)


@contextmanager
def running_worker(
    place: Place, broker: BrokerSettings, subject: Subject, worker: WorkerSettings
) -> Iterator[None]:
    """A logit worker while the block runs; with the subject's adapter where it steers answers."""
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        settings = CoordinatorSettings(
            federation=FEDERATION,
            state_dir=folder,
            small=subject.small.absolute(),
            large=subject.large.absolute(),
            evaluation=subject.data.absolute(),
            public=subject.data.absolute(),
            broker=broker,
            threads=subject.threads,
            worker=worker.model_copy(update={"name": WORKER}),
            evaluating=EvaluationSettings(),
        )
        if worker.steers_answers:
            _lay_out_adapter(folder, broker, subject.adapter)
        file, log = folder / "settings.json", folder / "log"
        file.write_text(settings.model_dump_json())
        command = place.placed([sys.executable, "-m", "coordinator.worker", str(file)])
        with log.open("w") as out:
            process = stack.enter_context(_ended_after(subprocess.Popen(command, stderr=out)))
        _await_line(log, process)
        try:
            yield
        except SystemExit:
            sys.stderr.write(log.read_text()[-2000:])
            raise


def adapter_id(subject: Subject) -> str:
    """The adapter's name between device and worker."""
    return sha256_bytes(subject.adapter.read_bytes())


@contextmanager
def connected(broker: BrokerSettings, name: str) -> Iterator[MqttLink]:
    """A connection that only sends."""
    link = MqttLink(broker, name, on_message=lambda _message: None)
    link.start(timeout_s=_START_S)
    try:
        yield link
    finally:
        link.stop()


def _lay_out_adapter(folder: Path, broker: BrokerSettings, adapter: Path) -> None:
    """As a coordinator would: a round is announced, and its adapter is here, converted already."""
    content = adapter.read_bytes()
    blob = BlobStore(folder / "blobs").put(content)
    own = folder / "workers" / WORKER
    own.mkdir(parents=True)
    (own / f"{blob.sha256}.gguf").write_bytes(content)
    plan = TrainingPlan(epochs=1, learning_rate=1e-3, batch_examples=1, context_tokens=64)
    announcement = RoundAnnouncement(
        run="0" * 8,
        round=1,
        phase="steering",
        selected=[],
        adapter=blob,
        training=plan,
        deadline_unix_s=0.0,
    )
    topic = Topics(FEDERATION).round
    with connected(broker, "announcing") as link:
        link.publish_and_wait(Publication(topic, encode(announcement), retain=True), timeout_s=10.0)


@contextmanager
def _ended_after(process: "subprocess.Popen[bytes]") -> Iterator["subprocess.Popen[bytes]"]:
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _await_line(log: Path, process: "subprocess.Popen[bytes]") -> None:
    end = time.monotonic() + _START_S
    while _UP not in log.read_text():
        if process.poll() is not None or time.monotonic() > end:
            raise SystemExit(f"the worker did not start:\n{log.read_text()[-2000:]}")
        time.sleep(0.05)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _await_port(host: str, port: int) -> None:
    end = time.monotonic() + _START_S
    while True:
        try:
            socket.create_connection((host, port), timeout=1).close()
        except OSError:
            if time.monotonic() > end:
                raise SystemExit(f"no broker at {host}:{port}") from None
            time.sleep(0.05)
        else:
            return
