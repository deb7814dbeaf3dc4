"""What the steered large model teaches: its answers to public prompts, and how sure it was.

A lesson keeps the most likely tokens of each position and the mass of all others together. The mass
matters: probabilities renormalised over the most likely tokens alone are a biased target
(https://arxiv.org/abs/2503.16870).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np

from coordinator.steered_batch import Prompt, Trio, groups
from fedpt.chat import EncodedExample
from fedpt.proxy_tuning import Coefficients, Logits, TokenIds, log_softmax

KEPT_TOKENS: Final = 64
"""Of each position's distribution; measured on a small model the top 64 hold 0.88 of the mass on
plain text, far more where answers are regular."""

_MostLikely: TypeAlias = tuple[TokenIds, Logits]


@dataclass(frozen=True, slots=True)
class Lesson:
    """A steered answer of `T` tokens, the ending one included."""

    example: EncodedExample
    tokens: TokenIds
    """The most likely tokens, `(T, k)`."""
    log_probabilities: Logits
    """Theirs, `(T, k)`, nats."""


def make_lessons(
    trio: Trio,
    prompts: Sequence[Prompt],
    coefficients: Coefficients,
    *,
    answer_tokens: int,
    on_progress: Callable[[int], None] = lambda _done: None,
) -> list[Lesson]:
    """Answer the prompts with the steered large model, greedily."""
    lessons: list[Lesson] = []
    for indices in groups(len(prompts)):
        batch = [prompts[index] for index in indices]
        notes = _Notes(len(batch))
        trio.answers(batch, coefficients, max_tokens=answer_tokens, on_logits=notes.take)
        lessons += [_lesson(prompt, rows) for prompt, rows in zip(batch, notes.rows, strict=True)]
        on_progress(len(lessons))
    return lessons


class _Notes:
    """Takes down each slot's distributions while a batch is answered."""

    def __init__(self, slots: int) -> None:
        self.rows: list[list[_MostLikely]] = [[] for _ in range(slots)]

    def take(self, slot: int, logits: Logits) -> None:
        self.rows[slot].append(_most_likely(logits))


def _most_likely(logits: Logits) -> _MostLikely:
    """Token ids and log-probabilities, most likely first."""
    k = min(KEPT_TOKENS, len(logits) - 1)
    some = np.argpartition(logits, -k)[-k:]
    tokens = some[np.argsort(-logits[some])]
    return tokens, log_softmax(logits)[tokens]


def _lesson(prompt: Prompt, rows: list[_MostLikely]) -> Lesson:
    tokens = np.stack([row for row, _ in rows])
    answer = tuple(int(row[0]) for row in tokens)  # greedy: the most likely one, the end included
    return Lesson(
        EncodedExample(tuple(prompt), answer), tokens, np.stack([values for _, values in rows])
    )
