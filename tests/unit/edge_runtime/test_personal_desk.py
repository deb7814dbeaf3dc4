"""A board's personal adapter with a real training process, model and assistant."""

import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from edge_runtime.adapter_desk import AdapterSwitch
from edge_runtime.assistant import Assistant
from edge_runtime.board_sensors import BoardSensors
from edge_runtime.data.store import DataStore
from edge_runtime.drivers.personal_shelf import FORGOTTEN, PersonalShelf
from edge_runtime.personal import PersonalRecord
from edge_runtime.personal_desk import ForgetPersonal, PersonalDesk, have_forgotten
from edge_runtime.settings import AssistantSettings, DeviceSettings, PersonalSettings
from edge_runtime.state import DeviceState
from edge_runtime.training_desk import PersonalOver, TrainingDesk, TrainingOver
from edge_runtime.training_job import TrainingStep
from fedpt.adapters import Adapter, adapter_to_bytes
from fedpt.blobs import BlobStore
from fedpt.drivers.llama import LlamaModel
from fedpt.errors import ModelFileError
from fedpt.examples import Example
from fedpt.ids import DeviceId
from fedpt.wire.messages import BlobRef, PersonalStatus
from tests.fakes.tiny_federation import TinyFederation
from tests.fakes.wire_messages import announcement

pytestmark = [pytest.mark.llama, pytest.mark.slow]

PATIENCE_S = 60
QUICK = PersonalSettings(enabled=True, epochs=2, learning_rate=5e-3, context_tokens=64)


@dataclass
class Board:
    """The desks of one daemon, turned by the test; a new one is a restart."""

    tiny: TinyFederation
    model: LlamaModel
    folder: Path
    how: PersonalSettings = QUICK
    items: "queue.Queue[Any]" = field(default_factory=queue.Queue)

    def __post_init__(self) -> None:
        settings = DeviceSettings(
            name="board-1",
            small=self.tiny.small,
            data=self.folder / "private.db",
            state_dir=self.folder / "state",
            training_threads=1,
            training_niceness=0,
            training_checkpoint_steps=1,
            personal=self.how,
        )
        settings.state_dir.mkdir(exist_ok=True)
        self.store = BlobStore(settings.state_dir / "blobs")
        self.served = self.store.put(self.tiny.adapter_blob.read_bytes())
        self.training = TrainingDesk(
            settings,
            on_step=self.items.put,
            on_over=self.items.put,
            sensors=BoardSensors(settings.state_dir, root=self.folder, cores=2),
        )
        chat = AssistantSettings(context_tokens=64, conversations=1, threads=1)
        self.assistant = Assistant(self.model, chat, undisturbed=self.training.undisturbed)
        self.switch = AdapterSwitch(settings.state_dir / "adapters", self.model, self.assistant)
        self.shelf = PersonalShelf(settings.state_dir)
        self.desk = PersonalDesk(settings, self.model, self.training, self.switch)

    def add(self, count: int, answer: str = "the lamp is on") -> None:
        examples = [Example(f"turn on lamp {n}", f"{answer} {n}") for n in range(count)]
        DataStore(self.folder / "private.db").add(examples)
        self.examples = count

    examples: int = 0

    def serve(self, ref: BlobRef) -> None:
        self.served = ref
        assert self.switch.serve(ref.sha256, self.store)

    def state(self, phase: Any = "finished") -> DeviceState:
        told = announcement(phase=phase, adapter=self.served)
        return DeviceState(DeviceId("board-1"), told, adapter_here=True, served=self.served.sha256)

    def turn(self, phase: Any = "finished") -> None:
        """What the daemon does again and again."""
        try:
            item = self.items.get(timeout=0.02)
        except queue.Empty:
            item = None
        if isinstance(item, TrainingStep):
            self.training.hear(item)
        elif isinstance(item, PersonalOver):
            self.desk.hear(item)
        assert not isinstance(item, TrainingOver)
        self.training.watch()
        self.desk.step(self.state(phase), self.store, example_count=self.examples, may_start=True)

    def until(self, claim: Callable[[], bool], what: str, phase: Any = "finished") -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not claim():
            assert time.monotonic() < deadline, f"{what}: {self.status}"
            self.turn(phase)

    @property
    def status(self) -> PersonalStatus:
        status = self.desk.status
        assert status is not None
        return status

    @property
    def record(self) -> PersonalRecord:
        record = self.shelf.record()
        assert record is not None
        return record

    def close(self) -> None:
        self.training.stop()
        self.assistant.close()


