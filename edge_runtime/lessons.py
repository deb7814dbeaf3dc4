"""Lessons: better answers that people teach their board, kept with its private examples.

Knows the data file only. Who may call is decided elsewhere: a running daemon owns the file, and
without one a command line holds the device's folder while it writes.
"""

import json
import threading
from pathlib import Path
from typing import Final

import msgspec

from fedpt.errors import DataFileError, UsageError
from fedpt.examples import Example, read_examples
from fedpt.files import write_bytes

_MODE: Final = 0o600
"""What people teach is private."""


class Lesson(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A question, and the answer that should have come."""

    question: str
    answer: str


class Learnt(msgspec.Struct, frozen=True):
    """What became of a lesson."""

    is_new: bool
    """False: this very pair was there already."""
    examples: int
    """So many the device has now."""


class LessonBook:
    """A device's data file, to which lessons are added one at a time."""

    def __init__(self, data: Path | None) -> None:
        """Count what is there.

        Args:
            data: The file; it need not exist yet. None: this device has none.

        Raises:
            DataFileError: It has a bad line.
        """
        self._data = data
        self._lock = threading.Lock()
        self._count = len(_examples_in(data)) if data is not None else 0

    @property
    def example_count(self) -> int:
        """How many examples the device has."""
        return self._count

    def add(self, lesson: Lesson) -> Learnt:
        """Put a lesson at the end of the file, whole or not at all.

        Raises:
            UsageError: There is no data file, or a text is empty or half a character.
            DataFileError: The file has a bad line, which nothing is put after.
            StorageError: It cannot be written; it is as before.
        """
        if self._data is None:
            raise UsageError(
                'this device has no data file to learn from: set data = "private.jsonl" in its'
                " settings"
            )
        line = lesson_to_line(lesson)
        with self._lock:
            path = self._data.resolve()  # where it is a link, the file behind it is replaced
            examples = _examples_in(path)
            if is_new := example_of(lesson) not in examples:
                write_bytes(path, _with_line(_content_of(path), line), mode=_MODE)
            self._count = len(examples) + is_new
            return Learnt(is_new, self._count)


def learnt_note(learnt: Learnt) -> str:
    """What to tell the teacher."""
    if learnt.is_new:
        return f"noted: {learnt.examples} examples now; the board's next training learns from them"
    return f"known already, nothing added: {learnt.examples} examples"


def example_of(lesson: Lesson) -> Example:
    """The example that a lesson is."""
    return Example(lesson.question.strip(), lesson.answer.strip())


def lesson_to_line(lesson: Lesson) -> bytes:
    """A line of JSONL, without its end.

    Raises:
        UsageError: A text is empty, or no text.
    """
    example = example_of(lesson)
    for what, text in (("question", example.prompt), ("answer", example.answer)):
        if not text:
            raise UsageError(f"the {what} is empty: a lesson has a question and an answer")
    fields = {"instruction": example.prompt, "response": example.answer}
    try:
        return json.dumps(fields, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        half = ascii(error.object[error.start])
        raise UsageError(f"a lesson holds {half}, which is half a character") from error


def _with_line(content: bytes, line: bytes) -> bytes:
    """The content with one more line; the one before it may have lacked its end."""
    end = b"" if not content or content.endswith(b"\n") else b"\n"
    return content + end + line + b"\n"


def _examples_in(path: Path) -> list[Example]:
    """Those of a file; none of one that is missing or empty."""
    return read_examples(path) if _content_of(path).strip() else []


def _content_of(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise DataFileError(f"cannot read {path}: {error.strerror}") from error
