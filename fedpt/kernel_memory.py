"""What Linux tells of memory: a machine's, or a process's own."""

import contextlib
from pathlib import Path


def memory_bytes(path: Path = Path("/proc/meminfo")) -> dict[str, int]:
    """The kernel's figures by name; none where there is no such file."""
    figures: dict[str, int] = {}
    with contextlib.suppress(OSError):
        for text in path.read_text().splitlines():
            name, _, rest = text.partition(":")
            words = rest.split()
            if len(words) == 2 and words[0].isdigit() and words[1] == "kB":  # noqa: PLR2004
                figures[name] = int(words[0]) * 1024
    return figures
