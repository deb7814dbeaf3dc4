"""How much a device may ask a logit worker for. Pure: time comes in.

Enough logits give a large model's output layer away, and one device must not starve the others.
"""

from dataclasses import dataclass

from fedpt.errors import BusyError, TooMuchError
from fedpt.ids import DeviceId


@dataclass(frozen=True, slots=True)
class Limits:
    """What a worker gives."""

    largest: int
    """Logits a row, at most."""
    candidates: int
    """Candidate ids a row, at most."""
    has_whole_rows: bool
    rows_per_s: float
    """A device, in the long run."""
    burst_rows: float
    """At once."""
    waiting: int
    """Requests that wait, of all devices together."""
    waiting_per_device: int


@dataclass(slots=True)
class _Bucket:
    rows: float
    at: float


class Admission:
    """Counts what is asked, and refuses what is too much."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._buckets: dict[DeviceId, _Bucket] = {}
        self._waiting: dict[DeviceId, int] = {}

    def require_amount(self, *, largest: int, candidates: int) -> None:
        """Refuse more logits a row than anybody gets; `largest` 0 is a whole row.

        Raises:
            TooMuchError: Names the limit.
        """
        limits = self._limits
        if largest == 0 and not limits.has_whole_rows:
            raise TooMuchError("this worker gives no whole rows of logits")
        if largest > limits.largest:
            raise TooMuchError(f"{largest} logits a row; {limits.largest} is the most here")
        if candidates > limits.candidates:
            most = limits.candidates
            raise TooMuchError(f"{candidates} candidates a row; {most} is the most here")

    def enter(self, device: DeviceId, rows: int, now: float) -> None:
        """Let a request in; `leave` follows when it is done.

        Args:
            device: Who asks.
            rows: Rows of logits, or tokens, that it may get; more than a burst counts as a burst.
            now: Seconds, monotonic.

        Raises:
            BusyError: Too much waits already, or this device asks too fast. Nothing is counted.
        """
        limits, waiting = self._limits, self._waiting.get(device, 0)
        if sum(self._waiting.values()) >= limits.waiting:
            raise BusyError(f"{limits.waiting} requests wait already")
        if waiting >= limits.waiting_per_device:
            raise BusyError(f"{limits.waiting_per_device} requests of this device wait already")
        bucket = self._buckets.setdefault(device, _Bucket(limits.burst_rows, now))
        filled = bucket.rows + (now - bucket.at) * limits.rows_per_s
        bucket.rows, bucket.at = min(limits.burst_rows, filled), now
        cost = min(float(rows), limits.burst_rows)
        if cost > bucket.rows:
            raise BusyError(f"this device asks for more than {limits.rows_per_s:g} rows a second")
        bucket.rows -= cost
        self._waiting[device] = waiting + 1

    def leave(self, device: DeviceId, *, unused: int = 0) -> None:
        """A request is done, well or not; so many of its rows it did not get."""
        self._waiting[device] -= 1
        if not self._waiting[device]:
            del self._waiting[device]
        if (bucket := self._buckets.get(device)) is not None:
            bucket.rows = min(self._limits.burst_rows, bucket.rows + unused)

    def forget_idle(self, now: float) -> None:
        """Drop the counts of devices whose bucket is full again."""
        limits = self._limits
        for device, bucket in list(self._buckets.items()):
            if bucket.rows + (now - bucket.at) * limits.rows_per_s >= limits.burst_rows:
                del self._buckets[device]
