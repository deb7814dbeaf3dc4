"""The releases of a running device: hears announcements, gets them prepared, switches.

Owned by the daemon and called on its thread only. What to do about an announcement is in `decide`,
the order of installing in `installing`; here they are set in motion, one release at a time.
"""

import logging
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Final, Literal

from edge_runtime.settings import DeviceSettings, ReleaseSettings
from edge_runtime.updates.boot_guard import CURRENT, counter_of
from edge_runtime.updates.decide import ORDER, Ignore, Install, Offer, Situation, decide
from edge_runtime.updates.fetching import Delivery, require_space
from edge_runtime.updates.job import job_folder, job_of
from edge_runtime.updates.preparer import Prepared, Preparer
from edge_runtime.updates.release_store import ReleaseStore
from edge_runtime.updates.trust import load_trust
from fedpt.errors import FedptError, ReleaseError, StorageError
from fedpt.ids import DeviceId
from fedpt.releases import (
    KINDS,
    Kind,
    SignedManifest,
    Trust,
    require_news,
    require_usable,
    require_vouched_adapter,
    verify_manifest,
)
from fedpt.wire.messages import ChunkRequest, ReleaseAnnouncement, RoundAnnouncement

_logger = logging.getLogger(__name__)

_LONGEST_TRIAL_S: Final = 6 * 3600.0
"""Fetching from a slow server included."""

_MOST_KILLED: Final = 3
"""How often the process that tries a release may be ended from outside."""


@dataclass(slots=True)
class _Work:
    """The release that is being installed."""

    offer: Offer
    delivery: Delivery | None
    phase: Literal["coming", "trying", "ready"] = "coming"
    tried_since: float = 0.0


