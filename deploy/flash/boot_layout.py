"""Which operating system a boot partition belongs to, and what it wants there. Pure.

Both kinds read cloud-init's NoCloud files from the root of the partition. Raspberry Pi OS does so
from its Trixie images on; its kernel command line also names the instance, as Raspberry Pi Imager
does it, so that cloud-init keeps what it found over a reboot. Ubuntu finds them by the label.
"""

from collections.abc import Collection
from dataclasses import dataclass
from enum import Enum
from typing import Final

from fedpt.errors import ImageError

_UBUNTU_LABELS: Final = frozenset({"system-boot", "cidata"})
_RASPBERRY_PI_FILES: Final = frozenset({"cmdline.txt", "config.txt"})
_NO_CLOUD_HINTS: Final = frozenset({"user-data", "meta-data"})
_BEFORE_CLOUD_INIT: Final = (
    "init=/usr/lib/raspberrypi-sys-mods/firstboot",
    "init=/usr/lib/raspi-config/init_resize.sh",
)
_DATA_SOURCE: Final = "ds=nocloud"


class System(Enum):
    """A kind of operating system whose boot partition takes a bundle."""

    RASPBERRY_PI_OS = "Raspberry Pi OS"
    UBUNTU = "Ubuntu"


@dataclass(frozen=True, slots=True)
class BootVolume:
    """What is known of a FAT volume that may be a boot partition."""

    label: str
    names: frozenset[str]
    """Of its root, lower case."""
    cmdline: str
    """The content of cmdline.txt; empty if there is none."""


def recognise(volume: BootVolume) -> System | None:
    """Whose boot partition it is; None if nobody's that takes a bundle.

    Raises:
        ImageError: It is a system for the Raspberry Pi in which no cloud-init would read a bundle.
    """
    if volume.label.lower() in _UBUNTU_LABELS:
        return System.UBUNTU
    if not volume.names >= _RASPBERRY_PI_FILES:
        return None
    words = volume.cmdline.split()
    too_old = any(word in _BEFORE_CLOUD_INIT for word in words)
    hinted = bool(volume.names & _NO_CLOUD_HINTS) or _has_data_source(words)
    if too_old or not hinted:
        raise ImageError(
            "this Raspberry Pi system has no cloud-init, which must read the bundle; take a"
            " Raspberry Pi OS (Trixie) image of 2025-11-24 or later, or copy the bundle to the"
            " running board and run: sudo sh fedpt/install.sh"
        )
    return System.RASPBERRY_PI_OS


def doubt(system: System, names: Collection[str]) -> str | None:
    """A warning for a system that is known but looks as if it would not read the bundle."""
    if system is System.UBUNTU and not _NO_CLOUD_HINTS & set(names):
        return (
            "the image brings no user-data of its own: if it is a desktop image, cloud-init may be"
            " missing and the board will not enrol itself"
        )
    return None


def with_instance(cmdline: str, instance_id: str) -> str:
    """The kernel command line with cloud-init's data source named in it, once.

    Raises:
        ImageError: The command line is empty.
    """
    first, newline, rest = cmdline.partition("\n")
    words = [word for word in first.split() if not _has_data_source([word])]
    if not words:
        raise ImageError("its cmdline.txt is empty: no board would start from it")
    return f"{' '.join(words)} {_DATA_SOURCE};i={instance_id}{newline or chr(10)}{rest}"


def _has_data_source(words: list[str]) -> bool:
    return any(word == _DATA_SOURCE or word.startswith(f"{_DATA_SOURCE};") for word in words)
