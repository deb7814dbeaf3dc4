"""The kernel's view is a folder made here; the decision is tested apart from it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from deploy.flash.block_devices import (
    BlockDevice,
    describe,
    read_block_device,
    refusal,
    require_writable,
)
from fedpt.errors import BlockDeviceError

CARD = BlockDevice(
    path=Path("/dev/sdb"),
    device_number="8:16",
    size_bytes=32_000_000_000,
    model="SanDisk Ultra",
    serial="4C53",
    transport="usb",
    is_partition=False,
    is_removable=True,
    is_read_only=False,
    mounted_at=(),
    holders=(),
)


class FakeKernel:
    """A root folder with `sys` and `proc` as the kernel lays them out."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._mounts: list[str] = []
        self._swaps = "Filename Type Size Used Priority\n"
        (root / "sys/class/block").mkdir(parents=True)
        (root / "proc/self").mkdir(parents=True)
        self.mount("0:21", "proc", "/proc")

    def add_disk(self, name: str, number: str, *, bus: str = "pci0/ata1", **files: str) -> Path:
        home = self.root / f"sys/devices/{bus}/block/{name}"
        base = {"dev": number, "size": "62500000", "removable": "0", "ro": "0"}
        self._write(home, base | files)
        return home

    def add_partition(self, disk: Path, name: str, number: str) -> Path:
        self._write(disk / name, {"dev": number, "size": "1000", "partition": "1", "ro": "0"})
        return disk / name

    def add_mapping(self, below: Path, name: str, number: str, label: str) -> Path:
        home = self.root / f"sys/devices/virtual/block/{name}"
        self._write(home, {"dev": number, "size": "900", "removable": "0", "ro": "0"})
        (home / "dm").mkdir()
        (home / "dm/name").write_text(label)
        (below / "holders" / name).symlink_to(home)
        return home

    def mount(self, number: str, source: str, place: str) -> None:
        self._mounts.append(f"22 27 {number} / {place} rw shared:1 - ext4 {source} rw\n")
        (self.root / "proc/self/mountinfo").write_text("".join(self._mounts))

    def swap_to(self, source: str) -> None:
        (self.root / "proc/swaps").write_text(f"{self._swaps}{source} partition 1 0 -2\n")

    def read(self, name: str) -> BlockDevice:
        return read_block_device(Path("/dev") / name, root=self.root)

    def _write(self, home: Path, files: dict[str, str]) -> None:
        (home / "holders").mkdir(parents=True)
        for name, content in files.items():
            path = home / name.replace("__", "/")
            path.parent.mkdir(exist_ok=True)
            path.write_text(f"{content}\n")
        (self.root / "sys/class/block" / home.name).symlink_to(home)


@pytest.fixture
def kernel(tmp_path: Path) -> FakeKernel:
    return FakeKernel(tmp_path)


def test_a_free_card_on_usb_is_read_and_may_be_written(kernel: FakeKernel) -> None:
    home = kernel.add_disk(
        "sdb", "8:16", bus="pci0/usb2/2-1/2-1:1.0/host6", removable="1",
        device__vendor="SanDisk", device__model="Ultra",
    )  # fmt: skip
    kernel.add_partition(home, "sdb1", "8:17")
    (kernel.root / "sys/devices/pci0/usb2/2-1/serial").write_text("4C53\n")
    device = kernel.read("sdb")
    assert device == CARD
    assert refusal(device, forced=False, image_bytes=CARD.size_bytes) is None
    assert describe(device) == "/dev/sdb: 32.0 GB, SanDisk Ultra, serial 4C53, usb"


def test_a_built_in_card_reader_counts_as_removable(kernel: FakeKernel) -> None:
    kernel.add_disk("mmcblk0", "179:0", device__name="SC32G", device__serial="0x1")
    device = kernel.read("mmcblk0")
    assert (device.transport, device.model, device.serial) == ("mmc", "SC32G", "0x1")
    assert refusal(device, forced=False, image_bytes=1) is None


@pytest.mark.parametrize("place", ["/", "/boot", "/boot/efi", "/boot/firmware", "/usr", "/var"])
def test_the_systems_own_disk_is_never_written(kernel: FakeKernel, place: str) -> None:
    disk = kernel.add_disk("sda", "8:0", removable="1")
    kernel.add_partition(disk, "sda2", "8:2")
    kernel.mount("8:2", "/dev/sda2", place)
    reason = refusal(kernel.read("sda"), forced=True, image_bytes=1)
    assert reason == f"/dev/sda is a disk this system runs from ({place}); it is never written"


