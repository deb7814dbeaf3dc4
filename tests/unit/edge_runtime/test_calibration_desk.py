"""Calibration in the background, with a real assistant that asks a real worker."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from edge_runtime.assistant import Assistant
from edge_runtime.calibration_desk import FILE_NAME, CalibrationDesk
from edge_runtime.data.store import DataStore
from edge_runtime.question import AnswerSummary, user_question
from edge_runtime.settings import AssistantSettings, DeviceSettings
from fedpt.examples import Example
from fedpt.proxy_tuning import Coefficients
from fedpt.wire.messages import CalibrationStatus
from tests.fakes.served_here import Board, ServedHere
from tests.fakes.tiny_federation import TinyFederation

pytestmark = [pytest.mark.llama, pytest.mark.slow]

PATIENCE_S = 60


@dataclass
class Desk:
    """One device daemon's life, as far as this matters."""

    board: Board
    folder: Path
    tiny: TinyFederation
    share: Any = "always"

    def __post_init__(self) -> None:
        self.settings = DeviceSettings(
            name=self.board.name,
            small=self.tiny.small,
            data=self.folder / "private.db",
            state_dir=self.folder,
            assistant=AssistantSettings(
                context_tokens=128, threads=1, share_questions=self.share, answer_tokens=8
            ),
        )
        access = self.board.desk.access
        self.assistant = Assistant(self.board.model, self.settings.assistant, large=access)
        self.assistant.switch("tiny", self.tiny.adapter_gguf)
        self.assistant.coefficients = Coefficients(1.0, 0.9, 0.8)
        self.desk = CalibrationDesk(
            self.settings, self.board.model, self.assistant, ask_large=self.board.desk.aside
        )

    def turn(self, large: str = "large") -> CalibrationStatus:
        self.desk.step(large, may_start=True)
        status = self.desk.status
        assert status is not None
        return status

    def until(self, claim: Callable[[CalibrationStatus], bool], **turn: Any) -> CalibrationStatus:
        deadline = time.monotonic() + PATIENCE_S
        while not claim(status := self.turn(**turn)):
            assert time.monotonic() < deadline, status
            time.sleep(0.02)  # between two turns of the daemon
        return status

    def calibrated(self) -> CalibrationStatus:
        return self.until(lambda status: status.coefficients is not None)

    def close(self) -> None:
        self.desk.stop()
        self.assistant.close()


@pytest.fixture(params=[{}])
def served(
    tiny: TinyFederation, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[ServedHere]:
    one = ServedHere(tiny, tmp_path, worker=request.param)
    with one.running():
        yield one
    one.close()


@pytest.fixture
def board(served: ServedHere) -> Iterator[Board]:
    with Board(served) as one:
        yield one


Make = Callable[..., Desk]


@pytest.fixture
def make(board: Board, tiny: TinyFederation, tmp_path: Path) -> Iterator[Make]:
    """Make a device's desk; the one before has ended."""
    examples = [Example(f"Turn on lamp {n}", f"The lamp {n} turns on.") for n in range(60)]
    DataStore(tmp_path / "private.db").add(examples)
    made: list[Desk] = []

    def one(share: Any = "always") -> Desk:
        if made:
            made.pop().close()
        made.append(Desk(board, tmp_path, tiny, share))
        return made[-1]

    yield one
    made[-1].close()


def heard_by(board: Board) -> list[str]:
    """The topics of what goes to the worker from now on."""
    topics: list[str] = []

    def listen(topic: str, _payload: bytes) -> bool:
        topics.append(topic)
        return False

    board.drops = listen
    return topics


def test_the_choice_is_no_worse_than_the_rest_and_steers(make: Make, board: Board) -> None:
    desk, topics = make(), heard_by(board)
    status = desk.calibrated()
    assert len(topics) > 2
    assert status.nll is not None
    assert status.nll_expert is not None
    assert status.nll_plain is not None
    assert status.nll_announced is not None
    assert status.nll <= min(status.nll_expert, status.nll_plain, status.nll_announced)
    assert status.positions > 20
    assert status.coefficients is not None
    own = status.coefficients
    assert desk.assistant.calibrated == ("tiny", (own.alpha, own.beta, own.gamma))


def test_it_is_remembered_and_void_with_another_adapter_or_large_model(
    make: Make, board: Board, tiny: TinyFederation
) -> None:
    found = make().calibrated()
    again, topics = make(), heard_by(board)
    assert again.turn() == found
    assert again.turn(large="") == found  # the coordinator was not heard of yet
    assert topics == []
    assert again.turn(large="another").coefficients is None
    assert again.assistant.calibrated is None
    again.assistant.switch("next", tiny.adapter_gguf)
    assert again.turn().coefficients is None


@pytest.mark.parametrize("share", ["never", "ask"])
def test_without_leave_nothing_is_sent_and_what_was_found_is_not_used(
    make: Make, board: Board, share: str
) -> None:
    make().calibrated()
    desk, topics = make(share), heard_by(board)
    assert f'share_questions = "{share}"' in desk.turn().why_not
    assert desk.assistant.calibrated is None
    assert topics == []


def test_an_answer_comes_first(make: Make) -> None:
    desk = make()
    answer = desk.assistant.answer(user_question("Turn on the lamp"))
    next(answer)
    began = time.monotonic()
    while time.monotonic() < began + 1:
        assert desk.turn().coefficients is None
    *_, last = answer
    assert isinstance(last, AnswerSummary)
    desk.calibrated()


def test_a_worker_that_is_silent_is_a_reason_in_the_status(make: Make, board: Board) -> None:
    board.set_online(False)
    desk = make()
    status = desk.until(lambda status: "offline" in status.why_not)
    assert status.coefficients is None
    assert desk.assistant.coefficients == (1.0, 0.9, 0.8)


@pytest.mark.parametrize("served", [{"largest_logits": 16, "candidate_logits": 16}], indirect=True)
def test_a_worker_that_tells_few_logits_is_asked_for_those(make: Make) -> None:
    status = make().calibrated()
    assert status.nll is not None
    assert status.nll_expert is not None
    assert status.nll <= status.nll_expert


def test_a_damaged_file_is_measured_again(make: Make, tmp_path: Path) -> None:
    (tmp_path / "adapters").mkdir()
    (tmp_path / "adapters" / FILE_NAME).write_bytes(b'{"key": 3')
    make().calibrated()


def test_with_too_few_examples_there_is_no_calibration(make: Make, tmp_path: Path) -> None:
    desk = make()
    store = DataStore(tmp_path / "private.db")
    store.remove([entry.id for entry in store.entries()][5:])
    assert "fewer than 20" in desk.until(lambda status: "fewer" in status.why_not).why_not


def test_replies_to_it_count_for_no_answer(make: Make, board: Board) -> None:
    desk = make()
    desk.calibrated()
    traffic = board.desk.access.traffic
    assert (traffic.bytes_up, traffic.bytes_down, traffic.tokens_sent) == (0, 0, 0)
