"""What a board must be like to train, and what is said when it is not."""

from dataclasses import replace
from datetime import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.settings import TrainingConditions
from edge_runtime.training_conditions import Readings, failing, is_within

NOON = time(12)
USUAL = TrainingConditions()
GOOD = Readings(
    on_mains=True,
    celsius=45.0,
    load=0.5,
    free_memory_bytes=1_000_000_000,
    free_disk_bytes=5_000_000_000,
)


def why(
    readings: Readings, before: tuple[str, ...] = (), clock: time = NOON, **rules: object
) -> dict[str, str]:
    limits = TrainingConditions.model_validate(rules)
    return failing(readings, limits, clock, before=before)  # type: ignore[arg-type]


def test_a_cool_board_with_room_on_mains_power_trains() -> None:
    assert why(GOOD) == {}


def test_a_sensor_that_is_not_there_never_stops_a_board() -> None:
    assert why(Readings()) == {}


@pytest.mark.parametrize(
    ("readings", "condition", "text"),
    [
        ({"on_mains": False}, "mains", "on battery, mains power only"),
        ({"celsius": 82.5}, "temperature", "82.5 °C, at most 80 °C"),
        ({"load": 8.25}, "load", "load 8.25 a core from others, at most 8"),
        ({"free_memory_bytes": 180_500_000}, "memory", "180 MB of memory free, at least 200 MB"),
        ({"free_disk_bytes": 90_000_000}, "disk", "90 MB of disk free, at least 100 MB"),
    ],
)
def test_what_fails_is_said_with_figures(
    readings: dict[str, float], condition: str, text: str
) -> None:
    assert why(replace(GOOD, **readings)) == {condition: text}  # type: ignore[arg-type]


def test_a_board_that_may_train_on_battery_does() -> None:
    assert why(replace(GOOD, on_mains=False), mains_power=False) == {}


def test_a_hot_board_must_get_clearly_cooler_before_it_goes_on() -> None:
    warm = replace(GOOD, celsius=78.0)
    assert why(warm) == {}
    assert why(warm, ("temperature",)) == {"temperature": "78 °C, at most 75 °C"}
    assert why(replace(GOOD, celsius=75.0), ("temperature",)) == {}


def test_a_loaded_board_must_get_clearly_idler_before_it_goes_on() -> None:
    busy = replace(GOOD, load=1.75)
    assert why(busy, most_load=2) == {}
    assert why(busy, ("load",), most_load=2) == {
        "load": "load 1.75 a core from others, at most 1.5"
    }
    assert why(replace(GOOD, load=1.5), ("load",), most_load=2) == {}


@pytest.mark.parametrize(
    ("clock", "start", "end", "inside"),
    [
        (time(22), time(22), time(6), True),
        (time(23, 59, 59), time(22), time(6), True),
        (time(0), time(22), time(6), True),
        (time(5, 59), time(22), time(6), True),
        (time(6), time(22), time(6), False),
        (time(21, 59), time(22), time(6), False),
        (time(10), time(9), time(17), True),
        (time(17), time(9), time(17), False),
        (time(8, 59), time(9), time(17), False),
        (time(23), time(22), time(0), True),
        (time(0), time(22), time(0), False),
    ],
)
def test_a_window_may_span_midnight(clock: time, start: time, end: time, inside: bool) -> None:
    assert is_within(clock, start, end) is inside


def test_outside_of_its_hours_a_board_says_which_they_are() -> None:
    hours = {"from_time": "22:00", "until_time": "06:30"}
    assert why(GOOD, clock=NOON, **hours) == {"hours": "only from 22:00 until 06:30"}
    assert why(GOOD, clock=time(2), **hours) == {}


@given(clock=st.times(), start=st.times(), end=st.times())
def test_every_moment_is_in_a_window_or_in_what_is_left_of_the_day(
    clock: time, start: time, end: time
) -> None:
    if start != end:
        assert is_within(clock, start, end) != is_within(clock, end, start)


def changed(field: str, values: st.SearchStrategy[float]) -> st.SearchStrategy[Readings]:
    return values.map(lambda value: replace(GOOD, **{field: value}))  # type: ignore[arg-type]


@given(
    st.lists(
        st.one_of(
            changed("celsius", st.floats(60, 100)),
            changed("load", st.floats(0, 20)),
        ),
        max_size=20,
    )
)
def test_what_failed_goes_on_failing_until_it_is_well_below_its_limit(
    story: list[Readings],
) -> None:
    before: dict[str, str] = {}
    for readings in story:
        now = why(readings, tuple(before))
        assert readings.celsius is not None
        assert readings.load is not None
        assert ("temperature" in now) >= (readings.celsius > USUAL.most_celsius)
        assert ("temperature" in now) <= (readings.celsius > USUAL.most_celsius - 5)
        assert ("load" in now) >= (readings.load > USUAL.most_load)
        assert ("load" in now) <= (readings.load > USUAL.most_load * 0.75)
        between = USUAL.most_celsius - 5 < readings.celsius <= USUAL.most_celsius
        if between:  # there it is as it was
            assert ("temperature" in now) == ("temperature" in before)
        before = now
