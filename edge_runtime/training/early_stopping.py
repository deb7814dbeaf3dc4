"""Which epoch a training ends with: the best on held-out examples, and when the rest is in vain.

Pure. All that it knows is the nll on the held-out examples: before training, then after each epoch.
"""

from collections.abc import Sequence


def best_epoch(held_out: Sequence[float]) -> int:
    """The first epoch with the least nll, counted from 1; what was before training does not count.

    Args:
        held_out: At least one epoch's.
    """
    return min(range(1, len(held_out)), key=lambda epoch: held_out[epoch])


def is_best(held_out: Sequence[float]) -> bool:
    """Whether the last epoch is the best so far; where nothing is held out, it always is."""
    epochs = len(held_out) - 1
    return epochs < 1 or best_epoch(held_out) == epochs


def is_in_vain(held_out: Sequence[float], patience_epochs: int) -> bool:
    """Whether so many epochs in a row have not been better than the best; 0: never."""
    epochs = len(held_out) - 1
    return 0 < patience_epochs <= epochs and epochs - best_epoch(held_out) >= patience_epochs
