import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.drivers.local_protocol import (
    AnswerLine,
    AskBody,
    body_to_question,
    item_to_line,
    line_to_item,
    question_to_body,
    to_error,
)
from edge_runtime.question import Notice, Piece, Question
from fedpt.chat import ChatMessage
from fedpt.decoding.sampling import Sampling
from fedpt.errors import BusyError, DataFileError, FedptError, LongQuestionError, UsageError
from tests.fakes.answer_facts import STEPS, SUMMARY

TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
ITEMS = st.one_of(
    st.builds(Piece, TEXTS, st.booleans()),
    st.just(Notice(True)),
    st.builds(Notice, st.just(False), TEXTS.filter(bool)),
    st.just(SUMMARY),
    st.just(msgspec.structs.replace(SUMMARY, steps=STEPS)),
)


@given(ITEMS)
def test_every_part_of_an_answer_comes_back_as_it_was(item: Piece | Notice) -> None:
    sent = msgspec.json.encode(item_to_line(item))
    assert line_to_item(msgspec.json.decode(sent, type=AnswerLine)) == item


def test_a_question_comes_back_as_it_was() -> None:
    question = Question(
        (ChatMessage(role="system", content="Be brief."), ChatMessage(role="user", content="Hi")),
        mode="steered",
        max_tokens=3,
        sampling=Sampling(temperature=0.5, seed=7),
        stop=("a", "b"),
        grammar='root ::= "yes"',
    )
    sent = msgspec.json.encode(question_to_body(question))
    assert body_to_question(msgspec.json.decode(sent, type=AskBody)) == question


def test_a_line_of_a_newer_daemon_is_passed_over() -> None:
    line = msgspec.json.decode(b'{"mood": "good"}', type=AnswerLine)
    assert line_to_item(line) is None


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("busy", BusyError),
        ("data_file", DataFileError),
        ("context_length_exceeded", LongQuestionError),
        ("usage", UsageError),
        ("", UsageError),
        ("of a newer daemon", UsageError),
    ],
)
def test_an_error_is_raised_as_what_it_was(code: str, kind: type[FedptError]) -> None:
    error = to_error("it went wrong", code)
    assert (type(error), str(error)) == (kind, "it went wrong")
