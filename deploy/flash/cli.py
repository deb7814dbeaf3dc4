"""`fedpt flash`: parse, build, call, print. Nothing else."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

if TYPE_CHECKING:
    from deploy.flash.block_devices import BlockDevice
    from deploy.flash.bundles import Bundle
    from deploy.flash.flashing import FlashedImage

_SOON_H: Final = 24.0
"""A token with less time left is told of: a card may lie about for a day."""


def flash(
    name: Annotated[str, typer.Argument(help="The device, as in: fedpt fleet add NAME.")],
    image: Annotated[
        Path | None,
        typer.Option(help="Raspberry Pi OS or Ubuntu: .img, .img.xz, .img.zst, .img.gz, .img.zip."),
    ] = None,
    cidata: Annotated[
        Path | None,
        typer.Option(help="Instead: make this CIDATA volume, for a second stick or virtual disk."),
    ] = None,
    fleet: Annotated[Path, typer.Option(help="The fleet's folder.")] = Path("fleet"),
    out: Annotated[
        Path | None, typer.Option(help="The image to make; default: FLEET/devices/NAME/NAME.img.")
    ] = None,
    to: Annotated[
        Path | None, typer.Option(help="Also write it to this card or stick, as /dev/sdX.")
    ] = None,
    force: Annotated[
        Path | None, typer.Option(help="Name --to again: for a disk that is not removable.")
    ] = None,
    sha256: Annotated[str | None, typer.Option(help="The sha256 that IMAGE must have.")] = None,
    checksum: Annotated[
        Path | None, typer.Option(help="A file with it; default: IMAGE.sha256 or SHA256SUMS.")
    ] = None,
    no_checksum: Annotated[
        bool, typer.Option("--no-checksum", help="Take IMAGE although nobody says its sha256.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before writing to --to.")] = False,
) -> None:
    """Put a device's bundle into an operating system's image, and the image onto a card.

    No root is needed but for --to. The board enrols itself when it starts from the card.

    Examples:
      fedpt flash --image raspios-lite-arm64.img.xz kitchen
      sudo fedpt flash --image raspios-lite-arm64.img.xz kitchen --to /dev/sdb
      fedpt flash --cidata kitchen-cidata.img kitchen
    """
    import time

    from deploy.flash.bundles import read_bundle
    from deploy.flash.fat_volume import require_mtools
    from deploy.flash.flashing import make_cidata_image, make_image, require_target
    from fedpt.errors import UsageError
    from fedpt.progress_bar import progress_bar

    if (image is None) == (cidata is None):
        raise UsageError("give either --image IMG or --cidata OUT.img")
    if cidata is not None and out is not None:
        raise UsageError("--out goes with --image; --cidata names its own output")
    forced = _is_forced(to, force)
    now = time.time()
    require_mtools()
    bundle = read_bundle(fleet, name, now_unix_s=now)
    _warn_of_token(bundle, now)
    if to is not None:
        _checked_device(to, forced=forced, image_bytes=0)
    if image is not None:
        target = out or fleet / "devices" / name / f"{name}.img"
        require_target(target, image)
        _check_image(image, sha256, checksum, no_checksum=no_checksum)
        made = make_image(image, bundle, target, on_step=progress_bar, now_unix_s=now)
    else:
        assert cidata is not None
        made = make_cidata_image(bundle, cidata, on_step=progress_bar, now_unix_s=now)
    _print_made(made, bundle)
    if to is not None:
        _write(made, _checked_device(to, forced=forced, image_bytes=made.size_bytes), yes=yes)
    _print_next(made, bundle, is_written=to is not None)


def _is_forced(to: Path | None, force: Path | None) -> bool:
    from fedpt.errors import UsageError

    if force is not None and force != to:
        raise UsageError(f"--force {force} must name the same disk as --to {to or '(not given)'}")
    return force is not None


def _checked_device(to: Path, *, forced: bool, image_bytes: int) -> "BlockDevice":
    from deploy.flash.block_devices import read_block_device, require_writable
    from deploy.flash.writing import require_permission

    device = read_block_device(to)
    require_writable(device, forced=forced, image_bytes=image_bytes)
    require_permission(device)
    return device


def _check_image(
    image: Path, sha256: str | None, checksum: Path | None, *, no_checksum: bool
) -> None:
    from deploy.flash.checksums import expected_sha256, require_checksum
    from deploy.flash.images import open_image
    from fedpt.errors import UsageError
    from fedpt.progress_bar import progress_bar

    with open_image(image):  # a wrong kind of file is told at once
        pass
    expected = expected_sha256(image, sha256=sha256, checksum_file=checksum)
    if expected is not None:
        with progress_bar("checking the image's sha256") as on_progress:
            require_checksum(image, expected, on_progress=on_progress)
        print(f"{image}: sha256 as published")
    elif no_checksum:
        _warn(f"nobody says which sha256 {image} must have; it is taken as it is")
    else:
        raise UsageError(
            f"nobody says which sha256 {image} must have: give --sha256 HEX, put the publisher's"
            f" {image.name}.sha256 beside it, or take it as it is with --no-checksum"
        )


def _write(made: "FlashedImage", device: "BlockDevice", *, yes: bool) -> None:
    from deploy.flash.block_devices import describe
    from deploy.flash.writing import require_written, write_to_disk
    from fedpt.progress_bar import progress_bar

    print(f"all data will be lost on {describe(device)}")
    if not yes:
        _require_confirmed(device)
    with progress_bar(f"writing to {device.path}") as on_progress:
        write_to_disk(made.path, device, on_progress=on_progress)
    with progress_bar(f"reading {device.path} back") as on_progress:
        require_written(made.path, device, on_progress=on_progress)
    print(f"written to {device.path} and read back")


def _require_confirmed(device: "BlockDevice") -> None:
    """A plain `input`, so that Ctrl-C stays Ctrl-C."""
    from fedpt.errors import UsageError

    print(f"type {device.path} to go on: ", end="", flush=True)
    try:
        answer = input().strip()
    except EOFError:
        answer = ""
    if answer != str(device.path):
        raise UsageError(f"nothing was written to {device.path}")


def _warn_of_token(bundle: "Bundle", now_unix_s: float) -> None:
    if bundle.token_expires_unix_s is None:
        return
    left_h = (bundle.token_expires_unix_s - now_unix_s) / 3600
    if left_h < _SOON_H:
        _warn(
            f"the enrolment token of {bundle.device} is good for {left_h:.1f} hours more;"
            f" for a new one run: fedpt fleet add {bundle.device} --renew-token"
        )


def _print_made(made: "FlashedImage", bundle: "Bundle") -> None:
    if made.warning:
        _warn(made.warning)
    print(f"{made.path}: {made.size_bytes / 1e6:.1f} MB, {made.system}")
    print(
        f"  {len(bundle.files)} files of {bundle.device}'s bundle"
        f" ({bundle.size_bytes / 1e6:.1f} MB) are in it, read back and compared"
    )


def _print_next(made: "FlashedImage", bundle: "Bundle", *, is_written: bool) -> None:
    if not is_written:
        from shlex import quote

        print("write it to a card or stick, one of:")
        print(f"  rpi-imager --repo {quote(str(made.manifest))}")
        dd = f"sudo dd if={quote(str(made.path))} of=/dev/sdX bs=4M conv=fsync status=progress"
        print(f"  {dd}")
    how = "from its own disk, with this stick plugged in" if made.is_seed else "with it"
    print(
        f"start the board {how}{_deadline(bundle)}; it joins the fleet as {bundle.device}."
        " Keep the image to yourself: it holds the secret that lets the board in"
    )


def _deadline(bundle: "Bundle") -> str:
    from datetime import datetime

    if bundle.token_expires_unix_s is None:
        return ""
    until = datetime.fromtimestamp(bundle.token_expires_unix_s).astimezone()
    return f" before {until:%Y-%m-%d %H:%M}"


def _warn(message: str) -> None:
    print(f"fedpt: warning: {message}", file=sys.stderr)
