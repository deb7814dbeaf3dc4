"""What two texts begin with in common."""

import pytest

from fedpt.token_texts import common_prefix


@pytest.mark.parametrize(
    ("first", "second", "count"),
    [
        ([], [], 0),
        ([1], [], 0),
        ([1, 2], [1, 3], 1),
        ([1, 2], [1, 2, 3], 2),
        ((1, 2, 9), [1, 2], 2),
        ([2], [1], 0),
    ],
)
def test_what_two_texts_have_in_common(first: list[int], second: list[int], count: int) -> None:
    assert common_prefix(first, second) == count
