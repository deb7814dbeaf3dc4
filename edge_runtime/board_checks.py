"""What the device's doctor looks at of the board itself: heat, power, swap.

Pure judgements (`judge_…`), and the looks that hand them what the kernel and the firmware say.
"""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from edge_runtime.board_sensors import hottest_celsius
from fedpt.doctor import Finding, fault, ok, warning
from fedpt.health_checks import output_of
from fedpt.kernel_memory import memory_bytes

_HOT_C: Final = 80.0
_TOO_HOT_C: Final = 90.0
_SMALL_MEMORY_BYTES: Final = 3_000_000_000

_NOW: Final = {
    0: "the voltage is too low",
    1: "the processor's frequency is capped",
    2: "the processor is throttled",
    3: "the soft temperature limit is reached",
}
"""Bits of the Raspberry Pi firmware's `get_throttled`; 16 higher: it has happened since boot."""

_SINCE_BOOT_SHIFT: Final = 16
_POWER_ADVICE: Final = "use the board's own power supply, and cool it: vcgencmd get_throttled"


def judge_temperature(celsius: float) -> Finding:
    """Whether the board is about to slow down or switch off."""
    what = f"temperature: {celsius:.0f} °C"
    advice = "cool the board, or set training_threads lower"
    if celsius >= _TOO_HOT_C:
        return fault(what, advice)
    return warning(what, advice) if celsius >= _HOT_C else ok(what)


def temperature(classes: Path = Path("/sys/class")) -> Iterator[Finding]:
    """The hottest of the kernel's sensors, where there are any."""
    celsius = hottest_celsius(classes)
    if celsius is not None:
        yield judge_temperature(celsius)


def judge_throttling(bits: int) -> Finding:
    """What the firmware's bits mean."""
    if present := [text for bit, text in _NOW.items() if bits >> bit & 1]:
        return fault(f"power: {', '.join(present)}", _POWER_ADVICE)
    if past := [text for bit, text in _NOW.items() if bits >> bit + _SINCE_BOOT_SHIFT & 1]:
        return warning(f"power: since boot it happened that {', '.join(past)}", _POWER_ADVICE)
    return ok("power: neither low voltage nor throttling since boot")


def throttling() -> Iterator[Finding]:
    """What a Raspberry Pi's firmware says; nothing on other boards."""
    answer = output_of(["vcgencmd", "get_throttled"])
    if answer is not None:
        with contextlib.suppress(ValueError):
            yield judge_throttling(int(answer.removeprefix("throttled="), 16))


def judge_swap(devices: Sequence[str], memory: int) -> Finding:
    """Whether a board with little memory has somewhere to put more, that is no memory card."""
    if not devices:
        what = f"swap: none, with {memory // 1_000_000} MB of memory"
        if memory < _SMALL_MEMORY_BYTES:
            return warning(what, "sudo apt install zram-tools")
        return ok(what)
    names = ", ".join(devices)
    if not any("zram" in one for one in devices) and any("mmcblk" in one for one in devices):
        return warning(f"swap: {names} wears the memory card", "sudo apt install zram-tools")
    return ok(f"swap: {names}")


def swap(path: Path = Path("/proc/swaps")) -> Iterator[Finding]:
    """Where the kernel swaps to."""
    memory = memory_bytes().get("MemTotal")
    with contextlib.suppress(OSError):
        lines = path.read_text().splitlines()[1:]
        if memory is not None:
            yield judge_swap([line.split()[0] for line in lines if line.strip()], memory)
