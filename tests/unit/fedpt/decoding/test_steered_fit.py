"""Fits by few logits, judged by `fedpt.proxy_tuning.fit` on whole rows."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedpt.decoding.large_row import LargeRow, full_row
from fedpt.decoding.steered_fit import candidates_for, knows, worst_fits
from fedpt.proxy_tuning import (
    EXPERT_ALONE,
    GRID,
    Logits,
    Rows,
    TokenIds,
    choose_coefficients,
    fit_grid,
)
from fedpt.wire.logit_format import Precision, rows_from_bytes, rows_to_bytes

T, V = 3, 300

drawn = st.builds(
    lambda seed, spread: (
        np.random.default_rng(seed).normal(scale=spread, size=(3, T, V)).astype(np.float32)
    ),
    st.integers(0, 100_000),
    st.sampled_from([0.5, 2.0, 5.0]),
)
answers = st.lists(st.integers(0, V - 1), min_size=T, max_size=T).map(
    lambda ids: np.asarray(ids, np.int64)
)


def told(  # noqa: PLR0917  # what rows are made of
    large: Logits, expert: Logits, answer: TokenIds, k: int, precision: Precision = "f16"
) -> list[LargeRow]:
    """The large model's rows as they come over the wire."""
    candidates = candidates_for(expert, answer, k)
    content = rows_to_bytes(large, k=k, candidates=candidates, precision=precision)
    return rows_from_bytes(content, candidates=candidates, vocabulary_size=V)


@given(drawn, answers, st.sampled_from([1, 4, 32]), st.sampled_from(["f16", "q8", "f32"]))
def test_a_worst_fit_is_never_better_than_that_of_whole_rows(
    rows: Logits, answer: TokenIds, k: int, precision: Precision
) -> None:
    large, expert, antiexpert = rows
    few = told(large, expert, answer, k, precision)
    assert knows(few, answer)
    worst = worst_fits(few, (expert, antiexpert), answer, GRID)
    for choice, whole in fit_grid(Rows(*rows), answer).items():
        assert worst[choice].nll >= whole.nll - 1e-3  # float32 sums
        assert whole.exact or not worst[choice].exact


@given(drawn, answers)
def test_whole_rows_give_the_whole_rows_fit_and_so_does_any_row_without_the_large_model(
    rows: Logits, answer: TokenIds
) -> None:
    large, expert, antiexpert = rows
    right = fit_grid(Rows(*rows), answer)
    whole = worst_fits([full_row(row) for row in large], (expert, antiexpert), answer, GRID)
    for choice, one in whole.items():
        assert one.nll == pytest.approx(right[choice].nll, abs=1e-3)
    few = worst_fits(told(large, expert, answer, 4), (expert, antiexpert), answer, [EXPERT_ALONE])
    assert few[EXPERT_ALONE].nll == pytest.approx(right[EXPERT_ALONE].nll, abs=1e-3)


@given(drawn, answers, st.sampled_from([1, 16]))
def test_the_choice_is_no_worse_than_the_expert_alone(
    rows: Logits, answer: TokenIds, k: int
) -> None:
    large, expert, antiexpert = rows
    fits = worst_fits(told(large, expert, answer, k), (expert, antiexpert), answer, GRID)
    chosen = choose_coefficients({choice: [one] for choice, one in fits.items()})
    right = fit_grid(Rows(*rows), answer)
    assert right[chosen].nll <= right[EXPERT_ALONE].nll + 1e-3


def test_few_logits_of_peaked_rows_tell_nearly_all() -> None:
    rng = np.random.default_rng(3)
    answer = rng.integers(0, V, T)
    rows = rng.normal(size=(3, T, V)).astype(np.float32)
    rows[:, np.arange(T), answer] += 9
    worst = worst_fits(told(rows[0], rows[1], answer, 16), (rows[1], rows[2]), answer, GRID)
    for choice, whole in fit_grid(Rows(*rows), answer).items():
        assert worst[choice].nll / T == pytest.approx(whole.nll / T, abs=0.3)


def test_candidates_hold_the_true_token_in_sets_of_one_size() -> None:
    expert = np.arange(2 * V, dtype=np.float32).reshape(2, V)
    sets = candidates_for(expert, np.array([5, V - 1]), 4)
    assert [list(ids) for ids in sets] == [[5, V - 3, V - 2, V - 1], [V - 4, V - 3, V - 2, V - 1]]


def test_a_row_without_the_true_token_is_not_known() -> None:
    row = LargeRow(np.array([3]), np.zeros(1, np.float32), np.zeros(1, np.float32), 0.0, 0.0, V)
    assert knows([row], np.array([3]))
    assert not knows([row], np.array([4]))
