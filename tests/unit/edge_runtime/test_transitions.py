"""What each event changes on a device, and what late and repeated ones do not."""

from dataclasses import replace

import pytest

from edge_runtime.state import (
    AdapterFetched,
    AdapterServed,
    Announced,
    DeviceState,
    Offered,
    OfferForgotten,
    Settled,
    TrainingEnded,
    TrainingStarted,
    TrainingStopped,
)
from edge_runtime.transitions import apply, belongs, is_news, settles
from fedpt.ids import DeviceId
from fedpt.wire.messages import RoundAnnouncement
from tests.fakes.wire_messages import ADAPTER, OTHER_RUN, announcement, offer, receipt, ref

NEW = DeviceState(DeviceId("board-1"))
ROUND_1 = announcement()
ROUND_2 = announcement(round=2, adapter=ref("the second adapter"))


def announced(round_: RoundAnnouncement) -> Announced:
    return Announced(round_, adapter_here=True, offer=None, is_settled=False)


IN_ROUND = apply(NEW, announced(ROUND_1))
TRAINING = apply(IN_ROUND, TrainingStarted(ROUND_1))
OFFERING = apply(TRAINING, TrainingEnded(offer()))


def test_a_repeated_announcement_is_no_news() -> None:
    assert is_news(NEW, ROUND_1)
    assert not is_news(IN_ROUND, announcement())
    assert is_news(IN_ROUND, announcement(phase="steering"))


def test_a_new_round_begins_anew() -> None:
    state = apply(replace(OFFERING, is_settled=True, offered_at=3.0), announced(ROUND_2))
    assert state == replace(NEW, announcement=ROUND_2, adapter_here=True)


def test_what_an_earlier_life_left_is_taken_up() -> None:
    state = apply(NEW, Announced(ROUND_1, adapter_here=True, offer=offer(), is_settled=True))
    assert (state.offer, state.is_settled) == (offer(), True)


def test_another_phase_of_the_round_keeps_the_update() -> None:
    state = apply(replace(OFFERING, is_settled=True), announced(announcement(phase="steering")))
    assert state.offer == offer()
    assert state.is_settled


def test_a_round_that_starts_again_gets_another_try() -> None:
    again = announced(announcement(deadline_unix_s=200.0))
    failed = apply(TRAINING, TrainingEnded(None, "no memory"))
    assert failed.fault == "no memory"
    assert apply(failed, again).fault == ""
    assert not apply(replace(OFFERING, is_settled=True), again).is_settled


def test_the_announced_adapter_alone_counts_as_fetched() -> None:
    missing = replace(IN_ROUND, adapter_here=False)
    assert apply(missing, AdapterFetched(ADAPTER.sha256)).adapter_here
    assert not apply(missing, AdapterFetched("0" * 64)).adapter_here
    assert not apply(NEW, AdapterFetched(ADAPTER.sha256)).adapter_here


def test_an_adapter_that_cannot_be_served_leaves_the_old_one() -> None:
    served = apply(IN_ROUND, AdapterServed("1" * 64))
    state = apply(served, AdapterServed("2" * 64, works=False))
    assert (state.served, state.unservable) == ("1" * 64, "2" * 64)


def test_training_twice_at_a_time_is_a_bug() -> None:
    with pytest.raises(ValueError, match="started while training"):
        apply(TRAINING, TrainingStarted(ROUND_1))


def test_a_finished_training_gives_an_update_to_offer() -> None:
    assert not OFFERING.is_training
    assert OFFERING.offer == offer()


@pytest.mark.parametrize(
    "late", [{"run": OTHER_RUN}, {"round": 7}, {"base": "0" * 64}], ids=["run", "round", "base"]
)
def test_an_update_of_another_round_is_no_update_of_ours(late: dict[str, object]) -> None:
    state = apply(TRAINING, TrainingEnded(offer(**late)))
    assert state == IN_ROUND
    assert not belongs(offer(**late), ROUND_1)


def test_the_fault_of_an_older_round_is_not_held_against_the_new_one() -> None:
    state = apply(apply(TRAINING, announced(ROUND_2)), TrainingEnded(None, "no memory"))
    assert state.fault == ""
    assert not state.is_training


def test_a_stopped_training_is_no_fault() -> None:
    state = apply(apply(TRAINING, TrainingStopped()), TrainingEnded(None, "ended by signal 15"))
    assert state == IN_ROUND


def test_a_training_that_cannot_start_is_a_fault() -> None:
    assert apply(IN_ROUND, TrainingEnded(None, "no process")).fault == "no process"


def test_a_lost_connection_makes_us_offer_again() -> None:
    offered = apply(OFFERING, Offered(5.0))
    assert offered.offered_at == 5.0
    assert apply(offered, OfferForgotten()) == OFFERING


def test_only_the_receipt_for_our_update_settles() -> None:
    assert settles(OFFERING, receipt(offer()))
    assert settles(OFFERING, receipt(offer(), accepted=False))
    assert not settles(OFFERING, receipt(offer(update=ref("another"))))
    assert not settles(IN_ROUND, receipt(offer()))
    assert not settles(apply(OFFERING, Settled()), receipt(offer()))


def test_a_refused_update_is_told_as_a_fault_so_that_nobody_waits_for_it() -> None:
    refused = apply(OFFERING, Settled("update refused: wild values"))
    assert (refused.is_settled, refused.fault) == (True, "update refused: wild values")
