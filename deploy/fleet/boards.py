"""The boards that a bundle can be made for: what differs between them, as one table.

Supported are 64-bit systems with the Python of their usual image: Raspberry Pi OS Trixie (3.13),
Ubuntu 24.04 (3.12) and JetPack 7 (Ubuntu 24.04, 3.12). Not supported: 32-bit systems, and JetPack 6
(Ubuntu 22.04), whose Python 3.10 is older than fedpt needs. The same hardware with another system
is another value: `dataclasses.replace(find_board("generic-x86"), system=BOOKWORM)`.
"""

from dataclasses import dataclass, replace
from typing import Final, Literal

from fedpt.errors import UsageError

Architecture = Literal["aarch64", "x86_64"]

Extra = Literal["device", "assistant", "coordinator"]
"""`device` answers and trains (with torch); `assistant` only answers; `coordinator` is a server."""

Flashing = Literal["boot-partition", "cidata", "install-script"]
"""Where the bundle goes: onto the image's FAT partition, onto a second volume labelled CIDATA, or
into any folder of a board that runs already, where a person starts install.sh."""

_OLDEST_GLIBC_MINOR: Final = 17
_RESTART_STEPS_SINCE: Final = 254


@dataclass(frozen=True, slots=True)
class System:
    """What an operating system's image brings."""

    title: str
    python: str
    """Version of its python3, as `3.13`."""
    glibc: tuple[int, int]
    systemd: int


@dataclass(frozen=True, slots=True)
class Board:
    """A kind of board with the system that it usually runs."""

    name: str
    title: str
    architecture: Architecture
    system: System
    smallest_memory_mb: int
    """What `extra` needs; variants with more exist."""
    memory_high_percent: int
    """From here on the kernel slows fedpt down and reclaims; percent, for variants differ."""
    memory_max_percent: int
    """Never more than this, training included; the rest keeps the system alive."""
    answer_threads: int | None
    """None: as many as the board has cores."""
    training_threads: int | None
    """One core less where the cores are known: an answer does not wait for a training step."""
    flashing: Flashing
    ethernet: str
    """Its wired interface, a glob."""
    llama_cmake: str
    """CMake arguments for a llama.cpp that runs on every board of this kind, and fast."""
    extra: Extra = "device"

    @property
    def trains(self) -> bool:
        """Whether it learns from private examples; else it only answers."""
        return self.extra == "device"

    @property
    def python_tag(self) -> str:
        """As in a wheel's name: `cp313`."""
        return "cp" + self.system.python.replace(".", "")

    @property
    def platforms(self) -> tuple[str, ...]:
        """Wheel platforms that run on it, newest first."""
        major, minor = self.system.glibc
        newest_first = range(minor, _OLDEST_GLIBC_MINOR - 1, -1)
        many = (f"manylinux_{major}_{number}_{self.architecture}" for number in newest_first)
        return (*many, f"manylinux2014_{self.architecture}", f"linux_{self.architecture}")

    @property
    def limits(self) -> str:
        """A systemd drop-in for fedpt-device.service."""
        lines = [
            "[Service]",
            f"MemoryHigh={self.memory_high_percent}%",
            f"MemoryMax={self.memory_max_percent}%",
        ]
        if self.system.systemd >= _RESTART_STEPS_SINCE:
            lines += ["RestartSteps=6", "RestartMaxDelaySec=300"]
        return "\n".join(lines) + "\n"


TRIXIE: Final = System("Debian 13 / Raspberry Pi OS Trixie", "3.13", (2, 41), 257)
NOBLE: Final = System("Ubuntu 24.04", "3.12", (2, 39), 255)
BOOKWORM: Final = System("Debian 12 / Raspberry Pi OS Bookworm", "3.11", (2, 36), 252)

# without OpenMP, for not every image has its library
_PORTABLE: Final = "-DGGML_NATIVE=OFF -DGGML_OPENMP=OFF"
_WITH_DOT_PRODUCT: Final = f"{_PORTABLE} -DGGML_CPU_ARM_ARCH=armv8.2-a+dotprod+fp16"

BOARDS: Final = (
    Board(
        name="rpi5",
        title="Raspberry Pi 5, 4 GB or more",
        architecture="aarch64",
        system=TRIXIE,
        smallest_memory_mb=4096,
        memory_high_percent=75,
        memory_max_percent=85,
        answer_threads=4,
        training_threads=3,
        flashing="boot-partition",
        ethernet="eth0",
        llama_cmake=_WITH_DOT_PRODUCT,
    ),
    Board(
        name="rpi4",
        title="Raspberry Pi 4, 4 GB or more",
        architecture="aarch64",
        system=TRIXIE,
        smallest_memory_mb=4096,
        memory_high_percent=75,
        memory_max_percent=85,
        answer_threads=4,
        training_threads=3,
        flashing="boot-partition",
        ethernet="eth0",
        llama_cmake=_PORTABLE,  # its Cortex-A72 has no dot product
    ),
    Board(
        name="jetson",
        title="NVIDIA Jetson with JetPack 7, on its processor cores",
        architecture="aarch64",
        system=NOBLE,
        smallest_memory_mb=8192,
        memory_high_percent=70,
        memory_max_percent=80,
        answer_threads=None,
        training_threads=None,
        flashing="install-script",
        ethernet="e*",
        llama_cmake=_WITH_DOT_PRODUCT,
    ),
    Board(
        name="generic-arm64",
        title="any 64-bit ARM board with Ubuntu 24.04",
        architecture="aarch64",
        system=NOBLE,
        smallest_memory_mb=4096,
        memory_high_percent=70,
        memory_max_percent=80,
        answer_threads=None,
        training_threads=None,
        flashing="boot-partition",
        ethernet="e*",
        llama_cmake=_PORTABLE,
    ),
    Board(
        name="generic-x86",
        title="any x86-64 mini PC or virtual machine with Ubuntu 24.04",
        architecture="x86_64",
        system=NOBLE,
        smallest_memory_mb=4096,
        memory_high_percent=70,
        memory_max_percent=80,
        answer_threads=None,
        training_threads=None,
        flashing="cidata",
        ethernet="e*",
        llama_cmake=_PORTABLE,  # which means AVX2: every such processor since 2013
    ),
)


def find_board(name: str) -> Board:
    """The board of that name.

    Raises:
        UsageError: There is none; the message lists them.
    """
    for board in BOARDS:
        if board.name == name:
            return board
    known = ", ".join(board.name for board in BOARDS)
    raise UsageError(f"no board {name!r}; boards: {known}")


def with_python(board: Board, python: str) -> Board:
    """The same hardware with the system that has another Python.

    Raises:
        UsageError: No known system has it.
    """
    for system in (BOOKWORM, NOBLE, TRIXIE):
        if system.python == python:
            return replace(board, system=system)
    raise UsageError(f"no system with Python {python!r}; known: 3.11, 3.12, 3.13")
