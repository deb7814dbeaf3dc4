"""`fedpt device personal …`: the adapter that a board has for itself."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from edge_runtime.settings import DeviceSettings
    from fedpt.wire.messages import PersonalStatus

personal = typer.Typer(no_args_is_help=True, help="The adapter that a board has for itself.")

Config = Annotated[Path, typer.Option(help="A device's settings, TOML.")]


@personal.command(epilog="Example: fedpt device personal show --config device.toml")
def show(
    config: Config,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Tell whether the running device answers with an adapter of its own, and how good it is."""
    import msgspec

    from edge_runtime.drivers.local_client import daemon_status
    from fedpt.wire.messages import PersonalStatus

    told = daemon_status(_settings(config).socket).get("personal")
    if as_json:
        print(json.dumps(told))
    elif told is None:
        print("none: [personal] enabled = true in its settings lets this device train one")
    else:
        print("\n".join(_lines(msgspec.convert(told, PersonalStatus))))


@personal.command(epilog="Example: fedpt device personal forget --config device.toml")
def forget(config: Config) -> None:
    """Delete the personal adapter, whether the device runs or not.

    The federation's answers then. The next one is trained from the federation's next adapter.
    """
    from edge_runtime.drivers.local_client import forget_personal
    from edge_runtime.drivers.personal_shelf import PersonalShelf
    from fedpt.errors import DeviceDownError
    from fedpt.folder_lock import sole_use_of

    settings = _settings(config)
    try:
        forget_personal(settings.socket)
    except DeviceDownError:
        with sole_use_of(settings.state_dir, user="device"):
            PersonalShelf(settings.state_dir).forget()
    print("the personal adapter is forgotten")


def _settings(config: Path) -> "DeviceSettings":
    from edge_runtime.settings import ENVIRONMENT_PREFIX, DeviceSettings
    from fedpt.settings import load

    return load(DeviceSettings, toml=config, prefix=ENVIRONMENT_PREFIX)


def _lines(status: "PersonalStatus") -> list[str]:
    lines = ["in use" if status.in_use else "not in use"]
    if status.trained_unix_s:
        trained = datetime.fromtimestamp(status.trained_unix_s, UTC).astimezone()
        lines.append(f"trained {trained:%Y-%m-%d %H:%M} on {status.example_count} examples")
    if status.nll_before is not None and status.nll_after is not None:
        lines.append(
            f"nll on held-out examples {status.nll_before:.3f} before, {status.nll_after:.3f} after"
        )
    if status.training_done:
        lines.append(f"being trained, {status.training_done:.0%}")
    return [*lines, status.why_not] if status.why_not else lines
