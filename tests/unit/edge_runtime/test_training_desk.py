"""The desk with a real training process, on a board whose sensors are files."""

import os
import queue
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from edge_runtime.assistant import Assistant
from edge_runtime.board_sensors import BoardSensors
from edge_runtime.drivers.outbox import Outbox
from edge_runtime.question import user_question
from edge_runtime.settings import AssistantSettings, DeviceSettings, TrainingConditions
from edge_runtime.training_desk import PersonalOver, TrainingDesk, TrainingOver
from edge_runtime.training_job import TrainingStep
from fedpt.blobs import BlobStore
from fedpt.drivers.llama import LlamaModel
from fedpt.wire.messages import RoundAnnouncement, TrainingPlan
from tests.fakes.tiny_federation import TinyFederation
from tests.fakes.wire_messages import announcement

pytestmark = [pytest.mark.llama, pytest.mark.slow]

PATIENCE_S = 60
FOR_EVER = TrainingPlan(epochs=10**6, learning_rate=1e-3, batch_examples=2, context_tokens=64)
SHORT = TrainingPlan(epochs=30, learning_rate=1e-3, batch_examples=2, context_tokens=64)


@dataclass
class Board:
    """A folder of sensors, a store with the adapter, and the desk; its clock is the real one."""

    tiny: TinyFederation
    folder: Path
    rules: TrainingConditions
    items: "queue.Queue[TrainingStep | TrainingOver | PersonalOver]" = field(
        default_factory=queue.Queue
    )
    overs: list[TrainingOver | PersonalOver] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.settings = DeviceSettings(
            name="board-1",
            small=self.tiny.small,
            data=self.tiny.store,
            state_dir=self.folder / "state",
            training_threads=1,
            training_niceness=0,
            training_checkpoint_steps=1,
            training_conditions=self.rules,
        )
        self.settings.state_dir.mkdir()
        self.store = BlobStore(self.settings.state_dir / "blobs")
        self.adapter = self.store.put(self.tiny.adapter_blob.read_bytes())
        self.heat(45)
        self.desk = TrainingDesk(
            self.settings,
            on_step=self.items.put,
            on_over=self.items.put,
            sensors=BoardSensors(self.settings.state_dir, root=self.folder, cores=2),
        )

    def heat(self, celsius: int) -> None:
        zone = self.folder / "sys" / "class" / "thermal" / "thermal_zone0"
        zone.mkdir(parents=True, exist_ok=True)
        (zone / "temp").write_text(f"{celsius * 1000}\n")

    def round(self, plan: TrainingPlan) -> RoundAnnouncement:
        return announcement(training=plan, adapter=self.adapter)

    def turn(self) -> None:
        """What the daemon does again and again."""
        try:
            item = self.items.get(timeout=0.02)
        except queue.Empty:
            item = None
        if isinstance(item, TrainingStep):
            self.desk.hear(item)
        elif item is not None:
            self.overs.append(item)
        self.desk.watch()

    def until(self, claim: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not claim():
            assert time.monotonic() < deadline, what
            self.turn()

    def train(self, plan: TrainingPlan) -> None:
        """Until its first step is done."""
        self.until(lambda: self.desk.start(self.round(plan), self.store), "training starts")
        self.until(lambda: self.desk.view.step is not None, "the first step is done")

    @property
    def steps(self) -> int:
        step = self.desk.view.step
        return step.done if step else 0


@pytest.fixture
def rules() -> TrainingConditions:
    return TrainingConditions(answer_grace_s=0, pause_after_s=0)


@pytest.fixture
def board(tiny: TinyFederation, tmp_path: Path, rules: TrainingConditions) -> Iterator[Board]:
    board = Board(tiny, tmp_path, rules)
    yield board
    board.desk.stop()


def test_a_question_halts_training_at_once_and_its_end_lets_it_go_on(board: Board) -> None:
    board.train(FOR_EVER)
    with board.desk.undisturbed():
        view = board.desk.view  # nobody has called `watch`
        assert view.is_paused
        assert view.why_not == "waits: the assistant answers"
        board.turn()
        assert board.desk.view.is_paused
    board.until(lambda: not board.desk.view.is_paused, "it goes on")
    assert board.desk.view.paused_s > 0
    done = board.steps
    board.until(lambda: board.steps > done + 2, "more steps are done")


def test_training_does_not_start_during_an_answer(board: Board) -> None:
    with board.desk.undisturbed():
        assert not board.desk.start(board.round(FOR_EVER), board.store)
    assert board.desk.start(board.round(FOR_EVER), board.store)


def test_a_training_that_was_started_just_before_a_question_is_halted_too(board: Board) -> None:
    assert board.desk.start(board.round(FOR_EVER), board.store)
    with board.desk.undisturbed():  # it may be too young to be halted now
        board.until(lambda: board.desk.view.is_paused, "it is halted")


def test_a_real_answer_has_the_processor_for_itself(board: Board, tiny: TinyFederation) -> None:
    board.train(FOR_EVER)
    settings = AssistantSettings(context_tokens=256, answer_tokens=8, threads=1)
    with LlamaModel(tiny.small) as model:
        assistant = Assistant(model, settings, undisturbed=board.desk.undisturbed)
        answer = assistant.answer(user_question("turn on the lamp"))
        assert not board.desk.view.is_paused
        next(answer)
        assert board.desk.view.is_paused
        answer.close()  # whoever asked has hung up
        board.until(lambda: not board.desk.view.is_paused, "it goes on")
        assistant.close()


def test_a_hot_board_does_not_start(board: Board) -> None:
    board.heat(90)
    assert not board.desk.start(board.round(FOR_EVER), board.store)
    view = board.desk.view
    assert view.why_not == "waits: 90 °C, at most 80 °C"
    assert view.readings.celsius == 90
    assert not view.is_running


def test_a_training_pauses_while_the_board_is_hot(board: Board) -> None:
    board.train(FOR_EVER)
    board.heat(85)
    board.until(lambda: board.desk.view.is_paused, "it pauses")
    board.heat(78)
    board.until(lambda: board.desk.view.readings.celsius == 78, "it is cooler")
    assert board.desk.view.is_paused
    assert board.desk.view.why_not == "waits: 78 °C, at most 75 °C"
    board.heat(60)
    board.until(lambda: not board.desk.view.is_paused, "it goes on")


@pytest.mark.parametrize("rules", [TrainingConditions(pause_after_s=0, end_after_s=0)])
def test_a_long_pause_ends_the_process_which_goes_on_from_its_checkpoint(board: Board) -> None:
    board.train(FOR_EVER)
    board.until(lambda: board.steps >= 5, "some steps are done")
    board.heat(85)
    board.until(lambda: len(board.overs) > 0, "its process ends")
    assert (board.overs[0].result, board.overs[0].fault) == (None, "")
    assert not board.desk.view.is_running
    board.heat(45)
    board.train(FOR_EVER)
    assert board.steps >= 5


def test_an_update_is_the_same_however_often_its_training_was_paused(board: Board) -> None:
    board.train(SHORT)
    board.until(lambda: len(board.overs) > 0, "it ends undisturbed")
    outbox = Outbox(board.folder / "outbox")
    board.desk.keep_update(board.overs[0], board.store, outbox, bytes_down=0)
    board.train(SHORT)
    for _ in range(4):
        with board.desk.undisturbed():
            assert board.desk.view.is_paused
        done = board.steps
        board.until(lambda done=done: board.steps > done, "it goes on")
    board.until(lambda: len(board.overs) > 1, "it ends all the same")
    undisturbed, disturbed = board.overs
    assert disturbed.result is not None
    assert disturbed.result.paused_seconds > 0
    assert disturbed.update == undisturbed.update


def test_a_killed_training_is_a_fault_also_while_it_is_paused(board: Board) -> None:
    board.train(FOR_EVER)
    with board.desk.undisturbed():
        os.kill(board.desk.view.pid or 0, signal.SIGKILL)
        board.until(lambda: len(board.overs) > 0, "its end is told")
    assert board.overs[0].fault.startswith("its process was ended by signal 9")
    assert not board.desk.view.is_paused
    board.turn()
    paused_s = board.desk.view.all_paused_s
    assert board.desk.view.all_paused_s == paused_s  # it counts no more
    assert board.desk.start(board.round(FOR_EVER), board.store)  # the desk is as good as new


def test_a_finished_update_is_kept_for_its_offer(board: Board) -> None:
    board.train(SHORT)
    board.until(lambda: len(board.overs) > 0, "it ends")
    outbox = Outbox(board.folder / "outbox")
    offer = board.desk.keep_update(board.overs[0], board.store, outbox, bytes_down=7)
    assert offer is not None
    assert board.store.get(offer.update.sha256) == board.overs[0].update
    assert outbox.find(board.round(SHORT)) == offer
    assert offer.bytes_down == 7


def test_a_personal_training_ends_for_a_rounds_and_goes_on_after_it(board: Board) -> None:
    path = board.store.path(board.adapter.sha256)

    def begin() -> None:
        board.until(lambda: board.desk.is_free, "nothing trains")
        board.desk.start_personal("personal/training", path, FOR_EVER, "ours")
        board.until(lambda: board.steps > 0, "its first step is done")

    begin()
    board.until(lambda: board.steps >= 5, "some steps are done")
    assert board.desk.view.is_personal
    assert not board.desk.is_free
    assert board.desk.start(board.round(SHORT), board.store)
    board.until(lambda: len(board.overs) == 2, "the round's is done too")
    ours, rounds = board.overs
    assert isinstance(ours, PersonalOver)
    assert (ours.result, ours.fault) == (None, "")
    assert isinstance(rounds, TrainingOver)
    assert rounds.result is not None
    begin()
    assert board.steps >= 5
    board.desk.stop_personal()
    board.until(lambda: len(board.overs) == 3, "it ends when nobody wants it any more")
    assert not board.desk.view.is_running
