"""What devices are told of each phase."""

import msgspec
import pytest

from coordinator.announcing import announcement
from coordinator.state import AnyEvent, RunFinished
from coordinator.transitions import fold
from fedpt.wire.codec import decode, encode
from fedpt.wire.messages import RoundAnnouncement, SteeringCoefficients
from tests.fakes.histories import (
    DEVICES,
    aggregated,
    evaluated,
    evaluation,
    round_started,
    run_started,
    update_accepted,
    whole_round,
)
from tests.fakes.wire_messages import ADAPTER, RUN
from tests.unit.coordinator.test_planner import SETTINGS

STARTED: list[AnyEvent] = [run_started(), round_started()]
FINISHED: list[AnyEvent] = [run_started(), *whole_round(), RunFinished(reason="enough")]


def told(events: list[AnyEvent]) -> RoundAnnouncement:
    return announcement(fold(events), SETTINGS, ADAPTER)


def test_a_round_says_who_trains_from_what_and_how() -> None:
    message = told(STARTED)
    assert (message.run, message.round, message.selected) == (RUN, 1, list(DEVICES))
    assert (message.adapter, message.deadline_unix_s) == (ADAPTER, 100.0)
    assert msgspec.to_builtins(message.training) == SETTINGS.training.model_dump()
    assert decode(encode(message), RoundAnnouncement) == message


@pytest.mark.parametrize(
    ("events", "phase"),
    [
        (STARTED, "training"),
        ([*STARTED, update_accepted()], "training"),
        ([*STARTED, update_accepted(), aggregated()], "steering"),
        ([*STARTED, update_accepted(), aggregated(), evaluated()], "steering"),
        ([run_started(), *whole_round()], "steering"),
        (FINISHED, "finished"),
    ],
)
def test_devices_hear_of_three_phases(events: list[AnyEvent], phase: str) -> None:
    assert told(events).phase == phase


def test_an_update_does_not_change_the_announcement() -> None:
    assert told(STARTED) == told([*STARTED, update_accepted()])


def test_the_newest_calibrated_coefficients_go_out() -> None:
    assert told(STARTED).coefficients == SteeringCoefficients()
    assert told(FINISHED).coefficients == evaluation().coefficients
    assert told([run_started(), *whole_round(), round_started(2)]).coefficients.beta == 0.5
