"""Lessons: better answers that people teach their board, kept with its private examples."""

from pathlib import Path

import msgspec

from edge_runtime.data.store import DataStore
from fedpt.errors import UsageError
from fedpt.examples import Example


class Lesson(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A question, and the answer that should have come."""

    question: str
    answer: str


class Learnt(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a lesson."""

    id: int
    is_new: bool
    """False: this very pair was there already."""
    examples: int
    """So many the device has now to train on."""
    secrets: tuple[str, ...] = ()
    """What it seems to hold; then nothing is learnt from it until a person allows it."""


def learn(data: Path | None, lesson: Lesson) -> Learnt:
    """Add a lesson to a device's store.

    Args:
        data: The store; it is made if need be. None: this device has none.
        lesson: What is taught.

    Raises:
        UsageError: There is no store, or a text is empty or half a character.
        DataFileError: The store is damaged.
        StorageError: It cannot be written; it is as before.
    """
    if data is None:
        raise UsageError(
            'this device has no data store to learn from: set data = "private.db" in its settings'
        )
    store = DataStore(data)
    (kept,) = store.add([example_of(lesson)])
    return Learnt(
        id=kept.id,
        is_new=kept.is_new,
        examples=store.counts().usable,
        secrets=() if kept.is_usable else kept.secrets,
    )


def learnt_note(learnt: Learnt) -> str:
    """What to tell the teacher."""
    if learnt.secrets:
        return (
            f"noted, but not learnt from: it seems to hold a secret ({', '.join(learnt.secrets)});"
            f" if it may be learnt: fedpt device data allow {learnt.id}"
        )
    if learnt.is_new:
        return f"noted: {learnt.examples} examples now; the board's next training learns from them"
    return f"known already, nothing added: {learnt.examples} examples"


def example_of(lesson: Lesson) -> Example:
    """The example that a lesson is.

    Raises:
        UsageError: A text is empty, or no text.
    """
    example = Example(lesson.question.strip(), lesson.answer.strip())
    for what, text in (("question", example.prompt), ("answer", example.answer)):
        if not text:
            raise UsageError(f"the {what} is empty: a lesson has a question and an answer")
    try:
        f"{example.prompt}{example.answer}".encode()
    except UnicodeEncodeError as error:
        half = ascii(error.object[error.start])
        raise UsageError(f"a lesson holds {half}, which is half a character") from error
    return example
