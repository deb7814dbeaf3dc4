"""Where the device daemon and its releases meet: messages in and out, and what the daemon must do.

A device without release settings has a desk too: it refuses nothing and installs nothing.
"""

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from edge_runtime.settings import DeviceSettings
from edge_runtime.updates.preparer import Prepared
from edge_runtime.updates.release_store import ReleaseStore
from edge_runtime.updates.updater import Updater
from fedpt.adapter_file import require_adapter_fits
from fedpt.drivers.mqtt import MqttLink, Publication
from fedpt.errors import ArtifactError, FedptError
from fedpt.gguf_file import GgufFile
from fedpt.ids import DeviceId
from fedpt.release_folder import read_signed
from fedpt.releases import ADAPTER_FILE, Kind, read_manifest
from fedpt.wire.codec import decode, encode
from fedpt.wire.messages import ReleaseAnnouncement, RoundAnnouncement
from fedpt.wire.topics import Topics

_logger = logging.getLogger(__name__)

RESTART_CODE: Final = 75
"""The exit code that asks the service manager: start me again."""

NEED_RESTART: Final = ("model", "runtime")
"""Kinds that a running device cannot change under itself."""

_NOT_THE_NETWORK: Final[tuple[Kind, ...]] = ("model", "adapter", "keys")


def finish_interrupted_switch(settings: DeviceSettings) -> None:
    """Before anything is loaded: end what a power cut left half done.

    Raises:
        StorageError: The disk cannot be written.
    """
    if settings.releases is not None:
        for kind in ReleaseStore(settings.releases.folder).finish_interrupted():
            _logger.warning("ended an interrupted switch to a %s release", kind)


def drop_foreign_adapters(folder: Path, model: GgufFile) -> None:
    """Delete converted adapters of another small model: they cannot be loaded beside this one."""
    for path in folder.glob("*.gguf"):
        try:
            require_adapter_fits(path, model)
        except ArtifactError as error:
            _logger.warning("adapter dropped: %s", error)
            path.unlink(missing_ok=True)


class ReleaseDesk:
    """One device's releases, as its daemon sees them."""

    def __init__(
        self,
        settings: DeviceSettings,
        topics: Topics,
        *,
        base_weights: str,
        on_prepared: Callable[[Prepared], None],
    ) -> None:
        """Read what is installed.

        Raises:
            ReleaseError: The trusted keys cannot be read.
        """
        self._topics = topics
        self._device = DeviceId(settings.name)
        self._base_weights = base_weights
        self._updater: Updater | None = None
        self._subscribed = ""
        if settings.releases is not None:
            self._updater = Updater(
                settings, settings.releases, base_weights=base_weights, on_prepared=on_prepared
            )

    @property
    def filters(self) -> list[str]:
        """What to subscribe to."""
        return [self._topics.release("+")] if self._updater is not None else []

    @property
    def installed(self) -> dict[str, str]:
        """The release in use of each kind."""
        return self._updater.installed if self._updater is not None else {}

    @property
    def fault(self) -> str:
        """Why the newest release was not taken; empty: nothing is wrong."""
        return self._updater.fault if self._updater is not None else ""

    @property
    def is_trying(self) -> bool:
        """Whether a release is tried at this moment, which takes memory."""
        return self._updater is not None and self._updater.is_trying

    def hear(self, kind: Kind, payload: bytes) -> None:
        """An announcement, or its withdrawal.

        Raises:
            FedptError: It is malformed, or nobody whom we trust has signed it.
        """
        if self._updater is None:
            return
        if payload:
            self._updater.hear(decode(payload, ReleaseAnnouncement), time.monotonic())
        else:
            self._updater.forget(kind)

    def require_round_adapter(self, announcement: RoundAnnouncement) -> None:
        """Refuse a round whose adapter is not signed, if we ask for signatures.

        Raises:
            ReleaseError: Says why.
            StorageError: That it was accepted could not be noted.
        """
        if self._updater is not None:
            self._updater.require_round_adapter(announcement)

    def keep_chunk(self, sha256: str, index: int, content: bytes) -> None:
        """A chunk has come.

        Raises:
            FedptError: It does not fit, or cannot be kept.
        """
        if self._updater is not None:
            self._updater.keep_chunk(sha256, index, content)

    def hear_prepared(self, prepared: Prepared) -> None:
        """The installing process has ended.

        Raises:
            StorageError: A refusal could not be noted.
        """
        if self._updater is not None:
            self._updater.hear_prepared(prepared)

    def step(self, link: MqttLink, *, is_idle: bool) -> Kind | None:
        """Do what is due.

        Returns:
            The kind that was switched to another release just now.
        """
        if self._updater is None:
            return None
        now = time.monotonic()
        try:
            self._updater.note_health(now)
            switched = self._updater.step(now, is_idle=is_idle)
            if link.is_connected:  # paho would queue requests, and all their repetitions
                self._ask_for_chunks(link, now)
        except FedptError as error:
            _logger.warning("releases: %s", error)
            return None
        return switched

    def adapter_to_serve(self) -> Path | None:
        """The installed adapter release, if it fits the model and is newer than any round's."""
        if self._updater is None or not self._updater.outranks_round():
            return None
        path = self._updater.store.current_path("adapter", ADAPTER_FILE)
        try:
            fits = path is not None and self._base_of(path) == self._base_weights
        except FedptError as error:
            _logger.warning("adapter release not used: %s", error)
            return None
        return path if fits else None

    def adapter_failed(self, why: str) -> None:
        """The installed adapter release cannot be served.

        Raises:
            StorageError: It cannot be noted.
        """
        if self._updater is not None:
            self._updater.roll_back("adapter", why)

    def broker_is_missing(self) -> None:
        """That cannot be the fault of a model; of a runtime it can."""
        if self._updater is not None:
            self._updater.give_start_back(*_NOT_THE_NETWORK)

    def stop(self, *, is_on_purpose: bool) -> None:
        """The device ends; on purpose: that says nothing about a release on trial."""
        if self._updater is not None:
            self._updater.stop()
            if is_on_purpose:
                self._updater.give_start_back()

    def _ask_for_chunks(self, link: MqttLink, now: float) -> None:
        assert self._updater is not None  # `step` looked
        request = self._updater.next_request(now)
        wanted = self._updater.wanted
        if wanted != self._subscribed:
            if self._subscribed:
                link.unsubscribe(self._topics.coordinator_chunk(self._subscribed, "+"))
            if wanted:
                link.subscribe(self._topics.coordinator_chunk(wanted, "+"))
            self._subscribed = wanted
        if request is not None:
            link.publish(Publication(self._topics.device(self._device, "want"), encode(request)))

    @staticmethod
    def _base_of(adapter: Path) -> str:
        return read_manifest(read_signed(adapter.parent).content).base_weights
