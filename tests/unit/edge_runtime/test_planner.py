"""What is planned when; and, on any order of events, what never is."""

from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime import planner, transitions
from edge_runtime.planner import FetchAdapter, Offer, ServeAdapter, StartTraining, StopTraining
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
from fedpt.ids import DeviceId
from fedpt.wire.messages import RoundAnnouncement, UpdateOffer
from tests.fakes.wire_messages import ADAPTER, OTHER_RUN, announcement, offer, receipt, ref

NEW = DeviceState(DeviceId("board-1"))
READY = replace(NEW, announcement=announcement(), adapter_here=True, served=ADAPTER.sha256)
SECOND = ref("the second adapter")


def plan(state: DeviceState, now: float = 0.0) -> list[planner.Action]:
    return planner.plan(state, now)


def test_nothing_is_planned_before_the_first_announcement() -> None:
    assert plan(NEW) == []


def test_the_announced_adapter_is_fetched_first() -> None:
    assert plan(replace(READY, adapter_here=False)) == [FetchAdapter(ADAPTER)]


def test_an_adapter_is_served_by_devices_that_are_not_selected_too() -> None:
    state = replace(READY, announcement=announcement(selected=["board-2"]), served="")
    assert plan(state) == [ServeAdapter(ADAPTER.sha256)]


def test_an_adapter_that_does_not_work_is_not_tried_again() -> None:
    state = replace(READY, served="1" * 64, unservable=ADAPTER.sha256)
    assert plan(state) == [StartTraining(announcement())]


def test_a_released_adapter_is_served_rather_than_the_announced_one() -> None:
    released = SECOND.sha256
    assert plan(replace(NEW, released=released)) == [ServeAdapter(released)]
    assert plan(replace(NEW, released=released, served=released)) == []
    state = replace(READY, released=released)
    assert plan(state) == [ServeAdapter(released), StartTraining(announcement())]
    assert plan(replace(state, adapter_here=False)) == [
        FetchAdapter(ADAPTER),
        ServeAdapter(released),
    ]
    back = transitions.apply(replace(state, served=released), AdapterReleased(""))
    assert plan(back)[0] == ServeAdapter(ADAPTER.sha256)


def test_a_selected_device_trains_once() -> None:
    assert plan(READY) == [StartTraining(announcement())]
    assert plan(replace(READY, training=announcement())) == []
    assert plan(replace(READY, fault="no memory")) == []


def test_a_training_waits_as_long_as_it_is_planned() -> None:
    assert planner.waits_to_train(READY)
    assert not planner.waits_to_train(NEW)
    assert not planner.waits_to_train(replace(READY, training=announcement()))
    assert not planner.waits_to_train(replace(READY, fault="no memory"))


@pytest.mark.parametrize(
    "now",
    [
        announcement(phase="steering"),
        announcement(selected=["board-2"]),
        announcement(round=2, adapter=SECOND),
        announcement(run=OTHER_RUN),
    ],
    ids=["round over", "not selected", "next round", "other run"],
)
def test_a_training_that_nobody_wants_any_more_is_stopped_once(now: RoundAnnouncement) -> None:
    state = replace(READY, announcement=now, served=now.adapter.sha256, training=announcement())
    assert plan(state) == [StopTraining()]
    assert plan(replace(state, is_stopping=True)) == []


def test_an_update_is_offered_until_its_receipt_comes() -> None:
    state = replace(READY, offer=offer())
    assert plan(state) == [Offer(offer())]
    assert plan(replace(state, offered_at=5.0), now=14.9) == []
    assert plan(replace(state, offered_at=5.0), now=15.0) == [Offer(offer())]
    assert plan(replace(state, is_settled=True)) == []


def test_a_late_update_is_not_offered() -> None:
    assert plan(replace(READY, announcement=announcement(phase="finished"), offer=offer())) == []


