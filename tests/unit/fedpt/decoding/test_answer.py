"""The decode loop: alone, steered, cut off and back."""

from collections.abc import Iterator

import pytest

from fedpt.decoding.answer import Fallback, Patience, Returned, Step, Token, decode
from fedpt.decoding.draft_and_verify import DraftAndVerify, Settings
from fedpt.decoding.drafting import Rules
from fedpt.proxy_tuning import Coefficients, Rows, steer_logits
from tests.fakes.scripted_models import END, ScriptedLarge, ScriptedModel, ScriptedText

PROMPT = [3, 1, 4]
WEIGHTS = Coefficients(1.0, 0.7, 0.4)
EXPERT, ANTIEXPERT, LARGE = (ScriptedModel(seed) for seed in (1, 2, 3))


def answer(
    large: ScriptedLarge | None = None,
    *,
    expert: ScriptedModel = EXPERT,
    max_tokens: int = 12,
    clock: Iterator[float] | None = None,
    rows: int = 3,
) -> Iterator[Step]:
    settings = Settings(WEIGHTS, most_rows=rows)
    steerer = (
        DraftAndVerify(ScriptedText(ANTIEXPERT), large, settings, clock=lambda: 0.0)
        if large
        else None
    )
    return decode(
        PROMPT,
        expert=ScriptedText(expert),
        steerer=steerer,
        rules=Rules(lambda token: token == END, max_tokens),
        patience=Patience((lambda: next(clock)) if clock else (lambda: 0.0), 10.0),
    )


def replayed(steps: list[Step]) -> list[int]:
    """What each token must be, given those before it and by whom it was chosen."""
    tokens = list(PROMPT)
    for step in steps:
        if isinstance(step, Token):
            row = EXPERT.row(tokens)
            if step.is_steered:
                rows = Rows(LARGE.row(tokens), row, ANTIEXPERT.row(tokens))
                row = steer_logits(rows, WEIGHTS)
            tokens.append(int(row.argmax()))
    return tokens[len(PROMPT) :]


def ids(steps: list[Step]) -> list[int]:
    return [step.id for step in steps if isinstance(step, Token)]


def test_alone_the_expert_decodes() -> None:
    steps = list(answer())
    assert ids(steps) == replayed(steps)
    assert not any(isinstance(step, Token) and step.is_steered for step in steps)
    assert len(ids(steps)) == 12


@pytest.mark.parametrize("rows", [1, 2, 5])
@pytest.mark.parametrize("fails_in", ["ask", "fetch"])
@pytest.mark.parametrize("answers", [0, 1, 3])
def test_a_large_model_that_fails_costs_no_token(answers: int, fails_in: str, rows: int) -> None:
    large = ScriptedLarge(LARGE, answers=answers, fails_in=fails_in)
    steps = list(answer(large, rows=rows))
    assert ids(steps) == replayed(steps)
    assert len(ids(steps)) == 12
    (where,) = [index for index, step in enumerate(steps) if isinstance(step, Fallback)]
    kinds = [step.is_steered for step in steps if isinstance(step, Token)]
    assert kinds == [True] * where + [False] * (12 - where)
    assert len(large.asked) == answers + 1


def test_steering_takes_over_again_when_the_large_model_is_back() -> None:
    large = ScriptedLarge(LARGE, answers=1)
    steps = []
    for step in answer(large, max_tokens=30):
        steps.append(step)
        large.comes_back = sum(isinstance(one, Token) for one in steps) > 10
    assert ids(steps) == replayed(steps)
    kinds = [type(step) for step in steps if not isinstance(step, Token)]
    assert kinds == [Fallback, Returned]
    assert [step.is_steered for step in steps if isinstance(step, Token)][-10:] == [True] * 10


def test_a_large_model_that_fails_again_and_again_spoils_nothing() -> None:
    large = ScriptedLarge(LARGE, answers=1)
    large.comes_back = True
    steps = []
    for step in answer(large, max_tokens=40):
        steps.append(step)
        if isinstance(step, Returned):
            large.left = len(steps) % 3
    assert ids(steps) == replayed(steps)
    assert sum(isinstance(step, Returned) for step in steps) > 2


def test_past_its_time_the_rest_of_an_answer_is_the_experts() -> None:
    times = iter([0.0, 1.0, 2.0, *[11.0] * 50])
    steps = list(answer(ScriptedLarge(LARGE), clock=times, rows=1))
    assert ids(steps) == replayed(steps)
    assert [step for step in steps if isinstance(step, Fallback)] == [
        Fallback("the answer has taken 10 s")
    ]


def test_the_end_token_ends_the_answer_and_no_more_tokens_come_than_asked_for() -> None:
    steps = list(answer(expert=ScriptedModel(1, end_after=5)))
    assert [step.is_end for step in steps if isinstance(step, Token)] == [False, False, True]
    assert list(answer(max_tokens=0)) == []
    assert len(ids(list(answer(ScriptedLarge(LARGE), max_tokens=5, rows=9)))) == 5
