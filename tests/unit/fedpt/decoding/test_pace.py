"""How many rows to ask for."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedpt.decoding.pace import Pace, Times, best_rows


def _each(row_s: float) -> Callable[[int], float]:
    return lambda rows: rows * row_s


def test_a_long_way_wants_many_rows_and_a_short_one_few() -> None:
    far = best_rows(0.94, Times(0.2, _each(0.005), 0.008), most_rows=16)
    near = best_rows(0.94, Times(0.001, _each(0.005), 0.008), most_rows=16)
    assert near < far == 16


def test_drafts_that_are_mostly_wrong_want_few_rows() -> None:
    times = Times(0.02, _each(0.01), 0.01)
    assert best_rows(0.2, times, most_rows=16) <= 3 < best_rows(0.95, times, most_rows=16)


@given(
    acceptance=st.floats(0, 0.99),
    times=st.builds(Times, st.floats(0, 10), st.floats(0, 10).map(_each), st.floats(0, 10)),
    most=st.integers(1, 64),
)
def test_it_stays_within_bounds(acceptance: float, times: Times, most: int) -> None:
    assert 1 <= best_rows(acceptance, times, most_rows=most) <= most


def test_acceptance_follows_what_happens() -> None:
    pace = Pace(most_rows=16)
    for _ in range(60):
        pace.saw_verdict(is_right=False)
    assert pace.acceptance < 0.1
    for _ in range(60):
        pace.saw_verdict(is_right=True)
    assert pace.acceptance > 0.9


def test_a_model_whose_rows_cost_little_is_asked_for_many() -> None:
    def asked(row_s: float) -> int:
        pace = Pace(most_rows=16)
        for rows in (1, 4, 8, 4):
            pace.saw_reply(rows, 0.0, 0.02 + rows * row_s)
            pace.saw_draft(0.002)
        return pace.rows()

    assert asked(0.0001) > asked(0.05)


def _on_one_thread(rows: int) -> float:
    """As measured with a 135M model: a single row 7 ms, two 19, eight 52."""
    return 0.007 if rows == 1 else 0.009 + 0.0054 * rows


def _asked_of(model_s: Callable[[int], float], *, network_s: float) -> list[int]:
    pace, asked = Pace(most_rows=16), list[int]()
    for number in range(40):
        asked.append(rows := pace.rows())
        pace.saw_reply(rows, network_s, model_s(rows))
        pace.saw_draft(0.003)
        pace.saw_verdict(is_right=number % 4 != 0)
    return asked


def test_where_a_single_row_costs_far_less_than_two_single_ones_are_asked_for() -> None:
    assert set(_asked_of(_on_one_thread, network_s=0.0)[-30:]) == {1}


def test_over_a_long_way_single_rows_are_not_even_tried() -> None:
    assert 1 not in _asked_of(_on_one_thread, network_s=0.2)


def test_where_a_single_row_costs_as_much_as_two_it_is_tried_once() -> None:
    assert _asked_of(lambda rows: 0.05 + 0.0005 * rows, network_s=0.0).count(1) == 1


def test_no_more_is_asked_for_than_can_be_drafted_meanwhile() -> None:
    """Else the large model waits for the small one."""
    slow, quick = (
        best_rows(0.9, Times(0.02, _each(0.0), draft_s), most_rows=16) for draft_s in (0.02, 0.001)
    )
    assert slow < quick


@pytest.mark.parametrize("slow", [1, 2])
def test_what_was_slow_once_is_tried_again(slow: int) -> None:
    pace, model_s = Pace(most_rows=2), {1: 0.1, 2: 0.1, slow: 0.001}
    pace.saw_reply(slow, 0.0, 5.0)
    asked = []
    for _ in range(200):
        asked.append(rows := pace.rows())
        pace.saw_reply(rows, 0.0, model_s[rows])
    assert asked[-50:].count(slow) > 45


def test_the_time_in_which_a_prompt_was_read_counts_for_nothing() -> None:
    pace = Pace(most_rows=16)
    before = pace.rows()
    pace.saw_reply(before, 0.1, None)
    assert pace.rows() == before


@given(st.lists(st.tuples(st.integers(1, 16), st.floats(0, 5), st.floats(0, 5)), max_size=20))
def test_whatever_it_sees_it_asks_for_some_rows(replies: list[tuple[int, float, float]]) -> None:
    pace = Pace(most_rows=16)
    for rows, network_s, model_s in replies:
        pace.saw_reply(rows, network_s, model_s)
        assert 1 <= pace.rows() <= 16
