"""From an image and a bundle to a device's own image file: copy, patch, check, and only then name.

Nothing is printed here; `OnStep` hears of each stage and gives a way to show its progress.
"""

import os
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

from deploy.flash.boot_partition import fill, find_boot_partition, require_filled
from deploy.flash.bundles import Bundle
from deploy.flash.checksums import file_sha256
from deploy.flash.cidata import cidata_size_bytes, make_cidata
from deploy.flash.copying import copy_image, require_untouched
from deploy.flash.imager_manifest import MANIFEST_SUFFIX, imager_manifest
from deploy.flash.images import open_image
from fedpt.errors import ImageError, StorageError, UsageError
from fedpt.files import write_json, written_aside
from fedpt.progress import OnProgress

OnStep: TypeAlias = Callable[[str], AbstractContextManager[OnProgress]]

_MB: Final = 1_000_000
_OWNER_ONLY: Final = 0o600
"""The image holds a token with which a device enrols."""


@dataclass(frozen=True, slots=True)
class FlashedImage:
    """An image file that is ready to be written to a card."""

    path: Path
    manifest: Path
    size_bytes: int
    system: str
    is_seed: bool
    """It starts nothing itself: a system with cloud-init finds it beside its own disk."""
    warning: str | None


def make_image(
    image: Path, bundle: Bundle, target: Path, *, on_step: OnStep, now_unix_s: float
) -> FlashedImage:
    """Copy `image` to `target` with the bundle in its boot partition.

    Raises:
        ImageError: The image cannot be used; `target` is then as before.
        StorageError: `target` cannot be written; it is then as before.
    """
    require_target(target, image)
    try:
        with written_aside(target, mode=_OWNER_ONLY) as aside:
            with open_image(image) as stream, on_step("copying the image") as on_progress:
                require_space(target, stream.size_bytes)
                copied = copy_image(stream, aside, on_progress=on_progress)
            boot = find_boot_partition(copied)
            with on_step("adding the bundle"):
                fill(boot, bundle)
                require_filled(boot, bundle)
            with on_step("checking the result") as on_progress:
                sha256 = require_untouched(copied, boot.partition, on_progress=on_progress)
    except ImageError as error:
        raise _of_image(error, image) from error
    _hand_over(target)
    size = copied.size_bytes
    manifest = _write_manifest(target, bundle, size, sha256=sha256, now_unix_s=now_unix_s)
    return FlashedImage(
        target, manifest, size, boot.system.value, is_seed=False, warning=boot.warning
    )


def make_cidata_image(
    bundle: Bundle, target: Path, *, on_step: OnStep, now_unix_s: float
) -> FlashedImage:
    """Make a CIDATA volume with the bundle in `target`.

    Raises:
        ImageError: It cannot be made; `target` is then as before.
        StorageError: `target` cannot be written; it is then as before.
    """
    require_target(target)
    require_space(target, cidata_size_bytes(bundle))
    with written_aside(target, mode=_OWNER_ONLY) as aside, on_step("making the volume"):
        size = make_cidata(bundle, aside)
    _hand_over(target)
    with on_step("checking the result") as on_progress:
        sha256 = file_sha256(target, on_progress=on_progress)
    manifest = _write_manifest(target, bundle, size, sha256=sha256, now_unix_s=now_unix_s)
    return FlashedImage(
        target, manifest, size, "a volume labelled CIDATA", is_seed=True, warning=None
    )


def require_target(target: Path, image: Path | None = None) -> None:
    """Refuse an output that is a disk, a folder, or the image itself.

    Raises:
        UsageError: Says which.
    """
    if target.exists() and not target.is_file():
        raise UsageError(f"{target} is no file; to write to a disk use: --to {target}")
    if "@@" in target.name:
        raise UsageError(f"{target.name}: '@@' in a file name confuses mtools; choose another")
    if image is not None and target.exists() and image.exists() and target.samefile(image):
        raise UsageError(f"{target} is the image itself; choose another --out")


def require_space(target: Path, size_bytes: int | None) -> None:
    """Refuse to begin where the output does not fit; a size that is not known may pass.

    Raises:
        StorageError: Says how much is needed and how much there is.
    """
    folder = next(parent for parent in target.resolve().parents if parent.exists())
    free = shutil.disk_usage(folder).free
    if size_bytes is not None and size_bytes > free:
        raise StorageError(
            f"cannot write {target}: it needs {size_bytes / _MB:.0f} MB and {free / _MB:.0f} MB are"
            " free; free some space or choose another --out"
        )


def _hand_over(target: Path) -> None:
    """Give a file that root wrote to its folder's owner."""
    if os.geteuid() == 0:
        owner = target.parent.stat()
        os.chown(target, owner.st_uid, owner.st_gid)


def _write_manifest(
    target: Path, bundle: Bundle, size: int, *, sha256: str, now_unix_s: float
) -> Path:
    manifest = target.with_name(target.stem + MANIFEST_SUFFIX)
    content = imager_manifest(
        target, device=bundle.device, size_bytes=size, sha256=sha256, made_unix_s=now_unix_s
    )
    write_json(manifest, content)
    return manifest


def _of_image(error: ImageError, image: Path) -> ImageError:
    """The same, with the image's name if it is not told yet."""
    text = str(error)
    return error if str(image) in text else ImageError(f"{image}: {text}")
