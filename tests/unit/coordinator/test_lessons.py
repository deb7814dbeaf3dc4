"""Lessons are the steered answers with what else was likely."""

import numpy as np
import pytest

from coordinator.lessons import KEPT_TOKENS, make_lessons
from coordinator.steered_batch import Trio
from fedpt.chat import EncodedExample
from fedpt.proxy_tuning import PLAIN, log_softmax, steer_logits
from tests.fakes.tiny_federation import LOGIT_TOLERANCE, Reference

pytestmark = pytest.mark.llama


def test_a_lesson_is_the_steered_answer(trio: Trio, encoded: list[EncodedExample]) -> None:
    prompts = [one.prompt for one in encoded]
    answers = trio.answers(prompts, PLAIN, max_tokens=6)
    told: list[int] = []
    lessons = make_lessons(trio, prompts, PLAIN, answer_tokens=6, on_progress=told.append)
    assert told == [len(prompts)]
    for prompt, answer, lesson in zip(prompts, answers, lessons, strict=True):
        assert lesson.example.prompt == prompt
        assert list(lesson.example.answer[: len(answer)]) == answer
        assert all(map(trio.small.is_end, lesson.example.answer[len(answer) :]))


def test_it_keeps_the_most_likely_tokens_with_their_log_probabilities(
    trio: Trio, encoded: list[EncodedExample], reference: Reference
) -> None:
    (lesson,) = make_lessons(trio, [encoded[0].prompt], PLAIN, answer_tokens=6)
    text = [*lesson.example.prompt, *lesson.example.answer]
    rows = steer_logits(reference.rows(text), PLAIN)[len(lesson.example.prompt) - 1 : -1]
    expected = np.take_along_axis(log_softmax(rows), lesson.tokens, axis=1)
    assert lesson.tokens.shape == (len(lesson.example.answer), KEPT_TOKENS)
    np.testing.assert_allclose(lesson.log_probabilities, expected, atol=3 * LOGIT_TOLERANCE)
    assert (np.diff(lesson.log_probabilities, axis=1) <= 0).all()
    assert (np.exp(lesson.log_probabilities).sum(axis=1) < 1).all()
