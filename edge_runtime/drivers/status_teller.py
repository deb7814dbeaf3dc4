"""Tells the federation how this device is: all changes at once, mere progress not too often."""

from collections.abc import Callable
from typing import Final

import msgspec

from fedpt.drivers.mqtt import Publication
from fedpt.wire.codec import encode
from fedpt.wire.messages import DeviceStatus

_PROGRESS_EVERY_S: Final = 2.0


def is_due(status: DeviceStatus, sent: DeviceStatus | None, age_s: float) -> bool:
    """Whether a status shall be sent.

    Args:
        status: How the device is.
        sent: What was told last; None: nothing that the broker may still have.
        age_s: How long ago.
    """
    if sent is None or _without_figures(sent) != _without_figures(status):
        return True
    return sent != status and age_s >= _PROGRESS_EVERY_S


def status_publication(topic: str, status: DeviceStatus) -> Publication:
    """A status as it is sent."""
    return Publication(topic, encode(status), retain=True)


class StatusTeller:
    """Remembers what was told last."""

    def __init__(self, topic: str, publish: Callable[[Publication], object]) -> None:
        self._topic = topic
        self._publish = publish
        self._sent: tuple[DeviceStatus | None, float] = (None, 0.0)

    def tell(self, status: DeviceStatus, now: float) -> None:
        """Send it, if it is due; `now` in seconds of a monotonic clock."""
        sent, at = self._sent
        if is_due(status, sent, now - at):
            self._sent = (status, now)
            self._publish(status_publication(self._topic, status))

    def forget(self) -> None:
        """The broker may have something else: send the next one in any case."""
        self._sent = (None, 0.0)


def _without_figures(status: DeviceStatus) -> DeviceStatus:
    personal = status.personal
    return msgspec.structs.replace(
        status,
        training_done=0.0,
        progress=None,
        waiting="..." if status.waiting else "",
        personal=personal
        and msgspec.structs.replace(
            personal, training_done=0.0, why_not="..." if personal.why_not else ""
        ),
    )
