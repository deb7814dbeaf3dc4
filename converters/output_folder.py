"""Which folders may be replaced: those that hold what would be written, and empty ones."""

from pathlib import Path

from fedpt.errors import UsageError


def require_replaceable(folder: Path, marker: str) -> None:
    """Refuse to replace a folder that holds something else.

    Args:
        folder: Where something is to be written; it need not exist.
        marker: The file that every folder of this kind has, such as `config.json`.

    Raises:
        UsageError: It is a file, or has files but not that one.
    """
    if folder.is_file():
        raise UsageError(f"{folder} is a file, a folder is to be written")
    if folder.is_dir() and not (folder / marker).is_file() and any(folder.iterdir()):
        raise UsageError(f"{folder} holds something else; choose a new or an empty folder")
