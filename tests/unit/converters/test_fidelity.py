"""Perplexity, KL and agreement, against their definitions."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from converters.fidelity import Fidelity


def softmax(rows: np.ndarray) -> np.ndarray:
    exponentials = np.exp(rows - rows.max(-1, keepdims=True))
    return exponentials / exponentials.sum(-1, keepdims=True)


def random_rows(seed: int, count: int = 50, size: int = 20) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    reference = rng.normal(size=(count, size)).astype(np.float32)
    return reference, reference + rng.normal(0, 0.3, (count, size)).astype(np.float32)


def test_the_same_rows_differ_in_nothing() -> None:
    rows, _ = random_rows(0)
    result = Fidelity()
    result.add(rows, rows, [1] * 49)
    assert result.mean_kl == 0
    assert result.top1_agreement == 1
    assert result.largest_difference == 0
    assert result.perplexity == result.reference_perplexity


@given(seed=st.integers(0, 100))
def test_sums_are_those_of_the_definitions(seed: int) -> None:
    reference, model = random_rows(seed)
    following = list(np.random.default_rng(seed).integers(0, 20, 50))
    result = Fidelity()
    result.add(reference, model, following)
    theirs, ours = softmax(reference), softmax(model)
    every = np.arange(50)
    assert result.mean_kl == pytest.approx((theirs * np.log(theirs / ours)).sum() / 50, rel=1e-5)
    assert result.perplexity == pytest.approx(np.exp(-np.log(ours[every, following]).mean()))
    assert result.top1_agreement == (theirs.argmax(-1) == ours.argmax(-1)).mean()
    assert result.largest_difference == pytest.approx(np.abs(reference - model).max(), rel=1e-6)


def test_a_constant_on_a_row_changes_no_distribution() -> None:
    rows, _ = random_rows(0)
    result = Fidelity()
    result.add(rows, rows + 5, [0] * 50)
    assert result.mean_kl < 1e-9
    assert result.largest_difference == pytest.approx(5, rel=1e-5)


def test_windows_add_up() -> None:
    reference, model = random_rows(3)
    whole, parts = Fidelity(), Fidelity()
    whole.add(reference, model, [2] * 50)
    parts.add(reference[:20], model[:20], [2] * 20)
    parts.add(reference[20:], model[20:], [2] * 30)
    assert parts.mean_kl == pytest.approx(whole.mean_kl)
    assert parts.positions == whole.positions == 50


def test_the_last_token_foretells_nothing() -> None:
    reference, model = random_rows(1)
    result = Fidelity()
    result.add(reference, model, [4] * 49)
    assert result.positions == 49
