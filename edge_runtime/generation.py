"""The decode loop: token by token, from the expert alone or steered. Pure, over two ports.

Greedy. Knows neither llama.cpp nor MQTT nor text; `assistant` turns its tokens into an answer.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from fedpt.errors import LargeModelError
from fedpt.proxy_tuning import Coefficients, Logits, Rows, steer_logits


class LogitSource(Protocol):
    """A model in this process."""

    def logits_after(self, tokens: Sequence[int]) -> Logits:
        """The next token's logits `(V,)` after the whole text `tokens`."""


class LargeModel(Protocol):
    """The large model, perhaps far away: first ask, then fetch, and work in between."""

    def ask(self, tokens: Sequence[int]) -> None:
        """Begin to compute the logits after `tokens`.

        Raises:
            LargeModelError: It cannot be asked.
        """

    def fetch(self) -> Logits:
        """The logits `(V,)` that were asked for.

        Raises:
            LargeModelError: They did not come in time, or were refused.
        """


@dataclass(frozen=True, slots=True)
class Steering:
    """What steers the expert."""

    antiexpert: LogitSource
    large: LargeModel
    coefficients: Coefficients


@dataclass(frozen=True, slots=True)
class Token:
    """A generated token; `is_end` for the one that ends the answer and is no part of it."""

    id: int
    is_steered: bool
    is_end: bool


@dataclass(frozen=True, slots=True)
class Fallback:
    """From here on the expert answers alone."""

    reason: str


def generate(
    prompt: Sequence[int],
    *,
    expert: LogitSource,
    steering: Steering | None,
    is_end: Callable[[int], bool],
    max_tokens: int,
) -> Iterator[Token | Fallback]:
    """Decode greedily after `prompt`, steered as long as the large model answers.

    The large model is asked first and works while expert and antiexpert run here. When it fails,
    the answer goes on from the expert alone without a break: the token at hand is decided by the
    expert too.

    Yields:
        Tokens in order, the ending one included; at most one `Fallback` among them.
    """
    tokens = list(prompt)
    for _ in range(max_tokens):
        logits, failure = _next_logits(tokens, expert, steering)
        if failure is not None:
            steering = None
            yield Fallback(failure)
        token = int(logits.argmax())
        ended = is_end(token)
        yield Token(token, is_steered=steering is not None, is_end=ended)
        if ended:
            return
        tokens.append(token)


def _next_logits(
    tokens: Sequence[int], expert: LogitSource, steering: Steering | None
) -> tuple[Logits, str | None]:
    """The logits to decode from; with the reason, if they should have been steered and are not."""
    if steering is None:
        return expert.logits_after(tokens), None
    try:
        steering.large.ask(tokens)
    except LargeModelError as error:
        return expert.logits_after(tokens), str(error)
    of_expert = expert.logits_after(tokens)
    of_antiexpert = steering.antiexpert.logits_after(tokens)
    try:
        rows = Rows(steering.large.fetch(), of_expert, of_antiexpert)
    except LargeModelError as error:
        return of_expert, str(error)
    return steer_logits(rows, steering.coefficients), None
