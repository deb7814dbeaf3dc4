"""What the device daemon and its training process say to each other, in a `fedpt.job_folder`.

Progress comes back as JSON lines on the process's standard output; the update, the trained
adapter's blob, is a file beside the result. A checkpoint that lies there is gone on from, if it is
this job's. What the process cannot know, how long it was paused, the daemon leaves in another file.
"""

from contextlib import suppress
from pathlib import Path
from typing import Final, Literal

import msgspec

from fedpt.wire.messages import TrainingPlan

UPDATE_NAME: Final = "update"
CHECKPOINT_NAME: Final = "checkpoint"
MEMORY_ADVICE: Final = "raise training_memory_mb, or unset it"
_PAUSED_NAME: Final = "paused"


class TrainingJob(msgspec.Struct, frozen=True, kw_only=True):
    """Train `adapter` on examples of `data` with `small` frozen under it."""

    small: str
    adapter: str
    """File with the blob of the adapter to start from."""
    data: str
    """The device's store."""
    up_to_place: int
    """What was usable in it when the training began, see `data.store`; what came later waits."""
    plan: TrainingPlan
    seed: int
    threads: int
    memory_budget_mb: int | None = None
    """What the process may have resident; None: what the board has to spare."""
    checkpoint_steps: int = 20
    precision: Literal["auto", "float32", "bfloat16"] = "auto"


class TrainingResult(msgspec.Struct, frozen=True, kw_only=True):
    """How it went."""

    example_count: int
    seconds: float
    loss: float
    """Mean over the last epoch, nats a token."""
    first_loss: float
    """Mean over the first epoch."""
    tokens_per_s: float
    nll_before: float | None = None
    """On held-out examples, nats a token; None: there are too few to hold any out."""
    nll_after: float | None = None
    """Of the best epoch, whose adapter this is."""
    epochs: int = 0
    """Passes over the data that were made: fewer than planned, if the last ones were in vain."""
    best_epoch: int = 0
    """Counted from 1; 0: nothing is held out, the last one's adapter is taken."""
    held_out_count: int = 0
    truncated_count: int = 0
    """Examples that were longer than the context."""
    dropped_count: int = 0
    """Examples whose answer is no tokens."""
    mode: str = ""
    peak_bytes: int = 0
    """The most that the process ever had resident, all in all."""
    own_peak_bytes: int = 0
    """The same, less what was resident before the training began."""
    paused_seconds: float = 0.0
    """How long the process that ended it was paused; in no other figure."""


class TrainingStep(msgspec.Struct, frozen=True, kw_only=True):
    """A line of progress."""

    done: int
    total: int
    loss: float
    tokens_per_s: float = 0.0
    held_out_nll: float | None = None
    seconds_left: float = 0.0


def write_paused(folder: Path, seconds: float) -> None:
    """Tell a paused process how long it was so, all in all; before it goes on."""
    with suppress(OSError):  # a full disk: its speed then looks lower than it is
        (folder / _PAUSED_NAME).write_text(repr(seconds))


def read_paused(folder: Path) -> float:
    """Seconds that this process was paused."""
    try:
        return float((folder / _PAUSED_NAME).read_text())
    except (OSError, ValueError):  # never, or the disk was full
        return 0.0
