"""A question to the real assistant, and what it says of its answer."""

from edge_runtime.assistant import Assistant
from edge_runtime.question import AnswerSummary, Question
from fedpt.chat import ChatMessage
from fedpt.examples import Example


def ask(assistant: Assistant, example: Example) -> AnswerSummary:
    """Have it answer an example's prompt to the end."""
    scene = [ChatMessage(role="system", content=example.system)] if example.system else []
    question = Question((*scene, ChatMessage(role="user", content=example.prompt)))
    *_, summary = assistant.answer(question)
    assert isinstance(summary, AnswerSummary)  # it comes last
    return summary
