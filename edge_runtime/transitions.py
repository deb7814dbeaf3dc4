"""How a device's state changes: `apply`, a pure function; and which messages count: `admit_*`.

Late and repeated messages are normal and change nothing; an event that cannot happen is our own
bug and raises.
"""

from dataclasses import replace
from typing import assert_never

from edge_runtime.state import (
    AdapterFetched,
    AdapterReleased,
    AdapterServed,
    Announced,
    DeviceState,
    Event,
    Offered,
    OfferForgotten,
    Settled,
    TrainingEnded,
    TrainingStarted,
    TrainingStopped,
)
from fedpt.wire.messages import RoundAnnouncement, UpdateOffer, UpdateReceipt


def is_news(state: DeviceState, announcement: RoundAnnouncement) -> bool:
    """Whether an announcement tells something: it is retained, so most are repetitions."""
    return announcement != state.announcement


def settles(state: DeviceState, receipt: UpdateReceipt) -> bool:
    """Whether a receipt is for the update that we are offering."""
    offer = state.offer
    return offer is not None and not state.is_settled and receipt.update == offer.update.sha256


def belongs(offer: UpdateOffer | None, announcement: RoundAnnouncement) -> bool:
    """Whether an update was made for this round, from this adapter."""
    return offer is not None and (offer.run, offer.round, offer.base) == (
        announcement.run,
        announcement.round,
        announcement.adapter.sha256,
    )


def is_same_round(first: RoundAnnouncement, second: RoundAnnouncement) -> bool:
    """Whether two announcements are for one round, from one adapter; their phases may differ."""
    return (first.run, first.round, first.adapter) == (second.run, second.round, second.adapter)


def apply(state: DeviceState, event: Event) -> DeviceState:  # noqa: C901  # a case an event
    """The state after `event`.

    Raises:
        ValueError: The event cannot happen in this state. Nothing catches it: it is a bug.
    """
    match event:
        case Announced():
            return _announced(state, event)
        case AdapterFetched(sha256):
            here = state.announcement is not None and sha256 == state.announcement.adapter.sha256
            return replace(state, adapter_here=state.adapter_here or here)
        case AdapterServed(sha256, works):
            return replace(state, served=sha256) if works else replace(state, unservable=sha256)
        case AdapterReleased(sha256):
            return replace(state, released=sha256)
        case TrainingStarted(announcement):
            if state.is_training:
                raise ValueError("training started while training")
            return replace(state, training=announcement)
        case TrainingStopped():
            return replace(state, is_stopping=state.is_training)
        case TrainingEnded():
            return _training_ended(state, event)
        case Offered(at):
            return replace(state, offered_at=at)
        case OfferForgotten():
            return replace(state, offered_at=None)
        case Settled(fault):
            return replace(state, is_settled=True, fault=fault or state.fault)
        case _:
            assert_never(event)


def _announced(state: DeviceState, event: Announced) -> DeviceState:
    """A new phase of the same round keeps what we have for it; anything else begins anew.

    A round that starts again, to be seen by its deadline, wants all the updates that it can get: a
    device that failed or was refused before tries again.
    """
    before, now = state.announcement, event.announcement
    if before is not None and is_same_round(before, now):
        same = replace(state, announcement=now, offered_at=None)
        is_again = before.deadline_unix_s != now.deadline_unix_s
        return replace(same, fault="", is_settled=False) if is_again else same
    return replace(
        state,
        announcement=now,
        adapter_here=event.adapter_here,
        offer=event.offer,
        offered_at=None,
        is_settled=event.is_settled,
        fault="",
    )


def _training_ended(state: DeviceState, event: TrainingEnded) -> DeviceState:
    """Its update counts if it is for the announced round, its fault if nobody stopped it too."""
    ended = replace(state, training=None, is_stopping=False)
    if state.announcement is None:
        return ended
    if belongs(event.offer, state.announcement):
        return replace(ended, offer=event.offer, offered_at=None)
    was_for_this = state.training is None or is_same_round(state.training, state.announcement)
    if event.fault and was_for_this and not state.is_stopping:
        return replace(ended, fault=event.fault)
    return ended
