"""The decode loop: token by token, steered as long as something steers. Pure, over ports.

Knows neither llama.cpp nor MQTT nor text. When steering fails in mid-answer the expert goes on
alone, from the very drafts that it had made; when steering is there again, it takes over again.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from fedpt.decoding.drafting import Drafter, Rules
from fedpt.decoding.ports import LocalText
from fedpt.decoding.sampling import Distribution, all_ids
from fedpt.errors import LargeModelError
from fedpt.proxy_tuning import Logits, TokenIds


@dataclass(frozen=True, slots=True, eq=False)
class Token:
    """A token of the answer; `is_end` for the one that ends it and is no part of it."""

    id: int
    is_end: bool
    is_steered: bool
    drawn_from: Distribution
    ids: TokenIds
    logits: Logits
    """Logits of these tokens before temperature and filters: all of them, or the told ones."""


@dataclass(frozen=True, slots=True)
class Fallback:
    """From here on the expert answers alone."""

    reason: str


@dataclass(frozen=True, slots=True)
class Returned:
    """From here on the answer is steered again."""


Step = Token | Fallback | Returned


class Steerer(Protocol):
    """What steers an answer: `draft_and_verify` here, or a worker that does it all there."""

    def next_tokens(self, drafter: Drafter, most: int) -> Iterator[Token]:
        """The next tokens, at least one and at most so many; the drafter's text grows with each.

        Raises:
            LargeModelError: No more can be had; what was yielded stands.
        """

    def is_back(self, text: list[int]) -> bool:
        """After a failure: whether steering can go on. Never waits."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long an answer may be steered."""

    clock: Callable[[], float]
    """Seconds, monotonic."""
    answer_s: float
    """After so long the rest of the answer is the expert's."""


def decode(
    prompt: Sequence[int],
    *,
    expert: LocalText,
    steerer: Steerer | None,
    rules: Rules,
    patience: Patience,
) -> Iterator[Step]:
    """Decode after `prompt`, which must not be empty.

    Yields:
        Tokens in order, the ending one included; why they are not steered, where that begins; and
        that they are again.
    """
    drafter = Drafter(prompt, expert, rules)
    ends_at = patience.clock() + patience.answer_s
    is_steering, left = steerer is not None, rules.max_tokens
    while left > 0:
        if is_steering and steerer is not None:
            if patience.clock() > ends_at:
                is_steering, steerer = False, None
                yield Fallback(f"the answer has taken {patience.answer_s:g} s")
                continue
            try:
                for token in steerer.next_tokens(drafter, left):
                    left -= 1
                    yield token
                    if token.is_end:
                        return
            except LargeModelError as error:
                is_steering = False
                yield Fallback(str(error))
            continue
        token = _expert_token(drafter)
        left -= 1
        yield token
        if token.is_end:
            return
        if steerer is not None and left and steerer.is_back(drafter.text):
            is_steering = True
            yield Returned()


def _expert_token(drafter: Drafter) -> Token:
    draft = drafter.drafts[0] if drafter.drafts else drafter.extend()
    drafter.accept()
    all_tokens = all_ids(len(draft.logits))
    return Token(draft.token, draft.is_end, False, draft.drawn_from, all_tokens, draft.logits)
