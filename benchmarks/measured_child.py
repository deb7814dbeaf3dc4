"""A command run to its end: seconds and peak memory, as the kernel counts them."""

import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_KIB = 1024  # Linux counts peak memory in these


@dataclass(frozen=True, slots=True)
class Measured:
    """What a command took."""

    wall_s: float
    processor_s: float
    """Of all its threads, in the program and in the kernel for it."""
    peak_bytes: int
    """Of resident memory, mapped files included."""


def run_measured(command: Sequence[str], environment: Mapping[str, str] | None = None) -> Measured:
    """Run a command, its output thrown away.

    Raises:
        SystemExit: It failed; shows its last line.
    """
    begin = time.monotonic()
    child = subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={**os.environ, **(environment or {})},
    )
    assert child.stderr is not None  # PIPE was asked for
    with child.stderr as stderr:
        errors = stderr.read().decode(errors="replace").strip().splitlines()
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"{command[0]} ended with {child.returncode}: {(errors or [''])[-1]}")
    seconds = usage.ru_utime + usage.ru_stime
    return Measured(time.monotonic() - begin, seconds, usage.ru_maxrss * _KIB)
