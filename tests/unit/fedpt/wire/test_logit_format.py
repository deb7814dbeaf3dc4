"""Rows of logits: what is told is as exact as it says, and its bounds are bounds."""

from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedpt.decoding.large_row import LargeRow
from fedpt.errors import MalformedMessageError
from fedpt.proxy_tuning import Logits, TokenIds
from fedpt.wire.logit_format import Precision, rows_from_bytes, rows_to_bytes

V = 40
PRECISIONS: tuple[Precision, ...] = ("f16", "q8", "f32")

logits = st.lists(
    st.floats(-200, 200, width=32) | st.sampled_from([0.0, -30.0, 1e-6, 150.0]),
    min_size=V,
    max_size=V,
)
offsets = st.sampled_from([0.0, -100.0, 3000.0])
seeds = st.integers(0, 2**32)


@st.composite
def rows_and_candidates(draw: st.DrawFn) -> tuple[Logits, list[TokenIds]]:
    count, size = draw(st.integers(1, 3)), draw(st.integers(0, 6))
    dice = np.random.default_rng(draw(seeds))
    spread = draw(st.sampled_from([1e-3, 1.0, 10.0, 1000.0]))
    rows = (dice.normal(0, spread, (count, V)) + draw(offsets)).astype(np.float32)
    rows[0] = draw(logits) if draw(st.booleans()) else rows[0]
    return rows, [np.sort(dice.choice(V, size, replace=False)) for _ in range(count)]


def sent(rows: Logits, candidates: list[TokenIds], k: int, precision: Precision) -> list[LargeRow]:
    content = rows_to_bytes(rows, k=k, candidates=candidates, precision=precision)
    return rows_from_bytes(content, candidates=candidates, vocabulary_size=V)


@pytest.mark.parametrize("precision", PRECISIONS)
@given(some=rows_and_candidates(), k=st.integers(1, V + 5))
def test_what_is_told_is_within_its_error_and_the_rest_within_its_bounds(
    precision: Precision, some: tuple[Logits, list[TokenIds]], k: int
) -> None:
    rows, candidates = some
    for row, ids, told in zip(rows, candidates, sent(rows, candidates, k, precision), strict=True):
        true = row.astype(np.float64)
        assert set(ids) <= set(told.ids)
        assert len(told.ids) >= min(k, V)
        # a float32's own rounding of the sum in the comparison
        slack = 1e-12 + told.error.astype(np.float64)
        assert (np.abs(told.logits.astype(np.float64) - true[told.ids]) <= slack).all()
        untold = np.delete(true, told.ids)
        if len(untold):
            assert untold.max() <= told.floor
            assert np.logaddexp.reduce(untold) <= told.rest


@given(rows_and_candidates())
def test_whole_rows_are_exact(some: tuple[Logits, list[TokenIds]]) -> None:
    rows, candidates = some
    for row, told in zip(rows, sent(rows, candidates, 0, "f16"), strict=True):
        np.testing.assert_array_equal(told.logits, row)
        assert told.is_full
        assert not told.error.any()


@pytest.mark.parametrize(("precision", "error"), [("f16", 0.02), ("q8", 0.1), ("f32", 0.0)])
def test_errors_are_small(precision: Precision, error: float) -> None:
    """f16 has 11 bits of an offset below 30, q8 a 255th of it, f32 all."""
    row = np.linspace(-10, 20, V, dtype=np.float32)[None]
    (told,) = sent(row, [np.array([0])], 8, precision)
    assert told.error.max() <= error


@pytest.mark.parametrize(
    ("precision", "head", "value"), [("f16", 6, 2), ("q8", 8, 1), ("f32", 6, 4)]
)
def test_sizes_are_as_documented(precision: Precision, head: int, value: int) -> None:
    rows = np.arange(3 * V, dtype=np.float32).reshape(3, V)
    candidates = [np.arange(5)] * 3
    content = rows_to_bytes(rows, k=7, candidates=candidates, precision=precision)
    assert len(content) == 5 + 3 * (head + 7 + (7 + 5) * value)  # ids below 128: a byte each
    assert len(rows_to_bytes(rows, k=0, candidates=candidates, precision=precision)) == 5 + 12 * V


def test_a_row_of_equals_and_a_row_far_below_its_peak_can_be_told() -> None:
    rows = np.full((2, V), 3.0, np.float32)
    rows[1, 1:] = -1e30
    for precision in PRECISIONS:
        equals, _ = sent(rows, [np.array([9])] * 2, 4, precision)
        assert np.abs(equals.logits - 3).max() <= equals.error.max() <= 1e-5


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf"), 3e38])
@pytest.mark.parametrize("k", [0, 4])
def test_logits_that_are_not_finite_are_malformed(value: float, k: int) -> None:
    rows = np.zeros((1, V), np.float32)
    content = bytearray(rows_to_bytes(rows, k=k, candidates=[np.arange(2)], precision="f32"))
    content[-4:] = np.array([value], "<f4").tobytes()
    with pytest.raises(MalformedMessageError, match="not finite"):
        rows_from_bytes(bytes(content), candidates=[np.arange(2)], vocabulary_size=V)


@pytest.mark.parametrize("k", [0, 4])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_another_length_is_malformed(k: int, precision: Precision) -> None:
    rows, candidates = np.zeros((2, V), np.float32), [np.arange(3)] * 2
    content = rows_to_bytes(rows, k=k, candidates=candidates, precision=precision)
    for wrong in (content[:-1], content + b"\0", content[:5], b"", content[:-2]):
        with pytest.raises(MalformedMessageError):
            rows_from_bytes(wrong, candidates=candidates, vocabulary_size=V)


def test_rows_of_another_vocabulary_are_malformed() -> None:
    content = rows_to_bytes(np.zeros((1, V), np.float32), k=0, candidates=[], precision="f32")
    with pytest.raises(MalformedMessageError, match="1 rows in 160 bytes for a vocabulary of 41"):
        rows_from_bytes(content, candidates=[np.arange(0)], vocabulary_size=V + 1)


@pytest.mark.parametrize("precision", PRECISIONS)
@given(data=st.data(), k=st.sampled_from([0, 1, 5]))
def test_changed_bytes_are_finite_rows_or_malformed(
    precision: Precision, data: st.DataObject, k: int
) -> None:
    rows = np.random.default_rng(3).normal(0, 5, (2, V)).astype(np.float32)
    candidates = [np.array([1, 4]), np.array([2, 30])]
    content = bytearray(rows_to_bytes(rows, k=k, candidates=candidates, precision=precision))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    with suppress(MalformedMessageError):
        for told in rows_from_bytes(bytes(content), candidates=candidates, vocabulary_size=V):
            assert np.isfinite(told.logits).all()
            assert np.isfinite(told.error).all()
            assert (np.diff(told.ids) > 0).all()
            assert told.is_full or (np.isfinite(told.floor) and np.isfinite(told.rest))
            assert ((told.ids >= 0) & (told.ids < V)).all()


@given(content=st.binary(max_size=200))
def test_any_bytes_are_rows_or_malformed(content: bytes) -> None:
    with suppress(MalformedMessageError):
        rows_from_bytes(content, candidates=[np.arange(1)], vocabulary_size=V)