def test_the_disk_below_encryption_and_volumes_is_the_systems(kernel: FakeKernel) -> None:
    disk = kernel.add_disk("nvme0n1", "259:0")
    partition = kernel.add_partition(disk, "nvme0n1p3", "259:3")
    locked = kernel.add_mapping(partition, "dm-0", "253:0", "luks-1")
    kernel.add_mapping(locked, "dm-1", "253:1", "vg-root")
    kernel.mount("253:1", "/dev/mapper/vg-root", "/")
    device = kernel.read("nvme0n1")
    assert device.is_system_disk
    assert device.holders == ("dm-0", "dm-1")
    assert "runs from" in (refusal(device, forced=True, image_bytes=1) or "")


def test_a_root_whose_number_is_hidden_is_found_by_its_source(kernel: FakeKernel) -> None:
    """Btrfs mounts tell a number that belongs to no disk."""
    disk = kernel.add_disk("sda", "8:0")
    locked = kernel.add_mapping(kernel.add_partition(disk, "sda1", "8:1"), "dm-0", "253:0", "crypt")
    kernel.mount("0:35", "/dev/mapper/crypt", "/")
    assert kernel.read("sda").is_system_disk
    assert locked.exists()


@pytest.mark.parametrize("source", ["/dev/sda3", "/dev/dm-0", "/dev/mapper/swap"])
def test_the_disk_with_the_swap_is_the_systems(kernel: FakeKernel, source: str) -> None:
    disk = kernel.add_disk("sda", "8:0")
    kernel.add_mapping(kernel.add_partition(disk, "sda3", "8:3"), "dm-0", "253:0", "swap")
    kernel.swap_to(source)
    assert kernel.read("sda").mounted_at == ("swap",)
    assert kernel.read("sda").is_system_disk


def test_a_mounted_card_is_refused_even_if_forced(kernel: FakeKernel) -> None:
    disk = kernel.add_disk("sdb", "8:16", removable="1")
    kernel.add_partition(disk, "sdb1", "8:17")
    kernel.mount("8:17", "/dev/sdb1", "/media/me/my\\040card")
    device = kernel.read("sdb")
    assert device.mounted_at == ("/media/me/my card",)
    for forced in (False, True):
        assert "is mounted at /media/me/my card" in (
            refusal(device, forced=forced, image_bytes=1) or ""
        )


def test_a_partition_is_no_disk(kernel: FakeKernel) -> None:
    kernel.add_partition(kernel.add_disk("sdb", "8:16"), "sdb1", "8:17")
    assert "name the whole disk" in (refusal(kernel.read("sdb1"), forced=True, image_bytes=1) or "")


@pytest.mark.parametrize("path", ["/dev/nothing", "/dev", "/etc/passwd", "/dev/../dev/nothing"])
def test_what_is_no_disk_is_told(kernel: FakeKernel, path: str) -> None:
    with pytest.raises(BlockDeviceError, match="is no disk; list yours with: lsblk"):
        read_block_device(Path(path), root=kernel.root)


def test_a_kernel_that_tells_nothing_of_mounts_is_not_trusted(kernel: FakeKernel) -> None:
    kernel.add_disk("sdb", "8:16")
    (kernel.root / "proc/self/mountinfo").unlink()
    with pytest.raises(BlockDeviceError, match="nothing can be learnt of /dev/sdb"):
        kernel.read("sdb")


@pytest.mark.parametrize(
    ("changes", "forced", "complaint"),
    [
        ({"is_removable": False, "transport": "other"}, False, "name it again: --force /dev/sdb"),
        ({"is_removable": False, "transport": "other"}, True, None),
        ({"is_removable": False}, False, None),
        ({"transport": "other"}, False, None),
        ({"is_read_only": True}, True, "write-protected"),
        ({"size_bytes": 0}, True, "no medium"),
        ({"size_bytes": 999}, True, "too small"),
        ({"size_bytes": 1000}, False, None),
        ({"holders": ("md0",)}, True, "in use by md0"),
        ({"mounted_at": ("swap",)}, True, "never written"),
        ({"is_partition": True}, True, "whole disk"),
    ],
)
def test_what_decides(changes: dict[str, Any], forced: bool, complaint: str | None) -> None:
    device = replace(CARD, **changes)
    reason = refusal(device, forced=forced, image_bytes=1000)
    if complaint is None:
        assert reason is None
        require_writable(device, forced=forced, image_bytes=1000)
    else:
        assert complaint in (reason or "")
        with pytest.raises(BlockDeviceError, match="/dev/sdb"):
            require_writable(device, forced=forced, image_bytes=1000)


def test_the_disk_below_this_very_system_is_known() -> None:
    """On the real kernel, if its root is on a disk that can be seen."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split()
        if fields[4] == "/" and (home := Path("/sys/dev/block") / fields[2]).exists():
            real = home.resolve()
            name = real.parent.name if (real / "partition").exists() else real.name
            device = read_block_device(Path("/dev") / name)
            assert device.is_system_disk or device.holders
            assert refusal(device, forced=True, image_bytes=0) is not None
            return
    pytest.skip("the root file system is on no visible disk")
