"""What changes is told at once, figures of training every two seconds."""

import pytest

from edge_runtime.drivers.status_teller import StatusTeller, is_due
from fedpt.drivers.mqtt import Publication
from fedpt.wire.codec import decode
from fedpt.wire.messages import DeviceStatus, PersonalStatus, TrainingProgress
from tests.fakes.wire_messages import status

PROGRESS = TrainingProgress(steps_done=1, steps_total=4)
TRAINING = status(activity="training", training_done=0.25, progress=PROGRESS)


@pytest.mark.parametrize(
    ("new", "at_once"),
    [
        (TRAINING, False),
        (status(activity="training", training_done=0.5, progress=PROGRESS), False),
        (status(activity="training", training_done=0.25, progress=None), False),
        (status(activity="training", waiting="waits: 82 °C"), True),
        (status(activity="idle"), True),
        (status(activity="training", fault="no memory"), True),
    ],
)
def test_changes_are_due_at_once_and_figures_later(new: DeviceStatus, at_once: bool) -> None:
    assert is_due(new, TRAINING, 0.1) is at_once
    assert is_due(new, TRAINING, 2.0) is (new != TRAINING)


def test_why_a_training_waits_is_due_later_if_only_its_figures_change() -> None:
    hot, hotter = status(waiting="waits: 82 °C"), status(waiting="waits: 83 °C")
    assert not is_due(hotter, hot, 0.1)
    assert is_due(hotter, hot, 2.0)
    assert is_due(status(), hot, 0.1)


def test_a_personal_training_is_told_like_any_other() -> None:
    half = status(personal=PersonalStatus(training_done=0.5))
    more = status(personal=PersonalStatus(training_done=0.6))
    in_use = status(personal=PersonalStatus(in_use=True))
    assert not is_due(more, half, 0.1)
    assert is_due(more, half, 2.0)
    assert is_due(in_use, half, 0.1)


def test_a_status_is_told_once_and_again_when_it_may_be_lost() -> None:
    sent: list[Publication] = []
    teller = StatusTeller("the/topic", sent.append)
    teller.tell(TRAINING, 0.0)
    teller.tell(TRAINING, 100.0)
    assert [decode(one.payload, DeviceStatus) for one in sent] == [TRAINING]
    assert sent[0].retain
    teller.forget()
    teller.tell(TRAINING, 100.0)
    assert len(sent) == 2
