"""The assistant behind a real Unix socket; the assistant itself is a fake."""

import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from edge_runtime.assistant import AnswerSummary, Question
from edge_runtime.drivers.local_api import LocalApi, ask_daemon, daemon_status, is_served
from fedpt.errors import DeviceDownError, UsageError

SUMMARY = AnswerSummary(
    mode="local",
    text="Grüße.",
    tokens=2,
    steered_tokens=0,
    fallback="",
    ended="complete",
    adapter="a",
    coefficients=None,
    prompt_tokens=5,
    first_token_s=0.1,
    seconds=0.2,
)


class SlowAssistant:
    """Gives its second piece only when the test has seen the first."""

    def __init__(self) -> None:
        self.go_on = threading.Event()
        self.asked: list[Question] = []

    def answer(self, question: Question) -> Iterator[str | AnswerSummary]:
        self.asked.append(question)
        if not question.text:
            raise UsageError("the question is empty")
        yield "Grü"
        assert self.go_on.wait(10)
        yield "ße."
        yield SUMMARY


@pytest.fixture
def assistant() -> SlowAssistant:
    return SlowAssistant()


@pytest.fixture
def socket(tmp_path: Path, assistant: SlowAssistant) -> Iterator[Path]:
    path = tmp_path / "state" / "a.sock"
    api = LocalApi(assistant, path, status=lambda: {"device": "board-1"})  # type: ignore[arg-type]
    api.start()
    yield path
    api.stop()
    assert not path.exists()


def test_an_answer_comes_piece_by_piece_then_its_summary(
    socket: Path, assistant: SlowAssistant
) -> None:
    items = ask_daemon(socket, Question("Hello?", "local", 7))
    assert next(items) == "Grü"
    assistant.go_on.set()
    assert list(items) == ["ße.", SUMMARY]
    assert assistant.asked == [Question("Hello?", "local", 7)]


def test_a_refused_question_is_a_usage_error(socket: Path) -> None:
    with pytest.raises(UsageError, match="the question is empty"):
        list(ask_daemon(socket, Question("", "local")))


@pytest.mark.parametrize(
    "body", [b"{}", b"no json", b'{"question":"a","mode":"x"}', b'{"question":"a","max_tokens":0}']
)
def test_a_body_that_is_no_question_is_refused(socket: Path, body: bytes) -> None:
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(socket))) as client:
        reply = client.post("http://device/answer", content=body)
    assert reply.status_code == 400
    assert reply.json()["error"].startswith("not a question: ")


def test_the_status_is_that_of_the_daemon(socket: Path) -> None:
    assert is_served(socket)
    assert daemon_status(socket) == {"device": "board-1"}


def test_the_socket_is_for_its_owner_only(socket: Path) -> None:
    daemon_status(socket)  # the server is up
    assert stat.S_IMODE(socket.stat().st_mode) == 0o600


def test_what_a_killed_daemon_left_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "a.sock").write_bytes(b"")
    api = LocalApi(SlowAssistant(), tmp_path / "a.sock", status=dict)  # type: ignore[arg-type]
    api.start()
    assert is_served(tmp_path / "a.sock")
    api.stop()


def test_a_device_without_its_socket_goes_on(tmp_path: Path) -> None:
    path = tmp_path / ("long" * 40) / "a.sock"  # the system takes about 100 characters
    api = LocalApi(SlowAssistant(), path, status=dict)  # type: ignore[arg-type]
    api.start()
    assert not is_served(path)
    api.stop()


def test_no_daemon_is_told_in_one_line(tmp_path: Path) -> None:
    assert not is_served(tmp_path / "a.sock")
    with pytest.raises(DeviceDownError, match=r"start it with 'fedpt device run'") as caught:
        list(ask_daemon(tmp_path / "a.sock", Question("Hello?", "local")))
    assert "\n" not in str(caught.value)
