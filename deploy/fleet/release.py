"""Making a signed release of files, and rolling it out to a share of the fleet.

A release is a folder `<releases>/<kind>/<id>/` with its files, `manifest.json` and `manifest.sig`.
A coordinator whose setting `releases` is that folder announces what `roll-out.json` names. The
release's folder may as well lie on any HTTP server, or on a stick.
"""

import shutil
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from fedpt.adapters import adapter_from_bytes
from fedpt.errors import FleetError, ReleaseError
from fedpt.files import folder_written_aside, sha256_file, write_bytes
from fedpt.gguf_file import read_gguf, weights_sha256
from fedpt.progress import OnProgress, Progress, ignore_progress
from fedpt.release_folder import write_signed
from fedpt.releases import (
    ADAPTER_FILE,
    CANARY_FILE,
    MANIFEST_FILE,
    MODEL_FILE,
    REQUIREMENTS_FILE,
    ROLL_OUT_FILE,
    TRUST_FILE,
    WHEELS_FOLDER,
    Kind,
    Manifest,
    ReleaseFile,
    RollOut,
    Trust,
    next_counter,
    sign_manifest,
)
from fedpt.signing import SigningKey

_DAY_S: Final = 24 * 3600


@dataclass(frozen=True, slots=True)
class ReleaseTerms:
    """What a release says of itself, beside its files."""

    valid_days: float = 365.0
    """Devices begin to install it within so long."""
    minimum_runtime: str = ""
    """The fedpt version that devices must have; empty: any."""
    note: str = ""


def make_release(
    kind: Kind,
    source: Path,
    key: SigningKey,
    *,
    releases: Path,
    terms: ReleaseTerms | None = None,
    on_progress: OnProgress = ignore_progress,
) -> Path:
    """Make a release in the folder of releases; nothing is announced yet.

    Args:
        kind: What it is.
        source: For a model a GGUF file (a file `canary.txt` beside it goes along), for an adapter
            its blob (safetensors), for a runtime a wheelhouse with its requirements.lock, for keys
            a trust.json.
        key: Signs it.
        releases: Folder of releases.
        terms: Its expiry and more.
        on_progress: Told of each file.

    Returns:
        The release's folder.

    Raises:
        FleetError: The source is not what it should be.
        ArtifactError: The model or adapter is damaged.
        StorageError: The disk is full.
    """
    terms = terms or ReleaseTerms()
    files = _files_of(kind, source)
    now = time.time()
    manifest = Manifest(
        kind=kind,
        counter=next_counter(_highest_counter(releases / kind), now),
        created_unix_s=now,
        expires_unix_s=now + terms.valid_days * _DAY_S,
        files=list(_hashed(files, on_progress)),
        base_weights=_base_weights(kind, source),
        minimum_runtime=terms.minimum_runtime,
        note=terms.note,
    )
    signed = sign_manifest(manifest, key)
    folder = releases / kind / signed.id
    with folder_written_aside(folder) as aside:
        for name, path in files.items():
            (aside / name).parent.mkdir(exist_ok=True)
            shutil.copyfile(path, aside / name)
        write_signed(aside, signed)
    return folder


def stage(release: Path, fraction: float, *, url: str = "") -> Path:
    """Announce a release to a share of the devices; a larger share later only adds devices.

    Args:
        release: Its folder, as `make_release` returned it.
        fraction: 0 to 1; 0 halts the roll-out: devices that have it keep it.
        url: Folder with its files on an HTTP server; empty: the coordinator serves them.

    Returns:
        The file that says so.

    Raises:
        FleetError: There is no such release, or no such share.
        StorageError: It cannot be written.
    """
    if not 0 <= fraction <= 1:
        raise FleetError(f"a share of devices is between 0 and 1: {fraction}")
    if not (release / MANIFEST_FILE).is_file():
        raise FleetError(f"no release in {release}")
    target = release.parent / ROLL_OUT_FILE
    roll_out = RollOut(id=release.name, fraction=fraction, url=url)
    write_bytes(target, msgspec.json.format(msgspec.json.encode(roll_out)) + b"\n")
    return target


def _files_of(kind: Kind, source: Path) -> Mapping[str, Path]:
    """The release's files by their names in it."""
    if kind == "runtime":
        return _runtime_files(source)
    if not source.is_file():
        raise FleetError(f"no such file: {source}")
    if kind == "model":
        canary = source.parent / CANARY_FILE
        return {MODEL_FILE: source} | ({CANARY_FILE: canary} if canary.is_file() else {})
    if kind == "keys":
        _require_lasting_trust(source)
        return {TRUST_FILE: source}
    return {ADAPTER_FILE: source}


def _runtime_files(wheelhouse: Path) -> Mapping[str, Path]:
    lock, wheels = wheelhouse / REQUIREMENTS_FILE, sorted(wheelhouse.glob("*.whl"))
    if not lock.is_file() or not any(wheel.name.startswith("fedpt-") for wheel in wheels):
        raise FleetError(
            f"{wheelhouse} is no wheelhouse: fedpt's wheel and a {REQUIREMENTS_FILE} belong in it"
        )
    return {
        REQUIREMENTS_FILE: lock,
        **{f"{WHEELS_FOLDER}/{wheel.name}": wheel for wheel in wheels},
    }


def _require_lasting_trust(path: Path) -> None:
    try:
        trust = Trust.from_json(path.read_bytes())
    except (OSError, ReleaseError) as error:
        raise FleetError(f"{path}: {error}") from error
    if not any("keys" in one.kinds for one in trust.keys):
        raise FleetError(f"{path} leaves no key that may sign the next keys; devices refuse that")


def _base_weights(kind: Kind, source: Path) -> str:
    if kind == "model":
        return weights_sha256(read_gguf(source))
    if kind == "adapter":
        return adapter_from_bytes(source.read_bytes()).manifest.base_weights
    return ""


def _hashed(files: Mapping[str, Path], on_progress: OnProgress) -> Iterable[ReleaseFile]:
    for done, (name, path) in enumerate(sorted(files.items())):
        on_progress(Progress(done, len(files), name))
        try:
            yield ReleaseFile(path=name, sha256=sha256_file(path), size_bytes=path.stat().st_size)
        except OSError as error:
            raise FleetError(f"cannot read {path}: {error.strerror}") from error


def _highest_counter(folder: Path) -> int:
    counters = [path.name.partition("-")[0] for path in folder.glob("*-*")]
    return max((int(one) for one in counters if one.isdigit()), default=0)
