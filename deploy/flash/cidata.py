"""A volume labelled CIDATA with a bundle on it: for a second stick or a second virtual disk.

Every system with cloud-init looks for that label, whatever disk it starts from.
"""

from pathlib import Path
from typing import Final

from deploy.flash.boot_partition import require_bundle_on, require_room
from deploy.flash.bundles import Bundle
from deploy.flash.fat_volume import BOOT_SECTOR_BYTES, FatVolume, needed_bytes, read_geometry
from deploy.fleet.bundle_layout import NO_CLOUD_FILES, OWN_FOLDER
from fedpt.errors import ImageError

_LABEL: Final = "CIDATA"
_MIB: Final = 1024 * 1024
_SPARE_BYTES: Final = 4 * _MIB
"""For the file allocation tables of a small volume, and a few files more."""
_LARGEST_CLUSTER_BYTES: Final = 32 * 1024


def cidata_size_bytes(bundle: Bundle) -> int:
    """How large the volume must be, whole MiB."""
    sizes = {file.name: file.size_bytes for file in bundle.files}
    needed = needed_bytes(sizes, _LARGEST_CLUSTER_BYTES)
    return -(-(needed + needed // 64 + _SPARE_BYTES) // _MIB) * _MIB


def make_cidata(bundle: Bundle, target: Path) -> int:
    """Make the volume in `target`, an existing empty file; returns its size in bytes.

    Raises:
        ImageError: It cannot be made, or is not what was written when read back.
    """
    size = cidata_size_bytes(bundle)
    volume = FatVolume(target, 0)
    volume.make(size_bytes=size, label=_LABEL)
    with target.open("rb") as file:
        geometry = read_geometry(file.read(BOOT_SECTOR_BYTES))
    if geometry is None:
        raise ImageError("mformat made no usable volume; is another program called mformat?")
    require_room(bundle, free_bytes=volume.free_bytes(), cluster_bytes=geometry.cluster_bytes)
    volume.copy_in([bundle.folder / name for name in (*NO_CLOUD_FILES, OWN_FOLDER)])
    require_bundle_on(volume, bundle)
    if volume.label() != _LABEL:
        raise ImageError(f"the new volume is labelled {volume.label()!r}, not {_LABEL!r}")
    return size
