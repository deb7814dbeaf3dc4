"""What the coordinator does next: a pure function of state, fleet, settings and time."""

from dataclasses import dataclass
from random import Random

from coordinator.settings import CoordinatorSettings
from coordinator.state import FederationState, Fleet, Phase
from fedpt.ids import DeviceId


@dataclass(frozen=True, slots=True)
class StartRun:
    """Make the first adapter and begin."""


@dataclass(frozen=True, slots=True)
class StartRound:
    """Announce a round to the selected devices."""

    number: int
    selected: tuple[DeviceId, ...]


@dataclass(frozen=True, slots=True)
class Aggregate:
    """Make one adapter of the updates."""


@dataclass(frozen=True, slots=True)
class Evaluate:
    """Score the aggregated adapter; a child process."""


@dataclass(frozen=True, slots=True)
class Distil:
    """Teach it the steered large model's answers; a child process."""


@dataclass(frozen=True, slots=True)
class EndRound:
    """Take the aggregated adapter as it is: distillation is off, or fails every time."""


@dataclass(frozen=True, slots=True)
class AbandonRound:
    """The aggregated adapter cannot be evaluated: go back to where the round started."""


@dataclass(frozen=True, slots=True)
class Finish:
    """No more rounds."""

    reason: str


Action = StartRun | StartRound | Aggregate | Evaluate | Distil | EndRound | AbandonRound | Finish

_MOST_FAILURES = 3
"""A step that failed so often will fail again: the same adapter, the same models."""


@dataclass(frozen=True, slots=True)
class Situation:
    """All that the next step depends on."""

    state: FederationState
    fleet: Fleet
    small_weights: str
    is_job_running: bool
    now_unix_s: float
    failed_jobs: int = 0
    """How often the present step has failed in a row."""


def plan(situation: Situation, settings: CoordinatorSettings) -> Action | None:
    """The next step, or None while there is something to wait for."""
    state = situation.state
    if not state.run:
        return StartRun()
    match state.phase:
        case Phase.WAITING:
            return _finish(state, settings) or _start_round(situation, settings)
        case Phase.TRAINING:
            return _after_training(situation, settings)
        case Phase.EVALUATING if situation.failed_jobs >= _MOST_FAILURES:
            return AbandonRound()
        case Phase.EVALUATING:
            return None if situation.is_job_running else Evaluate()
        case Phase.DISTILLING if (
            not settings.distillation.enabled or situation.failed_jobs >= _MOST_FAILURES
        ):
            return EndRound()
        case Phase.DISTILLING:
            return None if situation.is_job_running else Distil()
        case Phase.FINISHED:
            return None


def _finish(state: FederationState, settings: CoordinatorSettings) -> Finish | None:
    if len(state.rounds) >= settings.rounds:
        return Finish(f"{settings.rounds} rounds are done")
    wanted = settings.evaluating.stop_at_nll
    evaluation = state.current.evaluation if state.rounds else None
    if wanted is not None and evaluation is not None:
        reached = evaluation.scores["steered_calibrated"].nll
        if reached <= wanted:
            return Finish(f"the steered nll {reached:.3f} has reached {wanted}")
    return None


def _start_round(situation: Situation, settings: CoordinatorSettings) -> StartRound | None:
    """The next round, or the present one again."""
    online = situation.fleet.online(situation.small_weights)
    if len(online) < settings.min_devices:
        return None
    state = situation.state
    if state.phase is not Phase.TRAINING:
        number = len(state.rounds) + 1
        return StartRound(number, _select(online, f"{state.run} {number}", settings))
    record = state.current
    attempt = f"{state.run} {record.number} {record.deadline_unix_s}"
    return StartRound(record.number, _select(online, attempt, settings))


def _select(
    online: list[DeviceId], attempt: str, settings: CoordinatorSettings
) -> tuple[DeviceId, ...]:
    """By chance: the same again for the same attempt and fleet, others when a round starts again.

    Else a device that never answers, once selected, would be selected for ever.
    """
    count = min(settings.devices_per_round or len(online), len(online))
    return tuple(sorted(Random(attempt).sample(online, count)))


def _after_training(situation: Situation, settings: CoordinatorSettings) -> Action | None:
    """Aggregate when nobody is left to wait for; start anew when nobody answered in time."""
    record = situation.state.current
    awaited = [
        device
        for device in record.selected
        if device not in record.updates and not _has_failed(situation.fleet, device)
    ]
    is_over = situation.now_unix_s >= record.deadline_unix_s
    if record.updates and (not awaited or is_over):
        return Aggregate()
    if is_over:
        return _start_round(situation, settings)
    return None


def _has_failed(fleet: Fleet, device: DeviceId) -> bool:
    """A device that says it cannot train is not waited for; one that is offline may come back."""
    status = fleet.devices.get(device)
    return status is not None and bool(status.fault)
