"""How many examples a device has, for whoever asks all the time: the daemon, for its status.

Files beside the store are made and removed whenever it is read, and memory cards wear. So it is
read only when its files have changed; a look at them is cheap.
"""

import logging
import time
from pathlib import Path
from typing import Final

from edge_runtime.data.store import Counts, DataStore
from fedpt.errors import FedptError

_logger = logging.getLogger(__name__)

_PATIENCE_S: Final = 1.0
_AGAIN_AFTER_S: Final = 10.0
"""After a fault; it is not told twice a second."""

_SETTLED_NS: Final = 1_000_000_000
"""Files' times are coarse: what was written a moment ago may change again and look the same."""

_Stamp = tuple[tuple[int, int], ...]


class ExampleCounter:
    """The counts of one store, as last seen."""

    def __init__(self, data: Path | None) -> None:
        """Count once.

        Args:
            data: The store; None: this device has none.

        Raises:
            DataFileError: It is damaged.
            StorageError: It cannot be read.
        """
        self._store = DataStore(data, patience_s=_PATIENCE_S) if data is not None else None
        self._seen: _Stamp = ()
        self._counts = Counts()
        self._not_before = 0.0
        if self._store is not None:
            self._look(self._store)

    @property
    def counts(self) -> Counts:
        """As they are now, or were before a fault that is only logged."""
        store = self._store
        if store is None or time.monotonic() < self._not_before:
            return self._counts
        try:
            if self._seen != _stamp(store.path):
                self._look(store)
        except FedptError as error:
            _logger.warning("cannot count the examples: %s", error)
            self._not_before = time.monotonic() + _AGAIN_AFTER_S
        return self._counts

    def _look(self, store: DataStore) -> None:
        stamp = _stamp(store.path)  # what is written while we read is seen next time
        self._counts = store.counts()
        now = time.time_ns()
        is_settled = all(abs(now - changed_ns) > _SETTLED_NS for _, changed_ns in stamp)
        self._seen = stamp if is_settled else ()


def _stamp(path: Path) -> _Stamp:
    """Size and time of the store and of its log."""
    stamps = []
    for file in (path, path.with_name(f"{path.name}-wal")):
        try:
            there = file.stat()
        except OSError:
            stamps.append((0, 0))
        else:
            stamps.append((there.st_size, there.st_mtime_ns))
    return tuple(stamps)