Make = Callable[..., Board]


@pytest.fixture
def make(tiny: TinyFederation, tmp_path: Path) -> Iterator[Make]:
    """Make a board; the one before is as if killed."""
    made: list[Board] = []

    def one(how: PersonalSettings = QUICK) -> Board:
        if made:
            made.pop().close()
        made.append(Board(tiny, model, tmp_path, how))
        return made[-1]

    with LlamaModel(tiny.small) as model:
        yield one
        made[-1].close()


def trained(make: Make, how: PersonalSettings = QUICK) -> Board:
    """One that answers with its own adapter."""
    board = make(how)
    board.add(80)
    board.serve(board.served)
    board.until(lambda: board.status.in_use, "it is in use")
    return board


def test_after_a_round_it_is_trained_answers_and_survives_a_restart(make: Make) -> None:
    board = trained(make)
    status, record = board.status, board.record
    own = record.adapter
    assert (board.assistant.adapter, board.assistant.is_personal) == (own, True)
    assert status.nll_before is not None
    assert status.nll_after is not None
    assert status.nll_after < status.nll_before
    assert 0 < status.example_count < 80  # some are held out
    assert own not in board.store  # what lies there may be asked for
    again = make()
    assert (again.assistant.adapter, again.assistant.is_personal) == (own, True)
    again.serve(again.served)
    again.turn()
    assert again.record == record
    assert not again.training.view.is_running  # once is enough


def test_a_new_adapter_of_the_federation_has_it_trained_again_from_that(
    make: Make, tiny: TinyFederation
) -> None:
    board = trained(make)
    first = board.record
    board.serve(board.store.put(other_adapter(tiny)))
    assert board.assistant.adapter == first.adapter  # it answers until the next one does
    board.until(lambda: board.record.federation != first.federation, "it is trained again")
    assert board.record.adapter not in ("", first.adapter)
    board.until(lambda: board.assistant.adapter == board.record.adapter, "the new one answers")


def test_a_mix_starts_where_the_one_before_ended(make: Make, tiny: TinyFederation) -> None:
    """On the same data the start is then as good as the end before."""
    board = trained(make)
    first = board.status
    board = make(QUICK.model_copy(update={"mix": 1.0}))
    board.examples = 80
    board.serve(board.store.put(other_adapter(tiny)))
    before = board.record.federation
    board.until(lambda: board.record.federation != before, "it is trained again")
    assert first.nll_before is not None
    assert first.nll_after is not None
    assert first.nll_before > first.nll_after + 0.1
    assert board.status.nll_before == pytest.approx(first.nll_after, abs=0.02)  # half precision


def test_what_is_worse_than_its_start_is_not_used(make: Make) -> None:
    board = make(QUICK.model_copy(update={"learning_rate": 50.0, "epochs": 3}))
    board.add(80)
    board.serve(board.served)
    board.until(lambda: board.shelf.record() is not None, "its training ends")
    assert board.record.adapter == ""
    assert board.status.why_not == board.record.fault != ""
    assert (board.assistant.adapter, board.status.in_use) == (board.served.sha256, False)


def test_with_too_few_examples_it_is_not_trained_and_says_so_until_there_are_more(
    make: Make,
) -> None:
    board = make()
    board.add(5)
    board.serve(board.served)
    board.turn()
    assert not board.training.view.is_running
    assert board.status.why_not == "too few examples: of 5 none can be held out to judge by"
    board.add(80)
    board.until(lambda: board.status.in_use, "it is trained")
    assert board.status.why_not == ""


