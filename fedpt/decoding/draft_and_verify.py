"""Steering with few round trips: the expert drafts, the large model verifies many at once.

Each round trip asks for the large model's rows at several drafts, over which the antiexpert has run
in one batch; while the reply is awaited, both go on with drafts for the next. Tokens come out
exactly as if each had been steered with a whole row of its own (`drafting.verify`), as far as
`steered_row` is certain of the rows that it got; where it is not, it asks for more.
"""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

import numpy as np

from fedpt.decoding.answer import Token
from fedpt.decoding.drafting import Draft, Drafter, verify
from fedpt.decoding.large_row import LargeRow
from fedpt.decoding.pace import Pace
from fedpt.decoding.ports import Detail, LargeModel, LocalText, RowsTold, RowsWanted
from fedpt.decoding.steered_row import Steered, steer_row
from fedpt.decoding.top_tokens import top_tokens
from fedpt.errors import LargeModelError, TooMuchError
from fedpt.proxy_tuning import Coefficients, Logits, TokenIds

_LOOKED_AT: Final = 4
"""Times as many candidates are looked at, where a constraint forbids some."""

_NO_IDS: Final[TokenIds] = np.zeros(0, np.int64)
_MORE: Final[dict[Detail, Detail]] = {"few": "more", "more": "all"}


@dataclass(slots=True)
class Tally:
    """What steering has cost so far."""

    round_trips: int = 0
    rows: int = 0
    """Rows that were needed: a draft verified each."""
    certain_at_once: int = 0
    """Of these, rows whose first reply was enough."""
    drafts_right: int = 0
    largest_doubt: float = 0.0
    """Total variation from full rows, at most, of any steered token."""
    is_approximate: bool = False
    """Whether rows came that may be off by more than they say."""
    waited_s: float = 0.0
    network_s: list[float] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Settings:
    """How draft and verify works."""

    coefficients: Coefficients
    candidates: int = 16
    """Logits asked for a row where the device's own part is largest."""
    tolerance: float = 0.02
    """Total variation that a sampled token may be off by."""
    first_detail: Detail = "few"
    most_rows: int = 16


