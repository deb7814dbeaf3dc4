"""What `fedpt coordinator doctor` looks at, in order. Needs no torch and changes nothing.

A coordinator whose settings cannot be read is still looked at, as far as nothing depends on them.
"""

import ipaddress
import queue
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Final
from uuid import uuid4

from coordinator.settings import ENVIRONMENT_PREFIX, CoordinatorSettings
from coordinator.state import FederationState, Phase
from fedpt.doctor import Check, Finding, fault, ok, warning
from fedpt.errors import SettingsError, UsageError
from fedpt.examples import read_examples, read_prompts
from fedpt.folder_lock import holder_of
from fedpt.gguf_file import read_gguf
from fedpt.health_checks import clock, disk_space, free_memory, model_file, service, state_folder
from fedpt.identity_checks import identity
from fedpt.settings import BrokerSettings, load
from fedpt.vocabulary import require_same_vocabulary, vocabulary_of

_UNIT: Final = "fedpt-coordinator.service"
_WORKER_UNITS: Final = "fedpt-worker@*.service"
_ANSWER_S: Final = 5.0
_RENEW: Final = "on the operator's machine: fedpt fleet --help"


def coordinator_checks(config: Path, *, enrolment: str | None = None) -> list[Check]:
    """All checks for the coordinator of these settings.

    Args:
        config: The settings' file.
        enrolment: The enrolment service's `host:port`, if it is to be looked at.

    Raises:
        UsageError: `enrolment` is no host and port.
    """
    machine: list[Check] = [partial(service, _UNIT), free_memory]
    try:
        settings = load(CoordinatorSettings, toml=config, prefix=ENVIRONMENT_PREFIX)
    except SettingsError as error:
        advice = f"mend {config}, or give another file with --config"
        finding = fault(f"settings: {error}", advice)
        return [lambda: [finding], partial(clock, [config]), *machine]
    found = ok(f"settings: {config}: federation {settings.federation!r}")
    checks: list[Check] = [
        lambda: [found],
        partial(clock, [config, settings.small, settings.large, settings.state_dir]),
        partial(model_file, settings.small),
        partial(model_file, settings.large),
        partial(same_vocabulary, settings.small, settings.large),
        partial(data_file, "evaluation examples", settings.evaluation, read_examples),
        partial(data_file, "public prompts", settings.public, read_prompts),
        partial(state_folder, settings.state_dir),
        partial(disk_space, settings.state_dir),
        partial(journal, settings.state_dir),
        partial(daemon, settings.state_dir),
        partial(access_control, settings),
        partial(identity, settings.broker, None, renew=_RENEW),
        partial(worker_identity, settings),
        partial(broker, settings),
        partial(logit_worker, settings),
    ]
    if enrolment is not None:
        checks.append(partial(enrolment_service, _address(enrolment), settings.broker.ca_file))
    return checks + machine


def same_vocabulary(small: Path, large: Path) -> Iterator[Finding]:
    """Whether the models speak in the same tokens.

    Raises:
        VocabularyMismatchError: They do not: what the doctor then tells.
    """
    if small.is_file() and large.is_file():  # else that is told already
        of_small = vocabulary_of(read_gguf(small))
        require_same_vocabulary(of_small, vocabulary_of(read_gguf(large)))
        yield ok(f"vocabulary: both models have the same {len(of_small.tokens)} tokens")


def data_file(what: str, path: Path, read: Callable[[Path], Sequence[object]]) -> Iterator[Finding]:
    """Whether every line can be read.

    Raises:
        DataFileError: One cannot: what the doctor then tells.
    """
    yield ok(f"{what}: {len(read(path))} in {path}")


def judge_journal(state: FederationState) -> Finding:
    """Where the federation stands."""
    if not state.rounds:
        return ok("journal: no round yet")
    current = state.current
    what = (
        f"journal: round {current.number}, {state.phase.value},"
        f" {len(current.updates)} of {len(current.selected)} updates"
    )
    if state.phase is Phase.FINISHED:
        return ok(f"{what}: {state.finish_reason}")
    return ok(what)


def journal(state_dir: Path) -> Iterator[Finding]:
    """The last round, by the journal.

    Raises:
        StorageError: It cannot be read: what the doctor then tells.
    """
    from coordinator.drivers.journal import read_journal
    from coordinator.transitions import fold

    path = state_dir / "journal.sqlite"
    try:
        yield judge_journal(fold(read_journal(path)))
    except ValueError as error:
        yield fault(f"journal: {path} tells what cannot be: {error}", f"move {path} away")


