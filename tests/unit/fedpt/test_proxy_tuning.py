"""Steering's algebra, and its scores against torch's."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fedpt.errors import VocabularyMismatchError
from fedpt.proxy_tuning import (
    EXPERT_ALONE,
    GRID,
    PLAIN,
    Coefficients,
    Fit,
    Logits,
    Rows,
    choose_coefficients,
    entropy,
    exact_rate,
    fit,
    fit_grid,
    log_softmax,
    mean_nll,
    steer_logits,
)

SINGLE = 1e-5
"""Between two orders of single-precision sums over values up to 50."""

logits = arrays(np.float32, (3, 8), elements=st.floats(-50, 50, width=32))
constants = arrays(np.float32, (3, 1), elements=st.floats(-50, 50, width=32))
answers = arrays(np.int64, 3, elements=st.integers(0, 7))
coefficients = st.builds(Coefficients, *[st.floats(0, 2, width=32)] * 3)


@given(logits, logits)
def test_equal_experts_return_the_large_model(large: Logits, expert: Logits) -> None:
    steered = steer_logits(Rows(large, expert, expert))
    np.testing.assert_allclose(steered, large, atol=1e-5)  # x + y - y, single precision


@given(logits, logits, logits)
def test_one_nothing_nothing_is_the_expert(a: Logits, b: Logits, c: Logits) -> None:
    np.testing.assert_array_equal(steer_logits(Rows(a, b, c), EXPERT_ALONE), b)


@given(st.builds(Rows, logits, logits, logits), coefficients, constants)
def test_a_constant_added_to_a_row_changes_no_probability(
    rows: Rows, weights: Coefficients, constant: Logits
) -> None:
    large, expert, antiexpert = rows
    plain = steer_logits(rows, weights)
    shifted = steer_logits(Rows(large + constant, expert - constant, antiexpert), weights)
    # sums of a few hundred in single precision are 1e-4 off
    np.testing.assert_allclose(log_softmax(shifted), log_softmax(plain), atol=1e-3)


def test_steering_is_a_new_array_of_single_precision() -> None:
    row = np.ones(4, np.float32)
    steered = steer_logits(Rows(row, row, row), Coefficients(1.0, 1.0, 2.0))
    assert steered.dtype == np.float32
    assert steered is not row
    np.testing.assert_array_equal(steered, 0)


@pytest.mark.parametrize("place", range(3))
def test_different_shapes_are_refused_with_all_three(place: int) -> None:
    rows = [np.zeros((1, 5), np.float32)] * 3
    rows[place] = np.zeros((1, 4), np.float32)
    with pytest.raises(VocabularyMismatchError, match=r"logit shapes differ: large .*\(1, 4\)"):
        steer_logits(Rows(*rows))


def test_a_shape_that_would_broadcast_is_refused() -> None:
    row, wide = np.zeros((1, 5), np.float32), np.zeros((2, 5), np.float32)
    with pytest.raises(VocabularyMismatchError):
        steer_logits(Rows(wide, row, row))


@given(logits)
def test_log_softmax_is_torchs(values: Logits) -> None:
    expected = torch.log_softmax(torch.from_numpy(values), dim=-1).numpy()
    np.testing.assert_allclose(log_softmax(values), expected, atol=SINGLE)


@given(logits)
def test_entropy_is_torchs(values: Logits) -> None:
    expected = torch.distributions.Categorical(logits=torch.from_numpy(values)).entropy().mean()
    assert entropy(values) == pytest.approx(float(expected), abs=1e-4)


@given(logits, answers)
def test_nll_is_torchs_cross_entropy(values: Logits, answer: np.ndarray) -> None:
    expected = torch.nn.functional.cross_entropy(
        torch.from_numpy(values), torch.from_numpy(answer), reduction="sum"
    )
    assert fit(values, answer).nll == pytest.approx(float(expected), abs=1e-4)


@pytest.mark.parametrize("scale", [1e4, -1e4])
def test_large_logits_overflow_nothing(scale: float) -> None:
    values = np.float32([[0, 1, 2]]) * np.float32(scale)
    best = int(values.argmax())
    assert fit(values, np.array([best])).nll == 0
    assert log_softmax(values)[0, best] == 0


def test_an_answer_is_exact_if_every_token_is_the_most_likely() -> None:
    values = np.float32([[0, 1], [1, 0]])
    assert fit(values, np.array([1, 0])).exact
    assert not fit(values, np.array([1, 1])).exact
    assert fit(values, np.array([1, 1])).token_count == 2


def test_the_grid_holds_plain_steering_and_the_expert_alone() -> None:
    assert GRID[0] == EXPERT_ALONE
    assert PLAIN in GRID
    assert len(set(GRID)) == len(GRID)


def test_every_choice_of_the_grid_is_scored() -> None:
    rows = Rows(*(np.float32([[0, 1]]),) * 3)
    assert set(fit_grid(rows, np.array([1]))) == set(GRID)


def test_the_least_nll_a_token_wins_and_ties_go_to_the_first() -> None:
    long, short = Fit(4.0, 4, exact=False), Fit(2.0, 1, exact=False)
    a, b, c = GRID[:3]
    assert choose_coefficients({a: [short], b: [long], c: [long]}) == b


def test_every_token_counts_the_same() -> None:
    fits = [Fit(1.0, 1, exact=True), Fit(2.0, 5, exact=False)]
    assert mean_nll(fits) == 0.5
    assert exact_rate(fits) == 0.5
    assert mean_nll([]) == exact_rate([]) == 0