class DraftAndVerify:
    """Steers one answer."""

    def __init__(
        self,
        antiexpert: LocalText,
        large: LargeModel,
        settings: Settings,
        *,
        clock: Callable[[], float],
        pace: Pace | None = None,
    ) -> None:
        """Begin an answer.

        Args:
            antiexpert: The small model without an adapter.
            large: The large model.
            settings: Coefficients and limits.
            clock: Seconds, monotonic.
            pace: What earlier answers have taught; None: nothing.
        """
        self._antiexpert = antiexpert
        self._large = large
        self._settings = settings
        self._clock = clock
        self._pace = pace or Pace(most_rows=settings.most_rows)
        self._own: deque[Logits] = deque()
        """D of the first drafts; see `_own_parts`."""
        self._held: int | None = None
        """How many tokens the antiexpert holds: always a beginning of text and drafts."""
        self._refused: Detail | None = None
        """What the worker has said that it does not tell."""
        self.tally = Tally()

    def next_tokens(self, drafter: Drafter, most: int) -> Iterator[Token]:
        """Steer the next tokens, at least one; the text grows with each.

        Args:
            drafter: The text. After a failure it holds all tokens that were yielded, no others.
            most: How many tokens the answer may still have.

        Raises:
            LargeModelError: The large model did not answer.
        """
        try:
            yield from self._round_trip(drafter, min(self._pace.rows(), most))
        except LargeModelError:
            self._own.clear()  # others go on with the drafts
            raise

    def is_back(self, text: list[int]) -> bool:
        """After a failure: whether steering can go on. Never waits."""
        return self._large.is_back(text)

    def _round_trip(self, drafter: Drafter, rows: int) -> Iterator[Token]:
        wants_candidates = self._candidate_count(self._settings.first_detail) > 0
        # the last row follows the last draft but one; only its candidates need that draft's row
        self._draft(drafter, rows if wants_candidates else rows - 1)
        if drafter.is_at_end:
            rows = min(rows, len(drafter.drafts))
        self._ask(drafter, rows, self._settings.first_detail)
        self._draft(drafter, rows)
        self._own_parts(drafter, rows)
        if self._draft(drafter, 2 * rows, stop=self._large.is_there):
            self._own_parts(drafter, len(drafter.drafts))
        has_read_prompt = self.tally.round_trips > 0
        told = self._fetch()
        self._pace.saw_reply(rows, told.network_s, told.model_s if has_read_prompt else None)
        for row in told.rows:
            token, is_right = self._judged(drafter, row)
            yield token
            if token.is_end or not is_right:
                return

    def _judged(self, drafter: Drafter, row: LargeRow) -> tuple[Token, bool]:
        """Accept the first draft or replace it; and whether it was right."""
        draft = drafter.drafts[0]
        steered = self._certainly_steered(drafter, row)
        token = verify(draft, steered.distribution)
        is_right = token == draft.token
        self._pace.saw_verdict(is_right=is_right)
        self.tally.drafts_right += is_right
        if is_right:
            drafter.accept()
            self._own.popleft()
            is_end = draft.is_end
        else:
            is_end = drafter.replace(token)
            self._own.clear()
            self._rewind_antiexpert(len(drafter.text) - 1)
        drawn_from = steered.distribution
        return Token(token, is_end, True, drawn_from, steered.ids, steered.logits), is_right

    def _certainly_steered(self, drafter: Drafter, row: LargeRow) -> Steered:
        """Steer at the first draft; ask for more of its row until that is sure enough."""
        settings, detail = self._settings, self._settings.first_detail
        chooser, own = drafter.drafts[0].chooser, self._own[0]
        limit, is_first = 0.0 if chooser.sampling.is_greedy else settings.tolerance, True
        while True:
            steered = steer_row(row, own, settings.coefficients.beta, chooser)
            more = _MORE.get(detail)
            if steered.doubt <= limit or row.is_full or more is None or more == self._refused:
                break
            is_first, detail = False, more
            try:
                self._ask(drafter, 1, detail)
                (row,) = self._fetch().rows
            except TooMuchError:
                self._refused = detail  # the worker tells no more; the doubt is told instead
                break
        self.tally.rows += 1
        self.tally.certain_at_once += is_first and steered.doubt <= limit
        self.tally.largest_doubt = max(self.tally.largest_doubt, steered.doubt)
        return steered

    def _ask(self, drafter: Drafter, rows: int, detail: Detail) -> None:
        if count := self._candidate_count(detail):
            own = self._own_parts(drafter, rows)
            candidates = [
                _candidates(one, draft, count)
                for one, draft in zip(own, drafter.drafts[:rows], strict=True)
            ]
        else:  # the antiexpert is not needed yet: it runs while the reply is awaited
            candidates = [_NO_IDS] * rows
        self._large.ask(RowsWanted(drafter.tokens(rows - 1), rows, candidates, detail))

    def _candidate_count(self, detail: Detail) -> int:
        return 0 if detail == "all" else self._settings.candidates

    def _fetch(self) -> RowsTold:
        before = self._clock()
        told = self._large.fetch()
        self.tally.waited_s += self._clock() - before
        self.tally.round_trips += 1
        self.tally.network_s.append(told.network_s)
        self.tally.is_approximate |= told.is_approximate
        return told

    def _own_parts(self, drafter: Drafter, count: int) -> list[Logits]:
        """D = alpha * expert - gamma * antiexpert at the first drafts, the antiexpert in one go."""
        began, known = self._clock(), len(self._own)
        alpha, _, gamma = (np.float32(value) for value in self._settings.coefficients)
        new = drafter.drafts[known:count]
        if gamma == 0:
            self._own.extend(alpha * draft.logits for draft in new)
        elif new:
            first = len(drafter.text) - 1 + known
            tokens = drafter.tokens(count - 1)
            if self._held is None:
                self._held = self._antiexpert.begin(tokens[:first])
            self._rewind_antiexpert(first)
            rows = self._antiexpert.append(tokens[self._held :], len(new))
            self._held = len(tokens)
            self._own.extend(
                alpha * draft.logits - gamma * row for draft, row in zip(new, rows, strict=True)
            )
            self._pace.saw_antiexpert(len(new), self._clock() - began)
        return list(islice(self._own, count))

    def _rewind_antiexpert(self, length: int) -> None:
        """It never holds tokens that are no longer a beginning of text and drafts."""
        if self._held is not None and self._held > length:
            self._antiexpert.rewind(length)
            self._held = length

    def _draft(
        self, drafter: Drafter, count: int, stop: Callable[[], bool] = lambda: False
    ) -> bool:
        """Draft until there are so many, or the answer ends; whether `stop` did not come first."""
        while len(drafter.drafts) < count and not drafter.is_at_end:
            if stop():
                return False
            began = self._clock()
            drafter.extend()
            self._pace.saw_draft(self._clock() - began)
        return not stop()


def _candidates(own: Logits, draft: Draft, count: int) -> TokenIds:
    """Where the device's own part is largest; allowed tokens first, where something is not."""
    constraint = draft.chooser.constraint
    if constraint is None:
        return top_tokens(own, count)
    likely = top_tokens(own, _LOOKED_AT * count)
    rank = np.lexsort((-own[likely], ~constraint.allows(likely)))
    return np.sort(likely[rank[:count]])
