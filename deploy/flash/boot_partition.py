"""Putting a bundle onto the boot partition of a copied image, and making sure that it is there."""

from dataclasses import dataclass
from typing import Final

from deploy.flash.boot_layout import BootVolume, System, doubt, recognise, with_instance
from deploy.flash.bundles import Bundle
from deploy.flash.copying import CopiedImage
from deploy.flash.fat_volume import BOOT_SECTOR_BYTES, FatVolume, needed_bytes, read_geometry
from deploy.flash.partitions import Partition, require_alone
from deploy.fleet.bundle_layout import NO_CLOUD_FILES, OWN_FOLDER
from fedpt.errors import ImageError

_CMDLINE: Final = "cmdline.txt"
_MAX_CMDLINE_BYTES: Final = 64 * 1024
_MB: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class BootPartition:
    """The partition of an image from which a board starts."""

    partition: Partition
    volume: FatVolume
    system: System
    cluster_bytes: int
    cmdline: str
    warning: str | None


def find_boot_partition(image: CopiedImage) -> BootPartition:
    """The first FAT partition that belongs to a system which takes a bundle.

    Raises:
        ImageError: There is none, or its system cannot use a bundle.
    """
    for partition in image.partitions:
        if partition.may_be_fat and (found := _examine(image, partition)):
            require_alone(partition, image.partitions)
            return found
    raise ImageError(
        "no boot partition of Raspberry Pi OS or Ubuntu for boards in it; for other systems with"
        " cloud-init put the bundle onto a second stick: fedpt flash --cidata OUT.img NAME"
    )


def fill(boot: BootPartition, bundle: Bundle) -> None:
    """Put the bundle there and name the instance on the kernel command line.

    Raises:
        ImageError: There is too little room, or the file system is damaged.
    """
    if f"{OWN_FOLDER}/" in boot.volume.names():
        boot.volume.delete_folder(OWN_FOLDER)  # of an earlier bundle, whose files may have gone
    require_room(bundle, free_bytes=boot.volume.free_bytes(), cluster_bytes=boot.cluster_bytes)
    boot.volume.copy_in([bundle.folder / name for name in (*NO_CLOUD_FILES, OWN_FOLDER)])
    if boot.system is System.RASPBERRY_PI_OS:
        line = with_instance(boot.cmdline, bundle.instance_id)
        boot.volume.write(_CMDLINE, line.encode("utf-8", "surrogateescape"))


def require_filled(boot: BootPartition, bundle: Bundle) -> None:
    """Read everything back and compare.

    Raises:
        ImageError: Something is not there as it should be.
    """
    require_bundle_on(boot.volume, bundle)
    if boot.system is System.RASPBERRY_PI_OS:
        line = boot.volume.read(_CMDLINE).decode("utf-8", "surrogateescape")
        if line != with_instance(boot.cmdline, bundle.instance_id):
            raise ImageError("cmdline.txt on the boot partition is not as it was written")


def require_bundle_on(volume: FatVolume, bundle: Bundle) -> None:
    """Read a bundle's files back from a volume and compare.

    Raises:
        ImageError: A file is missing, differs, or is one too many.
    """
    wanted = {file.name for file in bundle.files if file.name.startswith(f"{OWN_FOLDER}/")}
    listed = volume.names(f"/{OWN_FOLDER}", deep=True)
    found = {name for name in listed if not name.endswith("/")}
    if wrong := sorted(wanted ^ found):
        raise ImageError(f"read back from the image, {wrong[0]} is missing or should not be there")
    for file in bundle.files:
        if volume.sha256(file.name) != file.sha256:
            raise ImageError(f"read back from the image, {file.name} is not as in the bundle")


def require_room(bundle: Bundle, *, free_bytes: int, cluster_bytes: int) -> None:
    """Refuse a bundle for which there is no room.

    Raises:
        ImageError: Says how much is needed and how much there is.
    """
    sizes = {file.name: file.size_bytes for file in bundle.files}
    needed = needed_bytes(sizes, cluster_bytes)
    if needed > free_bytes:
        raise ImageError(
            f"the boot partition is too small: the bundle needs {needed / _MB:.1f} MB and"
            f" {free_bytes / _MB:.1f} MB are free; take a smaller model, or copy the bundle to the"
            " running board and run: sudo sh fedpt/install.sh"
        )


def _examine(image: CopiedImage, partition: Partition) -> BootPartition | None:
    """A partition as a boot partition; None if it is none that takes a bundle."""
    with image.path.open("rb") as file:
        file.seek(partition.start)
        geometry = read_geometry(file.read(BOOT_SECTOR_BYTES))
    if geometry is None:
        return None
    if geometry.total_bytes > partition.size:
        raise ImageError(
            f"partition {partition.number} has {partition.size} bytes, but its file system claims"
            f" {geometry.total_bytes}: the image is damaged; download it again"
        )
    volume = FatVolume(image.path, partition.start)
    names = frozenset(name.lower() for name in volume.names())
    cmdline = _read_cmdline(volume) if _CMDLINE in names else ""
    system = recognise(BootVolume(volume.label(), names, cmdline))
    if system is None:
        return None
    return BootPartition(
        partition, volume, system, geometry.cluster_bytes, cmdline, doubt(system, names)
    )


def _read_cmdline(volume: FatVolume) -> str:
    content = volume.read(_CMDLINE)
    if len(content) > _MAX_CMDLINE_BYTES:
        raise ImageError(f"its cmdline.txt has {len(content)} bytes: the image is damaged")
    return content.decode("utf-8", "surrogateescape")
