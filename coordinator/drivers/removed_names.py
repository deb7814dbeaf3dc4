"""The boards that the operator has put out, from the file that the enrolment service keeps."""

import logging
from pathlib import Path

from fedpt.ids import DeviceId, is_name

_logger = logging.getLogger(__name__)


class RemovedNames:
    """Reads the file again whenever it has changed. Without a file nobody is out."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._seen: tuple[int, int] | None = None
        self._names: frozenset[DeviceId] = frozenset()

    def __contains__(self, device: DeviceId) -> bool:
        return device in self._names

    def look(self) -> frozenset[DeviceId]:
        """The names that are out and were not, or not yet seen, at the last look."""
        before, self._names = self._names, self._read()
        return self._names - before

    def _read(self) -> frozenset[DeviceId]:
        if self._path is None:
            return frozenset()
        try:
            about = self._path.stat()
            seen = (about.st_mtime_ns, about.st_ino)
            if seen == self._seen:
                return self._names
            words = self._path.read_text(encoding="utf-8").split()
        except FileNotFoundError:
            return frozenset()
        except (OSError, ValueError) as error:
            _logger.warning("cannot read who was removed: %s", error)
            return self._names
        self._seen = seen
        return frozenset(DeviceId(word) for word in words if is_name(word))