def daemon(state_dir: Path) -> Iterator[Finding]:
    """Whether a coordinator uses this state folder; a second one could not.

    Raises:
        StorageError: The lock file cannot be read: what the doctor then tells.
    """
    holder = holder_of(state_dir)
    if holder is None:
        yield warning("coordinator: it does not run", f"sudo systemctl start {_UNIT}")
    else:
        yield ok(f"coordinator: process {holder} runs, the only one in {state_dir}")


def judge_access(host: str) -> Finding:
    """Whether the embedded broker, which lets everybody in, can be reached from elsewhere."""
    if _is_local(host):
        return ok(f"broker: the embedded one, on this machine only ({host})")
    return fault(
        f"broker: the embedded one has no access control and listens on {host}",
        "set broker.host = '127.0.0.1', or embedded_broker = false and use Mosquitto with"
        " certificates: fedpt fleet init",
    )


def access_control(settings: CoordinatorSettings) -> Iterator[Finding]:
    """Who is let into the broker."""
    broker = settings.broker
    if settings.embedded_broker:
        yield judge_access(broker.host)
    elif broker.ca_file is None and broker.username is None and not _is_local(broker.host):
        what = f"broker: {broker.host} is asked without TLS and without a password"
        yield warning(what, "use certificates: fedpt fleet init")


def worker_identity(settings: CoordinatorSettings) -> Iterator[Finding]:
    """The certificate of the worker that the coordinator starts, if it has one."""
    worker = settings.worker
    if worker.certificate_file is not None:
        own = {"certificate_file": worker.certificate_file, "key_file": worker.key_file}
        own_broker = settings.broker.model_copy(update={**own, "password_file": None})
        yield from identity(own_broker, worker.name, renew=_RENEW)


def broker(settings: CoordinatorSettings) -> Iterator[Finding]:
    """The broker, unless it is the embedded one of a coordinator that does not run."""
    from fedpt.drivers.broker_check import check_broker

    is_running = holder_of(settings.state_dir) is not None
    if is_running or not settings.embedded_broker:
        name = f"coordinator-{settings.federation}"
        yield from check_broker(settings.broker, name, may_log_in=not is_running)


def logit_worker(settings: CoordinatorSettings) -> Iterator[Finding]:
    """Whether a worker answers, where the broker lets us ask; else whether its service runs."""
    if settings.broker.certificate_file is not None or settings.broker.username is not None:
        yield from service(_WORKER_UNITS)
    elif holder_of(settings.state_dir) is not None:
        seconds = _ask_worker(settings)
        if seconds is None:
            what = f"logit worker: none answers within {_ANSWER_S:g} s"
            yield fault(what, f"journalctl -u {_UNIT} -n 50; it may still load its model")
        else:
            yield ok(f"logit worker: answers in {1000 * seconds:.0f} ms")


def enrolment_service(address: tuple[str, int], ca_file: Path | None) -> Iterator[Finding]:
    """Whether somebody listens there, with a certificate of the federation."""
    from fedpt.drivers.broker_check import check_port, check_tls

    host, port = address
    reached = check_port(host, port, who="enrolment service")
    yield reached
    if reached.level == "ok" and ca_file is not None:
        there = BrokerSettings(host=host, port=port, ca_file=ca_file)
        yield check_tls(there, who="enrolment service")


def _ask_worker(settings: CoordinatorSettings) -> float | None:
    """How long a worker takes for the logits after one token, s; None: there is no answer."""
    from fedpt.drivers.mqtt import MqttLink, Publication
    from fedpt.ids import DeviceId, FederationId
    from fedpt.wire.codec import encode
    from fedpt.wire.messages import LogitRequest
    from fedpt.wire.token_format import tokens_to_bytes
    from fedpt.wire.topics import Topics

    name = DeviceId(f"doctor-{uuid4().hex[:12]}")
    topics = Topics(FederationId(settings.federation))
    replies: queue.SimpleQueue[object] = queue.SimpleQueue()
    link = MqttLink(settings.broker, name, on_message=replies.put)
    link.subscribe(topics.inbox(name, "logits"), qos=0)
    link.start(timeout_s=_ANSWER_S)
    request = LogitRequest(
        request=1, session=b"a doctor", position=0, tokens=tokens_to_bytes([0]), rows=1, largest=1
    )
    began = time.monotonic()
    try:
        link.publish(Publication(topics.device(name, "logits"), encode(request), qos=0))
        replies.get(timeout=_ANSWER_S)
    except queue.Empty:
        return None
    finally:
        link.stop()
    return time.monotonic() - began


def _is_local(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit():
        raise UsageError(f"--enrolment {text!r}: HOST:PORT was expected, such as server:8884")
    return host, int(port)
