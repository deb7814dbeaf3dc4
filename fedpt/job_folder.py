"""A job for a child process, as a folder: `job.json` goes in, `result.json` comes out last.

The result is written whole or not at all, after everything else; so a folder with a result is a
finished job, however often its process or the daemon was killed before.
"""

from pathlib import Path
from typing import Final, TypeVar

import msgspec

from fedpt.errors import TrainingError
from fedpt.files import write_bytes

T = TypeVar("T", bound=msgspec.Struct)

JOB_NAME: Final = "job.json"
_RESULT_NAME: Final = "result.json"


def write_job(folder: Path, job: msgspec.Struct) -> None:
    """Lay a job into its folder.

    Raises:
        StorageError: It could not be written.
    """
    write_bytes(folder / JOB_NAME, msgspec.json.encode(job))


def read_job(folder: Path, kind: type[T]) -> T:
    """The job in a folder.

    Raises:
        TrainingError: There is none, or it cannot be read.
    """
    return _read(folder / JOB_NAME, kind)


def write_result(folder: Path, result: msgspec.Struct) -> None:
    """Say that the job is done.

    Raises:
        StorageError: It could not be written.
    """
    write_bytes(folder / _RESULT_NAME, msgspec.json.encode(result))


def read_result(folder: Path, kind: type[T]) -> T:
    """The result of a finished job.

    Raises:
        TrainingError: It did not finish.
    """
    return _read(folder / _RESULT_NAME, kind)


def has_result(folder: Path) -> bool:
    """Whether the job is finished."""
    return (folder / _RESULT_NAME).is_file()


def _read(path: Path, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (OSError, ValueError, RecursionError, msgspec.MsgspecError) as error:
        raise TrainingError(f"cannot read {path}: {error}") from error
