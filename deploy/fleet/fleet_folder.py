"""A fleet's folder: what lies where, its two records, its keys.

```
fleet.json                       FleetRecord
authority/root-ca.{pem,key}      the key is encrypted
keys/{release,operator}.key      encrypted;  keys/trust.json: which key may sign which releases
server/                          all that the server needs, and nothing more
devices/<name>/device.json       DeviceRecord; bundle/ beside it
releases/<kind>/<id>/            signed releases
```
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal, TypeVar

import msgspec
from msgspec import Meta

from fedpt.enrolment import RESERVED_NAMES
from fedpt.errors import FleetError, UsageError
from fedpt.files import write_json
from fedpt.ids import NAME_PATTERN, is_name
from fedpt.releases import Trust
from fedpt.signing import SigningKey

FLEET_FILE: Final = "fleet.json"
DEVICE_FILE: Final = "device.json"

Port = Annotated[int, Meta(ge=1, le=65_535)]


class FleetRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What was said when the fleet was made."""

    federation: Annotated[str, Meta(pattern=rf"^{NAME_PATTERN}\Z")]
    hosts: Annotated[list[str], Meta(min_length=1)]
    """Names and addresses of the server; boards use the first."""
    broker_port: Port
    enrolment_port: Port
    made_unix_s: float

    @property
    def enrolment_url(self) -> str:
        """Where the enrolment service answers."""
        host = self.hosts[0]
        return f"https://{f'[{host}]' if ':' in host else host}:{self.enrolment_port}"


class DeviceRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One board or worker, as it was added."""

    name: Annotated[str, Meta(pattern=rf"^{NAME_PATTERN}\Z")]
    board: str
    role: Literal["device", "worker"]
    added_unix_s: float
    token_expires_unix_s: float | None = None
    """None: it has a ready certificate."""
    serials: list[str] = []
    """Certificates issued by hand."""
    is_removed: bool = False


R = TypeVar("R", FleetRecord, DeviceRecord)


@dataclass(frozen=True, slots=True)
class Fleet:
    """A fleet's folder, opened."""

    folder: Path
    record: FleetRecord

    @classmethod
    def open(cls, folder: Path) -> "Fleet":
        """Read it.

        Raises:
            FleetError: There is none, or its record is damaged.
        """
        path = folder / FLEET_FILE
        if not path.is_file():
            raise FleetError(f"no fleet in {folder}; make one: fedpt fleet init {folder}")
        return cls(folder, _read_record(path, FleetRecord))

    @property
    def server(self) -> Path:
        """What the server needs."""
        return self.folder / "server"

    @property
    def releases(self) -> Path:
        """Signed releases."""
        return self.folder / "releases"

    @property
    def trust_file(self) -> Path:
        """The keys that boards believe from their first day."""
        return self.folder / "keys" / "trust.json"

    def trust(self) -> Trust:
        """Read it.

        Raises:
            FleetError: It cannot be read.
            ReleaseError: It is damaged.
        """
        return Trust.from_json(self.read("keys/trust.json"))

    def signing_key(self, name: str, passphrase: str) -> SigningKey:
        """`release` or `operator`.

        Raises:
            FleetError: The passphrase is wrong, or the key is damaged or not here.
        """
        return SigningKey.from_pem(self.read(f"keys/{name}.key"), passphrase)

    def read(self, path: str) -> bytes:
        """One of the folder's files.

        Raises:
            FleetError: It cannot be read.
        """
        try:
            return (self.folder / path).read_bytes()
        except OSError as error:
            raise FleetError(f"cannot read {self.folder / path}: {error.strerror}") from error

    def device_folder(self, name: str) -> Path:
        """Where a board's record and bundle are, or will be."""
        return self.folder / "devices" / name

    def devices(self) -> list[DeviceRecord]:
        """All of them, in alphabetical order.

        Raises:
            FleetError: A record is damaged.
        """
        files = sorted((self.folder / "devices").glob(f"*/{DEVICE_FILE}"))
        return [_read_record(file, DeviceRecord) for file in files]

    def device(self, name: str) -> DeviceRecord:
        """One of them.

        Raises:
            UsageError: There is none of that name.
        """
        records = {one.name: one for one in self.devices()}
        if name not in records:
            known = ", ".join(records) or "none yet"
            raise UsageError(f"no board {name!r} in {self.folder}; there are: {known}")
        return records[name]

    def require_free(self, name: str) -> None:
        """Refuse a name that a board or worker has.

        Raises:
            UsageError: It is in use.
        """
        if any(one.name == name and not one.is_removed for one in self.devices()):
            raise UsageError(
                f"{name!r} is in the fleet already; --renew-token makes it a new token"
            )

    def write_device(self, record: DeviceRecord) -> None:
        """Keep a record.

        Raises:
            StorageError: It cannot be written.
        """
        path = self.device_folder(record.name) / DEVICE_FILE
        write_json(path, msgspec.to_builtins(record))


def require_new_name(name: str) -> None:
    """Refuse what cannot be a board's or worker's name.

    Raises:
        UsageError: Says why.
    """
    if not is_name(name):
        raise UsageError(f"not a name for a board: {name!r}; letters, digits, . _ -, at most 63")
    if name in RESERVED_NAMES:
        raise UsageError(f"{name!r} is a name of the server's own; choose another")


def _read_record(path: Path, kind: type[R]) -> R:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (OSError, msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise FleetError(f"cannot use {path}: {error}") from error
