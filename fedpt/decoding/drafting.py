"""The expert running ahead of the text: drafts that are the answer, if nothing steers it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from fedpt.decoding.constraint import Constraint
from fedpt.decoding.ports import LocalText
from fedpt.decoding.sampling import (
    GREEDY,
    Chooser,
    Dice,
    Distribution,
    Sampling,
    Weights,
    draw,
    unique_ids,
)
from fedpt.proxy_tuning import Logits, TokenIds

_NOTHING_SEEN: Final[TokenIds] = np.zeros(0, np.int64)


@dataclass(frozen=True, slots=True)
class Rules:
    """What an answer must keep to."""

    is_end: Callable[[int], bool]
    """Whether a token ends the answer."""
    max_tokens: int
    sampling: Sampling = GREEDY
    constraint: Constraint | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Draft:
    """A token that the expert proposes, and what it was drawn from."""

    token: int
    is_end: bool
    drawn_from: Distribution
    logits: Logits
    """The expert's row, `(V,)`."""
    chooser: Chooser
    accept_at: float
    replace_at: float
    """The dice for this position."""


class Drafter:
    """A text, and drafts beyond it. The expert's cache holds both, but for the last token."""

    def __init__(self, prompt: Sequence[int], expert: LocalText, rules: Rules) -> None:
        """Begin after a prompt, which must not be empty; nothing is computed yet."""
        self.text: list[int] = list(prompt)
        self.drafts: list[Draft] = []
        self._expert = expert
        self._rules = rules
        self._dice = Dice(rules.sampling.seed)
        self._constraint = rules.constraint
        self._constraints: list[Constraint | None] = []
        """After each draft."""
        self._held = expert.begin(self.text[:-1])
        """How many tokens the expert's cache holds."""

    @property
    def is_at_end(self) -> bool:
        """Whether the last draft ends the answer."""
        return bool(self.drafts) and self.drafts[-1].is_end

    def tokens(self, count: int) -> list[int]:
        """The text and the first `count` drafts."""
        return self.text + [draft.token for draft in self.drafts[:count]]

    def extend(self) -> Draft:
        """Draft one token more; not beyond an end."""
        behind = self.text[self._held :] + [draft.token for draft in self.drafts]
        new = behind[max(0, self._held - len(self.text)) :]
        row: Logits = self._expert.append(new, 1)[0]
        self._held += len(new)
        draft = self._drawn(row)
        self.drafts.append(draft)
        constraint = self._last_constraint
        if constraint is not None and not draft.is_end:
            constraint = constraint.after(draft.token)
        self._constraints.append(constraint)
        return draft

    def accept(self) -> None:
        """The first draft belongs to the text now."""
        draft = self.drafts.pop(0)
        self.text.append(draft.token)
        self._constraint = self._constraints.pop(0)

    def replace(self, token: int) -> bool:
        """The text goes on with another token than the first draft; all drafts are void.

        Returns:
            Whether that token ends the answer.
        """
        self.drafts.clear()
        self._constraints.clear()
        is_end = self._rules.is_end(token)
        if self._constraint is not None and not is_end:
            self._constraint = self._constraint.after(token)
        if self._held > len(self.text):
            self._expert.rewind(len(self.text))
            self._held = len(self.text)
        self.text.append(token)
        return is_end

    @property
    def _last_constraint(self) -> Constraint | None:
        return self._constraints[-1] if self._constraints else self._constraint

    def _drawn(self, row: Logits) -> Draft:
        sampling, constraint = self._rules.sampling, self._last_constraint
        penalises = sampling.repetition_penalty != 1
        chooser = Chooser(
            sampling,
            unique_ids(self.tokens(len(self.drafts))) if penalises else _NOTHING_SEEN,
            constraint,
        )
        drawn_from = chooser.distribution(row)
        if sampling.is_greedy:
            draw_at, accept_at, replace_at = 0.0, 0.0, 0.0
        else:
            draw_at, accept_at, replace_at = self._dice.at(len(self.text) + len(self.drafts))
        token = drawn_from.draw(draw_at)
        is_end = self._rules.is_end(token)
        return Draft(token, is_end, drawn_from, row, chooser, accept_at, replace_at)


def verify(draft: Draft, true: Distribution) -> int:
    """The token of the true distribution that a draft stands for: itself, or another.

    Accepts x with probability min(1, p(x) / q(x)), else draws from max(0, p - q): whatever q was,
    the token is distributed as p (speculative sampling, https://arxiv.org/abs/2211.17192). Greedy
    distributions are one token each, so there a draft is kept if it is the true choice.
    """
    p, q = true.at(draft.token), draft.drawn_from.at(draft.token)
    if p >= q or draft.accept_at * q < p:
        return draft.token
    left = true.probabilities - _probabilities(draft.drawn_from, true)
    left = np.maximum(left, 0)
    if not left.any():  # p and q are equal but for rounding
        return draft.token
    return draw(true.ids, left, draft.replace_at)


def _probabilities(one: Distribution, other: Distribution) -> Weights:
    """Of the other's tokens by the one."""
    places = np.searchsorted(one.ids, other.ids)
    places = np.minimum(places, len(one.ids) - 1)
    return np.where(one.ids[places] == other.ids, one.probabilities[places], 0.0)
