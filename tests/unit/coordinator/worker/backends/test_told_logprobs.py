"""What follows from a few log-probabilities for all others."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.worker.backends.told_logprobs import end_row, row_of
from fedpt.errors import LargeModelError
from fedpt.proxy_tuning import Logits
from tests.fakes.told_rows import assert_true

SIZE = 40
rows = st.lists(st.floats(-12, 12, width=32), min_size=SIZE, max_size=SIZE)


def logprobs(values: list[float]) -> Logits:
    raw = np.array(values, np.float64)
    return (raw - np.logaddexp.reduce(raw)).astype(np.float32)


@given(rows, st.integers(1, SIZE), st.data())
def test_told_tokens_are_right_and_bounds_hold_whatever_cannot_be_mapped(
    values: list[float], asked: int, data: st.DataObject
) -> None:
    truth = logprobs(values)
    best = np.argsort(truth)[::-1][:asked].tolist()
    unknown = data.draw(st.sets(st.sampled_from(best), max_size=len(best) - 1))
    also = data.draw(st.sets(st.integers(0, SIZE - 1), max_size=2))  # what was drawn is told too
    told = [(None if token in unknown else token, float(truth[token])) for token in {*best, *also}]
    assert_true(row_of(told, asked=asked, size=SIZE), truth)


def test_the_last_of_the_asked_is_the_floor_for_all_others() -> None:
    row = row_of([(5, -1.0), (9, -2.0), (3, -7.0)], asked=2, size=SIZE)
    assert row.ids.tolist() == [3, 5, 9]
    assert row.floor == -2.0


def test_where_a_told_token_is_not_known_only_what_is_left_bounds_the_others() -> None:
    row = row_of([(5, -1.0), (None, -1.5), (3, -2.0)], asked=3, size=SIZE)
    assert row.floor == row.rest == pytest.approx(math.log(1 - math.exp(-1) - math.exp(-2)), 1e-3)


def test_padding_rows_of_the_servers_model_are_left_out() -> None:
    row = row_of([(5, -1.0), (SIZE + 3, -1.5)], asked=2, size=SIZE)
    assert row.ids.tolist() == [5]
    assert row.floor <= -0.4


@pytest.mark.parametrize("least", [-9999.0, -3.4028234663852886e38, -math.inf])
def test_no_probability_at_all_is_just_very_little(least: float) -> None:
    row = row_of([(5, -1e-6), (9, least)], asked=2, size=SIZE)
    assert np.isfinite(row.logits).all()
    assert row.floor <= -9999


@pytest.mark.parametrize("bad", [math.nan, 0.5, 17.0, math.inf])
def test_what_is_no_log_probability_is_refused(bad: float) -> None:
    with pytest.raises(LargeModelError, match=r"the model server told (nan|0\.5|17|inf) as a log"):
        row_of([(5, -1.0), (9, bad)], asked=2, size=SIZE)


def test_probabilities_above_one_together_are_refused() -> None:
    with pytest.raises(LargeModelError, match=r"add up to 1\.2"):
        row_of([(5, -0.5), (9, -0.5)], asked=2, size=SIZE)


@pytest.mark.parametrize("told", [[], [(None, -1.0)], [(SIZE, -1.0)]])
def test_a_row_without_a_token_of_ours_is_refused(told: list[tuple[int | None, float]]) -> None:
    with pytest.raises(LargeModelError, match="no token of ours"):
        row_of(told, asked=2, size=SIZE)


@given(rows)
def test_of_an_end_only_that_it_is_the_most_probable_is_known(values: list[float]) -> None:
    truth = logprobs(values)
    assert_true(end_row(int(truth.argmax()), SIZE), truth)


@pytest.mark.parametrize("asked", [20, 40])
def test_all_tokens_leave_nothing(asked: int) -> None:
    truth = logprobs([0.0] * SIZE)
    row = row_of([(token, float(truth[token])) for token in range(SIZE)], asked=asked, size=SIZE)
    assert row.is_full
    assert row.rest == -math.inf
