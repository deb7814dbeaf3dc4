"""What `fedpt device doctor` looks at, in order. Needs neither torch nor a running daemon.

A device whose settings cannot be read is still looked at, as far as nothing depends on them.
"""

import json
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from edge_runtime.board_checks import swap, temperature, throttling
from edge_runtime.data.store import DataStore
from edge_runtime.settings import ENVIRONMENT_PREFIX, DeviceSettings
from edge_runtime.updates.boot_guard import BOOT_FILE, Record, read_records
from fedpt.doctor import Check, Finding, fault, ok, warning
from fedpt.errors import DeviceDownError, SettingsError
from fedpt.folder_lock import holder_of
from fedpt.health_checks import clock, disk_space, free_memory, model_file, service, state_folder
from fedpt.identity_checks import identity, private_file
from fedpt.settings import load

_UNIT: Final = "fedpt-device.service"
_STATUS_TIMEOUT_S: Final = 5.0
_HTTPS_PORT: Final = 443


def device_checks(config: Path) -> list[Check]:
    """All checks for the device of these settings."""
    board: list[Check] = [
        partial(service, _UNIT), temperature, throttling, free_memory, swap,
    ]  # fmt: skip
    try:
        settings = load(DeviceSettings, toml=config, prefix=ENVIRONMENT_PREFIX)
    except SettingsError as error:
        advice = f"mend {config}, or give another file with --config"
        finding = fault(f"settings: {error}", advice)
        return [lambda: [finding], partial(clock, [config]), *board]
    found = ok(f"settings: {config}: device {settings.name!r} of federation {settings.federation}")
    return [
        lambda: [found],
        partial(clock, [config, settings.small, settings.state_dir]),
        partial(model_file, settings.small),
        partial(private_data, settings.data),
        partial(state_folder, settings.state_dir),
        partial(disk_space, settings.state_dir),
        partial(daemon, settings),
        partial(enrolment, settings),
        partial(identity, settings.broker, settings.name, renew=_renewal(settings.name)),
        partial(broker, settings),
        partial(releases, settings),
        *board,
    ]


def private_data(path: Path | None) -> Iterator[Finding]:
    """Whether there is something to train on.

    Raises:
        FedptError: The store is damaged or cannot be read: what the doctor then tells.
    """
    if path is None:
        yield ok("private data: none; this device only answers")
        return
    store = DataStore(path)
    store.require_sound()
    counts = store.counts()
    if counts.flagged:
        what = f"private data: {counts.flagged} examples seem to hold secrets and are not learnt"
        yield warning(what, "fedpt device data list --flagged, then allow or remove them")
    if counts.usable:
        yield ok(f"private data: {counts.usable} examples in {path}")
    else:
        yield warning(f"private data: no examples in {path} to learn from", "fedpt device data add")


def judge_status(status: dict[str, Any]) -> Finding:  # Any: the daemon's JSON
    """What the running daemon says of itself."""
    adapter = str(status.get("adapter", ""))[:12] or "none yet"
    what = f"daemon: {status.get('activity')}, adapter {adapter}"
    if text := status.get("fault"):
        return warning(f"{what}, fault: {text}", f"journalctl -u {_UNIT} -n 50")
    if not status.get("connected"):
        return fault(f"{what}, without the broker", "see the broker's line below")
    return ok(what)


def daemon(settings: DeviceSettings) -> Iterator[Finding]:
    """Whether it runs, and what it last said.

    Raises:
        StorageError: The lock file cannot be read: what the doctor then tells.
    """
    holder = holder_of(settings.state_dir)
    if holder is None:
        yield warning("daemon: it does not run", f"sudo systemctl start {_UNIT}")
        return
    from edge_runtime.drivers.local_client import daemon_status

    try:
        yield judge_status(daemon_status(settings.socket, timeout_s=_STATUS_TIMEOUT_S))
    except DeviceDownError as error:
        what = f"daemon: process {holder} runs and does not answer: {error}"
        yield fault(what, f"sudo systemctl restart {_UNIT}")


