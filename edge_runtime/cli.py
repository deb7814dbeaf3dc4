"""`fedpt device …`: parse, build, call, print. Nothing else."""

import json
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

from edge_runtime.data_cli import data
from edge_runtime.personal_cli import personal
from edge_runtime.train_cli import train

device = typer.Typer(no_args_is_help=True, help="Run a device of a federation.")
device.command()(train)
device.add_typer(data, name="data")
device.add_typer(personal, name="personal")

Config = Annotated[Path, typer.Option(help="Settings, TOML.")]


@device.command(epilog="Example: fedpt device run --config device.toml")
def run(
    config: Config,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log more.")] = False,
) -> None:
    """Train when selected, and answer questions, until Ctrl-C.

    Every setting can also come from the environment: FEDPT_DEVICE_BROKER__HOST=10.0.0.2.
    """
    from edge_runtime.daemon import DeviceDaemon
    from edge_runtime.drivers.enrolment import ensure_identity
    from edge_runtime.settings import ENVIRONMENT_PREFIX, DeviceSettings
    from fedpt.drivers.service_manager import ServiceManager
    from fedpt.folder_lock import sole_use_of
    from fedpt.log_setup import configure
    from fedpt.settings import load

    settings = load(DeviceSettings, toml=config, prefix=ENVIRONMENT_PREFIX)
    configure(verbose=verbose)
    service = ServiceManager.from_environment()
    with sole_use_of(settings.state_dir, user="device"):
        ensure_identity(settings)
        daemon = DeviceDaemon(settings, service)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda _number, _frame: daemon.stop())
        daemon.run()
    raise typer.Exit(daemon.exit_code)


@device.command(epilog="Example: fedpt device status --config device.toml")
def status(config: Config) -> None:
    """Print how the running device is, as JSON."""
    from edge_runtime.drivers.local_client import daemon_status
    from edge_runtime.settings import ENVIRONMENT_PREFIX, DeviceSettings
    from fedpt.settings import load

    settings = load(DeviceSettings, toml=config, prefix=ENVIRONMENT_PREFIX)
    print(json.dumps(daemon_status(settings.socket), indent=2))


@device.command(epilog="Example: fedpt device doctor --config /etc/fedpt/device.toml")
def doctor(
    config: Config,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Look at all that a device needs, and say what is wrong and how to mend it.

    Ends with exit code 1 if anything is at fault.
    """
    from edge_runtime.doctor import device_checks
    from fedpt.doctor import report

    is_healthy = report(
        device_checks(config),
        lambda text: print(text, flush=True),
        is_json=as_json,
        encoding=sys.stdout.encoding,
    )
    raise typer.Exit(0 if is_healthy else 1)


@device.command(epilog="Example: fedpt device releases --config /etc/fedpt/device.toml")
def releases(
    config: Config,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """List what is installed: releases in use, those before, on trial and refused ones."""
    import msgspec

    from edge_runtime.settings import ENVIRONMENT_PREFIX, DeviceSettings
    from edge_runtime.updates.by_hand import require_releases
    from edge_runtime.updates.release_store import ReleaseStore
    from fedpt.settings import load

    settings = load(DeviceSettings, toml=config, prefix=ENVIRONMENT_PREFIX)
    shelves = ReleaseStore(require_releases(settings).folder).shelves()
    if as_json:
        print(json.dumps({kind: msgspec.to_builtins(one) for kind, one in shelves.items()}))
        return
    for kind, shelf in shelves.items():
        note = f", on trial, {shelf.tries_left} starts left" if shelf.candidate else ""
        print(f"{kind:8} {shelf.current or 'none'}{note}; before: {shelf.previous or 'none'}")
        for release, why in shelf.refused.items():
            print(f"{'':8} refused {release}: {why}")


@device.command(epilog="Example: fedpt device install /media/stick/model/7-ab12 --config d.toml")
def install(
    source: Annotated[str, typer.Argument(help="A release's folder, or its URL.")],
    config: Config,
) -> None:
    """Install a signed release by hand: the same checks and trials as over the network.

    Run it as the device's own user (sudo -u fedpt), who must be able to replace it later.
    """
    from edge_runtime.settings import ENVIRONMENT_PREFIX, DeviceSettings
    from edge_runtime.updates.by_hand import install_by_hand
    from fedpt.progress_bar import progress_bar
    from fedpt.settings import load

    settings = load(DeviceSettings, toml=config, prefix=ENVIRONMENT_PREFIX)
    with progress_bar("installing") as on_progress:
        kind, release = install_by_hand(settings, source, on_progress=on_progress)
    print(f"{kind} release {release} is in use, on trial; restart the device: a running one keeps")
    print("what it began with (systemctl restart fedpt-device)")