class Updater:
    """Keeps a device's releases up to date."""

    def __init__(
        self,
        settings: DeviceSettings,
        releases: ReleaseSettings,
        *,
        base_weights: str,
        on_prepared: Callable[[Prepared], None],
    ) -> None:
        """Read what is installed.

        Args:
            settings: The device's.
            releases: Its part about releases.
            base_weights: Of the small model in use.
            on_prepared: Called on a thread of the installing process.

        Raises:
            ReleaseError: The trusted keys cannot be read.
        """
        self.store = ReleaseStore(releases.folder)
        self.trust: Trust = load_trust(self.store, releases.trust_file)
        self.fault = ""
        self._settings = settings
        self._releases = releases
        self._device = DeviceId(settings.name)
        self._base_weights = base_weights
        self._preparer = Preparer(job_folder(settings), on_prepared=on_prepared)
        self._announced: dict[Kind, tuple[ReleaseAnnouncement, Offer]] = {}
        self._decided: dict[Kind, str] = {}
        self._not_before: dict[str, float] = {}
        self._killed: dict[str, int] = {}
        self._work: _Work | None = None
        self._started = time.monotonic()
        self._shelves = self.store.shelves()
        self.runtime = version("fedpt")
        self._unmanaged = frozenset(_unmanaged(settings.small, releases.folder))

    @property
    def installed(self) -> dict[str, str]:
        """The release in use of each kind."""
        return {kind: shelf.current for kind, shelf in self._shelves.items() if shelf.current}

    @property
    def is_trying(self) -> bool:
        """Whether a release is tried at this moment, which takes memory."""
        return self._work is not None and self._work.phase == "trying"

    @property
    def wanted(self) -> str:
        """The sha256 of the file whose chunks we wait for; empty: none."""
        work = self._work
        return work.delivery.wanted if work is not None and work.delivery is not None else ""

    # -- hearing -------------------------------------------------------------------------------

    def hear(self, announcement: ReleaseAnnouncement, now: float) -> None:
        """Take note of an announcement, if its signature is right.

        Raises:
            ReleaseError: It is not.
        """
        signed = SignedManifest.from_wire(announcement.release)
        manifest = verify_manifest(signed, self.trust)
        known = self._announced.get(manifest.kind)
        heard_at = known[1].heard_at if known and known[1].id == signed.id else now
        offer = Offer(
            signed, manifest, signed.id, announcement.fraction, announcement.url, heard_at
        )
        self._announced[manifest.kind] = (announcement, offer)
        work = self._work
        if work is not None and work.phase == "coming" and work.offer.id != signed.id:
            self._forget_work(manifest.kind)

    def forget(self, kind: Kind) -> None:
        """The coordinator no longer announces a release of this kind."""
        self._announced.pop(kind, None)
        self._forget_work(kind)

    def require_round_adapter(self, announcement: RoundAnnouncement) -> None:
        """Refuse a round whose adapter nobody vouches for, or that is older than what we had.

        The same manifest again is no replay: rounds are announced many times.

        Raises:
            ReleaseError: Says why.
        """
        if announcement.release is None:
            raise ReleaseError("the round's adapter is not signed; this device asks for signatures")
        signed = SignedManifest.from_wire(announcement.release)
        manifest = verify_manifest(signed, self.trust)
        require_vouched_adapter(manifest, announcement.adapter)
        require_usable(manifest, runtime=self.runtime, base_weights=self._base_weights)
        shelf = self._shelves["adapter"]
        if signed.id != shelf.round_release:
            require_news(manifest, highest_counter=shelf.highest_counter, now_unix_s=time.time())
            self.store.note_round_release(signed.id)
            self._shelves = self.store.shelves()

    def outranks_round(self) -> bool:
        """Whether the installed adapter release is newer than the last round's adapter."""
        shelf = self._shelves["adapter"]
        return bool(shelf.current) and counter_of(shelf.current) >= shelf.highest_counter

    def keep_chunk(self, sha256: str, index: int, content: bytes) -> None:
        """A chunk has come.

        Raises:
            FedptError: It does not fit, or cannot be kept.
        """
        work = self._work
        if work is not None and work.delivery is not None:
            work.delivery.accept(sha256, index, content, now=time.monotonic())

    def hear_prepared(self, prepared: Prepared) -> None:
        """The installing process has ended.

        Raises:
            StorageError: A refusal could not be noted.
        """
        work, result = self._work, prepared.result
        if work is None or work.offer.id != prepared.release:
            return
        if not result.fault:
            work.phase = "ready"
            return
        self._work = None
        killed = self._killed.get(prepared.release, 0) + prepared.was_killed
        self._killed[prepared.release] = killed
        self._fail(work.offer, result.fault, is_final=result.is_final or killed >= _MOST_KILLED)

    # -- doing ---------------------------------------------------------------------------------

    def step(self, now: float, *, is_idle: bool) -> Kind | None:
        """Do what is due.

        Returns:
            The kind that was switched to another release just now.

        Raises:
            StorageError: The disk is full, say.
        """
        work = self._work
        if work is None:
            self._begin_one(now, is_idle=is_idle)
        elif work.phase == "ready":
            return self._switch(work) if is_idle else None
        elif work.phase == "trying":
            if now - work.tried_since > _LONGEST_TRIAL_S:
                self._preparer.stop()
        elif is_idle and not self.wanted:
            self._try(work, now)
        return None

    def next_request(self, now: float) -> ChunkRequest | None:
        """The chunks to ask the coordinator for now."""
        work = self._work
        if work is None or work.delivery is None or work.phase != "coming":
            return None
        try:
            return work.delivery.next_request(now)
        except FedptError as error:
            self._work = None
            self._fail(work.offer, str(error), is_final=False)
            return None

    def note_health(self, now: float) -> None:
        """What is on trial has proved itself when the device has run for long enough.

        Raises:
            StorageError: It cannot be noted.
        """
        if now - self._started >= self._releases.healthy_after_s and self._on_trial():
            for release in self.store.mark_good(running=self._on_trial()):
                _logger.info("release has proved itself", extra={"release": release})
            self._shelves = self.store.shelves()

    def give_start_back(self, *kinds: Kind) -> None:
        """This start says nothing about what is on trial."""
        if self._on_trial():
            try:
                starts = self._releases.starts_before_rollback
                self.store.give_start_back(kinds or KINDS, starts=starts)
            except FedptError as error:
                _logger.warning("%s", error)

    def roll_back(self, kind: Kind, why: str) -> None:
        """What was switched to does not work.

        Raises:
            StorageError: It cannot be noted.
        """
        self.fault = f"{self._shelves[kind].current}: {why}"
        self.store.roll_back(kind, why)
        self._shelves = self.store.shelves()

    def stop(self) -> None:
        """End the installing process, if one runs."""
        self._preparer.stop()

    def _on_trial(self) -> list[str]:
        return [shelf.candidate for shelf in self._shelves.values() if shelf.candidate]

    def _begin_one(self, now: float, *, is_idle: bool) -> None:
        for kind in ORDER:
            if kind not in self._announced:
                continue
            offer = self._announced[kind][1]
            decision = decide(offer, self._situation(offer, now, is_idle=is_idle))
            self._tell(offer, decision)
            if isinstance(decision, Install):
                self._begin(offer)
                return
            if not isinstance(decision, Ignore):
                return  # what comes later in the order waits too

    def _situation(self, offer: Offer, now: float, *, is_idle: bool) -> Situation:
        return Situation(
            device=self._device,
            runtime=self.runtime,
            base_weights=self._base_weights,
            shelves=self._shelves,
            now=now,
            now_unix_s=time.time(),
            start_within_s=self._releases.start_within_s,
            is_idle=is_idle,
            unmanaged=self._unmanaged,
            not_before=self._not_before.get(offer.id, float("-inf")),
        )

    def _tell(self, offer: Offer, decision: object) -> None:
        kind, text = offer.manifest.kind, f"{offer.id}: {decision}"
        if self._decided.get(kind) != text:
            self._decided[kind] = text
            reason = getattr(decision, "reason", "fetching it")
            _logger.info("%s release %s: %s", kind, offer.id, reason)

    def _begin(self, offer: Offer) -> None:
        manifest = offer.manifest
        try:
            folder = self.store.path(manifest.kind, offer.id)
            require_space(manifest, folder, reserve_mb=self._releases.reserve_mb)
            self.store.begin(manifest.kind, offer.signed)
            self._work = _Work(offer, None if offer.url else Delivery(manifest, folder))
        except StorageError as error:
            self._fail(offer, str(error), is_final=False)

    def _try(self, work: _Work, now: float) -> None:
        offer = work.offer
        job = job_of(self._settings, offer.signed, offer.url, base_weights=self._base_weights)
        self._preparer.start(job)
        work.phase, work.tried_since = "trying", now

    def _forget_work(self, kind: Kind) -> None:
        work = self._work
        if work is not None and work.phase == "coming" and work.offer.manifest.kind == kind:
            self._work = None

    def _switch(self, work: _Work) -> Kind:
        kind = work.offer.manifest.kind
        self._work = None
        starts = self._releases.starts_before_rollback
        self.store.switch(kind, work.offer.id, starts=starts)
        if kind == "keys":  # tried to the end already: it was read as it will be read
            self.store.mark_good(["keys"])
            self._reload_trust()
        self._started = time.monotonic()
        self._shelves = self.store.shelves()
        self.fault = ""
        _logger.info("%s release %s is in use", kind, work.offer.id)
        return kind

    def _reload_trust(self) -> None:
        self.trust = load_trust(self.store, self._releases.trust_file)
        announced, self._announced = list(self._announced.values()), {}
        for announcement, offer in announced:
            try:
                self.hear(announcement, offer.heard_at)
            except ReleaseError as error:  # signed by a key that is no longer trusted
                _logger.warning("%s", error)

    def _fail(self, offer: Offer, fault: str, *, is_final: bool) -> None:
        kind = offer.manifest.kind
        self.fault = f"{kind} {offer.id}: {fault}"
        _logger.warning("%s release %s is not installed: %s", kind, offer.id, fault)
        self._not_before[offer.id] = time.monotonic() + self._releases.retry_after_s
        if is_final:
            self.store.refuse(kind, offer.id, fault)
            self._shelves = self.store.shelves()


def _unmanaged(small: Path, releases: Path) -> Iterator[Kind]:
    """The kinds that are in use from elsewhere: a switch would change nothing."""
    if not small.is_relative_to(releases / "model" / CURRENT):
        yield "model"
    if not Path(sys.prefix).resolve().is_relative_to((releases / "runtime").resolve()):
        yield "runtime"
