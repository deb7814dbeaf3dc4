"""The local API behind a real TCP port, before a real assistant or one that says its lines."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import msgspec

from edge_runtime.api.local_api import LocalApi
from edge_runtime.api.server import ServedAssistant
from edge_runtime.question import AnswerSummary, Notice, Piece, Question, Steps
from edge_runtime.settings import ApiSettings, AssistantSettings, DeviceSettings
from fedpt.errors import UsageError
from tests.fakes.answer_facts import SUMMARY
from tests.fakes.brokers import free_port, wait_for_port

WAIT_S = 20.0


def summary_of(
    text: str, question: Question, *, tokens: int = 1, steered: int = 0
) -> AnswerSummary:
    """What an answer that went well was made of."""
    steps = Steps(where="tokens", round_trips=2, bytes_up=300, bytes_down=200, drafts=10,
                  drafts_right=8)  # fmt: skip
    return msgspec.structs.replace(
        SUMMARY,
        mode=question.mode,
        text=text,
        tokens=tokens,
        steered_tokens=steered,
        first_token_s=0.1,
        seconds=0.2,
        steps=steps if steered else None,
    )


@dataclass
class ScriptedAssistant:
    """Says its pieces; before those after the first it waits for `go_on`, if that is held back."""

    pieces: tuple[str, ...] = ("Grü", "ße.")
    has_large: bool = True
    chat_template: str = ""
    go_on: threading.Event = field(default_factory=threading.Event)
    asked: list[Question] = field(default_factory=list)
    was_closed: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.go_on.set()

    def answer(self, question: Question) -> Iterator[Piece | Notice | AnswerSummary]:
        self.asked.append(question)
        if not question.text and not question.messages[-1].content:
            raise UsageError("the question is empty")
        is_steered = question.mode == "steered"
        try:
            for piece in self.pieces:
                yield Piece(piece, is_steered)
                assert self.go_on.wait(WAIT_S)
            count = len(self.pieces)
            text = "".join(self.pieces)
            yield summary_of(text, question, tokens=count, steered=is_steered * count)
        finally:
            self.was_closed.set()


@dataclass(frozen=True)
class RunningApi:
    """Where a device's API is."""

    socket: Path
    port: int | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def get(self, path: str, **options: Any) -> httpx.Response:
        return httpx.get(self.url + path, timeout=WAIT_S, **options)

    def post(self, path: str, **options: Any) -> httpx.Response:
        return httpx.post(self.url + path, timeout=WAIT_S, **options)

    def on_socket(self) -> httpx.Client:
        transport = httpx.HTTPTransport(uds=str(self.socket))
        return httpx.Client(transport=transport, base_url="http://device", timeout=WAIT_S)


@contextmanager
def running_api(
    assistant: ServedAssistant,
    folder: Path,
    *,
    assistant_settings: AssistantSettings | None = None,
    has_port: bool = True,
    **api: Any,
) -> Iterator[RunningApi]:
    """The API of a device while the block runs."""
    port = free_port() if has_port else None
    settings = DeviceSettings(
        name="board-1",
        small=folder / "small.gguf",
        state_dir=folder / "state",
        assistant=assistant_settings or AssistantSettings(),
        api=ApiSettings(port=port, **api),
    )
    local = LocalApi(assistant, settings, status=lambda: {"device": "board-1"})
    local.start()
    if port is not None:
        wait_for_port(port)
    try:
        yield RunningApi(settings.socket, port)
    finally:
        local.stop()
