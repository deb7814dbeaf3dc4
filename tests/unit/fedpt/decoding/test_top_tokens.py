"""The k largest of a row, however it is cut into blocks."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fedpt.decoding.top_tokens import top_tokens


@given(size=st.integers(1, 700), k=st.integers(0, 40), seed=st.integers(0, 999))
def test_they_are_those_of_a_sort(size: int, k: int, seed: int) -> None:
    row = np.random.default_rng(seed).permutation(size).astype(np.float32)
    expected = np.sort(np.argsort(row)[::-1][:k])
    assert top_tokens(row, k).tolist() == expected.tolist()


@given(values=st.lists(st.integers(0, 3), min_size=1, max_size=400), k=st.integers(1, 30))
def test_among_equals_any_may_be_chosen_but_none_twice(values: list[int], k: int) -> None:
    row = np.array(values, np.float32)
    ids = top_tokens(row, k)
    assert len(set(ids.tolist())) == min(k, len(row))
    assert sorted(row[ids]) == sorted(row)[-len(ids) :]
