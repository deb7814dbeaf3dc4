"""The decode loop on models of eleven tokens, against a loop of one line."""

from collections.abc import Iterator

import pytest

from edge_runtime.generation import Fallback, Steering, Token, generate
from fedpt.proxy_tuning import Coefficients, Rows, steer_logits
from tests.fakes.scripted_models import END, ScriptedLarge, ScriptedModel

PROMPT = [3, 1, 4]
EXPERT = ScriptedModel(1)
ANTIEXPERT = ScriptedModel(2)
LARGE_SEED = 3
WEIGHTS = Coefficients(1.0, 0.7, 0.4)


def decode(
    *,
    large: ScriptedLarge | None = None,
    expert: ScriptedModel = EXPERT,
    max_tokens: int = 8,
) -> Iterator[Token | Fallback]:
    steering = Steering(ANTIEXPERT, large, WEIGHTS) if large else None
    return generate(
        PROMPT,
        expert=expert,
        steering=steering,
        is_end=lambda token: token == END,
        max_tokens=max_tokens,
    )


def loop(steered_tokens: int, length: int) -> list[int]:
    """The first `steered_tokens` steered, the others by the expert alone."""
    tokens = list(PROMPT)
    for step in range(length):
        row = EXPERT.logits_after(tokens)
        if step < steered_tokens:
            large = ScriptedModel(LARGE_SEED).logits_after(tokens)
            row = steer_logits(Rows(large, row, ANTIEXPERT.logits_after(tokens)), WEIGHTS)
        tokens.append(int(row.argmax()))
    return tokens[len(PROMPT) :]


def test_without_steering_the_expert_decodes_greedily() -> None:
    tokens = [step for step in decode() if isinstance(step, Token)]
    assert [token.id for token in tokens] == loop(0, 8)
    assert not any(token.is_steered for token in tokens)


def test_steered_tokens_are_those_of_the_combined_logits() -> None:
    tokens = [step for step in decode(large=ScriptedLarge(LARGE_SEED)) if isinstance(step, Token)]
    assert [token.id for token in tokens] == loop(8, 8) != loop(0, 8)
    assert all(token.is_steered for token in tokens)


@pytest.mark.parametrize("fails_in", ["ask", "fetch"])
@pytest.mark.parametrize("answers", [0, 1, 5])
def test_a_failing_large_model_costs_no_token(answers: int, fails_in: str) -> None:
    large = ScriptedLarge(LARGE_SEED, answers=answers, fails_in=fails_in)
    steps = list(decode(large=large))
    assert [step.id for step in steps if isinstance(step, Token)] == loop(answers, 8)
    assert [index for index, step in enumerate(steps) if isinstance(step, Fallback)] == [answers]
    assert large.calls_after_failure == 0


def test_a_fallback_tells_the_reason() -> None:
    steps = decode(large=ScriptedLarge(LARGE_SEED, answers=0, fails_in="ask"))
    assert next(steps) == Fallback("no broker")


def test_the_end_token_ends_the_answer() -> None:
    steps = list(decode(expert=ScriptedModel(1, end_after=5)))
    assert [step.is_end for step in steps if isinstance(step, Token)] == [False, False, True]


def test_no_more_tokens_than_asked_for() -> None:
    assert len(list(decode(max_tokens=3))) == 3
    assert list(decode(max_tokens=0)) == []
