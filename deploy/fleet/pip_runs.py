"""pip in a child process, its lines as progress, its complaints as one line."""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from fedpt.errors import FleetError
from fedpt.progress import OnProgress, Progress

_STEPS: Final = ("Collecting ", "Downloading ", "Saved ", "Building wheel", "Processing ")
_COMMON: Final = ("--disable-pip-version-check", "--no-input", "--progress-bar", "off")
_NO_PIP: Final = "No module named pip"
_USUAL_STEPS: Final = 100
"""pip does not say how many are left."""


def run_pip(
    arguments: Sequence[str],
    *,
    on_progress: OnProgress,
    environment: Mapping[str, str] | None = None,
) -> None:
    """Run `pip ARGUMENTS` with this program's own Python and the operator's pip configuration.

    Raises:
        FleetError: It failed; the message holds pip's own errors.
    """
    command = [sys.executable, "-m", "pip", arguments[0], *_COMMON, *arguments[1:]]
    lines: list[str] = []
    steps = 0
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, "PYTHONUNBUFFERED": "1", **(environment or {})},
        text=True,
        errors="replace",
    ) as child:
        assert child.stdout is not None  # PIPE was asked for
        for line in child.stdout:
            lines.append(line.strip())
            if line.strip().startswith(_STEPS):
                steps += 1
                on_progress(Progress(steps, max(steps, _USUAL_STEPS), _note(line.strip())))
    if child.returncode:
        raise FleetError(_complaint(arguments[0], lines))


def download_arguments(
    python: str, platforms: Sequence[str], *, into: Path, look_in: Sequence[Path]
) -> list[str]:
    """Arguments of `pip download` for another machine than this one."""
    arguments = ["download", "--only-binary=:all:", "--implementation", "cp"]
    arguments += ["--python-version", python, "--dest", str(into)]
    for platform in platforms:
        arguments += ["--platform", platform]
    for folder in look_in:
        arguments += ["--find-links", str(folder)]
    return arguments


def _note(line: str) -> str:
    """`Collecting numpy==2.4.6 (from …)` -> `Collecting numpy==2.4.6`; paths -> file names."""
    verb, _, rest = line.partition(" ")
    return f"{verb} {rest.split(' (')[0].rpartition('/')[2]}"[:60]


def _complaint(command: str, lines: Sequence[str]) -> str:
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    if not errors and any(_NO_PIP in line for line in lines):
        return f"{sys.executable} has no pip; run: {sys.executable} -m ensurepip"
    shown = errors or [line for line in lines if line][-1:]
    return f"pip {command} failed: {'; '.join(shown)}"
