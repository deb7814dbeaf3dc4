"""A FAT file system inside an image file, by way of mtools: no root, nothing is mounted.

Knows neither which files go there nor what the volume is for.
"""

import hashlib
import os
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from fedpt.errors import ImageError, UsageError

BOOT_SECTOR_BYTES: Final = 512

_CHUNK_BYTES: Final = 1024 * 1024
_MAX_SECTOR_BYTES: Final = 4096
_MAX_CLUSTER_SECTORS: Final = 128
_LONG_NAME_CHARACTERS: Final = 13
_ENTRY_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class FatGeometry:
    """What a FAT boot sector says of sizes."""

    cluster_bytes: int
    total_bytes: int


def read_geometry(sector: bytes) -> FatGeometry | None:
    """Sizes from a FAT boot sector; None if it is none.

    Args:
        sector: The first `BOOT_SECTOR_BYTES` of the volume.
    """
    if len(sector) < BOOT_SECTOR_BYTES or sector[510:512] != b"\x55\xaa":
        return None
    sector_bytes = int.from_bytes(sector[11:13], "little")
    cluster_sectors = sector[13]
    reserved = int.from_bytes(sector[14:16], "little")
    total = int.from_bytes(sector[19:21], "little") or int.from_bytes(sector[32:36], "little")
    sizes = (sector_bytes, _MAX_SECTOR_BYTES), (cluster_sectors, _MAX_CLUSTER_SECTORS)
    if any(not _is_power_of_two(value) or value > most for value, most in sizes):
        return None
    if sector_bytes < BOOT_SECTOR_BYTES or not reserved or sector[16] not in {1, 2} or not total:
        return None
    return FatGeometry(sector_bytes * cluster_sectors, sector_bytes * total)


def needed_bytes(sizes: dict[str, int], cluster_bytes: int) -> int:
    """Room that files take on FAT: whole clusters, and directories with long names.

    Args:
        sizes: Path with slashes -> bytes.
        cluster_bytes: Of the volume.
    """
    folders: dict[str, int] = {}
    for name in sizes:
        parts = name.split("/")
        for depth, part in enumerate(parts):
            folder = "/".join(parts[:depth])
            entries = 1 + -(-len(part) // _LONG_NAME_CHARACTERS)
            folders[folder] = folders.get(folder, 2 * _ENTRY_BYTES) + entries * _ENTRY_BYTES
    return sum(
        -(-size // cluster_bytes) * cluster_bytes for size in (*sizes.values(), *folders.values())
    )


@dataclass(frozen=True, slots=True)
class FatVolume:
    """The FAT file system that starts at byte `start` of a file."""

    image: Path
    start: int

    def label(self) -> str:
        """Its name; empty if it has none.

        Raises:
            ImageError: mtools cannot read it.
        """
        text = self._run("mlabel", "-s", "::").strip()
        return text.partition("label is ")[2].strip()

    def names(self, folder: str = "/", *, deep: bool = False) -> list[str]:
        """What is in a folder: files as they are, folders with a slash at the end.

        Args:
            folder: From the root, with slashes.
            deep: Also what is in its folders.

        Raises:
            ImageError: mtools cannot read it.
        """
        listed = self._run("mdir", "-a", "-b", *(["-/"] if deep else []), f"::{folder}")
        return [line.removeprefix("::/") for line in listed.splitlines() if line]

    def free_bytes(self) -> int:
        """Room that is left.

        Raises:
            ImageError: mtools cannot read it.
        """
        match = re.search(r"([\d ]+) bytes free", self._run("mdir", "::"))
        if match is None:
            raise ImageError("the boot partition does not say how much room is left")
        return int(match[1].replace(" ", ""))

    def read(self, name: str) -> bytes:
        """A small file.

        Raises:
            ImageError: It is not there or cannot be read.
        """
        return self._run_raw("mcopy", f"::/{name}", "-")

    def sha256(self, name: str) -> str:
        """The sha256 of a file of any size.

        Raises:
            ImageError: It is not there or cannot be read.
        """
        digest = hashlib.sha256()
        command = self._command("mcopy", (f"::/{name}", "-"))
        with subprocess.Popen(
            command,
            cwd=self.image.parent,
            env=_environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        ) as process:
            assert process.stdout is not None
            while chunk := process.stdout.read(_CHUNK_BYTES):
                digest.update(chunk)
        if process.returncode:
            raise ImageError(f"{name} cannot be read back from the image")
        return digest.hexdigest()

    def copy_in(self, sources: Sequence[Path]) -> None:
        """Copy files and folders into the root, over what is there.

        Raises:
            ImageError: The volume is full or damaged.
        """
        self._run("mcopy", "-s", "-o", "-Q", *(str(path.resolve()) for path in sources), "::/")

    def write(self, name: str, content: bytes) -> None:
        """Put a file into the root, over what is there.

        Raises:
            ImageError: The volume is full or damaged.
        """
        with TemporaryDirectory() as folder:
            source = Path(folder) / name
            source.write_bytes(content)
            self.copy_in([source])

    def delete_folder(self, name: str) -> None:
        """Remove a folder and all in it.

        Raises:
            ImageError: It is not there, or the volume is damaged.
        """
        self._run("mdeltree", f"::/{name}")

    def make(self, *, size_bytes: int, label: str) -> None:
        """Turn the whole image file into one new, empty volume of that size.

        Raises:
            ImageError: It cannot be made.
        """
        self._run("mformat", "-C", "-T", str(size_bytes // BOOT_SECTOR_BYTES), "-v", label, "::")

    def _run(self, tool: str, *arguments: str) -> str:
        return self._run_raw(tool, *arguments).decode(errors="replace")

    def _run_raw(self, tool: str, *arguments: str) -> bytes:
        done = subprocess.run(
            self._command(tool, arguments),
            cwd=self.image.parent,
            env=_environment(),
            stdin=subprocess.DEVNULL,  # it never waits for an answer
            capture_output=True,
            check=False,
        )
        if done.returncode:
            reason = " ".join(done.stderr.decode(errors="replace").split()) or "no reason given"
            raise ImageError(f"{tool} failed on the image's boot partition: {reason}")
        return done.stdout

    def _command(self, tool: str, arguments: Sequence[str]) -> list[str]:
        return [tool, "-i", f"{self.image.name}@@{self.start}", *arguments]


def require_mtools() -> None:
    """Refuse to start without mtools.

    Raises:
        UsageError: Says how to install it.
    """
    from shutil import which

    tools = ("mcopy", "mdeltree", "mdir", "mformat", "mlabel")
    if missing := [tool for tool in tools if which(tool) is None]:
        raise UsageError(f"{', '.join(missing)} not found; install mtools: sudo apt install mtools")


def _environment() -> dict[str, str]:
    return {
        **os.environ,
        "LC_ALL": "C.UTF-8",
        "MTOOLSRC": os.devnull,  # the user's own settings must not matter
        "MTOOLS_SKIP_CHECK": "1",
    }


def _is_power_of_two(value: int) -> bool:
    return value > 0 and not value & (value - 1)
