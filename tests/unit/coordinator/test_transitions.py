"""Every verdict on an update; every event where it may happen and where it may not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.state import AnyEvent, FederationState, Fleet, Phase, RunFinished
from coordinator.transitions import (
    AlreadyAccepted,
    Refused,
    Wanted,
    admit,
    apply,
    fold,
    note_removed,
    note_status,
)
from fedpt.ids import DeviceId
from fedpt.wire.messages import UpdateOffer
from tests.fakes.histories import (
    DEVICES,
    aggregated,
    evaluated,
    histories,
    round_ended,
    round_started,
    run_started,
    update_accepted,
    whole_round,
)
from tests.fakes.wire_messages import ADAPTER, OTHER_RUN, RUN, offer, ref, status

BOARD = DeviceId("board-1")
STARTED: list[AnyEvent] = [run_started(), round_started(selected=("board-1", "board-2"))]
TRAINING = fold(STARTED)
ACCEPTED = fold([*STARTED, update_accepted("board-1", ref("an update").sha256)])
ENDED = fold([run_started(), *whole_round()])

IN_PHASE = {
    "empty": FederationState(),
    "begun": fold([run_started()]),
    "training": TRAINING,
    "with update": ACCEPTED,
    "evaluating": fold([*STARTED, update_accepted(), aggregated()]),
    "distilling": fold([*STARTED, update_accepted(), aggregated(), evaluated()]),
    "between": ENDED,
    "finished": fold([run_started(), *whole_round(), RunFinished(reason="enough")]),
}
ALLOWED: dict[str, tuple[AnyEvent, set[str]]] = {
    "run starts": (run_started(), {"empty"}),
    "round 1 starts": (round_started(1), {"begun", "training"}),
    "round 2 starts": (round_started(2), {"between"}),
    "round 3 starts": (round_started(3), set()),
    "update": (update_accepted("board-2"), {"training", "with update"}),
    "update again": (update_accepted("board-1"), {"training"}),
    "update of a stranger": (update_accepted("board-9"), set()),
    "aggregated": (aggregated(), {"with update"}),
    "evaluated": (evaluated(), {"evaluating"}),
    "round ended": (round_ended(), {"distilling"}),
    "run finished": (RunFinished(reason="enough"), {"begun", "between"}),
}


@pytest.mark.parametrize("when", IN_PHASE)
@pytest.mark.parametrize("what", ALLOWED)
def test_an_event_happens_where_it_may_and_raises_elsewhere(what: str, when: str) -> None:
    event, allowed = ALLOWED[what]
    if when in allowed:
        assert apply(IN_PHASE[when], event) != IN_PHASE[when]
    else:
        with pytest.raises(ValueError, match=r"cannot|is not selected|has an update|no updates"):
            apply(IN_PHASE[when], event)


def test_an_update_in_time_is_wanted() -> None:
    assert admit(TRAINING, BOARD, offer()) == Wanted()


def test_the_same_update_again_gets_its_receipt_again_also_after_the_round() -> None:
    mine = offer(update=ref("update of board-1"))
    assert admit(ACCEPTED, BOARD, offer()) == AlreadyAccepted()
    assert admit(ENDED, BOARD, mine) == AlreadyAccepted()


@pytest.mark.parametrize(
    ("state", "device", "made", "code"),
    [
        (TRAINING, "board-1", offer(run=OTHER_RUN), "other_run"),
        (FederationState(), "board-1", offer(), "other_run"),
        (fold([run_started()]), "board-1", offer(), "other_run"),
        (TRAINING, "board-1", offer(round=2), "unknown_round"),
        (TRAINING, "board-1", offer(round=0), "unknown_round"),
        (TRAINING, "board-1", offer(round=2**63), "unknown_round"),
        (ENDED, "board-1", offer(), "late"),
        (TRAINING, "board-3", offer(), "not_selected"),
        (TRAINING, "../../etc", offer(), "not_selected"),
        (ACCEPTED, "board-1", offer(update=ref("another")), "repeated"),
        (TRAINING, "board-1", offer(base="0" * 64), "other_base"),
    ],
)
def test_an_update_that_does_not_count_is_refused_with_a_code(
    state: FederationState, device: str, made: UpdateOffer, code: str
) -> None:
    verdict = admit(state, DeviceId(device), made)
    assert isinstance(verdict, Refused)
    assert verdict.code == code


def test_anothers_update_offered_as_ones_own_has_to_be_sent_too() -> None:
    assert admit(ACCEPTED, DeviceId("board-2"), offer()) == Wanted()


def test_a_stale_last_will_does_not_turn_a_device_off() -> None:
    fleet = note_status(Fleet(), BOARD, status(session=5))
    assert note_status(fleet, BOARD, status(session=4, activity="offline")) == fleet
    assert note_status(fleet, BOARD, status(session=5, activity="offline")) != fleet


def test_a_removed_device_is_offline_and_at_fault_until_it_begins_a_new_session() -> None:
    for fleet in (Fleet(), note_status(Fleet(), BOARD, status(session=5))):
        removed = note_removed(fleet, BOARD)
        assert removed.online(status().small_weights) == []
        assert removed.devices[BOARD].fault == "removed by the operator"
    assert note_status(removed, BOARD, status(session=4)) == removed
    again = note_status(removed, BOARD, status(session=6))
    assert again.online(status().small_weights) == [BOARD]


def test_only_devices_that_could_train_are_online() -> None:
    fleet = Fleet()
    for device, changes in {
        "z-good": {},
        "a-good": {"activity": "training"},
        "off": {"activity": "offline"},
        "other-model": {"small_weights": "0" * 64},
        "no-data": {"example_count": 0},
    }.items():
        fleet = note_status(fleet, DeviceId(device), status(**changes))
    assert fleet.online(status().small_weights) == ["a-good", "z-good"]


@given(histories())
def test_any_legal_history_keeps_the_invariants(events: list[AnyEvent]) -> None:
    state = FederationState()
    for event in events:
        state = apply(state, event)
        assert [one.number for one in state.rounds] == list(range(1, len(state.rounds) + 1))
        assert all(one.ended for one in state.rounds[:-1])
        for one in state.rounds:
            assert set(one.updates) <= set(one.selected)
            assert (one.aggregated is None) <= (one.evaluation is None)
            assert (one.evaluation is None) <= (one.ended is None)
        assert (state.phase is Phase.FINISHED) == bool(state.finish_reason)
        if state.phase is Phase.TRAINING:
            assert (state.current.base, state.current.aggregated) == (state.adapter, None)
    assert state == fold(events)


OFFERS = st.builds(
    offer,
    run=st.sampled_from([RUN, OTHER_RUN]),
    round=st.integers(0, 4),
    base=st.sampled_from([ADAPTER.sha256, ref("distilled 1").sha256]),
    update=st.sampled_from([ref(f"update of {device}") for device in DEVICES]),
)


@given(histories(), st.sampled_from(DEVICES), OFFERS)
def test_what_is_admitted_can_be_applied_and_is_then_no_longer_wanted(
    events: list[AnyEvent], device: str, made: UpdateOffer
) -> None:
    state = fold(events)
    if admit(state, DeviceId(device), made) == Wanted():
        after = apply(state, update_accepted(device, made.update.sha256))
        assert admit(after, DeviceId(device), made) == AlreadyAccepted()
