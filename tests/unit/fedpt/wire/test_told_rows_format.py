"""Rows of a black box on the wire: few tokens, no candidates, and bounds that stay bounds."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedpt.decoding.large_row import LargeRow, largest_of
from fedpt.errors import MalformedMessageError
from fedpt.wire.logit_format import Precision, rows_from_bytes, told_rows_to_bytes

SIZE = 1000
NO_CANDIDATES = np.zeros(0, np.int64)

precisions = st.sampled_from(["f16", "q8", "f32"])
logits = st.floats(-40, 0, width=32)
bounds = st.floats(-40, 0)


@st.composite
def told_rows(draw: st.DrawFn) -> LargeRow:
    ids = draw(st.lists(st.integers(0, SIZE - 1), min_size=1, max_size=30, unique=True))
    values = draw(st.lists(logits, min_size=len(ids), max_size=len(ids)))
    told = np.array(values, np.float32)
    return LargeRow(
        np.array(sorted(ids)), told, np.zeros_like(told), draw(bounds), draw(bounds), SIZE
    )


def read(content: bytes, count: int = 1) -> list[LargeRow]:
    return rows_from_bytes(content, candidates=[NO_CANDIDATES] * count, vocabulary_size=SIZE)


@given(st.lists(told_rows(), max_size=5), precisions)
def test_rows_come_back_within_their_errors_and_bounds_stay_bounds(
    rows: list[LargeRow], precision: Precision
) -> None:
    back = read(told_rows_to_bytes(rows, k=SIZE, precision=precision), len(rows))
    for row, again in zip(rows, back, strict=True):
        np.testing.assert_array_equal(again.ids, row.ids)
        assert (np.abs(again.logits - row.logits) <= again.error + 1e-6).all()
        assert row.floor <= again.floor <= row.floor + 0.05
        assert row.rest <= again.rest <= row.rest + 0.05
        assert again.size == SIZE
        assert not again.is_full


@given(told_rows(), st.integers(1, 30))
def test_of_the_largest_few_what_is_left_out_is_below_the_floor_and_in_the_rest(
    row: LargeRow, k: int
) -> None:
    few = largest_of(row, k)
    left = row.logits[~np.isin(row.ids, few.ids)]
    assert len(few.ids) == min(k, len(row.ids))
    assert (left <= few.floor).all()
    weights = np.exp(np.array([row.rest, *left], np.float64))
    assert np.exp(few.rest) == pytest.approx(weights.sum())


def test_candidates_that_were_asked_for_are_not_told() -> None:
    row = LargeRow(np.array([3]), np.array([-1.0], np.float32), np.zeros(1), -2.0, -1.5, SIZE)
    content = told_rows_to_bytes([row], k=5, precision="f32")
    (again,) = rows_from_bytes(content, candidates=[np.array([7, 8])], vocabulary_size=SIZE)
    assert again.ids.tolist() == [3]


@given(st.lists(told_rows(), min_size=1, max_size=3), precisions, st.data())
def test_damaged_rows_are_refused_or_rows(
    rows: list[LargeRow], precision: Precision, data: st.DataObject
) -> None:
    content = bytearray(told_rows_to_bytes(rows, k=SIZE, precision=precision))
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    cut = data.draw(st.integers(0, len(content)))
    try:
        back = read(bytes(content[:cut]), len(rows))
    except MalformedMessageError:
        return
    assert all(np.isfinite(row.logits).all() for row in back)


@given(told_rows(), precisions)
def test_every_cut_is_refused(row: LargeRow, precision: Precision) -> None:
    content = told_rows_to_bytes([row], k=SIZE, precision=precision)
    for length in range(len(content)):
        with pytest.raises(MalformedMessageError):
            read(content[:length])
    with pytest.raises(MalformedMessageError, match="1 bytes after 1 rows"):
        read(content + b"x")
