"""Real, small disk images (MBR and GPT, FAT by mtools, a root partition of random bytes), and the
fleet folder of a device whose bundle goes into them."""

import hashlib
import os
import random
import struct
import subprocess
import uuid
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from deploy.fleet.fleet_folder import FLEET_FILE, DeviceRecord, Fleet, FleetRecord
from fedpt.files import write_json

SECTOR = 512
MIB = 1024 * 1024

EFI_SYSTEM = uuid.UUID("c12a7328-f81f-11d2-ba4b-00a0c93ec93b")
LINUX_DATA = uuid.UUID("0fc63daf-8483-4772-8e79-3d69d8477de4")

PI_CMDLINE = (
    "console=serial0,115200 console=tty1 root=PARTUUID=12345678-02 rootfstype=ext4"
    " fsck.repair=yes rootwait resize\n"
)
PI_FILES = {
    "cmdline.txt": PI_CMDLINE,
    "config.txt": "arm_64bit=1\n",
    "user-data": "#cloud-config\n# nothing yet\n",
    "network-config": "# nothing yet\n",
    "meta-data": "dsmode: local\ninstance_id: rpios-image\n",
    "kernel8.img": "a kernel\n" * 5000,
}
OLD_PI_FILES = {
    "cmdline.txt": PI_CMDLINE.replace("resize", "init=/usr/lib/raspberrypi-sys-mods/firstboot"),
    "config.txt": "arm_64bit=1\n",
}
UBUNTU_FILES = {
    "cmdline.txt": "console=serial0,115200 root=LABEL=writable rootwait\n",
    "config.txt": "arm_64bit=1\n",
    "user-data": "#cloud-config\n",
    "network-config": "version: 2\n",
    "meta-data": "dsmode: local\ninstance_id: cloud-image\n",
}


@dataclass(frozen=True, slots=True)
class Part:
    """A partition to be made."""

    start: int
    content: bytes
    kind: int = 0x0C
    guid: uuid.UUID = field(default=EFI_SYSTEM)