def test_a_rounds_training_ends_it_and_it_goes_on_from_its_checkpoint(make: Make) -> None:
    endless = QUICK.model_copy(update={"epochs": 10**6, "patience_epochs": 0})
    board = make(endless)
    board.add(80)
    board.serve(board.served)
    board.until(lambda: steps(board) >= 5, "some steps are done")
    board.until(lambda: not board.training.view.is_running, "it gives way", phase="training")
    board.turn("training")
    assert board.shelf.record() is None
    board.until(lambda: steps(board) >= 5, "it goes on")
    again = make(endless)  # a restart in its middle
    again.examples = 80
    again.serve(again.served)
    again.until(lambda: steps(again) > 0, "it goes on")
    assert steps(again) >= 5


def test_a_forgotten_one_is_gone_and_not_trained_again_from_the_same_adapter(make: Make) -> None:
    board = trained(make)
    board.desk.forget(board.served.sha256)
    assert board.assistant.adapter == board.served.sha256
    for _ in range(5):
        board.turn()
    assert not board.training.view.is_running
    assert board.status.why_not == FORGOTTEN
    assert list((board.folder / "state" / "personal").glob("*.blob")) == []


def test_what_may_pass_is_no_reason_to_give_it_up(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = trained(make).record.adapter

    def short_of_memory(*_: object, **__: object) -> bool:
        raise ModelFileError("no memory for 64 tokens of context")

    with monkeypatch.context() as patches:
        patches.setattr(Assistant, "switch", short_of_memory)
        again = make()
        again.examples = 80
        again.turn()
        assert (again.status.in_use, again.record.adapter) == (False, own)
        assert "no memory" in again.status.why_not
    again.turn()
    assert (again.status.in_use, again.status.why_not) == (True, "")
    assert again.assistant.adapter == own


def test_going_back_to_the_federations_is_tried_until_it_works(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    board = trained(make)
    board.serve(board.served)

    def short_of_memory(*_: object, **__: object) -> bool:
        raise ModelFileError("no memory for 64 tokens of context")

    with monkeypatch.context() as patches:
        patches.setattr(Assistant, "switch", short_of_memory)
        board.desk.forget(board.served.sha256)
        board.turn()
        assert board.record.fault == FORGOTTEN
    board.turn()
    assert board.assistant.adapter == board.served.sha256


def test_a_late_end_of_another_training_changes_nothing(make: Make) -> None:
    board = trained(make)
    before = board.record
    board.desk.hear(PersonalOver("personal another", None, b"", "ended by signal 9"))
    assert board.record == before
    assert board.status.in_use


def test_who_wants_it_forgotten_hears_when_it_is(make: Make) -> None:
    board = trained(make)
    orders: queue.SimpleQueue[ForgetPersonal] = queue.SimpleQueue()
    waiter = threading.Thread(target=have_forgotten, args=(orders.put,))
    waiter.start()
    board.desk.obey(orders.get(timeout=PATIENCE_S), board.served.sha256)
    waiter.join(PATIENCE_S)
    assert not waiter.is_alive()
    assert board.record.fault == FORGOTTEN


def test_switched_off_it_does_not_answer_and_is_kept(make: Make) -> None:
    own = trained(make).record.adapter
    board = make(PersonalSettings())
    board.serve(board.served)
    board.turn()
    assert board.desk.status is None
    assert board.assistant.adapter == board.served.sha256
    assert make().assistant.adapter == own


def test_one_of_another_base_is_void(make: Make) -> None:
    board = trained(make)
    record = board.record
    foreign = PersonalRecord(base="0" * 64, federation=record.federation, adapter=record.adapter)
    board.shelf.settle(foreign)
    again = make()
    assert again.assistant.adapter == ""
    assert again.shelf.record() is None


def steps(board: Board) -> int:
    step = board.training.view.step
    return step.done if step else 0


def other_adapter(tiny: TinyFederation) -> bytes:
    """The federation's after another round."""
    tensors = {name: tensor * 0.5 for name, tensor in tiny.adapter.tensors.items()}
    return adapter_to_bytes(Adapter(tiny.adapter.manifest, tensors))
