"""What the device daemon and its training process say to each other, in a `fedpt.job_folder`.

Progress comes back as JSON lines on the process's standard output; the update, the trained
adapter's blob, is a file beside the result.
"""

from typing import Final

import msgspec

from fedpt.wire.messages import TrainingPlan

UPDATE_NAME: Final = "update"


class TrainingJob(msgspec.Struct, frozen=True, kw_only=True):
    """Train `adapter` on `data` with `small` frozen under it."""

    small: str
    adapter: str
    """File with the blob of the adapter to start from."""
    data: str
    plan: TrainingPlan
    seed: int
    threads: int


class TrainingResult(msgspec.Struct, frozen=True, kw_only=True):
    """How it went."""

    example_count: int
    seconds: float
    loss: float
    """Mean over the last epoch, nats a token."""
    first_loss: float
    """Mean over the first epoch."""
    tokens_per_s: float


class TrainingStep(msgspec.Struct, frozen=True, kw_only=True):
    """A line of progress."""

    done: int
    total: int
    loss: float