def make_fat(folder: Path, files: dict[str, str], *, label: str, size: int) -> bytes:
    """The bytes of a FAT volume with these files."""
    volume = folder / f"{label}.fat"
    environment = {**os.environ, "MTOOLS_SKIP_CHECK": "1"}
    format_it = ["mformat", "-C", "-i", str(volume), "-T", str(size // SECTOR), "-v", label, "::"]
    subprocess.run(format_it, check=True, env=environment, capture_output=True)
    for name, content in files.items():
        source = folder / f"source-{name}"
        source.write_text(content)
        copy = ["mcopy", "-i", str(volume), str(source), f"::/{name}"]
        subprocess.run(copy, check=True, env=environment, capture_output=True)
        source.unlink()
    content = volume.read_bytes()
    volume.unlink()
    return content


def random_bytes(size: int, seed: int = 7) -> bytes:
    """What a root partition holds, as far as anybody here cares."""
    return random.Random(seed).randbytes(size)


def mbr_entry(kind: int, start: int, size: int) -> bytes:
    """One of the four entries."""
    return struct.pack("<B3sB3sII", 0, b"", kind, b"", start // SECTOR, size // SECTOR)


def make_mbr_image(parts: list[Part], *, size: int) -> bytes:
    """A disk with a classic partition table."""
    image = bytearray(size)
    for index, part in enumerate(parts):
        entry = mbr_entry(part.kind, part.start, len(part.content))
        image[446 + 16 * index : 462 + 16 * index] = entry
        image[part.start : part.start + len(part.content)] = part.content
    image[510:512] = b"\x55\xaa"
    return bytes(image)


def make_gpt_image(parts: list[Part], *, size: int) -> bytes:
    """A disk with a GUID partition table and its protective MBR; no backup at the end."""
    image = bytearray(size)
    image[446:462] = mbr_entry(0xEE, SECTOR, size - SECTOR)
    image[510:512] = b"\x55\xaa"
    table = bytearray(128 * 128)
    for index, part in enumerate(parts):
        first = part.start // SECTOR
        last = first + len(part.content) // SECTOR - 1
        ids = part.guid.bytes_le + uuid.UUID(int=index + 1).bytes_le
        table[128 * index : 128 * index + 48] = ids + struct.pack("<QQ", first, last)
        image[part.start : part.start + len(part.content)] = part.content
    image[1024 : 1024 + len(table)] = table
    image[512:604] = _gpt_header(bytes(table), last_sector=size // SECTOR - 1)
    return bytes(image)


def _gpt_header(table: bytes, *, last_sector: int) -> bytes:
    def header(crc: int) -> bytes:
        return struct.pack(
            "<8sIIIIQQQQ16sQIII", b"EFI PART", 0x00010000, 92, crc, 0, 1, last_sector, 34,
            last_sector - 34, bytes(16), 2, 128, 128, zlib.crc32(table),
        )  # fmt: skip

    return header(zlib.crc32(header(0)))


def make_pi_image(
    folder: Path, *, files: dict[str, str] | None = None, fat: int = 8 * MIB
) -> bytes:
    """Raspberry Pi OS in small: FAT at 4 MiB, then a root partition, then a hole."""
    boot = make_fat(folder, PI_FILES if files is None else files, label="BOOTFS", size=fat)
    root = Part(4 * MIB + fat, random_bytes(2 * MIB), kind=0x83)
    return make_mbr_image([Part(4 * MIB, boot), root], size=fat + 8 * MIB)


def add_device_record(fleet: Path, device: str, **changes: Any) -> None:
    """A device's record, as `fedpt fleet add` writes it."""
    (fleet / "devices" / device).mkdir(parents=True, exist_ok=True)
    common: dict[str, Any] = {"board": "rpi5", "role": "device", "added_unix_s": 0.0}
    Fleet.open(fleet).write_device(DeviceRecord(**(common | {"name": device} | changes)))


def _make_fleet_record(fleet: Path) -> None:
    record = FleetRecord(
        federation="home", hosts=["hub.local"], broker_port=8883, enrolment_port=8884,
        made_unix_s=0.0,
    )  # fmt: skip
    fleet.mkdir(parents=True)
    write_json(fleet / FLEET_FILE, msgspec.to_builtins(record))


def make_fleet(folder: Path, *, device: str = "kitchen", expires: float = 4e9) -> Path:
    """A fleet folder with one device and its bundle; the model is 300 kB of anything."""
    fleet = folder / "fleet"
    _make_fleet_record(fleet)
    add_device_record(fleet, device, token_expires_unix_s=expires)
    home = fleet / "devices" / device
    bundle = home / "bundle"
    own = {
        "install.sh": b"#!/bin/sh\n",
        "device.toml": b'name = "kitchen"\n',
        "ca.pem": b"a certificate\n",
        "trust.json": b"{}\n",
        "boot-guard.py": b"pass\n",
        "constraints.txt": b"msgspec==0.20.0\n",
        "model/model.gguf": random_bytes(300_000, seed=1),
        "model/manifest.json": b"{}",
        "model/manifest.sig": b"{}",
        "systemd/fedpt-device.service": b"[Service]\n",
        "wheels/fedpt-0.1.0-py3-none-any.whl": random_bytes(40_000, seed=2),
        "wheels/numpy-2.3.1-cp313-cp313-manylinux_2_27_aarch64.manylinux_2_28_aarch64.whl": b"zip",
    }
    listing = [f"{hashlib.sha256(own[name]).hexdigest()}  {name}\n" for name in sorted(own)]
    own["SHA256SUMS"] = "".join(listing).encode()
    own["enrolment.token"] = b"a secret\n"
    files = {f"fedpt/{name}": content for name, content in own.items()}
    files["user-data"] = b"#cloud-config\nhostname: kitchen\n"
    files["network-config"] = b"version: 2\n"
    files["meta-data"] = f"instance-id: fedpt-{device}-1\n".encode()
    for name, content in files.items():
        path = bundle / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return fleet
