"""Whether a board is in a state to train: what its sensors say against what its operator allows.

Pure. A sensor that a board has not got never stops it: its reading is None. Heat and load come from
training itself too, so these two must fall well below their limits before training goes on.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import time
from typing import Final, Literal, Protocol, TypeAlias

Condition: TypeAlias = Literal["mains", "temperature", "load", "hours", "memory", "disk"]

_COOLER_BY: Final = 5.0
"""°C: more than a fan needs to switch on and off."""
_LOAD_AGAIN: Final = 0.75
"""Of the limit."""
_MEGABYTE: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Readings:
    """What the board's sensors say at one moment; None: it has no such sensor."""

    on_mains: bool | None = None
    celsius: float | None = None
    """Of its hottest part."""
    load: float | None = None
    """Programs of others that want a core, for each core; mean over a minute."""
    free_memory_bytes: int | None = None
    """What programs could have if our training had ended."""
    free_disk_bytes: int | None = None
    """Where adapters and checkpoints lie."""


class Limits(Protocol):
    """What an operator allows; `edge_runtime.settings` says what each means."""

    @property
    def mains_power(self) -> bool: ...  # noqa: D102
    @property
    def most_celsius(self) -> float: ...  # noqa: D102
    @property
    def most_load(self) -> float: ...  # noqa: D102
    @property
    def from_time(self) -> time | None: ...  # noqa: D102
    @property
    def until_time(self) -> time | None: ...  # noqa: D102
    @property
    def least_free_memory_mb(self) -> int: ...  # noqa: D102
    @property
    def least_free_disk_mb(self) -> int: ...  # noqa: D102


def failing(
    readings: Readings, limits: Limits, clock: time, *, before: Collection[Condition] = ()
) -> dict[Condition, str]:
    """The conditions that fail, and why, in words with figures.

    Args:
        readings: The sensors'.
        limits: The operator's.
        clock: The board's local time.
        before: What failed at the last look: there, heat and load must be lower by now.
    """
    found: dict[Condition, str] = {
        "mains": _mains(readings, limits),
        "temperature": _temperature(readings, limits, is_held="temperature" in before),
        "load": _load(readings, limits, is_held="load" in before),
        "hours": _hours(clock, limits),
        "memory": _room("memory", readings.free_memory_bytes, limits.least_free_memory_mb),
        "disk": _room("disk", readings.free_disk_bytes, limits.least_free_disk_mb),
    }
    return {condition: why for condition, why in found.items() if why}


def is_within(clock: time, start: time, end: time) -> bool:
    """Whether a time of day is in a window, which may span midnight; its end is outside."""
    if start < end:
        return start <= clock < end
    return clock >= start or clock < end


def _mains(readings: Readings, limits: Limits) -> str:
    is_missing = limits.mains_power and readings.on_mains is False
    return "on battery, mains power only" if is_missing else ""


def _temperature(readings: Readings, limits: Limits, *, is_held: bool) -> str:
    most = limits.most_celsius - (_COOLER_BY if is_held else 0)
    if readings.celsius is None or readings.celsius <= most:
        return ""
    return f"{readings.celsius:g} °C, at most {most:g} °C"


def _load(readings: Readings, limits: Limits, *, is_held: bool) -> str:
    most = limits.most_load * (_LOAD_AGAIN if is_held else 1)
    if readings.load is None or readings.load <= most:
        return ""
    return f"load {readings.load:g} a core from others, at most {most:g}"


def _hours(clock: time, limits: Limits) -> str:
    start, end = limits.from_time, limits.until_time
    if start is None or end is None or is_within(clock, start, end):
        return ""
    return f"only from {start:%H:%M} until {end:%H:%M}"


def _room(what: str, free_bytes: int | None, least_mb: int) -> str:
    if free_bytes is None or free_bytes >= least_mb * _MEGABYTE:
        return ""
    return f"{free_bytes // _MEGABYTE} MB of {what} free, at least {least_mb} MB"
