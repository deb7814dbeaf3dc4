"""Disks: what the kernel tells of them, and whether one may be overwritten.

Reading takes the root folder as a parameter (`/sys`, `/proc` below it); the decision is a function
of a `BlockDevice` alone.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fedpt.errors import BlockDeviceError

_SYSTEM_MOUNTS: Final = frozenset(
    {"/", "/boot", "/boot/efi", "/boot/firmware", "/efi", "/home", "/usr", "/var"}
)
_SYSFS_SECTOR_BYTES: Final = 512
_MB: Final = 1_000_000
_CARD_READERS: Final = frozenset({"usb", "mmc"})
_SERIAL_SEARCH_DEPTH: Final = 8


@dataclass(frozen=True, slots=True)
class BlockDevice:
    """A disk as the kernel knows it."""

    path: Path
    device_number: str
    """"major:minor"."""
    size_bytes: int
    model: str
    serial: str
    transport: str
    """"usb", "mmc" or "other"."""
    is_partition: bool
    is_removable: bool
    is_read_only: bool
    mounted_at: tuple[str, ...]
    """Where it, a partition of it, or what is built on these is mounted; "swap" for swap."""
    holders: tuple[str, ...]
    """What the kernel has built on it: LVM, RAID, encryption."""

    @property
    def is_system_disk(self) -> bool:
        """Whether this system runs from it."""
        return any(place in _SYSTEM_MOUNTS or place == "swap" for place in self.mounted_at)


def refusal(device: BlockDevice, *, forced: bool, image_bytes: int) -> str | None:
    """Why a disk must not be overwritten; None if it may be.

    Args:
        device: The disk.
        forced: Its name was given a second time, for disks that are not removable.
        image_bytes: What is to be written.
    """
    name = str(device.path)
    if device.is_partition:
        return f"{name} is a partition; name the whole disk"
    if device.is_system_disk:
        places = ", ".join(device.mounted_at)
        return f"{name} is a disk this system runs from ({places}); it is never written"
    if device.mounted_at:
        places = " ".join(device.mounted_at)
        return f"{name} is mounted at {places}; unmount first: sudo umount {places}"
    if device.holders:
        return f"{name} is in use by {', '.join(device.holders)}; stop that first"
    if not device.size_bytes:
        return f"{name} has no medium in it; put a card in"
    if device.is_read_only:
        return f"{name} is write-protected; move the card's lock"
    if not forced and not device.is_removable and device.transport not in _CARD_READERS:
        return (
            f"{name} ({device.model or 'unknown model'}) is neither removable nor on USB; if it is"
            f" the right disk, name it again: --force {name}"
        )
    if device.size_bytes < image_bytes:
        return (
            f"{name} has {device.size_bytes / _MB:.1f} MB, too small for the image of"
            f" {image_bytes / _MB:.1f} MB"
        )
    return None


def require_writable(device: BlockDevice, *, forced: bool, image_bytes: int) -> None:
    """Refuse a disk that must not be overwritten.

    Raises:
        BlockDeviceError: Says why.
    """
    if reason := refusal(device, forced=forced, image_bytes=image_bytes):
        raise BlockDeviceError(reason)


def read_block_device(path: Path, *, root: Path = Path("/")) -> BlockDevice:
    """What the kernel tells of a disk.

    Args:
        path: As `/dev/sdb`; a link such as those in `/dev/disk/by-id` is followed.
        root: Where `sys` and `proc` are.

    Raises:
        BlockDeviceError: It is no disk, or nothing can be learnt of it.
    """
    real = Path(os.path.realpath(path))
    home = root / "sys/class/block" / real.name
    if real.parent != Path("/dev") or not home.exists():
        raise BlockDeviceError(f"{path} is no disk; list yours with: lsblk")
    home = Path(os.path.realpath(home))
    try:
        family = tuple(_family(home, root))
        numbers = {_read(member / "dev") for member in family}
        names = {name for member in family for name in (member.name, _read(member / "dm/name"))}
        return BlockDevice(
            path=real,
            device_number=_require(home / "dev"),
            size_bytes=int(_require(home / "size")) * _SYSFS_SECTOR_BYTES,
            model=_model(home),
            serial=_serial(home),
            transport=_transport(home),
            is_partition=(home / "partition").exists(),
            is_removable=_read(home / "removable") == "1",
            is_read_only=_read(home / "ro") == "1",
            mounted_at=tuple(sorted(_uses(root, numbers - {""}, names - {""}))),
            holders=tuple(sorted({link.name for member in family for link in _holders(member)})),
        )
    except (OSError, ValueError) as error:
        raise BlockDeviceError(f"nothing can be learnt of {path}: {error}") from error


def describe(device: BlockDevice) -> str:
    """A disk in a line, so that a person knows it again."""
    size = f"{device.size_bytes / (1000 * _MB):.1f} GB"
    model = device.model or "unknown model"
    serial = device.serial or "none"
    return f"{device.path}: {size}, {model}, serial {serial}, {device.transport}"


def _family(home: Path, root: Path) -> Iterator[Path]:
    """A disk, its partitions, and all that is built on them, each once."""
    seen, waiting = set(), [home]
    while waiting:
        member = waiting.pop()
        if member in seen:
            continue
        seen.add(member)
        yield member
        waiting += [path.parent for path in member.glob("*/partition")]
        for link in _holders(member):
            waiting.append(Path(os.path.realpath(root / "sys/class/block" / link.name)))


def _holders(member: Path) -> list[Path]:
    folder = member / "holders"
    return list(folder.iterdir()) if folder.is_dir() else []


def _uses(root: Path, numbers: set[str], names: set[str]) -> set[str]:
    """Where devices with these numbers or names are mounted or swapped to."""
    places = set()
    for line in _require(root / "proc/self/mountinfo").splitlines():
        before, _, after = line.partition(" - ")
        _, _, number, _, place, *_ = before.split()
        if number in numbers or _base_name(after.split()[1:2]) in names:
            places.add(_unescape(place))
    for line in _read(root / "proc/swaps").splitlines()[1:]:
        if _base_name(line.split()[:1]) in names:
            places.add("swap")
    return places


def _base_name(source: list[str]) -> str:
    """`/dev/mapper/root` -> `root`; what is no device has none."""
    path = _unescape(source[0]) if source else ""
    return path.rpartition("/")[2] if path.startswith("/dev/") else ""


def _unescape(text: str) -> str:
    """The kernel writes blanks in paths as octal numbers."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)


def _transport(home: Path) -> str:
    if re.fullmatch(r"mmcblk\d+", home.name):
        return "mmc"
    return "usb" if any(re.fullmatch(r"usb\d+", part) for part in home.parts) else "other"


def _model(home: Path) -> str:
    vendor, model = _read(home / "device/vendor"), _read(home / "device/model")
    if vendor.startswith("0x"):  # virtio numbers its vendors
        vendor = ""
    return f"{vendor} {model}".strip() or _read(home / "device/name")


def _serial(home: Path) -> str:
    """The disk's own, or that of the USB device it is part of."""
    candidates = [home / "serial", home / "device/serial"]
    candidates += [parent / "serial" for parent in home.parents[:_SERIAL_SEARCH_DEPTH]]
    return next((text for path in candidates if (text := _read(path))), "")


def _require(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace").strip()


def _read(path: Path) -> str:
    try:
        return _require(path)
    except OSError:
        return ""
