"""`fedpt fleet …`: parse, build, call, print. Nothing else."""

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal

import typer

if TYPE_CHECKING:
    from deploy.fleet.boards import Board
    from deploy.fleet.fleet_folder import Fleet
    from deploy.fleet.provisioning import BundlePlan

app = typer.Typer(no_args_is_help=True, help="Make and run a fleet of boards.")

_NEXT: Final = {
    "boot-partition": "next: fedpt flash --image IMAGE.img.xz {name} --fleet {fleet}",
    "cidata": "next: fedpt flash --cidata {name}.img {name} --fleet {fleet}",
    "install-script": "next: copy {bundle} to the board and run fedpt/install.sh there as root",
}

FleetOption = Annotated[Path, typer.Option("--fleet", help="The fleet's folder.")]
DEFAULT = Path("fleet")


@app.command(epilog="Example: fedpt fleet init ./fleet --host hub.local --host 10.0.0.2")
def init(
    folder: Annotated[Path, typer.Argument(help="A new folder.")] = DEFAULT,
    host: Annotated[
        list[str] | None,
        typer.Option(help="The server's name or address; boards use the first. Repeatable."),
    ] = None,
    federation: Annotated[str, typer.Option(help="The federation's name.")] = "home",
    port: Annotated[int, typer.Option(min=1, max=65_535, help="The broker's TCP port.")] = 8883,
    enrolment_port: Annotated[
        int, typer.Option(min=1, max=65_535, help="The enrolment service's TCP port.")
    ] = 8884,
    here: Annotated[
        bool,
        typer.Option("--here", help="The server runs from this folder, without installation."),
    ] = False,
) -> None:
    """Make a fleet: certificate authority, keys, and all that its server needs.

    The passphrase of the keys is asked for, or comes from FEDPT_PASSPHRASE.
    """
    from deploy.fleet.creating import ServerPlaces, create_fleet, new_record
    from deploy.fleet.network import require_server
    from deploy.fleet.passphrase import read_passphrase
    from fedpt.errors import UsageError
    from fedpt.ids import is_name

    if not host:
        raise UsageError("name the server: --host hub.local (repeat it for its other names)")
    for one in host:
        require_server(one)
    if not is_name(federation):
        raise UsageError(f"not a name for a federation: {federation!r}; letters, digits and . _ -")
    record = new_record(federation, host, broker_port=port, enrolment_port=enrolment_port)
    places = ServerPlaces.inside(folder.absolute()) if here else ServerPlaces()
    fleet = create_fleet(folder, record, read_passphrase(is_new=True), places)
    print(
        f"fleet {federation!r} is in {folder}; keep authority/ and keys/ offline and backed up\n"
        f"server:  copy {fleet.server} to {host[0]} and run its install.sh there as root\n"
        f"model:   fedpt fleet release model SMALL.gguf --fleet {folder}\n"
        f"boards:  fedpt fleet add NAME --board rpi5 --fleet {folder}"
    )


@app.command(epilog="Example: fedpt fleet add kitchen --board rpi5 --wifi-ssid Home")
def add(
    name: Annotated[str, typer.Argument(help="The board's name: also its host name.")],
    board: Annotated[
        str | None,
        typer.Option(help="rpi5, rpi4, jetson, generic-arm64, generic-x86; or worker."),
    ] = None,
    fleet: FleetOption = DEFAULT,
    renew_token: Annotated[
        bool, typer.Option("--renew-token", help="A new token for a board that is added already.")
    ] = False,
    ready_key: Annotated[
        bool,
        typer.Option("--ready-key", help="Key and certificate in the bundle, instead of a token."),
    ] = False,
    token_hours: Annotated[float, typer.Option(min=0.1, help="How long the token lives.")] = 72,
    answers_only: Annotated[
        bool, typer.Option("--answers-only", help="It does not train: no torch on it.")
    ] = False,
    python: Annotated[
        str | None, typer.Option(help="The board's Python, as 3.12, if its system is another.")
    ] = None,
    wifi_ssid: Annotated[str | None, typer.Option(help="Its Wi-Fi's name.")] = None,
    wifi_country: Annotated[str, typer.Option(help="Where it is: two letters.")] = "GB",
    ssh_key: Annotated[
        list[Path] | None, typer.Option(help="Public key that may log in. Repeatable.")
    ] = None,
    timezone: Annotated[str, typer.Option(help="As in Europe/Berlin.")] = "Etc/UTC",
    wheels: Annotated[
        Path | None, typer.Option(help="Folder of wheels that no index has (llama.cpp's).")
    ] = None,
    examples: Annotated[
        Path | None,
        typer.Option(help="JSONL that it learns from at first; wiped off the card when taken."),
    ] = None,
) -> None:
    """Add a board: a one-time token and a bundle with all that its first boot needs.

    The Wi-Fi's passphrase is asked for, or comes from FEDPT_WIFI_PASSPHRASE.
    """
    from deploy.fleet.adding import WORKER
    from deploy.fleet.fleet_folder import Fleet, require_new_name
    from fedpt.errors import UsageError

    opened = Fleet.open(fleet)
    if renew_token:
        _renew_token(opened, name, token_hours)
        return
    if board is None:
        raise UsageError("say what board it is: --board rpi5, rpi4, jetson, generic-arm64, …")
    require_new_name(name)
    opened.require_free(name)
    if board == WORKER:
        _add_worker(opened, name)
        return
    from deploy.fleet.provisioning import BundlePlan

    chosen = _board(board, python, answers_only=answers_only)
    plan = BundlePlan(
        wheels=wheels,
        wifi=(wifi_ssid, wifi_country) if wifi_ssid else None,
        ssh_keys=tuple(ssh_key or ()),
        timezone=timezone,
        examples=examples,
    )
    _add_board(opened, name, chosen, plan, None if ready_key else token_hours)