def judge_token(
    path: Path, expires_unix_s: float | None, now_unix_s: float, *, is_enrolled: bool, renew: str
) -> Finding:
    """What a token that is still there means.

    Args:
        path: Where it is.
        expires_unix_s: When it ends; None: it cannot be read.
        now_unix_s: The time.
        is_enrolled: Whether there is a certificate already.
        renew: How to get another.
    """
    if is_enrolled:
        return warning("enrolment: a token is left over", f"shred -u {path}")
    if expires_unix_s is None:
        return fault(f"enrolment: {path} holds no token", renew)
    left_h = (expires_unix_s - now_unix_s) / 3600
    if left_h < 0:
        return fault(f"enrolment: the token expired {-left_h:.0f} hours ago, unused", renew)
    what = f"enrolment: not yet, the token is good for {left_h:.0f} hours"
    return warning(what, f"sudo systemctl restart {_UNIT}")


def enrolment(settings: DeviceSettings) -> Iterator[Finding]:
    """The one-time token, whether it has been used, and the service that takes it."""
    if settings.enrolment is None:
        return
    path, renew = settings.enrolment.token_file, _renewal(settings.name)
    is_enrolled = _is_enrolled(settings)
    if path.exists():
        yield from (one for one in private_file(path) if one.level != "ok")
        end = _token_end(path.read_text(errors="replace"))
        yield judge_token(path, end, time.time(), is_enrolled=is_enrolled, renew=renew)
    elif not is_enrolled:
        yield fault("enrolment: neither token nor certificate", renew)
    from fedpt.drivers.broker_check import check_port

    url = urlsplit(settings.enrolment.url)
    yield check_port(url.hostname or "", url.port or _HTTPS_PORT, who="enrolment service")


def broker(settings: DeviceSettings) -> Iterator[Finding]:
    """The broker; a running daemon keeps its connection."""
    from fedpt.drivers.broker_check import check_broker, check_port

    if settings.broker.certificate_file is not None and not _is_enrolled(settings):
        yield check_port(settings.broker.host, settings.broker.port)
        return
    may_log_in = holder_of(settings.state_dir) is None
    yield from check_broker(settings.broker, settings.name, may_log_in=may_log_in)


def judge_release(kind: str, record: Record) -> Finding | None:
    """Whether a new release is on trial, or the last one was taken back; None: neither."""
    if record.candidate:
        what = f"releases: {kind} {record.candidate} is on trial, {record.tries_left} starts left"
        return warning(what, "wait until the device has been well for a while")
    if back := record.rolled_back:
        what = f"releases: {kind} {back.get('id')} was taken back: {back.get('why')}"
        return warning(what, f"journalctl -u {_UNIT} -n 200, then publish a better one")
    return None


def releases(settings: DeviceSettings) -> Iterator[Finding]:
    """Whom releases are taken from, and what the boot guard has written."""
    if settings.releases is None:
        return
    root, trust = settings.releases.folder, settings.releases.trust_file
    if not trust.is_file():
        what = f"releases: no public keys at {trust}"
        yield fault(what, "copy trust.json from the fleet folder there")
    try:
        json.loads((root / BOOT_FILE).read_text())
    except FileNotFoundError:
        return
    except (ValueError, RecursionError):
        what = f"releases: {root / BOOT_FILE} is damaged and counts as never written"
        yield warning(what, f"sudo rm {root / BOOT_FILE}; the next start writes it again")
        return
    judged = [judge_release(kind, record) for kind, record in read_records(root).items()]
    yield from [one for one in judged if one] or [ok("releases: none on trial, none taken back")]


def _token_end(text: str) -> float | None:
    """When a token ends, by its own word: only the enrolment service can tell a real one."""
    from fedpt.enrolment import unverified_claims

    claims = unverified_claims(text)
    return None if claims is None else claims.expires_unix_s


def _is_enrolled(settings: DeviceSettings) -> bool:
    certificate = settings.broker.certificate_file
    return certificate is not None and certificate.exists()


def _renewal(name: str) -> str:
    return f"on the operator's machine: fedpt fleet add {name} --renew-token"
