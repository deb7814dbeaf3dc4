"""A device's bundle: all that a board needs at its first boot, in one folder, made whole or not.

What it holds was decided elsewhere; here it is laid out and its sums are written. Its files go onto
a FAT volume, so it has no links and no rights that matter: the token's are for this machine.
"""

import os
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from shutil import copyfile
from typing import Final

from deploy.fleet.boards import Board
from deploy.fleet.bundle_layout import EXAMPLES, IDENTITY, OWN_FOLDER, SUMS, TAKEN, TOKEN
from deploy.fleet.cloud_init import FirstBoot, meta_data, network_config, user_data
from deploy.fleet.network import Network
from fedpt.errors import FleetError
from fedpt.files import folder_written_aside, sha256_file, write_bytes
from fedpt.releases import MANIFEST_FILE, MODEL_FILE, REQUIREMENTS_FILE, SIGNATURE_FILE

_MODEL_FILES: Final = (MODEL_FILE, MANIFEST_FILE, SIGNATURE_FILE)
_SECRET: Final = 0o600


@dataclass(frozen=True, slots=True)
class BundleRequest:
    """What to put into a bundle."""

    name: str
    board: Board
    device_toml: str
    token: str | None
    """One-time and short-lived; None: there is a ready identity."""
    identity: tuple[bytes, bytes] | None
    """Certificate and key, PEM; None: the board makes its own key."""
    ca_pem: bytes
    trust_json: bytes
    model_release: Path | None
    """Folder with model.gguf, manifest.json and manifest.sig."""
    wheels: Path
    """From `build_wheelhouse`."""
    constraints: Path
    network: Network
    ssh_keys: tuple[str, ...] = ()
    timezone: str = "Etc/UTC"
    examples: bytes | None = None
    """JSONL, what the board learns from at first; None: nothing yet."""


def build_bundle(request: BundleRequest, folder: Path) -> None:
    """Make `folder` anew, in place of an older one.

    Raises:
        FleetError: Something that belongs in it is missing or cannot be.
        StorageError: The disk is full or the folder cannot be written.
    """
    if (request.token is None) == (request.identity is None):
        raise FleetError(f"{request.name} needs either a token or a ready identity")
    with folder_written_aside(folder) as aside:
        own = aside / OWN_FOLDER
        own.mkdir()
        _put_first_boot(aside, request)
        _put_programs(own, request.board)
        _put_settings(own, request)
        _put_wheels(own / "wheels", request.wheels)
        if request.model_release:
            _put_model(own / "model", request.model_release)
        _put_secrets(own, request)
        (own / SUMS).write_text(_sums(own), encoding="utf-8")


def replace_token(folder: Path, name: str, token: str) -> None:
    """Give a bundle another token, and cloud-init a reason to run again.

    Raises:
        FleetError: There is no bundle.
        StorageError: It cannot be written.
    """
    own = folder / OWN_FOLDER
    if not (own / SUMS).is_file():
        raise FleetError(f"no bundle in {folder}; make it: fedpt fleet add {name} --board …")
    write_bytes(own / TOKEN, token.encode(), mode=_SECRET)
    write_bytes(folder / "meta-data", meta_data(name).encode())


def bundle_size_bytes(folder: Path) -> int:
    """Of all its files together: what must be free on the volume it goes to."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _put_first_boot(folder: Path, request: BundleRequest) -> None:
    first_boot = FirstBoot(
        device=request.name,
        network=request.network,
        ethernet=request.board.ethernet,
        ssh_keys=request.ssh_keys,
        timezone=request.timezone,
    )
    (folder / "user-data").write_text(user_data(first_boot), encoding="utf-8")
    (folder / "network-config").write_text(network_config(first_boot), encoding="utf-8")
    (folder / "meta-data").write_text(meta_data(first_boot.device), encoding="utf-8")


def _put_programs(own: Path, board: Board) -> None:
    shipped = files("deploy").joinpath("board")
    for name in ("install.sh", "install-steps.sh"):
        (own / name).write_bytes(shipped.joinpath(name).read_bytes())
    guard = files("edge_runtime").joinpath("updates", "boot_guard.py")
    (own / "boot-guard.py").write_bytes(guard.read_bytes())
    units = own / "systemd"
    limits = units / "fedpt-device.service.d" / "board.conf"
    limits.parent.mkdir(parents=True)
    limits.write_text(board.limits, encoding="utf-8")
    for unit in shipped.joinpath("systemd").iterdir():
        (units / unit.name).write_bytes(unit.read_bytes())


def _put_settings(own: Path, request: BundleRequest) -> None:
    requires = f"python {request.board.system.python}\nmachine {request.board.architecture}\n"
    (own / "requires").write_text(requires, encoding="utf-8")
    (own / "device.toml").write_text(request.device_toml, encoding="utf-8")
    (own / "ca.pem").write_bytes(request.ca_pem)
    (own / "trust.json").write_bytes(request.trust_json)
    copyfile(request.constraints, own / "constraints.txt")  # a person may edit the original


def _put_wheels(target: Path, wheels: Path) -> None:
    if not (wheels / REQUIREMENTS_FILE).is_file():
        raise FleetError(f"{wheels} is no wheelhouse: it has no {REQUIREMENTS_FILE}")
    target.mkdir()
    for path in (*wheels.glob("*.whl"), wheels / REQUIREMENTS_FILE):
        _link(path, target / path.name)


def _put_model(target: Path, release: Path) -> None:
    missing = [name for name in _MODEL_FILES if not (release / name).is_file()]
    if missing:
        raise FleetError(f"{release} is no model release: no {', '.join(missing)}")
    target.mkdir()
    for name in _MODEL_FILES:
        _link(release / name, target / name)


def _put_secrets(own: Path, request: BundleRequest) -> None:
    if request.token is not None:
        _write_secret(own / TOKEN, request.token.encode())
    if request.identity is not None:
        certificate, key = request.identity
        _write_secret(own / IDENTITY, certificate.rstrip() + b"\n" + key)
    if request.examples is not None:
        _write_secret(own / EXAMPLES, request.examples)


def _write_secret(path: Path, content: bytes) -> None:
    path.touch(mode=_SECRET)
    path.write_bytes(content)


def _sums(own: Path) -> str:
    """As sha256sum reads them; without what is taken away at the first boot."""
    listed = sorted(path for path in own.rglob("*") if path.is_file() and path.name not in TAKEN)
    return "".join(f"{sha256_file(path)}  {path.relative_to(own).as_posix()}\n" for path in listed)


def _link(source: Path, target: Path) -> None:
    """Models and wheels are large and never change: a hard link where the file system can."""
    try:
        os.link(source, target)
    except OSError:
        copyfile(source, target)
