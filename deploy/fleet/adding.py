"""Adds a board or a worker to a fleet: a one-time token, settings, and for boards the bundle."""

import secrets
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal

import tomli_w

from deploy.fleet.boards import Board
from deploy.fleet.fleet_folder import DeviceRecord, Fleet
from fedpt.certificates import Authority, new_key, own_request, read_certificate
from fedpt.enrolment import TokenClaims, make_token
from fedpt.errors import FleetError, UsageError
from fedpt.files import write_bytes
from fedpt.signing import private_key_to_pem

CONFIG: Final = Path("/etc/fedpt")
STATE: Final = Path("/var/lib/fedpt")

WORKER: Final = "worker"
"""Stands where a board's kind does: a logit worker on another machine."""

_SECRET: Final = 0o600
_NONCE_BYTES: Final = 16


@dataclass(frozen=True, slots=True)
class Credentials:
    """What lets a board in: a token that it turns into a certificate, or a ready identity."""

    token: str | None
    identity: tuple[bytes, bytes] | None
    """Certificate with its issuer, and key."""
    record: DeviceRecord


def token_credentials(
    fleet: Fleet, name: str, board: str, passphrase: str, *, life_h: float
) -> Credentials:
    """A one-time token; whoever has it first gets in, so it is short-lived.

    Raises:
        FleetError: The passphrase is wrong.
    """
    now = time.time()
    claims = TokenClaims(
        federation=fleet.record.federation,
        name=name,
        board=board,
        nonce=secrets.token_hex(_NONCE_BYTES),
        issued_unix_s=now,
        expires_unix_s=now + 3600 * life_h,
    )
    token = make_token(claims, fleet.signing_key("operator", passphrase))
    expires = claims.expires_unix_s
    record = DeviceRecord(
        name=name, board=board, role="device", added_unix_s=now, token_expires_unix_s=expires
    )
    return Credentials(token, None, record)


def ready_credentials(fleet: Fleet, name: str, board: str) -> Credentials:
    """A key and certificate made here: whoever reads them on their way is the board.

    Raises:
        UsageError: The name was removed: the service lets it in again for a token only.
        FleetError: The issuing authority's key is not in the fleet's folder.
    """
    if any(one.name == name and one.is_removed for one in fleet.devices()):
        raise UsageError(
            f"{name!r} was removed, and only a token brings it back; choose another name for a"
            " ready key"
        )
    key = new_key()
    role: Literal["device", "worker"] = "worker" if board == WORKER else "device"
    certificate = issuing_authority(fleet).issue(own_request(name, key), role, datetime.now(UTC))
    serial = str(read_certificate(certificate).serial)
    record = DeviceRecord(
        name=name, board=board, role=role, added_unix_s=time.time(), serials=[serial]
    )
    if role == "worker":
        _make_known(fleet, name)
    return Credentials(None, (certificate, private_key_to_pem(key)), record)


def issuing_authority(fleet: Fleet) -> Authority:
    """The authority that the server has too.

    Raises:
        FleetError: Its key is not here (any more), or damaged.
    """
    folder = "server/enrolment/issuing-ca"
    try:
        return Authority.from_pem(fleet.read(f"{folder}.pem"), fleet.read(f"{folder}.key"))
    except FleetError as error:
        raise FleetError(f"cannot issue certificates here: {error}") from error


def device_settings(fleet: Fleet, name: str, board: Board) -> str:
    """A board's device.toml."""
    record = fleet.record
    settings: dict[str, Any] = {
        "name": name,
        "federation": record.federation,
        "small": str(STATE / "releases" / "model" / "current" / "model.gguf"),
        "state_dir": str(STATE / "device"),
        "broker": {
            "host": record.hosts[0],
            "port": record.broker_port,
            "ca_file": str(CONFIG / "ca.pem"),
            "certificate_file": str(STATE / "identity.pem"),
        },
        "enrolment": {
            "url": record.enrolment_url,
            "token_file": str(STATE / "enrolment.token"),
        },
        "releases": {
            "folder": str(STATE / "releases"),
            "trust_file": str(CONFIG / "trust.json"),
        },
    }
    if board.trains:
        settings["data"] = str(STATE / "private.db")
        if board.training_threads:
            settings["training_threads"] = board.training_threads
    if board.answer_threads:
        settings["assistant"] = {"threads": board.answer_threads}
    return "# Written by fedpt fleet add; yours to edit.\n" + tomli_w.dumps(settings)


def write_worker(fleet: Fleet, credentials: Credentials) -> Path:
    """A worker's files, in `devices/<name>/worker`: copy them to the machine it runs on.

    Raises:
        StorageError: They cannot be written.
    """
    assert credentials.identity is not None  # workers have ready ones
    name = credentials.record.name
    folder = fleet.device_folder(name) / "worker"
    certificate, key = credentials.identity
    write_bytes(folder / "ca.pem", fleet.read("authority/root-ca.pem"))
    write_bytes(folder / f"{name}.pem", certificate)
    write_bytes(folder / f"{name}.key", key, mode=_SECRET)
    return folder


def _make_known(fleet: Fleet, worker: str) -> None:
    """Name it in the server's list: the service has not seen its certificate."""
    path = "server/enrolment/workers"
    names = {*fleet.read(path).decode().split(), worker}
    write_bytes(fleet.folder / path, "".join(f"{one}\n" for one in sorted(names)).encode())
