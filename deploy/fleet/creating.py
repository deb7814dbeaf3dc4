"""Makes a fleet: authorities, keys, and everything that its server needs."""

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec
import tomli_w

from deploy.fleet.broker_config import broker_config
from deploy.fleet.fleet_folder import FLEET_FILE, Fleet, FleetRecord
from deploy.fleet.server_files import put_server_files
from fedpt.certificates import Authority, Role, new_key, own_request
from fedpt.errors import FleetError
from fedpt.files import folder_written_aside, write_bytes, write_json
from fedpt.releases import Trust, TrustedKey
from fedpt.signing import SigningKey, private_key_to_pem

SERVER_WORKER: Final = "worker-1"
"""The logit worker that the coordinator starts itself; it needs a name of its own at the broker."""

_LONGEST_COMMON_NAME: Final = 64
"""X.520 allows no more."""

_SECRET: Final = 0o600
_SECRET_FOLDER: Final = 0o700


@dataclass(frozen=True, slots=True)
class ServerPlaces:
    """Where things will be on the server."""

    config: Path = Path("/etc/fedpt")
    coordinator: Path = Path("/var/lib/fedpt/coordinator")
    models: Path = Path("/var/lib/fedpt/models")
    enrolment: Path = Path("/var/lib/fedpt-enrolment")
    broker: Path = Path("/var/lib/mosquitto")

    @classmethod
    def inside(cls, folder: Path) -> "ServerPlaces":
        """All in one folder, to run a server without installing it."""
        state = folder / "server-state"
        return cls(
            folder / "server",
            state / "coordinator",
            state / "models",
            state / "enrolment",
            state / "mosquitto",
        )


