"""A device's bundle, read from the fleet folder and checked before any of it goes onto a card."""

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from deploy.fleet.bundle_layout import (
    IDENTITY,
    NO_CLOUD_FILES,
    OWN_FOLDER,
    SUMS,
    TAKEN,
    TOKEN,
)
from deploy.fleet.fleet_folder import DeviceRecord, Fleet
from fedpt.errors import FleetError, UsageError
from fedpt.files import sha256_file

_SUMS: Final = f"{OWN_FOLDER}/{SUMS}"
_TOKEN: Final = f"{OWN_FOLDER}/{TOKEN}"
_IDENTITY: Final = f"{OWN_FOLDER}/{IDENTITY}"
_PROGRAMS: Final = ("install.sh", "device.toml", "ca.pem", "trust.json", "boot-guard.py")
_WITHOUT_SUM: Final = {_SUMS, *(f"{OWN_FOLDER}/{name}" for name in TAKEN)}
_REQUIRED: Final = (
    *NO_CLOUD_FILES,
    *(f"{OWN_FOLDER}/{name}" for name in _PROGRAMS),
    _SUMS,
)

_SAFE_NAME: Final = re.compile(r"[A-Za-z0-9_@+~-][A-Za-z0-9._@+~!=-]{0,199}(?<!\.)")
"""Names that FAT, mtools and the shell all take as they are."""

_INSTANCE_ID: Final = re.compile(
    r"^instance-id:[ \t]*[\"']?([A-Za-z0-9._-]{1,128})[\"']?[ \t]*$", re.M
)

_SUM_LINE: Final = re.compile(r"([0-9a-f]{64}) [ *](?:\./)?(.+)")


@dataclass(frozen=True, slots=True)
class BundleFile:
    """A file of a bundle."""

    name: str
    """Its path in the bundle, with slashes."""
    path: Path
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Bundle:
    """What goes onto a device's boot partition."""

    device: str
    folder: Path
    files: tuple[BundleFile, ...]
    instance_id: str
    token_expires_unix_s: float | None
    """None: it has a ready identity instead of a token."""

    @property
    def size_bytes(self) -> int:
        """Of all files."""
        return sum(file.size_bytes for file in self.files)


def read_bundle(fleet: Path, device: str, *, now_unix_s: float) -> Bundle:
    """A device's bundle, complete, undamaged and with a token that still opens the door.

    Raises:
        UsageError: There is no such device, or it takes no bundle.
        FleetError: There is no fleet, the bundle is incomplete or damaged, or its token has
            expired.
    """
    opened = Fleet.open(fleet)
    record = opened.device(device)
    _require_welcome(record, now_unix_s)
    folder = opened.device_folder(device) / "bundle"
    credentials = _IDENTITY if record.token_expires_unix_s is None else _TOKEN
    files = _read_files(folder, (*_REQUIRED, credentials), device)
    return Bundle(
        device=device,
        folder=folder,
        files=files,
        instance_id=_instance_id(folder / "meta-data"),
        token_expires_unix_s=record.token_expires_unix_s,
    )


def _require_welcome(record: DeviceRecord, now_unix_s: float) -> None:
    """Refuse a device that the server would not let in."""
    if record.role != "device":
        raise UsageError(f"{record.name} is a {record.role}; only devices are flashed")
    if record.is_removed:
        raise UsageError(f"{record.name} was removed from the fleet; add it again first")
    expires = record.token_expires_unix_s
    if expires is not None and expires <= now_unix_s:
        raise FleetError(
            f"the enrolment token of {record.name} has expired;"
            f" run: fedpt fleet add {record.name} --renew-token"
        )


def _read_files(folder: Path, required: tuple[str, ...], device: str) -> tuple[BundleFile, ...]:
    again = f"run: fedpt fleet add {device} again"
    missing = [name for name in required if not (folder / name).is_file()]
    if missing:
        raise FleetError(f"the bundle {folder} is incomplete: no {', '.join(missing)}; {again}")
    files = tuple(
        _read_file(path, path.relative_to(folder).as_posix())
        for path in sorted(folder.rglob("*"))
        if not path.is_dir()
    )
    _require_distinct(files)
    _require_unchanged(files, _listed_sums(folder / _SUMS), again)
    return files


def _read_file(path: Path, name: str) -> BundleFile:
    if path.is_symlink() or not path.is_file():
        raise FleetError(f"{path} is no plain file; a bundle holds nothing else")
    if PurePosixPath(name).parts[0] not in {*NO_CLOUD_FILES, OWN_FOLDER}:
        raise FleetError(f"{path} does not belong into a bundle; remove it")
    if not all(_SAFE_NAME.fullmatch(part) for part in PurePosixPath(name).parts):
        raise FleetError(f"{path} has a name that not every file system keeps; rename it")
    try:
        return BundleFile(name, path, path.stat().st_size, sha256_file(path))
    except OSError as error:
        raise FleetError(f"cannot read {path}: {error.strerror}") from error


def _require_distinct(files: tuple[BundleFile, ...]) -> None:
    """FAT does not tell "a" from "A"."""
    seen: dict[str, str] = {}
    for file in files:
        other = seen.setdefault(file.name.lower(), file.name)
        if other != file.name:
            raise FleetError(f"{other} and {file.name} of a bundle are one name on FAT; rename one")


def _listed_sums(listing: Path) -> dict[str, str]:
    """Name in the bundle -> sha256, from SHA256SUMS."""
    lines = listing.read_text(encoding="utf-8", errors="replace").splitlines()
    matches = (_SUM_LINE.fullmatch(line) for line in lines)
    return {f"{OWN_FOLDER}/{match[2]}": match[1] for match in matches if match}


def _require_unchanged(files: tuple[BundleFile, ...], listed: dict[str, str], again: str) -> None:
    covered = {
        file.name: file.sha256
        for file in files
        if file.name.startswith(f"{OWN_FOLDER}/") and file.name not in _WITHOUT_SUM
    }
    gone = sorted(listed.keys() - covered.keys())
    if gone:
        raise FleetError(f"the bundle is incomplete: no {', '.join(gone)}; {again}")
    changed = sorted(name for name, sha256 in covered.items() if listed.get(name) != sha256)
    if changed:
        raise FleetError(
            f"the bundle is damaged: {', '.join(changed)} not as its SHA256SUMS says; {again}"
        )


def _instance_id(meta_data: Path) -> str:
    match = _INSTANCE_ID.search(meta_data.read_text(encoding="utf-8", errors="replace"))
    if match is None:
        raise FleetError(f"{meta_data} has no line 'instance-id: NAME'")
    return match[1]
