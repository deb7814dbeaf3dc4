"""When more epochs are in vain, and which one counts."""

import pytest

from edge_runtime.training.early_stopping import best_epoch, is_best, is_in_vain


def test_the_best_epoch_has_the_least_nll_and_is_the_first_of_equals() -> None:
    assert best_epoch([3.0, 2.0, 1.0, 1.5]) == 2
    assert best_epoch([3.0, 2.0, 2.0]) == 1


def test_what_was_before_training_is_no_epoch() -> None:
    assert best_epoch([1.0, 2.0, 3.0]) == 1


def test_the_last_epoch_is_the_best_where_nothing_is_held_out() -> None:
    assert is_best([])
    assert is_best([1.0])
    assert is_best([1.0, 2.0])
    assert not is_best([3.0, 1.0, 2.0])


@pytest.mark.parametrize(
    ("held_out", "patience", "in_vain"),
    [
        ([], 1, False),
        ([3.0], 1, False),
        ([3.0, 2.0], 1, False),
        ([3.0, 2.0, 2.1], 1, True),
        ([3.0, 2.0, 2.1], 2, False),
        ([3.0, 2.0, 2.1, 1.9], 2, False),
        ([3.0, 2.0, 2.1, 2.0], 2, True),
        ([3.0, 2.0, 2.1, 2.2, 2.3], 0, False),
    ],
)
def test_training_stops_after_so_many_epochs_without_a_better_one(
    held_out: list[float], patience: int, *, in_vain: bool
) -> None:
    assert is_in_vain(held_out, patience) == in_vain