def create_fleet(folder: Path, record: FleetRecord, passphrase: str, places: ServerPlaces) -> Fleet:
    """Make `folder`, whole or not at all.

    Raises:
        FleetError: There is something already.
        StorageError: It cannot be written.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FleetError(f"{folder} exists and is not empty; choose another folder for the fleet")
    now = datetime.now(UTC)
    root = Authority.new_root(f"fedpt root {record.federation}"[:_LONGEST_COMMON_NAME], now)
    keys = {name: SigningKey.generate() for name in ("release", "operator", "adapter")}
    with folder_written_aside(folder) as aside:
        aside.chmod(_SECRET_FOLDER)
        write_json(aside / FLEET_FILE, msgspec.to_builtins(record))
        _put(aside, "authority/root-ca.pem", root.certificate_pem)
        _put(aside, "authority/root-ca.key", root.key_pem(passphrase), secret=True)
        for name in ("release", "operator"):
            _put(aside, f"keys/{name}.key", keys[name].to_pem(passphrase), secret=True)
        trust = Trust(
            [
                TrustedKey(keys["release"].public, ["model", "adapter", "runtime", "keys"]),
                TrustedKey(keys["adapter"].public, ["adapter"]),
            ]
        ).to_json()
        _put(aside, "keys/trust.json", trust)
        issuing = write_issuing_authority(aside, record, root, now)
        _write_enrolment(aside, record, places)
        _put(aside, "server/enrolment/operator.pub", keys["operator"].public.text.encode() + b"\n")
        _write_coordinator(aside, record, places, root)
        _put(aside, "server/coordinator/adapter.key", keys["adapter"].to_pem(), secret=True)
        _put(aside, "server/coordinator/trust.json", trust)
        _put(aside, "server/mosquitto/mosquitto.conf", _broker_config(record, places).encode())
        write_service_identities(aside, record, issuing, now)
        put_server_files(aside / "server")
    folder.chmod(_SECRET_FOLDER)
    return Fleet(folder, record)


def write_issuing_authority(
    folder: Path, record: FleetRecord, root: Authority, now: datetime
) -> Authority:
    """An authority for the server; one that was there before is believed no more.

    Raises:
        StorageError: It cannot be written.
    """
    name = f"fedpt issuing {now:%Y-%m-%d %H:%M:%S} {record.federation}"
    issuing = root.new_issuing(name[:_LONGEST_COMMON_NAME], now)
    _put(folder, "server/enrolment/issuing-ca.pem", issuing.certificate_pem)
    _put(folder, "server/enrolment/issuing-ca.key", issuing.key_pem(), secret=True)
    _put(folder, "server/mosquitto/ca.pem", root.certificate_pem + issuing.certificate_pem)
    return issuing


def write_service_identities(
    folder: Path, record: FleetRecord, issuing: Authority, now: datetime
) -> None:
    """Keys and certificates of the server's own services; written again, they are renewed.

    Raises:
        StorageError: They cannot be written.
    """
    identities: list[tuple[str, str, Role]] = [
        ("server/mosquitto/broker", "broker", "broker"),
        ("server/enrolment/https", "enrolment", "enrolment"),
        ("server/coordinator/coordinator", "coordinator", "coordinator"),
        (f"server/coordinator/{SERVER_WORKER}", SERVER_WORKER, "worker"),
    ]
    for path, name, role in identities:
        key = new_key()
        hosts = record.hosts if role in {"broker", "enrolment"} else ()
        certificate = issuing.issue(own_request(name, key), role, now, hosts=hosts)
        _put(folder, f"{path}.pem", certificate)
        _put(folder, f"{path}.key", private_key_to_pem(key), secret=True)


def new_record(
    federation: str, hosts: list[str], *, broker_port: int, enrolment_port: int
) -> FleetRecord:
    """The record of a fleet that is made now."""
    return FleetRecord(
        federation=federation,
        hosts=hosts,
        broker_port=broker_port,
        enrolment_port=enrolment_port,
        made_unix_s=time.time(),
    )


def _write_enrolment(folder: Path, record: FleetRecord, places: ServerPlaces) -> None:
    _put(folder, "server/enrolment/workers", f"{SERVER_WORKER}\n".encode())
    settings = {
        "federation": record.federation,
        "host": "0.0.0.0",  # boards come from everywhere, with tokens
        "port": record.enrolment_port,
        "certificate_file": "https.pem",
        "key_file": "https.key",
        "issuing_certificate_file": "issuing-ca.pem",
        "issuing_key_file": "issuing-ca.key",
        "operator_key_file": "operator.pub",
        "workers_file": "workers",
        "state_dir": str(places.enrolment),
        "broker_folder": str(places.enrolment / "broker"),
    }
    _put_settings(folder, "server/enrolment/enrolment.toml", settings)


def _write_coordinator(
    folder: Path, record: FleetRecord, places: ServerPlaces, root: Authority
) -> None:
    _put(folder, "server/coordinator/ca.pem", root.certificate_pem)
    models = places.models
    settings = {
        "federation": record.federation,
        "small": str(models / "small.gguf"),
        "large": str(models / "large.gguf"),
        "evaluation": str(models / "evaluation.jsonl"),
        "public": str(models / "public.jsonl"),
        "state_dir": str(places.coordinator),
        "embedded_broker": False,
        "removed": str(places.enrolment / "broker" / "removed"),
        "releases": str(places.coordinator.parent / "releases"),
        "trust_file": "trust.json",
        "adapter_key_file": "adapter.key",
        "broker": {
            "host": record.hosts[0],
            "port": record.broker_port,
            "ca_file": "ca.pem",
            "certificate_file": "coordinator.pem",
            "key_file": "coordinator.key",
        },
        "worker": {
            "certificate_file": f"{SERVER_WORKER}.pem",
            "key_file": f"{SERVER_WORKER}.key",
        },
    }
    _put_settings(folder, "server/coordinator/coordinator.toml", settings)


def _broker_config(record: FleetRecord, places: ServerPlaces) -> str:
    return broker_config(
        files=places.config / "mosquitto",
        written=places.enrolment / "broker",
        state=places.broker,
        host="",
        port=record.broker_port,
    )


def _put_settings(folder: Path, path: str, settings: dict[str, Any]) -> None:
    text = "# Written by fedpt fleet init; yours to edit.\n" + tomli_w.dumps(settings)
    _put(folder, path, text.encode())


def _put(folder: Path, path: str, content: bytes, *, secret: bool = False) -> None:
    target = folder / path
    write_bytes(target, content, mode=_SECRET if secret else 0o644)
