"""An assistant with a script, behind a device's real local API: what command lines talk to."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from edge_runtime.api.local_api import LocalApi
from edge_runtime.question import AnswerSummary, Notice, Piece, Question
from edge_runtime.settings import ENVIRONMENT_PREFIX, DeviceSettings
from fedpt.errors import LongQuestionError
from fedpt.proxy_tuning import PLAIN
from fedpt.settings import load
from tests.fakes.answer_facts import STEPS, SUMMARY


@dataclass
class ScriptedAssistant:
    """Says "You said: …", and does what a question's words want.

    `slowly`: goes on for ever, a piece at a time. `silently`: without a piece. `too long`:
    refuses. `alone`: loses the large model in mid-answer.
    """

    chat_template: str = ""
    has_large: bool = True
    asked: list[Question] = field(default_factory=list)
    has_stopped: threading.Event = field(default_factory=threading.Event)
    """A slow answer's work has ended."""

    def answer(self, question: Question) -> Iterator[Piece | Notice | AnswerSummary]:
        self.asked.append(question)
        words = question.messages[-1].content
        if "too long" in words:
            raise LongQuestionError("the question is 99 tokens; the context holds 64")
        if "silently" in words:
            self.has_stopped.wait()
        if "slowly" in words:
            yield from self._slowly()
        is_steered = question.mode == "steered"
        yield Piece("You said: ", is_steered)
        fallback = "the coordinator is silent" if is_steered and "alone" in words else ""
        if fallback:
            yield Notice(False, fallback)
        yield Piece(words, is_steered and not fallback)
        yield msgspec.structs.replace(
            SUMMARY,
            mode=question.mode,
            text=f"You said: {words}",
            steered_tokens=(1 if fallback else 2) if is_steered else 0,
            fallback=fallback,
            coefficients=PLAIN if is_steered else None,
            steps=STEPS if is_steered else None,
        )

    def _slowly(self) -> Iterator[Piece]:
        try:
            yield Piece("Well, ")
            while not self.has_stopped.wait(0.01):
                yield Piece("er, ")
        finally:
            self.has_stopped.set()


@dataclass(frozen=True)
class ServedDevice:
    """A device, as far as a command line sees it."""

    config: Path
    assistant: ScriptedAssistant
    data: Path
    """Its store; what it is taught gets there."""


@contextmanager
def served_device(folder: Path, *, more: str = "") -> Iterator[ServedDevice]:
    """Settings, and an assistant that listens where they say, while the block runs."""
    config = folder / "device.toml"
    config.write_text(
        'name = "kitchen"\nsmall = "small.gguf"\ndata = "private.db"\nstate_dir = "state"\n' + more
    )
    settings = load(DeviceSettings, toml=config, prefix=ENVIRONMENT_PREFIX)
    assistant = ScriptedAssistant()
    api = LocalApi(assistant, settings, status=lambda: {"device": "kitchen"})
    api.start()
    try:
        yield ServedDevice(config, assistant, folder / "private.db")
    finally:
        assistant.has_stopped.set()
        api.stop()
