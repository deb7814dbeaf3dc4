"""How many rows to ask for."""

from hypothesis import given
from hypothesis import strategies as st

from fedpt.decoding.pace import Pace, Times, best_rows


def test_a_long_way_wants_many_rows_and_a_short_one_few() -> None:
    far = best_rows(0.94, Times(0.2, 0.005, 0.008), most_rows=16)
    near = best_rows(0.94, Times(0.001, 0.005, 0.008), most_rows=16)
    assert near < far == 16


def test_drafts_that_are_mostly_wrong_want_few_rows() -> None:
    times = Times(0.02, 0.01, 0.01)
    assert best_rows(0.2, times, most_rows=16) <= 3 < best_rows(0.95, times, most_rows=16)


@given(
    acceptance=st.floats(0, 0.99),
    times=st.builds(Times, *[st.floats(0, 10)] * 3),
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


@given(st.lists(st.tuples(st.integers(1, 16), st.floats(0, 5), st.floats(0, 5)), max_size=20))
def test_whatever_it_sees_it_asks_for_some_rows(replies: list[tuple[int, float, float]]) -> None:
    pace = Pace(most_rows=16)
    for rows, network_s, model_s in replies:
        pace.saw_reply(rows, network_s, model_s)
        assert 1 <= pace.rows() <= 16
