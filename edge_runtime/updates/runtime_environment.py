"""A runtime release's virtual environment, made of its wheels, without a network.

It is made where it will be used, for its paths are absolute, by the Python that runs this; pip
comes with the release, or is this Python's own.
"""

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from packaging.version import InvalidVersion, Version

from fedpt.errors import ReleaseError
from fedpt.releases import REQUIREMENTS_FILE, WHEELS_FOLDER

_TIMEOUT_S: Final = 1800
_SMOKE_TEST: Final = (
    "import importlib.metadata, edge_runtime.daemon; print(importlib.metadata.version('fedpt'))"
)
_OWN_LINE: Final = re.compile(r"^fedpt==([^\s;\\]+)", re.MULTILINE)


def try_runtime(folder: Path) -> None:
    """Make the environment in a release's folder, and start what it is for.

    Raises:
        ReleaseError: It cannot be made, or does not start, or is not what it says.
    """
    stated = _stated_version(folder / REQUIREMENTS_FILE)
    _run([sys.executable, "-m", "venv", "--without-pip", str(folder)], "make its environment")
    python = folder / "bin" / "python"
    _run(
        [
            *_pip(folder / WHEELS_FOLDER, python),
            *("install", "--quiet", "--disable-pip-version-check", "--no-index", "--no-cache-dir"),
            *("--find-links", str(folder / WHEELS_FOLDER), "--require-hashes"),
            *("--requirement", str(folder / REQUIREMENTS_FILE)),
        ],
        "install its wheels",
    )
    _run([str(folder / "bin" / "fedpt"), "--help"], "start fedpt")
    output = _run([str(python), "-I", "-c", _SMOKE_TEST], "load the device daemon")
    found = _version(output.strip().rpartition("\n")[2])
    if found < stated:
        raise ReleaseError(f"it is fedpt {found}; its requirements say {stated}")


def drop_wheels(folder: Path) -> None:
    """Free the disk of what is installed now."""
    for wheel in (folder / WHEELS_FOLDER).glob("*.whl"):
        wheel.unlink(missing_ok=True)


def _pip(wheels: Path, python: Path) -> list[str]:
    """A wheel of pip can be run as it is; boards have no pip in their environment."""
    own = sorted(wheels.glob("pip-*.whl"))
    if own:
        return [str(python), str(own[-1] / "pip")]
    return [sys.executable, "-m", "pip", "--python", str(python)]


def _run(command: Sequence[str], what: str) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    try:
        ended = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_TIMEOUT_S,
            check=False,
            env=environment,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ReleaseError(f"the runtime release cannot {what}: {error}") from error
    if ended.returncode != 0:
        reason = ended.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        raise ReleaseError(
            f"the runtime release cannot {what}: {reason or f'exit code {ended.returncode}'}"
        )
    return ended.stdout.decode(errors="replace")


def _stated_version(requirements: Path) -> Version:
    try:
        found = _OWN_LINE.search(requirements.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ReleaseError(f"cannot read {requirements}: {error}") from error
    if found is None:
        raise ReleaseError(f"{requirements.name} has no line fedpt==VERSION")
    return _version(found[1])


def _version(text: str) -> Version:
    try:
        return Version(text)
    except InvalidVersion:
        raise ReleaseError(f"not a version of fedpt: {text[:60]!r}") from None
