"""A board's sensors, as Linux tells of them below /sys and /proc: power, heat, load, memory, disk.

Reads and judges nothing; `training_conditions` does. What a board has not got, or does not say in a
way that we know, is None.
"""

import math
import os
import shutil
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from edge_runtime.training_conditions import Readings
from fedpt.kernel_memory import memory_bytes

_SENSIBLE_C: Final = range(-40, 150)
"""Drivers say such things as -274 for a sensor that is off."""
_NO_SENSORS: Final = ("PMIC-Die",)
"""On Jetson boards this one always says 100 °C."""
_LOAD_WINDOW_S: Final = 60.0
_WANTS_A_CORE: Final = ("R", "D")
"""States of a thread that the kernel counts as load: it runs, or waits for a disk."""


class BoardSensors:
    """One board's; keeps what it needs to tell our own load from others'."""

    def __init__(self, disk: Path, *, root: Path = Path("/"), cores: int | None = None) -> None:
        """Make it; nothing is read yet.

        Args:
            disk: A folder on the disk that must not get full.
            root: Where sys and proc are.
            cores: Of the processor; None: what this machine has.
        """
        self._disk = disk
        self._root = root
        self._cores = cores or os.cpu_count() or 1
        self._own_load = 0.0
        self._read_at: float | None = None

    def read(self, training: int | None = None, now: float | None = None) -> Readings:
        """Look at all of them.

        Args:
            training: The process that trains, whose load and memory are not held against it.
            now: Seconds of a monotonic clock; None: the present.
        """
        now = time.monotonic() if now is None else now
        classes = self._root / "sys" / "class"
        return Readings(
            on_mains=is_on_mains(classes / "power_supply"),
            celsius=hottest_celsius(classes),
            load=self._others_load(training, now),
            free_memory_bytes=self._free_memory(training),
            free_disk_bytes=_free_disk(self._disk),
        )

    def _others_load(self, training: int | None, now: float) -> float | None:
        """The kernel's mean over a minute, less the same mean of this daemon and its training."""
        own = [os.getpid(), training] if training is not None else [os.getpid()]
        passed = 0.0 if self._read_at is None else now - self._read_at
        self._read_at = now
        kept = math.exp(-passed / _LOAD_WINDOW_S)
        running = sum(_running_threads(self._root / "proc" / str(one)) for one in own)
        self._own_load = self._own_load * kept + running * (1 - kept)
        try:
            load = float((self._root / "proc" / "loadavg").read_text().split()[0])
        except (OSError, ValueError, IndexError):
            return None
        return round(max(0.0, load - self._own_load) / self._cores, 2)

    def _free_memory(self, training: int | None) -> int | None:
        proc = self._root / "proc"
        free = memory_bytes(proc / "meminfo").get("MemAvailable")
        if free is None or training is None:
            return free
        return free + memory_bytes(proc / str(training) / "status").get("RssAnon", 0)


def is_on_mains(folder: Path) -> bool | None:
    """Whether the board runs on mains power; None: it has no battery, or does not say.

    Args:
        folder: /sys/class/power_supply or one like it.
    """
    supplies = [_Supply(path) for path in sorted(_found(folder, "*"))]
    batteries = [one for one in supplies if one.is_battery]
    if not batteries:
        return None  # it must be: and a USB port that only could power it says 0
    chargers = [one.says("online") for one in supplies if not one.is_battery]
    if any(one in ("1", "2") for one in chargers):
        return True
    states = {one.says("status") for one in batteries}
    if "Discharging" in states:
        return False
    if states & {"Charging", "Full", "Not charging"}:
        return True
    return False if "0" in chargers else None


def hottest_celsius(classes: Path) -> float | None:
    """The hottest of the kernel's sensors, °C; those of hwmon where there are no thermal zones.

    Args:
        classes: /sys/class or one like it.
    """
    zones = [
        zone / "temp"
        for zone in _found(classes, "thermal/thermal_zone*")
        if _text(zone / "type") not in _NO_SENSORS
    ]
    degrees = [*_celsius(zones)] or [*_celsius(_found(classes, "hwmon/hwmon*/temp*_input"))]
    return max(degrees, default=None)


class _Supply:
    """One folder of /sys/class/power_supply."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @property
    def is_battery(self) -> bool:
        """Whether it is a battery of the board, not of a mouse, say."""
        kind = self.says("type")
        return kind in ("Battery", "UPS") and self.says("scope") != "Device"

    def says(self, what: str) -> str:
        return _text(self._folder / what)


def _celsius(files: Iterable[Path]) -> Iterator[float]:
    for file in files:
        with suppress(ValueError):
            degrees = round(int(_text(file)) / 1000, 1)
            if round(degrees) in _SENSIBLE_C:
                yield degrees


def _running_threads(process: Path) -> int:
    """Threads of a process that count as load, but for the one that asks."""
    asking = str(threading.get_native_id())
    others = (one for one in _found(process, "task/*/stat") if one.parent.name != asking)
    # the state comes after the program's name in brackets, which may hold anything
    return sum(_text(one).rpartition(")")[2].lstrip()[:1] in _WANTS_A_CORE for one in others)


def _free_disk(folder: Path) -> int | None:
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return None


def _found(folder: Path, pattern: str) -> list[Path]:
    """Those that are there; none, if a folder goes away while it is looked at."""
    try:
        return list(folder.glob(pattern))
    except OSError:
        return []


def _text(file: Path) -> str:
    """Empty if there is no such file, or its driver fails."""
    try:
        return file.read_text(errors="replace").strip()
    except OSError:
        return ""
