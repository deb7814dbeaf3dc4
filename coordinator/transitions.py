"""How a federation's state changes: `apply`; and which updates count: `admit`. Pure functions.

Late, repeated and foreign updates are normal: refused with a code. An event that cannot happen in
a state is our own bug: raises, changes nothing.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import assert_never

from coordinator.state import (
    Aggregated,
    AnyEvent,
    Evaluated,
    FederationState,
    Fleet,
    Phase,
    RoundAbandoned,
    RoundEnded,
    RoundRecord,
    RoundStarted,
    RunFinished,
    RunStarted,
    UpdateAccepted,
)
from fedpt.ids import DeviceId
from fedpt.wire.messages import DeviceStatus, UpdateOffer


@dataclass(frozen=True, slots=True)
class Wanted:
    """The update counts: fetch it."""


@dataclass(frozen=True, slots=True)
class AlreadyAccepted:
    """This very update is in: the receipt was lost, send it again."""


@dataclass(frozen=True, slots=True)
class Refused:
    """The update does not count."""

    code: str
    reason: str


Verdict = Wanted | AlreadyAccepted | Refused


def admit(state: FederationState, device: DeviceId, offer: UpdateOffer) -> Verdict:
    """Whether a device's update counts."""
    if offer.run != state.run or not state.rounds:
        return Refused("other_run", f"run {offer.run[:8]} is not this federation's present one")
    record = next((one for one in state.rounds if one.number == offer.round), None)
    if record is None:
        return Refused("unknown_round", f"there is no round {offer.round}")
    accepted = record.updates.get(device)
    if accepted is not None and accepted.update == offer.update.sha256:
        return AlreadyAccepted()
    if record is not state.current or state.phase is not Phase.TRAINING:
        return Refused("late", f"round {offer.round} takes no more updates")
    if device not in record.selected:
        return Refused("not_selected", f"{device} is not selected for round {offer.round}")
    if accepted is not None:
        return Refused("repeated", f"{device} has another update in round {offer.round}")
    if offer.base != record.base:
        return Refused("other_base", f"round {offer.round} starts from {record.base[:12]}")
    return Wanted()


def note_status(fleet: Fleet, device: DeviceId, status: DeviceStatus) -> Fleet:
    """The fleet after a device described itself; a last will of an earlier session is stale."""
    before = fleet.devices.get(device)
    if before is not None and status.session < before.session:
        return fleet
    return Fleet({**fleet.devices, device: status})


def note_removed(fleet: Fleet, device: DeviceId) -> Fleet:
    """The fleet after the operator has put a device out: offline, and no round waits for it."""
    before = fleet.devices.get(device)
    session = before.session if before else 0
    gone = DeviceStatus(session=session, activity="offline", fault="removed by the operator")
    return Fleet({**fleet.devices, device: gone})


def fold(events: Iterable[AnyEvent]) -> FederationState:
    """The state after all events of a journal."""
    state = FederationState()
    for event in events:
        state = apply(state, event)
    return state


_ALLOWED_IN: Mapping[type, tuple[Phase, ...]] = {
    RunStarted: (Phase.WAITING,),
    RoundStarted: (Phase.WAITING, Phase.TRAINING),
    UpdateAccepted: (Phase.TRAINING,),
    Aggregated: (Phase.TRAINING,),
    Evaluated: (Phase.EVALUATING,),
    RoundEnded: (Phase.DISTILLING,),
    RoundAbandoned: (Phase.EVALUATING,),
    RunFinished: (Phase.WAITING,),
}


def apply(state: FederationState, event: AnyEvent) -> FederationState:
    """The state after `event`.

    Raises:
        ValueError: It cannot happen in this state. Nothing catches it: it is a bug.
    """
    _require_possible(state, event)
    match event:
        case RunStarted(run=run, adapter=adapter):
            return replace(state, run=run, adapter=adapter)
        case RoundStarted():
            return _start_round(state, event)
        case UpdateAccepted(device=device):
            updates = {**state.current.updates, DeviceId(device): event}
            return _with_current(state, replace(state.current, updates=updates), Phase.TRAINING)
        case Aggregated():
            record = replace(state.current, aggregated=event)
            return _with_current(state, record, Phase.EVALUATING)
        case Evaluated(evaluation=evaluation):
            record = replace(state.current, evaluation=evaluation)
            return _with_current(state, record, Phase.DISTILLING)
        case RoundEnded(adapter=adapter):
            ended = _with_current(state, replace(state.current, ended=event), Phase.WAITING)
            return replace(ended, adapter=adapter)
        case RoundAbandoned():
            return replace(state, phase=Phase.WAITING)
        case RunFinished(reason=reason):
            return replace(state, phase=Phase.FINISHED, finish_reason=reason)
        case _:
            assert_never(event)


def _require_possible(state: FederationState, event: AnyEvent) -> None:
    if state.phase not in _ALLOWED_IN[type(event)]:
        raise ValueError(f"{type(event).__name__} cannot happen while {state.phase.value}")
    if bool(state.run) is isinstance(event, RunStarted):
        raise ValueError(f"{type(event).__name__} cannot happen in run {state.run!r}")
    match event:
        case UpdateAccepted(device=device) if DeviceId(device) not in state.current.selected:
            raise ValueError(f"{device} is not selected for round {state.current.number}")
        case UpdateAccepted(device=device) if DeviceId(device) in state.current.updates:
            raise ValueError(f"{device} has an update in round {state.current.number}")
        case Aggregated() if not state.current.updates:
            raise ValueError(f"round {state.current.number} has no updates")


def _start_round(state: FederationState, event: RoundStarted) -> FederationState:
    record = RoundRecord(
        number=event.number,
        selected=tuple(DeviceId(device) for device in event.selected),
        base=state.adapter,
        started_unix_s=event.at_unix_s,
        deadline_unix_s=event.deadline_unix_s,
    )
    is_again = state.phase is Phase.TRAINING
    before = state.rounds[:-1] if is_again else state.rounds
    if is_again and state.current.updates:
        raise ValueError(f"round {state.current.number} has updates and cannot start again")
    if event.number != len(before) + 1:
        raise ValueError(f"round {event.number} cannot follow {len(before)} rounds")
    return replace(state, phase=Phase.TRAINING, rounds=(*before, record))


def _with_current(state: FederationState, record: RoundRecord, phase: Phase) -> FederationState:
    return replace(state, phase=phase, rounds=(*state.rounds[:-1], record))
