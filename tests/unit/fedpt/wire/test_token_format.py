"""Token ids come back as they went; anything else is malformed."""

from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedpt.errors import MalformedMessageError
from fedpt.wire.token_format import (
    id_sets_from_bytes,
    id_sets_to_bytes,
    read_varints,
    tokens_from_bytes,
    tokens_to_bytes,
)

SIZE = 2**20


@given(st.lists(st.integers(0, 2**24 - 1)))
def test_texts_come_back_in_three_bytes_a_token(tokens: list[int]) -> None:
    content = tokens_to_bytes(tokens)
    assert len(content) == 3 * len(tokens)
    assert tokens_from_bytes(content) == tokens


@pytest.mark.parametrize("size", [1, 2, 4, 65_537])
def test_no_whole_number_of_tokens_is_malformed(size: int) -> None:
    with pytest.raises(MalformedMessageError, match=f"token ids of {size} bytes"):
        tokens_from_bytes(bytes(size))


@given(st.data(), st.integers(0, 20), st.integers(1, 6))
def test_sets_of_ids_come_back(data: st.DataObject, size: int, count: int) -> None:
    one = st.lists(st.integers(0, SIZE - 1), min_size=size, max_size=size, unique=True)
    sets = [np.array(sorted(data.draw(one)), np.int64) for _ in range(count)]
    back = id_sets_from_bytes(id_sets_to_bytes(sets), count, vocabulary_size=SIZE)
    np.testing.assert_array_equal(np.stack(back), np.stack(sets))


@pytest.mark.parametrize(
    ("ids", "size"), [([5], 1), ([5, 6, 7, 8], 4), ([127], 1), ([128], 2), ([2**14, 2**21], 6)]
)
def test_ids_near_each_other_take_a_byte(ids: list[int], size: int) -> None:
    assert len(id_sets_to_bytes([np.array(ids)])) == size


def test_no_candidates_are_empty_sets() -> None:
    assert [len(one) for one in id_sets_from_bytes(b"", 3, vocabulary_size=9)] == [0, 0, 0]
    assert id_sets_to_bytes([np.zeros(0, np.int64)] * 3) == b""


@pytest.mark.parametrize(
    ("content", "count"),
    [
        (b"\x05\x00", 1),  # twice the same
        (b"\x05\x05", 1),  # 10 is no token
        (b"\x0a", 1),
        (b"\x01\x02\x03", 2),  # not of one size
        (b"\x85", 1),  # another byte was to follow
        (b"\x01\x85", 1),
        (b"\x80\x80\x80\x80\x01", 1),  # too large
        (b"\xff" * 1000, 1),
    ],
)
def test_what_are_no_sets_of_ids_is_malformed(content: bytes, count: int) -> None:
    with pytest.raises(MalformedMessageError):
        id_sets_from_bytes(content, count, vocabulary_size=10)


@given(st.binary(max_size=60), st.integers(1, 64), st.integers(1, 2**24))
def test_any_bytes_are_ascending_tokens_or_malformed(content: bytes, count: int, size: int) -> None:
    with suppress(MalformedMessageError):
        for one in id_sets_from_bytes(content, count, vocabulary_size=size):
            assert (np.diff(one) > 0).all()
            assert ((one >= 0) & (one < size)).all()


def test_a_given_count_of_numbers_is_read_and_no_more() -> None:
    numbers, used = read_varints(b"\x01\x80\x01\x03\x04", 3)
    assert (numbers.tolist(), used) == ([1, 128, 3], 4)
    with pytest.raises(MalformedMessageError, match="2 token ids, not 3"):
        read_varints(b"\x01\x02", 3)
