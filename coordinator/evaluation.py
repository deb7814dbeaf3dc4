"""Large, antiexpert, expert and steered side by side on examples that no device has.

nll and exact match come from one teacher-forced pass of each model: greedy decoding gives exactly
the reference if and only if every reference token is the most likely one after those before it. All
coefficients of the grid are scored from the same rows. Only ROUGE-L needs generated answers.
"""

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Final

import numpy as np

from coordinator.scores import rouge_l
from coordinator.state import Evaluation, Score
from coordinator.steered_batch import Trio, groups
from fedpt.chat import EncodedExample, encode_example
from fedpt.drivers.llama import LlamaModel
from fedpt.errors import TrainingError
from fedpt.examples import Example
from fedpt.progress import OnProgress, Progress, ignore_progress
from fedpt.proxy_tuning import (
    EXPERT_ALONE,
    GRID,
    PLAIN,
    Coefficients,
    Fit,
    TokenIds,
    choose_coefficients,
    entropy,
    exact_rate,
    fit_grid,
    mean_nll,
    steer_logits,
)
from fedpt.wire.messages import SteeringCoefficients

LARGE_ALONE: Final = Coefficients(0.0, 1.0, 0.0)
ANTIEXPERT_ALONE: Final = Coefficients(0.0, 0.0, -1.0)

FIXED_WAYS: Final = {
    "large": LARGE_ALONE,
    "antiexpert": ANTIEXPERT_ALONE,
    "expert": EXPERT_ALONE,
    "steered": PLAIN,
}
CALIBRATED: Final = "steered_calibrated"


def longest_text(examples: Iterable[EncodedExample], *, answer_tokens: int) -> int:
    """Room that a text needs, its reference or a generated answer included."""
    return max(
        len(example.prompt) + max(len(example.answer), answer_tokens) for example in examples
    )


def encode_for(model: LlamaModel, examples: Sequence[Example]) -> list[EncodedExample]:
    """The examples as tokens."""
    return [encode_example(model, example) for example in examples]


def evaluate(
    trio: Trio,
    examples: Sequence[Example],
    *,
    answer_tokens: int,
    known_answers: Mapping[str, list[str]] = MappingProxyType({}),
    on_progress: OnProgress = ignore_progress,
) -> Evaluation:
    """Score all ways to decode; calibrate the coefficients by nll.

    Args:
        trio: Made with room for `longest_text`.
        examples: With reference answers.
        answer_tokens: Longest generated answer.
        known_answers: By way, generated answers that are known already.
        on_progress: Told of every batch.

    Raises:
        TrainingError: The logits are not finite.
    """
    started = time.monotonic()
    encoded = encode_for(trio.small, examples)
    batches = groups(len(encoded))
    total = 2 * len(batches)
    fits: dict[Coefficients, list[Fit]] = {choice: [] for choice in (*FIXED_WAYS.values(), *GRID)}
    entropies: list[float] = []
    answers = {name: list(known_answers.get(name, [])) for name in (*FIXED_WAYS, CALIBRATED)}
    for done, indices in enumerate(batches):
        batch = [encoded[index] for index in indices]
        for example, rows in zip(batch, trio.answer_rows(batch), strict=True):
            answer = _as_array(example.answer)
            for choice, one in fit_grid(rows, answer, fits).items():
                fits[choice].append(one)
            entropies.append(entropy(steer_logits(rows)))
        for name, choice in FIXED_WAYS.items():
            if name not in known_answers:
                answers[name] += _answers(trio, batch, choice, answer_tokens)
        on_progress(Progress(done + 1, total))
    calibrated = choose_coefficients({choice: fits[choice] for choice in GRID})
    for done, indices in enumerate(batches):
        batch = [encoded[index] for index in indices]
        answers[CALIBRATED] += _answers(trio, batch, calibrated, answer_tokens)
        on_progress(Progress(len(batches) + done + 1, total))
    references = [example.answer for example in examples]
    if not all(math.isfinite(mean_nll(of_choice)) for of_choice in fits.values()):
        raise TrainingError("the logits are not finite: the adapter has run away")
    ways = {**FIXED_WAYS, CALIBRATED: calibrated}
    return Evaluation(
        scores={
            name: Score(
                nll=mean_nll(fits[choice]),
                exact_match=exact_rate(fits[choice]),
                rouge_l=rouge_l(answers[name], references),
            )
            for name, choice in ways.items()
        },
        coefficients=SteeringCoefficients(
            alpha=calibrated.alpha, beta=calibrated.beta, gamma=calibrated.gamma
        ),
        steered_entropy=sum(entropies) / len(entropies),
        answers=answers,
        seconds=time.monotonic() - started,
    )


def _answers(
    trio: Trio, batch: Sequence[EncodedExample], choice: Coefficients, answer_tokens: int
) -> list[str]:
    prompts = [example.prompt for example in batch]
    return [
        trio.small.text(tokens)
        for tokens in trio.answers(prompts, choice, max_tokens=answer_tokens)
    ]


def _as_array(tokens: Sequence[int]) -> TokenIds:
    return np.asarray(tokens, dtype=np.int64)
