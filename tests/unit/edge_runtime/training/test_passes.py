"""The order of examples, and which go through the model together."""

from itertools import chain

from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.training.passes import epoch_batches, passes, steps_per_epoch

LENGTHS = st.lists(st.integers(1, 300), min_size=1, max_size=40)


@given(LENGTHS, st.integers(1, 8), st.integers(0, 99))
def test_an_epoch_has_every_example_once(lengths: list[int], size: int, seed: int) -> None:
    batches = list(epoch_batches(lengths, size=size, seed=seed, epoch=1))
    assert sorted(chain(*batches)) == list(range(len(lengths)))
    assert len(batches) == steps_per_epoch(len(lengths), size)


def test_each_epoch_has_an_order_of_its_own_that_is_the_same_again() -> None:
    lengths = list(range(1, 41))
    first, again, other = (
        list(epoch_batches(lengths, size=4, seed=7, epoch=epoch)) for epoch in (0, 0, 1)
    )
    assert first == again != other


@given(LENGTHS, st.integers(1, 1000))
def test_passes_hold_the_whole_batch_with_little_padding(lengths: list[int], tokens: int) -> None:
    batch = list(range(len(lengths)))
    parts = passes(batch, lengths, tokens=tokens)
    assert sorted(chain(*parts)) == batch
    for part in parts:
        widest = max(lengths[index] for index in part)
        assert len(part) == 1 or len(part) * widest <= tokens
        assert all(lengths[index] >= 0.85 * widest for index in part)
