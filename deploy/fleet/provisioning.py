"""From a name and a kind of board to the bundle that its first boot needs."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from deploy.fleet.adding import device_settings, ready_credentials, token_credentials
from deploy.fleet.boards import Board
from deploy.fleet.bundle import BundleRequest, build_bundle, replace_token
from deploy.fleet.fleet_folder import Fleet
from deploy.fleet.network import Network, Wifi, host_name, wifi_from_passphrase
from deploy.fleet.project_sources import find_constraints, find_project
from deploy.fleet.wheelhouse import WheelhouseRequest, build_wheelhouse
from fedpt.errors import FleetError, UsageError
from fedpt.examples import read_examples
from fedpt.progress import OnProgress, ignore_progress


@dataclass(frozen=True, slots=True)
class BundlePlan:
    """What the operator chose, beside name and board."""

    wheels: Path | None = None
    """Wheels that no index has."""
    wifi: tuple[str, str] | None = None
    """Name and country."""
    ssh_keys: tuple[Path, ...] = ()
    timezone: str = "Etc/UTC"
    examples: Path | None = None
    """JSONL: what the board learns from at first."""


@dataclass(frozen=True, slots=True)
class Secrets:
    """What only the operator knows. Asked for when it is needed."""

    passphrase: Callable[[], str]
    wifi_passphrase: Callable[[], str]


def make_bundle(  # noqa: PLR0913  # all of them are the operator's choices
    fleet: Fleet,
    name: str,
    board: Board,
    *,
    plan: BundlePlan,
    secrets: Secrets,
    token_hours: float | None,
    on_progress: OnProgress = ignore_progress,
) -> Path:
    """Make a board's bundle and enter the board into the fleet, in this order.

    Args:
        fleet: Which fleet.
        name: Also its host name.
        board: What it is.
        plan: Further choices.
        secrets: Passphrases.
        token_hours: How long the token lives; None: a ready key instead of a token.
        on_progress: Told of the wheels.

    Returns:
        The bundle's folder.

    Raises:
        FleetError: Something is missing or cannot be; nothing was changed.
        DataFileError: The first examples have a bad line; nothing was changed.
        StorageError: The disk is full.
    """
    host_name(name)
    network = Network(_wifi(plan, secrets))
    keys = tuple(map(_read_ssh_key, plan.ssh_keys))
    examples = _read_first_examples(plan.examples, board) if plan.examples else None
    model = _newest_model(fleet)
    passphrase = secrets.passphrase() if token_hours is not None else ""
    if token_hours is not None:
        fleet.signing_key("operator", passphrase)  # before the wheels, which take minutes
    constraints = find_constraints()
    wheels = build_wheelhouse(
        WheelhouseRequest(
            board=board,
            constraints=constraints,
            project=find_project(),
            given=plan.wheels,
            cache=fleet.folder / "wheels",
        ),
        on_progress=on_progress,
    )
    credentials = (
        ready_credentials(fleet, name, board.name)
        if token_hours is None
        else token_credentials(fleet, name, board.name, passphrase, life_h=token_hours)
    )
    request = BundleRequest(
        name=name,
        board=board,
        device_toml=device_settings(fleet, name, board),
        token=credentials.token,
        identity=credentials.identity,
        ca_pem=fleet.read("authority/root-ca.pem"),
        trust_json=fleet.read("keys/trust.json"),
        model_release=model,
        wheels=wheels,
        constraints=constraints,
        network=network,
        ssh_keys=keys,
        timezone=plan.timezone,
        examples=examples,
    )
    folder = fleet.device_folder(name) / "bundle"
    build_bundle(request, folder)
    fleet.write_device(credentials.record)
    return folder


def renew_token(fleet: Fleet, name: str, passphrase: str, *, life_h: float) -> Path:
    """Put a new token into a board's bundle; the certificate of its old one ends with its use.

    Raises:
        UsageError: There is no such board.
        FleetError: The passphrase is wrong, or the board's bundle is gone.
    """
    record = fleet.device(name)
    if record.role != "device":
        raise UsageError(f"{name!r} is a worker; it has a ready key and no token")
    credentials = token_credentials(fleet, name, record.board, passphrase, life_h=life_h)
    assert credentials.token is not None  # that is what was asked for
    folder = fleet.device_folder(name) / "bundle"
    replace_token(folder, name, credentials.token)
    # a ready key that it once had is still to be revoked when the name is removed
    fleet.write_device(msgspec.structs.replace(credentials.record, serials=record.serials))
    return folder


def describe_expiry(fleet: Fleet, name: str) -> str:
    """One line about how the board gets in, and until when."""
    expires = fleet.device(name).token_expires_unix_s
    if expires is None:
        return "with a ready key: whoever reads the card is the board"
    day = datetime.fromtimestamp(expires, UTC)
    return f"its token is good until {day:%Y-%m-%d %H:%M} UTC"


def _wifi(plan: BundlePlan, secrets: Secrets) -> Wifi | None:
    if plan.wifi is None:
        return None
    ssid, country = plan.wifi
    return wifi_from_passphrase(ssid, secrets.wifi_passphrase(), country)


def _newest_model(fleet: Fleet) -> Path:
    folders = [path for path in (fleet.releases / "model").glob("*-*") if path.is_dir()]
    if not folders:
        raise FleetError(
            "the fleet has no small model yet; make it a release:"
            f" fedpt fleet release model SMALL.gguf --fleet {fleet.folder}"
        )
    return max(folders, key=lambda path: int(path.name.partition("-")[0]))


def _read_first_examples(path: Path, board: Board) -> bytes:
    """Looked at here, where a bad line can be mended: a board at its first boot tells nobody."""
    if not board.trains:
        raise FleetError(f"a board that only answers learns from no examples: leave out {path}")
    read_examples(path)
    return path.read_bytes()


def _read_ssh_key(path: Path) -> str:
    try:
        return path.expanduser().read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        raise FleetError(f"cannot read the SSH key {path}: {error}") from error