ROUNDS = [
    announcement(run=OTHER_RUN, round=3),
    announcement(),
    announcement(selected=["board-2"], deadline_unix_s=200.0),
    announcement(deadline_unix_s=300.0),
    announcement(phase="steering"),
    announcement(round=2, adapter=SECOND),
    announcement(round=2, adapter=SECOND, phase="finished"),
]


@dataclass
class Board:
    """What the daemon does with the plan, without the world around it."""

    state: DeviceState = NEW
    now: float = 0.0
    outbox: dict[tuple[str, int, str], UpdateOffer] = field(default_factory=dict)
    offers: list[UpdateOffer] = field(default_factory=list)

    def apply(self, event: Event) -> None:
        self.state = transitions.apply(self.state, event)

    def hear(self, news: RoundAnnouncement) -> None:
        if transitions.is_news(self.state, news):
            kept = self.outbox.get((news.run, news.round, news.adapter.sha256))
            self.apply(Announced(news, adapter_here=False, offer=kept, is_settled=False))

    def end_training(self, fault: str) -> None:
        made_for = self.state.training
        if made_for is None:
            return
        key = (made_for.run, made_for.round, made_for.adapter.sha256)
        update = offer(run=key[0], round=key[1], base=key[2], update=ref(repr(key)))
        if not fault:
            self.outbox[key] = update
        self.apply(TrainingEnded(None if fault else update, fault))

    def receive_receipt(self, of: UpdateOffer) -> None:
        if transitions.settles(self.state, receipt(of)):
            self.apply(Settled())

    def fetch(self) -> None:
        if self.state.announcement is not None:
            self.apply(AdapterFetched(self.state.announcement.adapter.sha256))

    def execute_plan(self) -> None:
        for action in planner.plan(self.state, self.now):
            match action:
                case ServeAdapter(sha256):
                    self.apply(AdapterServed(sha256))
                case StartTraining(round_):
                    assert not self.state.is_training
                    self.apply(TrainingStarted(round_))
                case StopTraining():
                    assert self.state.is_training
                    self.apply(TrainingStopped())
                case Offer(update):
                    assert transitions.belongs(update, self.state.announcement or ROUNDS[0])
                    self.offers.append(update)
                    self.apply(Offered(self.now))

    def happen(self, what: object) -> None:  # a case a happening
        match what:
            case RoundAnnouncement():
                self.hear(what)
            case "fetch":
                self.fetch()
            case "trained":
                self.end_training("")
            case "failed":
                self.end_training("no memory")
            case "receipt":
                self.receive_receipt(self.offers[-1] if self.offers else offer())
            case "foreign receipt":
                self.receive_receipt(offer(update=ref("not ours")))
            case "reconnected":
                self.apply(OfferForgotten())
            case "restarted":
                self.state = NEW
            case "later":
                self.now += 11
        self.execute_plan()


HAPPENINGS = st.sampled_from(
    [*ROUNDS, "fetch", "trained", "failed", "receipt", "foreign receipt", "reconnected",
     "restarted", "later"]
)  # fmt: skip


@given(st.lists(HAPPENINGS, max_size=40))
def test_on_any_order_of_events_a_device_ends_up_with_its_update_told(story: list[object]) -> None:
    board = Board()
    for what in story:
        board.happen(what)
    last = announcement(round=9, adapter=ref("the last adapter"))
    for what in (last, last, "fetch", "trained", "fetch", "trained"):
        board.happen(what)
    assert board.offers[-1] == board.state.offer
    assert board.state.offer is not None
    assert board.state.offer.round == 9


@given(st.lists(HAPPENINGS, max_size=40))
def test_duplicates_change_nothing(story: list[object]) -> None:
    once, twice = Board(), Board()
    for what in story:
        once.happen(what)
        twice.happen(what)
        if isinstance(what, RoundAnnouncement) or what in ("fetch", "receipt"):
            twice.happen(what)
    assert once.state == twice.state
    assert once.offers == twice.offers
