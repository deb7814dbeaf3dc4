"""What command lines and the daemon of a board say to each other over the local socket.

`POST /answer` takes an `AskBody` and streams `AnswerLine`s as JSON lines; `POST /teach` takes a
`Lesson` and replies with a `Learnt`; `POST /personal/forget` has the personal adapter deleted; `GET
/status` says how the device is. What is refused is
refused with a `Refusal`. Programs use the OpenAI-compatible API instead.
"""

from typing import Annotated

import msgspec
from msgspec import Meta

from edge_runtime.question import AnswerSummary, Mode, Notice, Piece, Question
from fedpt.chat import ChatMessage
from fedpt.decoding.sampling import GREEDY, Sampling
from fedpt.errors import FedptError, LongQuestionError, UsageError


class AskBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A question; see `edge_runtime.question.Question`."""

    messages: Annotated[tuple[ChatMessage, ...], Meta(min_length=1, max_length=1000)]
    mode: Mode = "local"
    max_tokens: Annotated[int, Meta(ge=1)] | None = None
    sampling: Sampling = GREEDY
    stop: Annotated[tuple[str, ...], Meta(max_length=16)] = ()
    grammar: str = ""


class AnswerLine(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A line of the reply: exactly one of piece, notice, summary and error."""

    piece: str | None = None
    is_steered: bool = False
    """Of the piece."""
    notice: str | None = None
    """Steering ended, for this reason; empty: it is back."""
    summary: AnswerSummary | None = None
    error: str | None = None
    code: str = ""
    """Of the error: `fedpt.errors` has them; empty: the question itself is at fault."""


class Refusal(msgspec.Struct, frozen=True):
    """Why a request is not done; the status is 4xx."""

    error: str
    code: str = ""
    """As in `AnswerLine`."""


def to_error(text: str, code: str) -> FedptError:
    """What went wrong on the daemon, as it would have been raised here."""
    if code == "context_length_exceeded":  # OpenAI's word for it
        return LongQuestionError(text)
    kinds = [FedptError]
    for kind in kinds:
        if kind.code == code:
            return kind(text)
        kinds += kind.__subclasses__()
    return UsageError(text)


def question_to_body(question: Question) -> AskBody:
    """A question for the daemon."""
    return AskBody(
        messages=question.messages,
        mode=question.mode,
        max_tokens=question.max_tokens,
        sampling=question.sampling,
        stop=question.stop,
        grammar=question.grammar,
    )


def body_to_question(body: AskBody) -> Question:
    """A question from a command line."""
    return Question(
        body.messages,
        mode=body.mode,
        max_tokens=body.max_tokens,
        sampling=body.sampling,
        stop=body.stop,
        grammar=body.grammar,
    )


def item_to_line(item: Piece | Notice | AnswerSummary) -> AnswerLine:
    """A part of an answer for the command line."""
    match item:
        case Piece(text=text, is_steered=is_steered):
            return AnswerLine(piece=text, is_steered=is_steered)
        case Notice(is_steered=is_steered, reason=reason):
            return AnswerLine(notice="" if is_steered else reason)
        case AnswerSummary():
            return AnswerLine(summary=item)


def line_to_item(line: AnswerLine) -> Piece | Notice | AnswerSummary | None:
    """A part of an answer from the daemon; None: a line of a newer daemon."""
    if line.summary is not None:
        return line.summary
    if line.notice is not None:
        return Notice(is_steered=not line.notice, reason=line.notice)
    return None if line.piece is None else Piece(line.piece, line.is_steered)
