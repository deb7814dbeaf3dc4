"""Whom a command line asks: the board's daemon, or models in this very process.

Both look the same from here on. Models of this process are never interrupted in mid-step: their
caches would not hold what they think they hold.
"""

import signal
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from edge_runtime.consent import SharePolicy
from edge_runtime.lessons import Learnt, Lesson, learn
from edge_runtime.question import AnswerSummary, Notice, Piece, Question
from fedpt.errors import UsageError

Answer = Iterator[Piece | Notice | AnswerSummary]


@dataclass(frozen=True, slots=True)
class Models:
    """Models by hand."""

    small: Path
    adapter: Path | None = None
    large: Path | None = None

    @property
    def name(self) -> str:
        """What to call them."""
        files = (self.small, self.adapter, self.large)
        return " + ".join(path.name for path in files if path is not None)


@dataclass(frozen=True, slots=True)
class Source:
    """Who answers, what is allowed there, and how lessons get to it."""

    name: str
    answer: Callable[[Question], Answer]
    teach: Callable[[Lesson], Learnt]
    policy: SharePolicy
    has_large: bool
    note: str = ""
    """What the person should know of it; maybe nothing."""


def open_source(stack: ExitStack, config: Path | None, models: Models | None) -> Source:
    """Find who answers; `stack` frees it.

    Raises:
        UsageError: Neither a device nor models are named, or both.
        FedptError: Settings or a file are missing or damaged.
    """
    if (config is None) == (models is None):
        raise UsageError("give either --config (a device's assistant) or --small (models by hand)")
    if config is not None:
        return _of_device(stack, config)
    assert models is not None  # one of the two is given
    return _of_models(stack, models)


def teach_device(config: Path, lesson: Lesson) -> Learnt:
    """Add a lesson to a device's examples, whether its daemon runs or not.

    Raises:
        FedptError: The lesson or the device's settings cannot be used, or the store not written.
    """
    from edge_runtime.settings import ENVIRONMENT_PREFIX, DeviceSettings
    from fedpt.settings import load

    return learn(load(DeviceSettings, toml=config, prefix=ENVIRONMENT_PREFIX).data, lesson)


@contextmanager
def ended(answer: Answer) -> Iterator[Answer]:
    """An answer whose work stops with the block, here or on the daemon."""
    try:
        yield answer
    finally:
        if isinstance(answer, Generator):
            answer.close()


def unbroken(answer: Answer) -> Answer:
    """The same; Ctrl-C takes effect between two items."""
    with ended(answer):
        while True:
            with _held_interrupts():
                item = next(answer, None)
            if item is None:
                return
            yield item


def _of_device(stack: ExitStack, config: Path) -> Source:
    """The running daemon; without one, this process answers, from the device's files alone."""
    from edge_runtime.drivers.local_client import ask_daemon, is_served
    from edge_runtime.settings import ENVIRONMENT_PREFIX, DeviceSettings
    from fedpt.settings import load

    settings = load(DeviceSettings, toml=config, prefix=ENVIRONMENT_PREFIX)
    is_up = is_served(settings.socket)
    if is_up:

        def answer(question: Question) -> Answer:
            return ask_daemon(settings.socket, question)
    else:
        from edge_runtime.trying_out import open_device_assistant

        assistant = open_device_assistant(stack, settings)

        def answer(question: Question) -> Answer:
            return unbroken(assistant.answer(question))

    return Source(
        settings.name,
        answer,
        lambda lesson: teach_device(config, lesson),
        policy=settings.assistant.share_questions,
        has_large=is_up,
        note="" if is_up else "the device daemon does not run: answering without it",
    )


def _of_models(stack: ExitStack, models: Models) -> Source:
    """Everything in this process, no daemon, no broker: nothing leaves it."""
    from edge_runtime.trying_out import open_assistant

    assistant = open_assistant(stack, models.small, models.adapter, models.large, system="")
    return Source(
        models.name,
        lambda question: unbroken(assistant.answer(question)),
        _teach_nobody,
        policy="always",
        has_large=assistant.has_large,
    )


def _teach_nobody(_: Lesson) -> Learnt:
    raise UsageError("models by hand learn nothing: name a device with --config")


@contextmanager
def _held_interrupts() -> Iterator[None]:
    """Ctrl-C waits for the end of the block."""
    held: list[int] = []

    def hold(number: int, _: FrameType | None) -> None:
        held.append(number)

    before = signal.signal(signal.SIGINT, hold)
    if before == signal.SIG_IGN:  # in the background of a script it is nobody's key
        signal.signal(signal.SIGINT, before)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if held:
        raise KeyboardInterrupt
