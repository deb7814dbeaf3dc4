"""fedpt's own sources on the operator's machine: where they are, their hash, a wheel of them."""

import hashlib
import shutil
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import fedpt
from deploy.fleet.pip_runs import run_pip
from fedpt.errors import FleetError
from fedpt.progress import OnProgress

_BESIDE_PACKAGES: Final = ("pyproject.toml", "README.md", "LICENSE", "constraints.txt")
_CONSTRAINTS: Final = "constraints.txt"
_LEFT_OUT: Final = ("__pycache__", "*.pyc", ".*")
_EPOCH: Final = "1577836800"
"""2020: times in a wheel are always the same, so that equal sources give equal wheels."""


def find_project() -> Path | None:
    """The checkout that this program runs from; None if it was installed from a wheel."""
    folder = Path(fedpt.__file__).parent.parent
    return folder if (folder / "pyproject.toml").is_file() else None


def find_constraints() -> Path:
    """The versions that fedpt is tested with.

    Raises:
        FleetError: They are neither in the checkout nor installed.
    """
    project = find_project()
    folder = project if project else Path(sys.prefix) / "share" / "fedpt"
    if not (folder / _CONSTRAINTS).is_file():
        raise FleetError(f"no {_CONSTRAINTS} in {folder}; name yours with --constraints")
    return folder / _CONSTRAINTS


def sources_sha256(project: Path) -> str:
    """Changes with every byte that goes into the wheel."""
    digest = hashlib.sha256()
    for path in _source_files(project):
        digest.update(path.relative_to(project).as_posix().encode() + b"\0")
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def build_wheel(project: Path, into: Path, *, on_progress: OnProgress) -> Path:
    """The wheel of fedpt. It is built from a copy: leftovers of older builds stay out of it.

    Raises:
        FleetError: pip could not build it.
    """
    with tempfile.TemporaryDirectory(prefix="fedpt-sources-") as name:
        copy = Path(name)
        for path in _source_files(project):
            target = copy / path.relative_to(project)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
        run_pip(
            ["wheel", "--no-deps", "--wheel-dir", str(into), str(copy)],
            on_progress=on_progress,
            environment={"SOURCE_DATE_EPOCH": _EPOCH},
        )
    return next(into.glob("fedpt-*.whl"))


def _source_files(project: Path) -> Iterator[Path]:
    settings = tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8"))
    packages = settings["tool"]["setuptools"]["packages"]
    for name in _BESIDE_PACKAGES:
        yield project / name
    for top in sorted({package.partition(".")[0] for package in packages}):
        for path in sorted((project / top).rglob("*")):
            if path.is_file() and not _is_left_out(path.relative_to(project)):
                yield path


def _is_left_out(path: Path) -> bool:
    return any(Path(part).match(pattern) for part in path.parts for pattern in _LEFT_OUT)
