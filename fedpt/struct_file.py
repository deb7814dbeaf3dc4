"""A value that a daemon keeps as JSON, and can do without: read back, or told to be lost."""

import logging
from pathlib import Path
from typing import TypeVar

import msgspec

_logger = logging.getLogger(__name__)

T = TypeVar("T", bound=msgspec.Struct)


def read_struct(path: Path, kind: type[T], *, lost: str) -> T | None:
    """What was written there; None: nothing was, or it cannot be read, which is logged.

    Args:
        path: The file.
        kind: What it holds.
        lost: What it means that it cannot be read, for the log.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError, msgspec.MsgspecError) as error:
        _logger.warning("cannot read %s, %s: %s", path, lost, error)
        return None
