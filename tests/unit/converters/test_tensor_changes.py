"""How values change on their way, and that they come back."""

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from converters.architectures.table import Change
from converters.tensor_changes import (
    changed_shape,
    from_gguf,
    from_rotary_order,
    to_gguf,
    to_rotary_order,
)
from fedpt.errors import ModelFileError


@given(
    heads=st.integers(1, 5),
    pairs=st.integers(1, 5),
    rest=hnp.array_shapes(min_dims=0, max_dims=1, max_side=4),
)
def test_rotary_order_has_an_inverse(heads: int, pairs: int, rest: tuple[int, ...]) -> None:
    rows = np.arange(heads * pairs * 2 * int(np.prod(rest))).reshape(heads * pairs * 2, *rest)
    assert np.array_equal(from_rotary_order(to_rotary_order(rows, heads), heads), rows)
    assert np.array_equal(to_rotary_order(from_rotary_order(rows, heads), heads), rows)


def test_rotary_order_puts_the_halves_of_each_head_side_by_side() -> None:
    assert to_rotary_order(np.arange(8), 2).tolist() == [0, 2, 1, 3, 4, 6, 5, 7]


def test_rows_that_are_no_pairs_per_head_are_refused() -> None:
    with pytest.raises(ModelFileError, match="does not fit 4 rotary heads"):
        to_rotary_order(np.zeros((12, 3)), 4)


@pytest.mark.parametrize("change", Change)
@pytest.mark.parametrize("shape", [(8, 3), (8,)])
def test_every_change_has_an_inverse(change: Change, shape: tuple[int, ...]) -> None:
    values = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    changed = to_gguf(values, change, 2)
    np.testing.assert_array_equal(from_gguf(changed, change, 2), values)
    if len(shape) > 1:
        assert changed.shape == changed_shape(shape, change)
