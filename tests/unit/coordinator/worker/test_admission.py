"""How much a device may ask for, and that counts balance whatever comes."""

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from coordinator.worker.admission import Admission, Limits
from fedpt.errors import BusyError, TooMuchError
from fedpt.ids import DeviceId

ONE, TWO = DeviceId("board-1"), DeviceId("board-2")
LIMITS = Limits(
    largest=32,
    candidates=16,
    has_whole_rows=False,
    rows_per_s=10.0,
    burst_rows=40.0,
    waiting=4,
    waiting_per_device=2,
)


@pytest.mark.parametrize(
    ("largest", "candidates", "what"),
    [
        (33, 0, "33 logits a row; 32 is the most here"),
        (2**64 - 1, 0, "logits a row"),
        (16, 17, "17 candidates a row; 16 is the most here"),
        (0, 0, "no whole rows"),
    ],
)
def test_more_than_anybody_gets_is_refused(largest: int, candidates: int, what: str) -> None:
    with pytest.raises(TooMuchError, match=what):
        Admission(LIMITS).require_amount(largest=largest, candidates=candidates)


def test_as_much_as_the_limit_is_given() -> None:
    Admission(LIMITS).require_amount(largest=32, candidates=16)


def test_a_device_that_asks_too_fast_is_refused_and_later_is_not() -> None:
    admission = Admission(LIMITS)
    admission.enter(ONE, 40, 0.0)
    admission.leave(ONE)
    with pytest.raises(BusyError, match="more than 10 rows a second"):
        admission.enter(ONE, 11, 1.0)
    admission.enter(ONE, 11, 1.1)


def test_one_device_that_floods_takes_nothing_from_another() -> None:
    admission = Admission(LIMITS)
    for _ in range(2):
        admission.enter(ONE, 1, 0.0)
    with pytest.raises(BusyError, match="2 requests of this device wait already"):
        admission.enter(ONE, 1, 0.0)
    admission.enter(TWO, 40, 0.0)


def test_too_many_that_wait_are_refused() -> None:
    admission = Admission(LIMITS)
    for name in "abcd":
        admission.enter(DeviceId(name), 1, 0.0)
    with pytest.raises(BusyError, match="4 requests wait already"):
        admission.enter(DeviceId("e"), 1, 0.0)


def test_a_request_larger_than_a_burst_takes_the_whole_burst() -> None:
    admission = Admission(LIMITS)
    admission.enter(ONE, 1000, 0.0)
    with pytest.raises(BusyError):
        admission.enter(ONE, 1, 0.0)


def test_rows_that_were_not_had_are_given_back() -> None:
    admission = Admission(LIMITS)
    admission.enter(ONE, 40, 0.0)
    admission.leave(ONE, unused=30)
    admission.enter(ONE, 30, 0.0)


class AnyOrder(RuleBasedStateMachine):
    """Requests come and go in any order, time passes: counts are never negative, and balance."""

    def __init__(self) -> None:
        super().__init__()
        self.admission, self.now = Admission(LIMITS), 0.0
        self.inside: list[DeviceId] = []

    @rule(device=st.sampled_from("abcdef"), rows=st.integers(0, 60))
    def enter(self, device: str, rows: int) -> None:
        who = DeviceId(device)
        try:
            self.admission.enter(who, rows, self.now)
        except BusyError:
            return
        self.inside.append(who)

    @precondition(lambda self: self.inside)
    @rule(place=st.integers(0, 99), unused=st.integers(0, 60))
    def leave(self, place: int, unused: int) -> None:
        who = self.inside.pop(place % len(self.inside))
        self.admission.leave(who, unused=unused)

    @rule(seconds=st.floats(0, 10))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.admission.forget_idle(self.now)

    @invariant()
    def what_waits_is_what_is_inside(self) -> None:
        waiting = self.admission._waiting
        assert waiting == {who: self.inside.count(who) for who in self.inside}
        assert sum(waiting.values()) <= LIMITS.waiting

    @invariant()
    def buckets_are_neither_overfull_nor_overdrawn(self) -> None:
        for bucket in self.admission._buckets.values():
            assert 0 <= bucket.rows <= LIMITS.burst_rows

    def teardown(self) -> None:
        for who in self.inside:
            self.admission.leave(who)
        self.admission.forget_idle(self.now + 10)
        assert not self.admission._waiting
        assert not self.admission._buckets


TestAnyOrder = AnyOrder.TestCase


def test_refused_devices_leave_no_trace() -> None:
    admission = Admission(LIMITS)
    for name in "abcd":
        admission.enter(DeviceId(name), 1, 0.0)
    for number in range(1000):
        with pytest.raises(BusyError):
            admission.enter(DeviceId(f"stranger-{number}"), 1, 0.0)
    assert len(admission._waiting) == len(admission._buckets) == 4
