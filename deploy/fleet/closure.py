"""Which of the wheels in a folder a board needs, and which it still misses.

pip evaluates markers such as `python_version >= "3.12"` for the interpreter that runs it, even when
it downloads for another one. So what it brought is checked here, for the board's own interpreter.
"""

import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from packaging.metadata import InvalidMetadata, Metadata
from packaging.requirements import Requirement
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename

from deploy.fleet.boards import Board
from fedpt.errors import FleetError


@dataclass(frozen=True, slots=True)
class Wheel:
    """A wheel, as far as another one may require it."""

    path: Path
    name: str
    version: str
    requires: tuple[Requirement, ...]


@dataclass(slots=True)
class Closure:
    """What some requirements come to, given the wheels at hand."""

    wheels: dict[str, Wheel] = field(default_factory=dict)
    missing: dict[str, Requirement] = field(default_factory=dict)


def read_wheels(folder: Path) -> dict[str, Wheel]:
    """The wheels in `folder`, by name.

    Raises:
        FleetError: A file is no wheel, or two are of one project.
    """
    wheels: dict[str, Wheel] = {}
    for path in sorted(folder.glob("*.whl")):
        wheel = read_wheel(path)
        if other := wheels.get(wheel.name):
            raise FleetError(
                f"two wheels of {wheel.name}: {other.path.name} and {path.name}; remove one"
            )
        wheels[wheel.name] = wheel
    return wheels


def read_wheel(path: Path) -> Wheel:
    """What a wheel says of itself.

    Raises:
        FleetError: It is no wheel.
    """
    try:
        name, version, _, _ = parse_wheel_filename(path.name)
        with zipfile.ZipFile(path) as archive:
            inner = next(name for name in archive.namelist() if _is_metadata(name))
            metadata = Metadata.from_email(archive.read(inner), validate=False)
        return Wheel(path, name, str(version), tuple(metadata.requires_dist or ()))
    except (OSError, zipfile.BadZipFile, StopIteration) as error:
        raise FleetError(f"{path} is damaged or no wheel; delete it") from error
    except (InvalidWheelFilename, InvalidMetadata, ExceptionGroup) as error:
        raise FleetError(f"{path} is no wheel that pip would take: {error}") from error


def find_closure(
    roots: Iterable[Requirement], wheels: Mapping[str, Wheel], environment: Mapping[str, str]
) -> Closure:
    """Follow the requirements, with their extras, from `roots` through the wheels."""
    closure = Closure()
    waiting = list(roots)
    followed: set[tuple[str, str]] = set()
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        wheel = wheels.get(name)
        if wheel is None or not _fits(wheel, requirement):
            closure.missing[name] = requirement
            continue
        closure.wheels[name] = wheel
        for extra in {"", *requirement.extras} - {done for of, done in followed if of == name}:
            followed.add((name, extra))
            waiting += _required(wheel, {**environment, "extra": extra})
    return closure


def environment_of(board: Board) -> dict[str, str]:
    """What markers see on a board."""
    python = board.system.python
    return {
        "implementation_name": "cpython",
        "implementation_version": f"{python}.0",
        "os_name": "posix",
        "platform_machine": board.architecture,
        "platform_python_implementation": "CPython",
        "platform_release": "",
        "platform_system": "Linux",
        "platform_version": "",
        "python_full_version": f"{python}.0",
        "python_version": python,
        "sys_platform": "linux",
    }


def _required(wheel: Wheel, environment: dict[str, str]) -> list[Requirement]:
    return [
        requirement
        for requirement in wheel.requires
        if requirement.marker is None or requirement.marker.evaluate(environment)
    ]


def _fits(wheel: Wheel, requirement: Requirement) -> bool:
    return requirement.specifier.contains(wheel.version, prereleases=True)


def _is_metadata(name: str) -> bool:
    return name.endswith(".dist-info/METADATA") and name.count("/") == 1
