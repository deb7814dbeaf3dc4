"""A number that grows with every start of the daemon, also when the clock does not.

Boards without a battery-backed clock start in the past until the network tells the time.
"""

from pathlib import Path

from fedpt.files import write_bytes


def next_session(path: Path, now_ns: int) -> int:
    """The number of this start, kept in `path` for the next.

    Raises:
        StorageError: It cannot be kept.
    """
    try:
        before = int(path.read_text())
    except (OSError, ValueError):
        before = 0
    session = max(before + 1, now_ns)
    write_bytes(path, str(session).encode())
    return session
