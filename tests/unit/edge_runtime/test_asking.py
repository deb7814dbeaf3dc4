import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from edge_runtime.asking import Answer, Models, ended, open_source, unbroken
from edge_runtime.question import Piece
from fedpt.errors import UsageError


class _Work:
    """An answer's work, and how far it came."""

    def __init__(self) -> None:
        self.done: list[str] = []

    def answer(self) -> Answer:
        try:
            yield Piece("one")
            signal.raise_signal(signal.SIGINT)
            self.done.append("step")
            yield Piece("two")
            self.done.append("another step")
        finally:
            self.done.append("end")


def test_ctrl_c_takes_effect_when_the_step_is_done() -> None:
    work = _Work()
    items = unbroken(work.answer())
    assert next(items) == Piece("one")
    with pytest.raises(KeyboardInterrupt):
        next(items)
    assert work.done == ["step", "end"]


def test_ctrl_c_is_as_before_between_and_after_the_steps() -> None:
    before = signal.getsignal(signal.SIGINT)
    items = unbroken(iter([Piece("one")]))
    next(items)
    assert signal.getsignal(signal.SIGINT) is before
    assert list(items) == []


def test_an_answer_that_is_not_read_to_its_end_stops_with_its_block() -> None:
    work = _Work()
    with ended(unbroken(work.answer())) as items:
        next(items)
        assert work.done == []
    assert work.done == ["end"]


def test_any_iterator_is_an_answer() -> None:
    empty: Iterator[Piece] = iter(())
    with ended(empty) as items:
        assert list(items) == []


@pytest.mark.parametrize(
    ("config", "models"),
    [(None, None), (Path("device.toml"), Models(Path("small.gguf")))],
)
def test_either_a_device_or_models_are_asked(config: Path | None, models: Models | None) -> None:
    with pytest.raises(UsageError, match="either --config"):
        open_source(ExitStack(), config, models)


def test_models_by_hand_are_called_by_their_files() -> None:
    models = Models(Path("a/small.gguf"), None, Path("b/large.gguf"))
    assert models.name == "small.gguf + large.gguf"
