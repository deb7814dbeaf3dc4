"""How training is on a board at one moment, for all who tell of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from edge_runtime.training_conditions import Condition, Readings
from edge_runtime.training_job import TrainingStep
from fedpt.wire.messages import TrainingProgress


@dataclass(frozen=True, slots=True)
class TrainingView:
    """What the training desk knows."""

    pid: int | None = None
    """The training process, paused or not; None: there is none."""
    is_personal: bool = False
    """Whether that trains the personal adapter, not for a round."""
    is_paused: bool = False
    step: TrainingStep | None = None
    """The newest of the training that runs; None: none runs, or it has done no step yet."""
    why_not: str = ""
    """What keeps a training from running at this moment; empty: nothing."""
    paused_s: float = 0.0
    """How long the training process was paused, s."""
    all_paused_s: float = 0.0
    """The same of all since the daemon's start."""
    readings: Readings = field(default_factory=Readings)
    failing: Mapping[Condition, str] = field(default_factory=dict)
    """Conditions that fail, and why."""

    @property
    def is_running(self) -> bool:
        """Whether a training process is there, paused or not."""
        return self.pid is not None

    @property
    def done(self) -> float:
        """The share of the training that is done, 0 to 1."""
        return round(self.step.done / self.step.total, 2) if self.step else 0.0

    @property
    def progress(self) -> TrainingProgress | None:
        """As it is told to the federation."""
        step = self.step
        if step is None:
            return None
        return TrainingProgress(
            steps_done=step.done,
            steps_total=step.total,
            tokens_per_s=round(step.tokens_per_s, 1),
            loss=step.loss,
            held_out_nll=step.held_out_nll,
            seconds_left=round(step.seconds_left),
            paused_s=round(self.paused_s, 1),
        )
