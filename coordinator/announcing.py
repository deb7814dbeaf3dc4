"""What the federation tells its devices of its state. Pure."""

from typing import Literal

from coordinator.settings import CoordinatorSettings
from coordinator.state import FederationState, Phase
from fedpt.wire.messages import (
    BlobRef,
    RoundAnnouncement,
    SignedRelease,
    SteeringCoefficients,
    TrainingPlan,
)


def announcement(
    state: FederationState,
    settings: CoordinatorSettings,
    adapter: BlobRef,
    release: SignedRelease | None = None,
) -> RoundAnnouncement:
    """The retained announcement; there must have been a round.

    Args:
        state: The federation's state.
        settings: For the training plan.
        adapter: The blob of `state.adapter`.
        release: Our signature under it, if we have a key.
    """
    record = state.current
    training = settings.training
    return RoundAnnouncement(
        run=state.run,
        round=record.number,
        phase=_phase(state.phase),
        selected=list(record.selected),
        adapter=adapter,
        training=TrainingPlan(
            epochs=training.epochs,
            learning_rate=training.learning_rate,
            batch_examples=training.batch_examples,
            context_tokens=training.context_tokens,
            patience_epochs=training.patience_epochs,
        ),
        deadline_unix_s=record.deadline_unix_s,
        coefficients=_newest_coefficients(state),
        release=release,
    )


def _phase(phase: Phase) -> Literal["training", "steering", "finished"]:
    if phase is Phase.TRAINING:
        return "training"
    return "finished" if phase is Phase.FINISHED else "steering"


def _newest_coefficients(state: FederationState) -> SteeringCoefficients:
    evaluations = [one.evaluation for one in state.rounds if one.evaluation is not None]
    return evaluations[-1].coefficients if evaluations else SteeringCoefficients()
