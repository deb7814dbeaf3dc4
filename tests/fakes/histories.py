"""Random but legal histories of a federation, event by event, for property tests."""

from hypothesis import strategies as st

from coordinator.state import (
    Aggregated,
    AnyEvent,
    Evaluated,
    Evaluation,
    FederationState,
    Phase,
    RoundEnded,
    RoundStarted,
    RunFinished,
    RunStarted,
    Score,
    UpdateAccepted,
)
from coordinator.transitions import apply
from fedpt.wire.messages import SteeringCoefficients
from tests.fakes.wire_messages import ADAPTER, RUN, ref

DEVICES = ("board-1", "board-2", "board-3")


def evaluation(nll: float = 1.0) -> Evaluation:
    """Every way to decode the same score."""
    score = Score(nll=nll, exact_match=0.5, rouge_l=0.5)
    ways = ("large", "antiexpert", "expert", "steered", "steered_calibrated")
    return Evaluation(
        scores=dict.fromkeys(ways, score),
        coefficients=SteeringCoefficients(beta=0.5, gamma=0.25),
        steered_entropy=1.0,
        answers={},
        seconds=1.0,
    )


def run_started() -> RunStarted:
    return RunStarted(run=RUN, adapter=ADAPTER.sha256)


def round_started(
    number: int = 1, selected: tuple[str, ...] = DEVICES, deadline: float = 100.0
) -> RoundStarted:
    return RoundStarted(
        number=number, selected=list(selected), at_unix_s=0.0, deadline_unix_s=deadline
    )


def update_accepted(device: str = "board-1", update: str = "") -> UpdateAccepted:
    return UpdateAccepted(
        device=device,
        update=update or ref(f"update of {device}").sha256,
        example_count=10,
        training_seconds=1.0,
        loss=0.5,
        bytes_up=1000,
        bytes_down=1000,
    )


def aggregated(number: int = 1) -> Aggregated:
    return Aggregated(adapter=ref(f"aggregated {number}").sha256, at_unix_s=50.0)


def evaluated() -> Evaluated:
    return Evaluated(evaluation=evaluation())


def round_ended(number: int = 1) -> RoundEnded:
    return RoundEnded(
        adapter=ref(f"distilled {number}").sha256,
        distillation_seconds=1.0,
        distillation_loss=0.1,
        at_unix_s=60.0,
    )


def whole_round(number: int = 1) -> list[AnyEvent]:
    """A round in which one device answers."""
    return [
        round_started(number),
        update_accepted(),
        aggregated(number),
        evaluated(),
        round_ended(number),
    ]


@st.composite
def histories(draw: st.DrawFn) -> list[AnyEvent]:
    """Up to 30 events, each one possible after those before it."""
    events: list[AnyEvent] = []
    state = FederationState()
    for _ in range(draw(st.integers(0, 30))):
        choices = possible(state)
        if not choices:
            break
        event = draw(st.sampled_from(choices))
        state = apply(state, event)
        events.append(event)
    return events


def possible(state: FederationState) -> list[AnyEvent]:
    """Events that may come next."""
    number = len(state.rounds)
    match state.phase:
        case Phase.WAITING if not state.run:
            return [run_started()]
        case Phase.WAITING:
            started = [round_started(number + 1, DEVICES[:count]) for count in (1, 2, 3)]
            return [*started, *started, RunFinished(reason="enough")]
        case Phase.TRAINING:
            missing = [one for one in state.current.selected if one not in state.current.updates]
            updates: list[AnyEvent] = [update_accepted(device) for device in missing]
            end = aggregated(number) if state.current.updates else round_started(number)
            return [*updates, end]
        case Phase.EVALUATING:
            return [evaluated()]
        case Phase.DISTILLING:
            return [round_ended(number)]
        case Phase.FINISHED:
            return []
