"""Waiting a moment for more jobs before a step."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.worker.gathering import Gathering


@pytest.fixture
def after_eight() -> Gathering:
    """A step of eight jobs has taken 0.1 s and ended at 1.0."""
    gathering = Gathering()
    gathering.stepped(8, 0.9, 1.0)
    return gathering


def test_the_first_step_begins_at_once() -> None:
    assert Gathering().rest_s(1, 0.0) == 0


def test_a_step_waits_for_those_that_were_just_answered(after_eight: Gathering) -> None:
    assert 0 < after_eight.rest_s(3, 1.001) < 0.01
    assert after_eight.rest_s(8, 1.002) == 0


def test_it_waits_for_a_small_part_of_a_steps_time(after_eight: Gathering) -> None:
    assert after_eight.rest_s(3, 1.0) == pytest.approx(0.01)
    assert after_eight.rest_s(3, 1.0101) == 0


def test_a_long_step_is_not_waited_for_in_proportion() -> None:
    gathering = Gathering()
    gathering.stepped(2, 0.0, 10.0)
    assert gathering.rest_s(1, 10.0) == pytest.approx(0.02)


def _steps_that_wait(gathering: Gathering, *, come: bool, steps: int) -> int:
    """How many of some steps wait, where of eight devices only one asks again soon, or all do."""
    waited, now = 0, 1.0
    for _ in range(steps):
        waited += gathering.rest_s(1, now) > 0
        gathering.stepped(8 if come else 1, now, now + 0.1)
        now += 0.1
        if not come:  # the others are here a step later
            gathering.stepped(8, now, now + 0.1)
            now += 0.1
    return waited


def test_where_others_come_in_time_every_step_waits(after_eight: Gathering) -> None:
    assert _steps_that_wait(after_eight, come=True, steps=50) == 50


def test_where_they_never_do_hardly_any_step_waits(after_eight: Gathering) -> None:
    assert 1 <= _steps_that_wait(after_eight, come=False, steps=100) <= 10


@given(
    st.lists(
        st.tuples(st.integers(1, 64), st.integers(1, 64), st.floats(0, 100), st.floats(0, 100)),
        max_size=50,
    )
)
def test_it_never_waits_longer_than_it_may(steps: list[tuple[int, int, float, float]]) -> None:
    gathering, now = Gathering(), 0.0
    for jobs, waiting, took_s, pause_s in steps:
        gathering.stepped(jobs, now, now + took_s)
        now += took_s
        assert 0 <= gathering.rest_s(waiting, now + pause_s) <= max(0.02, 0.1 * took_s)
