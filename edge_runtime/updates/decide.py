"""What to do about an announced release: a pure function of what was announced and what is here."""

from collections.abc import Mapping
from dataclasses import dataclass
from random import Random

from edge_runtime.updates.shelf import Shelf
from fedpt.errors import ReleaseError
from fedpt.ids import DeviceId
from fedpt.releases import (
    Kind,
    Manifest,
    SignedManifest,
    is_in_roll_out,
    require_news,
    require_usable,
)

ORDER: tuple[Kind, ...] = ("keys", "runtime", "model", "adapter")
"""Which comes first when several are announced: each may be needed by those after it."""


@dataclass(frozen=True, slots=True)
class Offer:
    """An announced release whose signature is right."""

    signed: SignedManifest
    manifest: Manifest
    id: str
    fraction: float
    url: str
    heard_at: float
    """Seconds of a monotonic clock."""


@dataclass(frozen=True, slots=True)
class Situation:
    """What the device is and has."""

    device: DeviceId
    runtime: str
    base_weights: str
    shelves: Mapping[Kind, Shelf]
    now: float
    """Seconds of a monotonic clock."""
    now_unix_s: float
    start_within_s: float
    is_idle: bool
    """Whether it neither trains nor answers."""
    unmanaged: frozenset[Kind] = frozenset()
    """Kinds that this device has from elsewhere, by its settings or how it was started."""
    not_before: float = float("-inf")
    """After something went wrong: when to try again, seconds of the same clock."""


@dataclass(frozen=True, slots=True)
class Ignore:
    """Nothing to do, for good or until something else changes."""

    reason: str


@dataclass(frozen=True, slots=True)
class Wait:
    """It will be installed, but not now."""

    reason: str


@dataclass(frozen=True, slots=True)
class Install:
    """Fetch and try it now."""


Decision = Ignore | Wait | Install


def decide(offer: Offer, situation: Situation) -> Decision:
    """What to do about a release now."""
    return _reason_to_ignore(offer, situation) or _reason_to_wait(offer, situation) or Install()


def start_delay_s(device: DeviceId, release: str, within_s: float) -> float:
    """How long this device lets others go first; the same again after a restart."""
    return Random(f"{device} {release}").uniform(0, within_s)


def _reason_to_ignore(offer: Offer, situation: Situation) -> Ignore | None:
    manifest = offer.manifest
    shelf = situation.shelves[manifest.kind]
    if offer.id == shelf.current:
        return Ignore("it is installed")
    if manifest.kind in situation.unmanaged:
        return Ignore(f"the {manifest.kind} in use is not in the releases' folder")
    if offer.id in shelf.refused:
        return Ignore(f"it was refused before: {shelf.refused[offer.id]}")
    if not is_in_roll_out(situation.device, offer.id, offer.fraction):
        return Ignore(f"the roll-out has reached {offer.fraction:.0%} of the devices, not this one")
    try:
        require_news(
            manifest, highest_counter=shelf.highest_counter, now_unix_s=situation.now_unix_s
        )
        require_usable(manifest, runtime=situation.runtime, base_weights=situation.base_weights)
    except ReleaseError as error:
        return Ignore(str(error))
    return None


def _reason_to_wait(offer: Offer, situation: Situation) -> Wait | None:
    unproven = [kind for kind, shelf in situation.shelves.items() if shelf.candidate]
    if unproven:
        return Wait(f"the new {' and '.join(unproven)} must prove itself first")
    if situation.now < situation.not_before:
        return Wait("the last attempt failed a short while ago")
    delay_s = start_delay_s(situation.device, offer.id, situation.start_within_s)
    if situation.now < offer.heard_at + delay_s:
        return Wait("other devices go first")
    if not situation.is_idle:
        return Wait("the device trains or answers")
    return None
