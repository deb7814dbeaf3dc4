"""The two wheels that an ordinary index does not have as boards need them.

llama-cpp-python is published as source alone, and a compiled one must run on every processor of the
board's kind. torch on PyPI brings gigabytes of CUDA, on ARM too; boards take the CPU build.
"""

import platform
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from deploy.fleet.boards import Board
from deploy.fleet.pip_runs import download_arguments, run_pip
from fedpt.errors import FleetError
from fedpt.progress import OnProgress

_LLAMA: Final = "llama-cpp-python"
_TORCH: Final = "torch"
_CPU_BUILD: Final = "+cpu"
_CPU_INDEX: Final = "https://download.pytorch.org/whl/cpu"
_UNKNOWN: Final = "No matching distribution found"


@dataclass(frozen=True, slots=True)
class Places:
    """Where wheels are looked for, besides pip's own configuration."""

    constraints: str
    given: tuple[Path, ...]
    built: Path
    """Folder of wheels that this program compiled; kept, for that takes minutes."""


def pin(constraints: str, name: str) -> str:
    """`torch==2.13.0`, as the pinned versions say.

    Raises:
        FleetError: They do not pin it.
    """
    found = re.search(rf"^{re.escape(name)}==[^\s;#]+", constraints, re.MULTILINE)
    if found is None:
        raise FleetError(f"the constraints do not pin {name}; add a line {name}==VERSION")
    return found[0]


def with_cpu_torch(constraints: str) -> str:
    """The pinned versions with torch's CPU build in place of just any."""
    pinned = pin(constraints, _TORCH)
    return constraints if _CPU_BUILD in pinned else constraints.replace(pinned, pinned + _CPU_BUILD)


def put_llama_cpp(folder: Path, board: Board, places: Places, *, on_progress: OnProgress) -> None:
    """Put a wheel of llama-cpp-python into `folder`: given, published, or compiled here.

    Raises:
        FleetError: None of these; the message says how to make one.
    """
    wanted = pin(places.constraints, _LLAMA)
    built = places.built / f"{board.name}-{wanted}"
    if _download(wanted, folder, board, look_in=(*places.given, built), on_progress=on_progress):
        return
    if not can_compile_for(board):
        raise FleetError(
            f"no index has a wheel of {wanted} for {board.architecture}; make one on such a board,"
            f" or in a container of {board.system.title} for {board.architecture}:"
            f" {compile_command(board, wanted)} ; then name that folder with --wheels"
        )
    run_pip(
        ["wheel", "--no-deps", "--no-cache-dir", "--wheel-dir", str(built), wanted],
        on_progress=on_progress,
        environment={"CMAKE_ARGS": board.llama_cmake},
    )
    _download(wanted, folder, board, look_in=(built,), on_progress=on_progress)


def put_torch(folder: Path, board: Board, places: Places, *, on_progress: OnProgress) -> None:
    """Put the CPU build of torch into `folder`.

    Raises:
        FleetError: It cannot be had.
    """
    wanted = pin(with_cpu_torch(places.constraints), _TORCH)
    more = ("--extra-index-url", _CPU_INDEX, "--retries", "1")
    if not _download(
        wanted, folder, board, look_in=places.given, more=more, on_progress=on_progress
    ):
        raise FleetError(
            f"no wheel of {wanted} for Python {board.system.python} on {board.architecture}, and"
            f" PyPI's own torch brings gigabytes of CUDA; let this machine reach {_CPU_INDEX}, or"
            " name a folder that holds the wheel with --wheels"
        )


def can_compile_for(board: Board) -> bool:
    """Whether what is compiled on this machine runs on the board: same processor, no newer libc."""
    library, version = platform.libc_ver()
    if library != "glibc" or platform.machine() != board.architecture:
        return False
    major, minor = (int(part) for part in version.split(".")[:2])
    return (major, minor) <= board.system.glibc


def compile_command(board: Board, wanted: str) -> str:
    """What a person types to make the wheel."""
    flags = shlex.quote(board.llama_cmake)
    return f"CMAKE_ARGS={flags} python3 -m pip wheel --no-deps {wanted} -w wheels"


def _download(
    wanted: str,
    folder: Path,
    board: Board,
    *,
    look_in: tuple[Path, ...],
    more: tuple[str, ...] = (),
    on_progress: OnProgress,
) -> bool:
    """Whether pip found such a wheel; it is then in `folder`."""
    arguments = download_arguments(
        board.system.python,
        board.platforms,
        into=folder,
        look_in=[place for place in look_in if place.is_dir()],
    )
    try:
        run_pip([*arguments, *more, "--no-deps", wanted], on_progress=on_progress)
    except FleetError as error:
        if _UNKNOWN in str(error):
            return False
        raise
    return True
