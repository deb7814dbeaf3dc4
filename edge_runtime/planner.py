"""What a device does next: a pure function of its state and the time.

The order of the rules is their priority. An action is planned until its effect shows in the state.
"""

from dataclasses import dataclass

from edge_runtime.state import DeviceState
from edge_runtime.transitions import is_same_round
from fedpt.wire.messages import BlobRef, RoundAnnouncement, UpdateOffer

_OFFER_AGAIN_S = 10.0
"""An offer without a receipt is repeated: the broker may have lost either."""


@dataclass(frozen=True, slots=True)
class FetchAdapter:
    """Get the announced adapter's blob."""

    ref: BlobRef


@dataclass(frozen=True, slots=True)
class ServeAdapter:
    """Convert the adapter and switch the assistant to it."""

    sha256: str


@dataclass(frozen=True, slots=True)
class StartTraining:
    """Train from the announced adapter, in a child process."""

    announcement: RoundAnnouncement


@dataclass(frozen=True, slots=True)
class StopTraining:
    """The round that we train for is over."""


@dataclass(frozen=True, slots=True)
class Offer:
    """Tell the coordinator of our update."""

    offer: UpdateOffer


Action = FetchAdapter | ServeAdapter | StartTraining | StopTraining | Offer


def plan(state: DeviceState, now: float) -> list[Action]:
    """The actions that are due.

    Args:
        state: What the device knows.
        now: Seconds of a monotonic clock.
    """
    announcement = state.announcement
    actions: list[Action] = []
    if announcement is not None and not state.adapter_here:
        actions.append(FetchAdapter(announcement.adapter))
    if (wanted := _wanted_adapter(state)) not in ("", state.served, state.unservable):
        actions.append(ServeAdapter(wanted))
    if announcement is None:
        return actions
    if _should_stop(state, announcement):
        actions.append(StopTraining())
    if _should_train(state, announcement):
        actions.append(StartTraining(announcement))
    if state.offer is not None and _should_offer(state, announcement, now):
        actions.append(Offer(state.offer))
    return actions


def waits_to_train(state: DeviceState) -> bool:
    """Whether a training shall start that has not: `StartTraining` is planned."""
    return state.announcement is not None and _should_train(state, state.announcement)


def _wanted_adapter(state: DeviceState) -> str:
    """What the assistant should answer with; empty while it cannot be had."""
    if state.released or state.announcement is None:
        return state.released
    return state.announcement.adapter.sha256 if state.adapter_here else ""


def _wants_update(state: DeviceState, announcement: RoundAnnouncement) -> bool:
    return announcement.phase == "training" and state.device in announcement.selected


def _should_stop(state: DeviceState, announcement: RoundAnnouncement) -> bool:
    if state.training is None or state.is_stopping:
        return False
    is_for_this = is_same_round(state.training, announcement)
    return not (is_for_this and _wants_update(state, announcement))


def _should_train(state: DeviceState, announcement: RoundAnnouncement) -> bool:
    return (
        _wants_update(state, announcement)
        and state.adapter_here
        and not state.is_training
        and state.offer is None
        and not state.fault
    )


def _should_offer(state: DeviceState, announcement: RoundAnnouncement, now: float) -> bool:
    if state.is_settled or not _wants_update(state, announcement):
        return False
    return state.offered_at is None or now - state.offered_at >= _OFFER_AGAIN_S