@app.command("list", epilog="Example: fedpt fleet list --offline")
def list_(
    fleet: FleetOption = DEFAULT,
    offline: Annotated[
        bool, typer.Option("--offline", help="Don't ask the enrolment service.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show all boards: added here, enrolled at the server."""
    import json
    import sys

    from deploy.fleet.fleet_folder import Fleet
    from deploy.fleet.listing import as_table, merge
    from deploy.fleet.operator_calls import call_service
    from deploy.fleet.passphrase import read_passphrase
    from fedpt.errors import EnrolmentError

    opened = Fleet.open(fleet)
    members = None
    if not offline:
        key = opened.signing_key("operator", read_passphrase())
        try:
            members = call_service(opened, key, "list").members
        except EnrolmentError as error:
            print(f"fedpt: {error}; showing what is known here", file=sys.stderr)
    rows = merge(opened.devices(), members, datetime.now(UTC))
    print(json.dumps([row.as_dict() for row in rows], indent=2) if as_json else as_table(rows))


@app.command(epilog="Example: fedpt fleet remove kitchen")
def remove(
    name: Annotated[str, typer.Argument(help="A board or worker.")], fleet: FleetOption = DEFAULT
) -> None:
    """Put a board out: its certificate and its tokens are worth nothing from now on."""
    import msgspec

    from deploy.fleet.fleet_folder import Fleet
    from deploy.fleet.operator_calls import call_service
    from deploy.fleet.passphrase import read_passphrase

    opened = Fleet.open(fleet)
    record = opened.device(name)
    key = opened.signing_key("operator", read_passphrase())
    call_service(opened, key, "remove", name=name, serials=tuple(record.serials))
    opened.write_device(msgspec.structs.replace(record, is_removed=True))
    print(f"{name} is out: the broker refuses it")


@app.command(epilog="Example: fedpt fleet rotate release")
def rotate(
    what: Annotated[
        Literal["release", "adapter", "services", "authority"],
        typer.Argument(
            help="A signing key, the certificates of services and workers, or who issues them all."
        ),
    ],
    fleet: FleetOption = DEFAULT,
    compromised: Annotated[
        bool, typer.Option("--compromised", help="Believe the old key no more, at once.")
    ] = False,
) -> None:
    """Replace a key. Boards learn of new signing keys by a release signed with the old one."""
    from deploy.fleet.fleet_folder import Fleet
    from deploy.fleet.passphrase import read_passphrase
    from deploy.fleet.rotating import rotate_authority, rotate_services, rotate_signing_key

    opened = Fleet.open(fleet)
    match what:
        case "services":
            _print_rotated(opened, rotate_services(opened))
        case "authority":
            _print_rotated(opened, rotate_authority(opened, read_passphrase()))
            print("every board needs a new token: fedpt fleet add NAME --renew-token")
        case _:
            passphrase = read_passphrase()
            release = rotate_signing_key(opened, what, passphrase, is_compromised=compromised)
            print(
                f"copy {opened.server} to the server, {release.parent} to its releases, and"
                " restart the coordinator"
            )


@app.command(epilog="Example: fedpt fleet release model small.gguf --fraction 0.1")
def release(
    kind: Annotated[
        Literal["model", "adapter", "runtime"], typer.Argument(help="What is released.")
    ],
    source: Annotated[
        Path, typer.Argument(help="A GGUF, an adapter's blob, or a wheelhouse's folder.")
    ],
    fleet: FleetOption = DEFAULT,
    fraction: Annotated[
        float, typer.Option(min=0, max=1, help="Share of the boards that get it now.")
    ] = 1.0,
    valid_days: Annotated[float, typer.Option(min=0.01, help="Installed within so long.")] = 365,
    minimum_runtime: Annotated[
        str, typer.Option(help="The fedpt version it needs; empty: any.")
    ] = "",
    url: Annotated[
        str, typer.Option(help="An HTTP folder with its files; empty: the coordinator serves them.")
    ] = "",
    note: Annotated[str, typer.Option(help="What people should know of it.")] = "",
) -> None:
    """Sign a release and announce it to a share of the boards."""
    from deploy.fleet.fleet_folder import Fleet
    from deploy.fleet.passphrase import read_passphrase
    from deploy.fleet.release import ReleaseTerms, make_release, stage
    from fedpt.progress_bar import progress_bar

    opened = Fleet.open(fleet)
    key = opened.signing_key("release", read_passphrase())
    terms = ReleaseTerms(valid_days, minimum_runtime, note)
    with progress_bar("hashing") as on_progress:
        folder = make_release(
            kind, source, key, releases=opened.releases, terms=terms, on_progress=on_progress
        )
    stage(folder, fraction, url=url)
    print(f"{folder}\nto announce it, copy {folder.parent} to the server's releases folder")


@app.command(epilog="Example: fedpt fleet roll-out model 12-0123456789ab --fraction 0.5")
def roll_out(
    kind: Annotated[
        Literal["model", "adapter", "runtime", "keys"], typer.Argument(help="Its kind.")
    ],
    identifier: Annotated[str, typer.Argument(metavar="ID", help="The release's folder name.")],
    fraction: Annotated[float, typer.Option(min=0, max=1, help="Share of the boards.")],
    fleet: FleetOption = DEFAULT,
) -> None:
    """Announce a release to more boards, or, with 0, to no more."""
    from deploy.fleet.fleet_folder import Fleet
    from deploy.fleet.release import stage

    changed = stage(Fleet.open(fleet).releases / kind / identifier, fraction)
    print(f"copy {changed} to the server's releases folder")


def _print_rotated(fleet: "Fleet", workers: list[Path]) -> None:
    for folder in workers:
        print(f"copy {folder} to the machine of its worker")
    print(f"copy {fleet.server} to the server and restart its services")


def _board(name: str, python: str | None, *, answers_only: bool) -> "Board":
    from dataclasses import replace

    from deploy.fleet.boards import find_board, with_python

    board = find_board(name)
    if python is not None:
        board = with_python(board, python)
    return replace(board, extra="assistant") if answers_only else board


def _add_board(
    fleet: "Fleet", name: str, board: "Board", plan: "BundlePlan", token_hours: float | None
) -> None:
    from deploy.fleet.bundle import bundle_size_bytes
    from deploy.fleet.passphrase import read_passphrase, read_wifi_passphrase
    from deploy.fleet.provisioning import Secrets, describe_expiry, make_bundle
    from fedpt.progress_bar import progress_bar

    secrets = Secrets(read_passphrase, read_wifi_passphrase)
    with progress_bar("wheels") as on_progress:
        folder = make_bundle(
            fleet,
            name,
            board,
            plan=plan,
            secrets=secrets,
            token_hours=token_hours,
            on_progress=on_progress,
        )
    print(f"{folder}: {bundle_size_bytes(folder) / 1e6:.0f} MB; {describe_expiry(fleet, name)}")
    print(_NEXT[board.flashing].format(name=name, fleet=fleet.folder, bundle=folder))


def _renew_token(fleet: "Fleet", name: str, token_hours: float) -> None:
    from deploy.fleet.passphrase import read_passphrase
    from deploy.fleet.provisioning import renew_token

    folder = renew_token(fleet, name, read_passphrase(), life_h=token_hours)
    print(
        f"{folder}: a new token, good for {token_hours:g} hours; once it was used, older ones are"
        " worth nothing"
    )


def _add_worker(fleet: "Fleet", name: str) -> None:
    from deploy.fleet.adding import WORKER, ready_credentials, write_worker

    credentials = ready_credentials(fleet, name, WORKER)
    folder = write_worker(fleet, credentials)
    fleet.write_device(credentials.record)
    print(
        f"{folder}: copy it to the machine where this runs:\n"
        f"  fedpt coordinator worker --config coordinator.toml --name {name}\n"
        f"and {fleet.server / 'enrolment' / 'workers'} to the server; restart its enrolment service"
    )
