"""The learning rate of each step. Pure: a training that was interrupted needs to remember nothing.

What the rate multiplies is `trainer`'s matter.
"""

import math
from typing import Final, assert_never

from fedpt.wire.messages import TrainingPlan

_LAST: Final = 0.1
"""Share of the peak at the end: a rate that falls to nothing wastes the last steps."""


def learning_rate(plan: TrainingPlan, step: int, total: int) -> float:
    """Up in a line over the warm-up's share of the steps, then as the schedule says.

    Args:
        plan: Peak, schedule and warm-up.
        step: From 0.
        total: Steps of the whole training.
    """
    warmup = round(total * plan.warmup_share)
    if step < warmup:
        return plan.learning_rate * (step + 1) / warmup
    done = (step - warmup) / max(1, total - warmup)
    return plan.learning_rate * (_LAST + (1 - _LAST) * _height(plan, done))


def _height(plan: TrainingPlan, done: float) -> float:
    """From 1 when nothing is done to 0 when all is."""
    match plan.schedule:
        case "constant":
            return 1.0
        case "linear":
            return 1.0 - done
        case "cosine":
            return (1 + math.cos(math.pi * done)) / 2
        case _:
            assert_never(plan.schedule)
