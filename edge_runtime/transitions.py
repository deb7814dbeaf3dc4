"""How a device's state changes: `apply`, a pure function; and which messages count: `admit_*`.

Late and repeated messages are normal and change nothing; an event that cannot happen is our own
bug and raises.
"""

from dataclasses import replace
from typing import assert_never

from edge_runtime.state import (
    AdapterFetched,
    AdapterServed,
    Announced,
    DeviceState,
    Event,
    Offered,
    OfferForgotten,
    Settled,
    TrainingEnded,
    TrainingStarted,
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
        case TrainingStarted():
            if state.is_training:
                raise ValueError("training started while training")
            return replace(state, is_training=True)
        case TrainingEnded(offer, fault):
            ended = replace(state, is_training=False)
            if state.announcement is None or not (fault or belongs(offer, state.announcement)):
                return ended  # it was for a round that is over
            return replace(ended, offer=offer, fault=fault, offered_at=None)
        case Offered(at):
            return replace(state, offered_at=at)
        case OfferForgotten():
            return replace(state, offered_at=None)
        case Settled():
            return replace(state, is_settled=True)
        case _:
            assert_never(event)


def _announced(state: DeviceState, event: Announced) -> DeviceState:
    """A new phase of the same round keeps what we have for it; anything else begins anew."""
    before, now = state.announcement, event.announcement
    is_same_round = before is not None and (before.run, before.round, before.adapter) == (
        now.run,
        now.round,
        now.adapter,
    )
    if is_same_round:
        return replace(state, announcement=now, offered_at=None)
    return replace(
        state,
        announcement=now,
        adapter_here=event.adapter_here,
        offer=event.offer,
        offered_at=None,
        is_settled=event.is_settled,
        fault="",
    )
