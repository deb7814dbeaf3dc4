"""Everything that pip will want on a board, as wheels in one folder, with a list of their hashes.

Made on the operator's machine with pip, for the board's processor and Python. What fits is kept: a
wheelhouse is made again only if the sources, the pinned versions or the board change, and pip's own
cache keeps what an interrupted run had already downloaded.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from shutil import copyfile
from typing import Final

from packaging.requirements import Requirement

from deploy.fleet.boards import Board
from deploy.fleet.closure import (
    Closure,
    Wheel,
    environment_of,
    find_closure,
    read_wheel,
    read_wheels,
)
from deploy.fleet.pip_runs import download_arguments, run_pip
from deploy.fleet.project_sources import build_wheel, sources_sha256
from deploy.fleet.special_wheels import Places, put_llama_cpp, put_torch, with_cpu_torch
from fedpt.errors import FleetError
from fedpt.files import folder_written_aside, sha256_bytes, sha256_file
from fedpt.progress import OnProgress, ignore_progress
from fedpt.releases import REQUIREMENTS_FILE

_CONSTRAINTS: Final = "constraints.txt"
_INSTALLER: Final = "pip"
"""Goes along: Debian's python3 has no pip, and a board may have no network."""

_WITH_TORCH: Final = ("device", "coordinator")
_ATTEMPTS: Final = 5


@dataclass(frozen=True, slots=True)
class WheelhouseRequest:
    """What to make a wheelhouse of."""

    board: Board
    constraints: Path
    """Pinned versions."""
    project: Path | None
    """fedpt's checkout; None: its wheel lies in `given`."""
    given: Path | None
    """A folder of wheels that no index has, made by the operator."""
    cache: Path
    """Folder of wheelhouses."""


def build_wheelhouse(
    request: WheelhouseRequest, *, on_progress: OnProgress = ignore_progress
) -> Path:
    """The folder with the wheels and their `requirements.lock`; an old one if it still fits.

    Raises:
        FleetError: A wheel cannot be had; the message says how to make it.
        StorageError: The disk is full.
    """
    board = request.board
    name = f"{board.name}-{board.python_tag}-{board.extra}-{_key(request)[:12]}"
    folder = request.cache / name
    if not (folder / REQUIREMENTS_FILE).is_file():
        with folder_written_aside(folder) as aside:
            _fill(aside, request, on_progress)
    return folder


def write_lock(folder: Path, wheels: Sequence[Wheel]) -> None:
    """Write down what exactly pip may install: `pip install --require-hashes` reads it."""
    lines = [
        f"{wheel.name}=={wheel.version} --hash=sha256:{sha256_file(wheel.path)}\n"
        for wheel in sorted(wheels, key=lambda wheel: wheel.name)
    ]
    (folder / REQUIREMENTS_FILE).write_text("".join(lines), encoding="utf-8")


def _fill(folder: Path, request: WheelhouseRequest, on_progress: OnProgress) -> None:
    own = _own_wheel(folder, request, on_progress)
    put_llama_cpp(folder, request.board, _places(request), on_progress=on_progress)
    if request.board.extra in _WITH_TORCH:
        put_torch(folder, request.board, _places(request), on_progress=on_progress)
    closure = _download(folder, own, request, on_progress)
    for path in folder.glob("*"):
        if path not in {wheel.path for wheel in closure.wheels.values()}:
            path.unlink()
    write_lock(folder, list(closure.wheels.values()))


def _own_wheel(folder: Path, request: WheelhouseRequest, on_progress: OnProgress) -> Wheel:
    if request.project:
        return read_wheel(build_wheel(request.project, folder, on_progress=on_progress))
    found = sorted(request.given.glob("fedpt-*.whl")) if request.given else []
    if len(found) != 1:
        raise FleetError(
            "fedpt runs from an installed package here: put its one wheel (fedpt-VERSION-…whl)"
            " into a folder and name that with --wheels"
        )
    return read_wheel(Path(copyfile(found[0], folder / found[0].name)))


def _download(
    folder: Path, own: Wheel, request: WheelhouseRequest, on_progress: OnProgress
) -> Closure:
    """Ask pip until nothing is missing: it follows markers for this machine, not for the board."""
    board = request.board
    roots = [Requirement(f"fedpt[{board.extra}]=={own.version}"), Requirement(_INSTALLER)]
    wanted = [f"{own.path}[{board.extra}]", _INSTALLER]
    constraints = folder / _CONSTRAINTS
    constraints.write_text(_board_constraints(request), encoding="utf-8")
    look_in = [folder, *_places(request).given]
    arguments = download_arguments(
        board.system.python, board.platforms, into=folder, look_in=look_in
    )
    for _ in range(_ATTEMPTS):
        run_pip([*arguments, "--constraint", str(constraints), *wanted], on_progress=on_progress)
        closure = find_closure(roots, read_wheels(folder), environment_of(board))
        if not closure.missing:
            return closure
        wanted += [_without_marker(requirement) for requirement in closure.missing.values()]
    raise FleetError(f"pip brings no wheel of {', '.join(sorted(closure.missing))}")


def _without_marker(requirement: Requirement) -> str:
    extras = f"[{','.join(sorted(requirement.extras))}]" if requirement.extras else ""
    return f"{requirement.name}{extras}{requirement.specifier}"


def _places(request: WheelhouseRequest) -> Places:
    return Places(
        constraints=_read_constraints(request),
        given=(request.given,) if request.given else (),
        built=request.cache / "built",
    )


def _board_constraints(request: WheelhouseRequest) -> str:
    text = _read_constraints(request)
    return with_cpu_torch(text) if request.board.extra in _WITH_TORCH else text


def _read_constraints(request: WheelhouseRequest) -> str:
    try:
        return request.constraints.read_text(encoding="utf-8")
    except OSError as error:
        raise FleetError(f"cannot read {request.constraints}: {error.strerror}") from error


def _key(request: WheelhouseRequest) -> str:
    """Changes when another wheelhouse would come out."""
    board = request.board
    given = sorted(request.given.glob("*.whl")) if request.given else []
    parts = [
        board.system.python,
        board.platforms,
        board.extra,
        board.llama_cmake,
        _read_constraints(request),
        sources_sha256(request.project) if request.project else "",
        [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in given],
    ]
    return sha256_bytes(json.dumps(parts).encode())
